//! A container as the runtime created it, according to its OCI specification (runtime-spec,
//! `config.md`), and how it differs from another. Pure. Values of environment variables are
//! compared but never shown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// How a container was created.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    /// Process id of its first process on the node, if the runtime reports it.
    pub pid: Option<u32>,
    args: Vec<String>,
    directory: String,
    user: (u64, u64, BTreeSet<u64>),
    env: BTreeMap<String, String>,
    /// Where something is mounted, and whether read-only.
    mounts: BTreeMap<String, bool>,
}

impl View {
    /// From `info` in the runtime's verbose status; `None`: the runtime does not report it.
    pub fn of(info: &Value) -> Option<Self> {
        let pid = info
            .get("pid")
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok());
        let spec = info.get("runtimeSpec")?;
        let process = spec.get("process")?;
        let texts = |value: Option<&Value>| -> Vec<String> {
            let list = value.and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|text| text.as_str().map(str::to_owned))
                .collect()
        };
        let id = |name: &str| {
            process
                .pointer(&format!("/user/{name}"))
                .and_then(Value::as_u64)
                .unwrap_or_default()
        };
        let groups = process
            .pointer("/user/additionalGids")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mounts = spec
            .get("mounts")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let mount = |mount: &Value| {
            let options = texts(mount.get("options"));
            let is_read_only = options
                .iter()
                .any(|option| option == "ro" || option == "rro");
            Some((mount.get("destination")?.as_str()?.to_owned(), is_read_only))
        };
        let variable = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Some(Self {
            pid: pid.filter(|pid| *pid > 0),
            args: texts(process.get("args")),
            directory: process
                .get("cwd")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            user: (
                id("uid"),
                id("gid"),
                groups.filter_map(Value::as_u64).collect(),
            ),
            // if a name occurs twice, the last one counts
            env: texts(process.get("env"))
                .iter()
                .filter_map(variable)
                .collect(),
            mounts: mounts.filter_map(mount).collect(),
        })
    }
}

/// How a twin differs from its parent, in words. `manifest` is the container in the twin's
/// manifest.
pub fn differences(parent: &View, twin: &View, manifest: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if parent.args != twin.args {
        found.push("another command".to_owned());
    }
    if parent.directory != twin.directory {
        found.push(format!(
            "working directory {}, not {}",
            twin.directory, parent.directory
        ));
    }
    if parent.user != twin.user {
        found.push(format!(
            "user {}, not {}",
            identity(&twin.user),
            identity(&parent.user)
        ));
    }
    let names = parent
        .env
        .keys()
        .chain(twin.env.keys())
        .map(String::as_str)
        .collect();
    environment(parent, twin, names, manifest, &mut found);
    let points = parent
        .mounts
        .keys()
        .chain(twin.mounts.keys())
        .map(String::as_str)
        .collect();
    mounts(parent, twin, points, &mut found);
    found
}

/// The same for a rehearsal, where this program runs in the workload's place: only what the
/// manifest names is compared. `own` is true for captured volumes, which a rehearsal mounts as the
/// parent does, and false for the owner's data, which it mounts read-only.
pub fn rehearsed(
    parent: &View,
    rehearsal: &View,
    manifest: &Value,
    own: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let list = |field: &str| {
        manifest
            .get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let names = list("env")
        .filter_map(|variable| variable.get("name")?.as_str())
        .collect();
    environment(parent, rehearsal, names, manifest, &mut found);
    let mounted = list("volumeMounts")
        .filter(|mount| mount.get("name").and_then(Value::as_str).is_some_and(&own));
    let points = mounted
        .filter_map(|mount| mount.get("mountPath")?.as_str())
        .collect();
    mounts(parent, rehearsal, points, &mut found);
    found
}

fn environment(
    parent: &View,
    twin: &View,
    names: BTreeSet<&str>,
    manifest: &Value,
    found: &mut Vec<String>,
) {
    let variables = manifest.get("env").and_then(Value::as_array);
    // a value that depends on the pod's address may have the new address
    let is_free = |name: &str| {
        variables
            .into_iter()
            .flatten()
            .filter(|it| it.get("name").and_then(Value::as_str) == Some(name))
            .any(|it| {
                it.get("valueFrom").is_some()
                    || it
                        .get("value")
                        .and_then(Value::as_str)
                        .is_some_and(|value| value.replace("$$", "").contains("$("))
            })
    };
    for name in names.into_iter().filter(|name| !is_free(name)) {
        match (parent.env.get(name), twin.env.get(name)) {
            (Some(_), None) => found.push(format!("environment variable {name} is missing")),
            (None, Some(_)) => found.push(format!("environment variable {name} is new")),
            (one, other) if one != other => {
                found.push(format!("environment variable {name} has a different value"));
            }
            _ => {}
        }
    }
}

fn mounts(parent: &View, twin: &View, points: BTreeSet<&str>, found: &mut Vec<String>) {
    for point in points {
        match (parent.mounts.get(point), twin.mounts.get(point)) {
            (Some(_), None) => found.push(format!("nothing is mounted at {point}")),
            (None, Some(_)) => found.push(format!("something is mounted at {point}")),
            (Some(false), Some(true)) => found.push(format!("{point} is mounted read-only")),
            (Some(true), Some(false)) => found.push(format!("{point} is mounted read-write")),
            _ => {}
        }
    }
}

fn identity((uid, gid, groups): &(u64, u64, BTreeSet<u64>)) -> String {
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    format!("{uid}:{gid} ({})", groups.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> Value {
        json!({
            "pid": 4711,
            "runtimeSpec": {
                "process": {
                    "args": ["serve"], "cwd": "/srv",
                    "user": {"uid": 7, "gid": 8, "additionalGids": [10, 9]},
                    "env": ["PATH=/bin", "LEVEL=old", "LEVEL=info", "URL=http://10.0.0.7/", "EMPTY="],
                },
                "mounts": [
                    {"destination": "/etc/web", "options": ["rbind", "ro"]},
                    {"destination": "/scratch", "options": ["rbind", "rw"]},
                    {"destination": "/data", "options": ["rw"]}],
            },
        })
    }

    fn manifest() -> Value {
        json!({
            "env": [{"name": "LEVEL", "value": "info"}, {"name": "EMPTY", "value": "$$(X)"},
                {"name": "URL", "value": "http://$(POD_IP)/"}],
            "volumeMounts": [{"name": "conf", "mountPath": "/etc/web"}, {"name": "scratch", "mountPath": "/scratch"},
                {"name": "data", "mountPath": "/data"}],
        })
    }

    fn view(change: impl FnOnce(&mut Value)) -> View {
        let mut spec = spec();
        change(&mut spec);
        View::of(&spec).unwrap()
    }

    #[test]
    fn equal_containers_do_not_differ_even_with_another_address() {
        let parent = view(|_| {});
        assert_eq!(
            (parent.pid, parent.env["LEVEL"].as_str()),
            (Some(4711), "info")
        );
        let twin =
            view(|spec| spec["runtimeSpec"]["process"]["env"][3] = json!("URL=http://10.0.0.9/"));
        assert_eq!(differences(&parent, &twin, &manifest()), [""; 0]);
        assert_eq!(rehearsed(&parent, &twin, &manifest(), |_| true), [""; 0]);
    }

    #[test]
    fn every_difference_is_reported_without_a_value() {
        let parent = view(|_| {});
        let twin = view(|spec| {
            spec["runtimeSpec"]["process"] = json!({"args": ["other"], "cwd": "/", "user": {"uid": 0, "gid": 8},
                "env": ["PATH=/bin", "LEVEL=s3cret", "URL=x", "NEW=1"]});
            spec["runtimeSpec"]["mounts"] = json!([
                {"destination": "/etc/web", "options": ["rw"]}, {"destination": "/scratch", "options": ["ro"]},
                {"destination": "/new"}]);
        });
        let found = differences(&parent, &twin, &manifest());
        assert_eq!(
            found,
            [
                "another command",
                "working directory /, not /srv",
                "user 0:8 (), not 7:8 (9,10)",
                "environment variable EMPTY is missing",
                "environment variable LEVEL has a different value",
                "environment variable NEW is new",
                "nothing is mounted at /data",
                "/etc/web is mounted read-write",
                "something is mounted at /new",
                "/scratch is mounted read-only",
            ]
        );
    }

    #[test]
    fn in_a_rehearsal_only_what_the_manifest_names_counts() {
        let parent = view(|_| {});
        let rehearsal = view(|spec| {
            spec["runtimeSpec"]["process"] =
                json!({"args": ["hold"], "cwd": "/", "env": ["LEVEL=info", "HOSTNAME=x"]});
            spec["runtimeSpec"]["mounts"][2]["options"] = json!(["ro"]);
        });
        let found = rehearsed(&parent, &rehearsal, &manifest(), |volume| volume != "data");
        assert_eq!(found, ["environment variable EMPTY is missing"]);
        let found = rehearsed(&parent, &rehearsal, &manifest(), |_| true);
        assert_eq!(
            found,
            [
                "environment variable EMPTY is missing",
                "/data is mounted read-only"
            ]
        );
    }

    #[test]
    fn a_runtime_that_reports_nothing_is_not_an_empty_container() {
        assert!(View::of(&json!({"pid": 1})).is_none());
        assert!(View::of(&Value::Null).is_none());
    }
}
