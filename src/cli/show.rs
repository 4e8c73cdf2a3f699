//! `show`: prints one checkpoint without its secrets.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::args::{Output, ShowArguments};
use crate::checkpoint::NodeCheckpoint;
use crate::checkpoint::encoding::decode;
use crate::cli::{Answer, answer};
use crate::console;
use crate::places::Places;
use crate::places::reports::{AGENT, AgentReport};
use crate::pod::id::PodId;
use crate::text::chain;

/// Runs `show`.
pub fn show(arguments: &ShowArguments) -> anyhow::Result<Answer> {
    let pod = arguments
        .pod
        .split_once('/')
        .and_then(|(namespace, name)| PodId::new(namespace, name).ok());
    let Some(pod) = pod else {
        bail!("{:?} is not NAMESPACE/POD", arguments.pod)
    };
    if arguments.reveal && !rustix::process::geteuid().is_root() {
        bail!("--reveal is for root only");
    }
    let node = Places::find(&arguments.host)?;
    let (newest, bad) = node.store.newest(&pod)?;
    let problems = bad
        .iter()
        .map(|error| chain(error))
        .chain(node.key_problems());
    let problems: Vec<String> = problems.collect();
    let Some(newest) = newest else {
        if problems.is_empty() {
            bail!("this node has no checkpoint of pod {pod}");
        }
        bail!(
            "cannot show a checkpoint of pod {pod}: {}",
            problems.join("; ")
        );
    };
    for problem in problems {
        console::note(format_args!("pod-checkpointer: {problem}"));
    }
    let shown = if arguments.reveal {
        reveal(&newest.checkpoint)?
    } else {
        redact(&newest.checkpoint)?
    };
    answer(Output::Yaml, &with_mark(shown, &node, &pod), String::new)
}

/// Adds what marks the pod. This is in the agent's report and not in the checkpoint, because the
/// mark can change without the pod's content.
fn with_mark(mut shown: Value, node: &Places, key: &PodId) -> Value {
    let word: Option<AgentReport> = node.run.read(AGENT).unwrap_or_default();
    if let (Some(object), Some(mark)) = (
        shown.as_object_mut(),
        word.and_then(|word| word.marked.get(key).cloned()),
    ) {
        object.insert("markedBy".into(), mark.into());
    }
    shown
}

fn reveal(checkpoint: &NodeCheckpoint) -> anyhow::Result<Value> {
    serde_json::to_value(checkpoint).context("cannot show the checkpoint")
}

/// Replaces every file and every value of the environment by its size, because they may come from
/// Secrets.
fn redact(checkpoint: &NodeCheckpoint) -> anyhow::Result<Value> {
    let mut checkpoint = checkpoint.clone();
    for entry in checkpoint
        .volumes
        .values_mut()
        .flat_map(|volume| &mut volume.entries)
    {
        if let Some(data) = &mut entry.data {
            let size = decode(data).map(|bytes| bytes.len()).unwrap_or_default();
            *data = format!("<{size} bytes>");
        }
    }
    redact_environment(&mut checkpoint.manifest);
    reveal(&checkpoint)
}

/// Replaces every value of a manifest's environment by its size.
pub(super) fn redact_environment(manifest: &mut Value) {
    for kind in ["initContainers", "containers"] {
        let containers = manifest
            .pointer_mut(&format!("/spec/{kind}"))
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let environment = container.get_mut("env").and_then(Value::as_array_mut);
            for value in environment
                .into_iter()
                .flatten()
                .filter_map(|variable| variable.get_mut("value"))
            {
                let size = value.as_str().map(str::len).unwrap_or_default();
                *value = json!(format!("<{size} bytes>"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::testing::checkpoint;

    #[test]
    fn neither_files_nor_environment_are_shown() {
        let mut made = checkpoint("shop", "till");
        made.manifest["spec"]["containers"][0]["env"] =
            json!([{"name": "PASSWORD", "value": "hunter2"}]);
        let text = serde_yaml::to_string(&redact(&made).unwrap()).unwrap();
        let secret = crate::checkpoint::encoding::encode(b"s3cret\n\0\xff");
        assert!(
            !text.contains("hunter2") && !text.contains(&secret),
            "{text}"
        );
        assert!(
            text.contains("<7 bytes>") && text.contains("<9 bytes>"),
            "{text}"
        );
        let revealed = serde_yaml::to_string(&reveal(&made).unwrap()).unwrap();
        assert!(revealed.contains("hunter2") && revealed.contains(&secret));
    }
}
