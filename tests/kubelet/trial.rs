//! What is done with each pod: an API server stores it, this program judges and renders the stored
//! pod, and a kubelet reads the result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use pod_checkpointer::capture::environment::{self, Addresses};
use pod_checkpointer::capture::manifest::{self, Live};
use pod_checkpointer::capture::{self, Reason, schema};
use pod_checkpointer::checkpoint::{Captured, NodeCheckpoint, Parent, Volume, twin};
use pod_checkpointer::reasons::Refusal;
use serde_json::{Value, json};

use super::expected;
use super::judge::{Answer, Judge, Meaning, Request, World};
use super::random::Random;
use super::{NODE, RUN_DIR, table};

/// A generated pod and what is around it.
pub struct Case {
    pub number: u64,
    pub pod: Value,
    world: World,
}

impl Case {
    pub fn new(number: u64, pod: Value, seed: u64) -> Self {
        let mut random = Random::of(seed.rotate_left(32), number);
        let mut world = World::default();
        if random.percent(50) {
            for (name, value) in [
                ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
                ("KUBERNETES_SERVICE_PORT", "443"),
                ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
            ] {
                world.services.insert(name.into(), value.into());
            }
        }
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array().into_iter().flatten() {
                world.container(container, &mut random);
            }
        }
        let one = ["10.0.0.1".to_owned(), "10.0.0.1,fd00::1".to_owned()];
        let other = ["10.0.7.8".to_owned(), "10.0.7.8,fd00::78".to_owned()];
        // on the host network the address is the node's, before and after
        let stays = pod["spec"]["hostNetwork"] == json!(true);
        world.addresses = vec![one.clone(), if stays { one } else { other }];
        Self { number, pod, world }
    }
}

impl World {
    fn container(&mut self, container: &Value, random: &mut Random) {
        let name = container["name"].as_str().unwrap_or_default();
        if container["envFrom"].is_array() {
            let given = self.env_from.entry(name.into()).or_default();
            for variable in ["A", "P_B", "n", "FROM_1", "x.y", "POD_IP", "1a"] {
                // a name that kubelets up to 1.34 refuse proves nothing more for them
                if random.percent(if variable == "1a" { 3 } else { 40 }) {
                    given.insert(variable.into(), random.text());
                }
            }
        }
        for (at, entry) in container["env"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let Some(from) = entry["valueFrom"].as_object() else {
                continue;
            };
            let is_optional = from
                .values()
                .any(|source| source["optional"] == json!(true));
            if !is_optional || random.percent(60) {
                self.values
                    .entry(name.into())
                    .or_default()
                    .insert(at, random.text());
            }
        }
    }
}

/// A manifest that one version accepted, and what became of it.
pub struct Accepted {
    number: u64,
    text: String,
    decoded: Value,
}

/// What was found for one version.
#[derive(Default)]
pub struct Tally {
    pub pods: usize,
    pub refused_by_api: usize,
    pub recoverable: usize,
    containers: usize,
    variables: usize,
    listed: usize,
    /// Pods by each reason; one may have several.
    refused: BTreeMap<Refusal, usize>,
    confirmed: usize,
    by_policy: usize,
    skewed: usize,
    unfit: usize,
    /// Fields of twins made of what the newest API server stores, which this kubelet does not know.
    pub unknown: BTreeMap<String, usize>,
    /// This kubelet's objections to such twins.
    pub against: BTreeMap<String, usize>,
    /// Its API server's objections to generated pods, by field.
    complaints: BTreeMap<String, usize>,
    /// Disagreements that the table knows.
    pub documented: BTreeMap<String, usize>,
    /// Feature gates by default.
    pub gates: BTreeMap<String, bool>,
    /// Faults, each with the number of an example and how often it was seen.
    pub failures: BTreeMap<String, (u64, usize)>,
    /// Manifests of the last batch.
    pub manifests: Vec<Accepted>,
    /// Fields of pods of the last batch that the API server accepted.
    pub paths: BTreeSet<String>,
}

/// This program's verdict on a stored pod.
struct Verdict {
    reasons: Vec<Reason>,
    text: String,
    manifest: Value,
    uid: String,
}

impl Tally {
    pub fn batch(&mut self, judge: &mut Judge, cases: &[Case], lists: bool) {
        let requests: Vec<Request<'_>> = cases
            .iter()
            .enumerate()
            .map(|(id, case)| Request {
                id,
                node: NODE,
                pod: Some(&case.pod),
                world: Some(&case.world),
                ..Request::default()
            })
            .collect();
        let stored = judge.ask(&requests);
        self.pods += cases.len();
        self.manifests.clear();
        self.paths.clear();
        let mut asked: Vec<(&Case, &Answer, Verdict)> = Vec::new();
        for (case, answer) in cases.iter().zip(&stored) {
            if !answer.error.is_empty() {
                self.refused_by_api += 1;
                for complaint in complaints(&answer.error) {
                    *self.complaints.entry(complaint).or_default() += 1;
                }
                // nothing is promised for such a pod, but it must not cause a crash
                let _ = capture::judge(&case.pod, Path::new(RUN_DIR), NODE);
                continue;
            }
            paths(&answer.pod["spec"], "spec", &mut self.paths);
            match verdict(&answer.pod, &answer.meaning[0], case) {
                Ok(verdict) => asked.push((case, answer, verdict)),
                Err(why) => self.fail(case.number, why),
            }
        }
        let world = |case: &Case| World {
            addresses: case.world.addresses.clone(),
            ..World::default()
        };
        let worlds: Vec<World> = asked.iter().map(|(case, ..)| world(case)).collect();
        let texts: Vec<String> = asked
            .iter()
            .map(|(_, answer, verdict)| {
                if verdict.reasons.is_empty() {
                    verdict.text.clone()
                } else {
                    put_back(&answer.pod, &verdict.manifest).to_string()
                }
            })
            .collect();
        let requests: Vec<Request<'_>> = texts
            .iter()
            .zip(&worlds)
            .enumerate()
            .map(|(id, (text, world))| Request {
                id,
                node: NODE,
                manifest: Some(text),
                world: Some(world),
                ..Request::default()
            })
            .collect();
        let decoded = judge.ask(&requests);
        if lists {
            self.list(judge, &texts, &decoded);
        }
        for ((case, stored, verdict), (answer, text)) in
            asked.iter().zip(decoded.into_iter().zip(texts))
        {
            if verdict.reasons.is_empty() {
                self.recoverable += 1;
                for problem in disagreements(stored, &answer, verdict) {
                    if table::is_documented(&judge.version, &problem) {
                        *self.documented.entry(problem).or_default() += 1;
                    } else {
                        self.fail(case.number, problem);
                    }
                }
                let processes = answer
                    .meaning
                    .first()
                    .into_iter()
                    .flat_map(|it| it.containers.values());
                for process in processes {
                    self.containers += 1;
                    self.variables += process.env.len();
                }
                self.manifests.push(Accepted {
                    number: case.number,
                    text,
                    decoded: answer.pod,
                });
            } else {
                for reason in verdict
                    .reasons
                    .iter()
                    .map(|reason| reason.refusal)
                    .collect::<BTreeSet<_>>()
                {
                    *self.refused.entry(reason).or_default() += 1;
                }
                if !answer.error.is_empty() {
                    self.confirmed += 1;
                } else if let Some(wrong) = verdict
                    .reasons
                    .iter()
                    .find(|reason| !is_policy(&judge.version, reason))
                {
                    self.fail(
                        case.number,
                        format!("refused for {}, but the kubelet accepts it", wrong.refusal),
                    );
                } else {
                    self.by_policy += 1;
                }
            }
        }
    }

    fn fail(&mut self, number: u64, why: impl Into<String>) {
        self.failures.entry(why.into()).or_insert((number, 0)).1 += 1;
    }

    /// The kubelet's whole file source must report about a directory what the function below it
    /// reported about
    /// each text.
    fn list(&mut self, judge: &mut Judge, texts: &[String], decoded: &[Answer]) {
        let directory = tempfile::tempdir().unwrap();
        for (at, text) in texts.iter().enumerate() {
            std::fs::write(directory.path().join(format!("{at:05}.yaml")), text).unwrap();
        }
        let request = Request {
            id: 0,
            node: NODE,
            directory: Some(directory.path()),
            ..Request::default()
        };
        let mut answer = judge.ask(&[request]).pop().unwrap();
        for (at, one) in decoded.iter().enumerate() {
            let path = directory
                .path()
                .join(format!("{at:05}.yaml"))
                .to_string_lossy()
                .into_owned();
            let refused = answer.refused.get(&path);
            let mut pod = answer
                .pods
                .remove(one.pod["metadata"]["uid"].as_str().unwrap_or_default());
            if let Some(annotations) = pod
                .as_mut()
                .and_then(|pod| pod.pointer_mut("/metadata/annotations"))
                .and_then(Value::as_object_mut)
            {
                annotations.retain(|key, _| {
                    key != "kubernetes.io/config.source" && key != "kubernetes.io/config.seen"
                });
            }
            self.listed += 1;
            let agrees = match &pod {
                Some(pod) => *pod == one.pod && refused.is_none(),
                None => {
                    refused.is_some_and(|error| error.contains(&one.error) && !one.error.is_empty())
                }
            };
            if !agrees {
                self.fail(
                    0,
                    format!(
                        "manifest {at}: the file source says {refused:?}, its decoder {:?}",
                        one.error
                    ),
                );
            }
        }
    }

    /// What this kubelet makes of twins of the newest API server's pods.
    pub fn skew(&mut self, judge: &mut Judge, manifests: &[Accepted]) {
        let requests: Vec<Request<'_>> = manifests
            .iter()
            .enumerate()
            .map(|(id, it)| Request {
                id,
                node: NODE,
                manifest: Some(&it.text),
                ..Request::default()
            })
            .collect();
        for (accepted, answer) in manifests.iter().zip(judge.ask(&requests)) {
            self.skewed += 1;
            if !answer.error.is_empty() {
                self.unfit += 1;
                for complaint in complaints(&answer.error) {
                    *self.against.entry(complaint).or_default() += 1;
                }
                continue;
            }
            let mut found = Vec::new();
            expected::differences(
                &accepted.decoded["spec"],
                &answer.pod["spec"],
                "spec",
                &mut found,
            );
            for path in found.into_iter().collect::<BTreeSet<_>>() {
                match path.strip_suffix(": lost") {
                    Some(path) => *self.unknown.entry(path.to_owned()).or_default() += 1,
                    None => self.fail(accepted.number, format!("of the newest API server: {path}")),
                }
            }
        }
    }

    pub fn print(&self, version: &str) {
        println!(
            "{version}: {} pods, {} refused by the API server, {} recoverable ({} containers, {} variables), {} refused by us",
            self.pods,
            self.refused_by_api,
            self.recoverable,
            self.containers,
            self.variables,
            self.pods - self.refused_by_api - self.recoverable
        );
        println!(
            "  refused: {} by the kubelet as well, {} by our own rules; {}",
            self.confirmed,
            self.by_policy,
            self.refused
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        );
        println!(
            "  {} manifests listed by the file source, {} of the newest API server's pods, {} of them refused, {} fields lost",
            self.listed,
            self.skewed,
            self.unfit,
            self.unknown.len()
        );
        if std::env::var_os("COMPLAINTS").is_some() {
            let mut most: Vec<(&usize, &String)> = self
                .complaints
                .iter()
                .map(|(text, count)| (count, text))
                .collect();
            most.sort();
            most.iter()
                .rev()
                .take(60)
                .for_each(|(count, text)| println!("  {count} × {text}"));
        }
        for (error, count) in &self.against {
            println!("  against: {count} × {error}");
        }
        for (path, count) in &self.unknown {
            println!("  lost: {count} × {path}");
        }
        for (problem, count) in &self.documented {
            println!("  documented: {count} × {problem}");
        }
    }
}

/// Judges and renders a stored pod as `capture` and the supervisor do, with an environment in place
/// of a runtime.
fn verdict(stored: &Value, meaning: &Meaning, case: &Case) -> Result<Verdict, String> {
    let run_dir = Path::new(RUN_DIR);
    let mut stored = stored.clone();
    stored["status"] = json!({"phase": "Running", "podIP": case.world.addresses[0][0]});
    let mut reasons = capture::judge(&stored, run_dir, NODE);
    let (pod, unknown) = schema::read(&stored);
    if let Some(reason) = unknown.first() {
        return Err(format!("a field that the API server knows: {reason}"));
    }
    let pod = pod.ok_or("the object cannot be read")?;
    let live = live(&pod, meaning, case, &mut reasons);
    let (twin, _) = manifest::render(&pod, run_dir, &live);
    let checkpoint = checkpoint(
        &pod,
        &serde_json::to_value(&twin).map_err(|error| error.to_string())?,
    );
    // through the store's own form as well, which takes most of the time
    let kept = if case.number.is_multiple_of(8) {
        let kept =
            NodeCheckpoint::from_yaml(&checkpoint.to_yaml().map_err(|error| error.to_string())?);
        kept.map_err(|error| format!("the checkpoint cannot be read again: {error}"))?
    } else {
        checkpoint.clone()
    };
    if kept != checkpoint {
        return Err("the checkpoint is read differently".into());
    }
    let made = twin::make(&kept, &kept.pod().unwrap(), "boot/1", run_dir);
    Ok(Verdict {
        reasons,
        text: made.manifest.to_string(),
        manifest: made.manifest,
        uid: made.uid,
    })
}

fn live(pod: &Pod, meaning: &Meaning, case: &Case, reasons: &mut Vec<Reason>) -> Live {
    let mut live = Live::default();
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network.unwrap_or_default();
    let [one, all] = case.world.addresses[0].clone();
    let addresses = Addresses { one, all };
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let env = &meaning.containers[&container.name].env;
        let envs: Vec<Value> = env
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let captured = environment::captured(&json!({"config": {"envs": envs}}), container, None);
        match captured.and_then(|captured| {
            environment::render(container, &captured, host_network, &addresses)
        }) {
            Ok(environment) => drop(
                live.environments
                    .insert(container.name.clone(), environment),
            ),
            Err(error) => reasons.push(Reason {
                refusal: error.refusal(),
                detail: format!("container {}: {error}", container.name),
            }),
        }
    }
    live
}

fn checkpoint(pod: &Pod, manifest: &Value) -> NodeCheckpoint {
    let metadata = pod.metadata.clone();
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let volumes = volumes.filter(|volume| manifest::captured_directory(volume).is_some());
    let parent = Parent {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: "42".into(),
        owner: None,
        node_uid: None,
    };
    let captured = Captured {
        wall: "2026-11-21T10:00:00Z".into(),
        boot_id: "boot-1".into(),
        uptime_seconds: 100,
    };
    let policy = capture::eligibility::policy(pod).unwrap();
    let mut checkpoint = NodeCheckpoint::new(parent, captured, policy, manifest.clone());
    checkpoint.volumes = volumes
        .map(|volume| (volume.name.clone(), Volume::default()))
        .collect();
    checkpoint.with_digest()
}

/// A twin that this program accepts: what is wrong with it according to the kubelet, or to the
/// second
/// set of rules.
pub fn disagreements_of(stored: &Answer, answer: &Answer, uid: &str) -> Vec<String> {
    if !answer.error.is_empty() {
        let complaints = complaints(&answer.error).into_iter();
        return complaints
            .map(|it| format!("recoverable, but the kubelet says: {it}"))
            .collect();
    }
    let mut found: Vec<String> = expected::references(&answer.pod)
        .iter()
        .map(|path| format!("{path} refers to the API"))
        .collect();
    let mut expected = expected::twin(&stored.pod, NODE, uid, RUN_DIR);
    if stored.pod["spec"]["hostNetwork"] == json!(true) {
        expected::without_ports(&mut expected);
    }
    let mut decoded = answer.pod.clone();
    expected::without_meaning(&mut expected);
    expected::without_meaning(&mut decoded);
    expected::differences(&expected, &decoded, "", &mut found);
    for (at, (parent, twin)) in stored.meaning.iter().zip(&answer.meaning).enumerate() {
        for (name, parent) in &parent.containers {
            let Some(twin) = twin.containers.get(name) else {
                found.push("a container is lost".into());
                continue;
            };
            let what = [
                ("environment", parent.env == twin.env),
                (
                    "command",
                    parent.command == twin.command && parent.args == twin.args,
                ),
                // a kubelet up to 1.33 splits the character that follows a lone `$`; the twin has
                // it whole
                (
                    "probe's command",
                    parent.probes == twin.probes || parent.is_garbled(),
                ),
                ("port of a probe or hook", parent.ports == twin.ports),
            ];
            for (what, _) in what.iter().filter(|(_, is_same)| !is_same) {
                found.push(format!("a container gets another {what} at address {at}"));
            }
        }
    }
    found
}

fn disagreements(stored: &Answer, answer: &Answer, verdict: &Verdict) -> Vec<String> {
    let mut found = disagreements_of(stored, answer, &verdict.uid);
    if answer.error.is_empty() {
        // what was written must be there literally; what the kubelet adds does not count here
        let mut lost = Vec::new();
        expected::differences(
            &verdict.manifest["spec"],
            &answer.pod["spec"],
            "spec",
            &mut lost,
        );
        found.extend(
            lost.into_iter()
                .filter(|path| !path.ends_with(": added"))
                .filter(|path| {
                    // an empty list or text is left out
                    !is_empty_at(&verdict.manifest, path)
                })
                .map(|path| format!("written, not read: {path}")),
        );
    }
    found
}

fn is_empty_at(manifest: &Value, path: &str) -> bool {
    let Some(path) = path.strip_suffix(": lost") else {
        return false;
    };
    let mut at = vec![manifest];
    for part in path.split('.') {
        let (key, is_list) = part
            .strip_suffix("[]")
            .map_or((part, false), |key| (key, true));
        at = at.into_iter().filter_map(|value| value.get(key)).collect();
        if is_list {
            at = at
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .collect();
        }
    }
    at.iter().any(|value| {
        *value == ""
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    })
}

/// The twin of a pod that we refuse, with what we took out of it: is it really what the kubelet
/// refuses?
fn put_back(stored: &Value, manifest: &Value) -> Value {
    let mut text = manifest.clone();
    let (from, to) = (&stored["spec"], &mut text["spec"]);
    let captured = ["configMap", "secret", "projected", "downwardAPI"];
    let volumes = from["volumes"].as_array().into_iter().flatten();
    for (parent, twin) in volumes.zip(to["volumes"].as_array_mut().into_iter().flatten()) {
        if !captured.iter().any(|kind| parent[*kind].is_object()) {
            *twin = parent.clone();
        }
    }
    if let Some(claims) = from.get("resourceClaims") {
        to["resourceClaims"] = claims.clone();
    }
    for list in ["initContainers", "containers"] {
        let containers = from[list].as_array().into_iter().flatten();
        for (parent, twin) in containers.zip(to[list].as_array_mut().into_iter().flatten()) {
            for (structure, field) in [("resources", "claims")] {
                if let Some(value) = parent[structure].get(field) {
                    twin[structure][field] = value.clone();
                }
            }
            if let Some(devices) = parent.get("volumeDevices") {
                twin["volumeDevices"] = devices.clone();
            }
        }
    }
    text
}

/// Is this a refusal of our own, of a pod that a kubelet of this version would take as far as its
/// form goes?
fn is_policy(version: &str, reason: &Reason) -> bool {
    // until 1.34 a kubelet ran static pods that refer to the API, as well as it could
    let is_lenient = version.starts_with("v1.33.");
    match reason.refusal {
        // these are about what happens when it runs
        Refusal::RestartPolicy
        | Refusal::MirrorOrStatic
        | Refusal::Terminating
        | Refusal::StatefulSet
        | Refusal::RuntimeClass
        | Refusal::ExtendedResource
        | Refusal::HugePages
        | Refusal::EnvironmentUnknown
        | Refusal::EnvironmentNotText
        | Refusal::InvalidAnnotation
        | Refusal::TooLarge
        | Refusal::ImageAbsent
        | Refusal::ImageNeedsPullSecret => true,
        Refusal::PersistentVolume | Refusal::CsiVolume | Refusal::EphemeralVolume => is_lenient,
        Refusal::ResourceClaim | Refusal::UnknownField => false,
        Refusal::RejectedByKubeletRules => {
            let attached = reason.detail.starts_with("spec.volumes[")
                && !reason.detail.ends_with("].azureFile")
                && !reason.detail.ends_with("].glusterfs");
            attached
                || is_lenient
                || reason.detail.contains("log directory")
                || reason.detail.starts_with("spec.hostname:")
        }
    }
}

fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    if !found.contains(path) {
        found.insert(path.to_owned());
    }
    match value {
        Value::Object(object) => object
            .iter()
            .for_each(|(key, value)| paths(value, &format!("{path}.{key}"), found)),
        Value::Array(list) => list
            .iter()
            .for_each(|value| paths(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

/// What a kubelet's message is about, without names, numbers and values: `spec.x[].y: Forbidden`.
fn complaints(error: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in error
        .match_indices("spec.")
        .filter(|(at, _)| *at == 0 || error[..*at].ends_with(['[', ' ']))
    {
        let mut parts = error[at..].splitn(3, ": ");
        let (path, kind) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let path: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
        found.insert(format!("{path}: {kind}"));
    }
    if found.is_empty() {
        found.insert(error.chars().take(80).collect());
    }
    found
}
