//! The rule of every field of a pod: what becomes of it in a twin, and why.
//!
//! This is what people read (`docs/rules.md`, `render --explain`). What is done is in [`super::manifest`] and
//! [`super::eligibility`]; the tests hold the two together, and every field of the newest version of the API must have a
//! rule here. Only what is not carried over may be said of a whole subtree (`**`), so that a new field within something
//! that is kept has no rule, and is found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::reasons::Refusal;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the same in the twin.
    Kept,
    /// It is in the twin, with a value that says the same there.
    Rewritten,
    /// It is a reference to the API; the twin has what it stood for, in another place.
    Concrete,
    /// It means nothing for a pod that is on its node already, or that no API server looks after.
    Dropped,
    /// A pod that has it cannot come back.
    Refused(&'static [Refusal]),
}

/// A circumstance in which another verdict holds.
#[derive(Clone, Copy, Debug)]
pub struct Unless {
    /// The circumstance, to be read after "unless".
    pub when: &'static str,
    /// What becomes of the field then.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: &'static str,
}

/// The rule of some fields.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The fields: names separated by dots, `{a,b}` for either, `[*]` for each element of a list or each key of a map,
    /// `[x*]` for the keys that begin so, and `**` at the end for everything below.
    pub paths: &'static str,
    /// What becomes of them.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: &'static str,
    /// Where in Kubernetes that is settled; empty: it is plain, or our own choice.
    pub source: &'static str,
    /// Why the twin may have it where the parent does not; `None`: it never has.
    pub added: Option<&'static str>,
    /// When something else holds.
    pub unless: Option<Unless>,
}

impl Rule {
    const fn new(verdict: Verdict, paths: &'static str, source: &'static str, why: &'static str) -> Self {
        Self { paths, verdict, why, source, added: None, unless: None }
    }

    const fn kept(paths: &'static str, source: &'static str, why: &'static str) -> Self {
        Self::new(Verdict::Kept, paths, source, why)
    }

    const fn rewritten(paths: &'static str, source: &'static str, why: &'static str) -> Self {
        Self::new(Verdict::Rewritten, paths, source, why)
    }

    const fn concrete(paths: &'static str, source: &'static str, why: &'static str) -> Self {
        Self::new(Verdict::Concrete, paths, source, why)
    }

    const fn dropped(paths: &'static str, source: &'static str, why: &'static str) -> Self {
        Self::new(Verdict::Dropped, paths, source, why)
    }

    const fn refused(
        reasons: &'static [Refusal],
        paths: &'static str,
        source: &'static str,
        why: &'static str,
    ) -> Self {
        Self::new(Verdict::Refused(reasons), paths, source, why)
    }

    const fn added(mut self, why: &'static str) -> Self {
        self.added = Some(why);
        self
    }

    const fn unless(mut self, when: &'static str, verdict: Verdict, why: &'static str) -> Self {
        self.unless = Some(Unless { when, verdict, why });
        self
    }

    /// The patterns without alternatives.
    pub fn patterns(&self) -> Vec<String> {
        alternatives(self.paths)
    }
}

/// `a.{b,c}.d` is `a.b.d` and `a.c.d`.
fn alternatives(paths: &str) -> Vec<String> {
    let parts = paths.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        Some((before, inner, after))
    });
    let Some((before, inner, after)) = parts else { return vec![paths.to_owned()] };
    inner.split(',').flat_map(|choice| alternatives(&format!("{before}{choice}{after}"))).collect()
}

const REFERENCES: &str = "pkg/api/pod/util.go HasAPIObjectReference";
const FILE_SOURCE: &str = "pkg/kubelet/config/common.go";
const VALIDATION: &str = "pkg/apis/core/validation/validation.go";
const ENVIRONMENT: &str = "pkg/kubelet/kubelet_pods.go makeEnvironmentVariables";
const HOSTNAME: &str = "pkg/kubelet/kubelet_pods.go GeneratePodHostNameAndDomain";

/// Every rule, in the order of the documentation.
pub const RULES: &[Rule] = &[
    Rule::kept("{apiVersion,kind}", FILE_SOURCE, "a static pod is a v1 Pod"),
    Rule::kept(
        "metadata.name",
        FILE_SOURCE,
        "the kubelet itself adds the node's name to a static pod's, so the two never have the same",
    )
    .unless(
        "it does not fit beside the node's name",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "name and node name together must be a DNS subdomain, and fit into the name of a log directory",
    ),
    Rule::kept("metadata.namespace", FILE_SOURCE, "network policies and logs go by it"),
    Rule::kept("metadata.labels[*]", "", "network policies select by them, and without a mirror pod no Service sees them"),
    Rule::kept("metadata.annotations[*]", "", "it may say how runtime or network plugin set the pod up"),
    Rule::dropped(
        "metadata.annotations[podcheckpointer.io/*]",
        "",
        "it has been heeded, and a twin is not checkpointed again",
    )
    .added("it tells whose twin this is")
    .unless(
        "its value means nothing",
        Verdict::Refused(&[Refusal::InvalidAnnotation, Refusal::StatefulSet]),
        "a wish that is not understood is not passed over",
    ),
    Rule::dropped(
        "metadata.annotations[checkpointer.alpha.coreos.com/*]",
        "",
        "it has been heeded, and a twin is not checkpointed again",
    ),
    Rule::dropped(
        "metadata.annotations[kubernetes.io/config.*]",
        "pkg/kubelet/types/pod_update.go",
        "the kubelet sets it for each pod itself",
    )
    .unless(
        "it says that the pod is static",
        Verdict::Refused(&[Refusal::MirrorOrStatic]),
        "the kubelet starts static pods by itself",
    ),
    Rule::dropped(
        "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]",
        "",
        "it is a note of kubectl for itself",
    ),
    Rule::dropped(
        "metadata.annotations[{k8s.v1.cni.cncf.io/network-status,k8s.v1.cni.cncf.io/networks-status,\
         k8s.ovn.org/pod-networks,cni.projectcalico.org/*}]",
        "",
        "a network plugin noted there what the parent got, its address among it; the twin gets its own",
    ),
    Rule::kept(
        "metadata.annotations[{container.apparmor.security.beta.kubernetes.io/*,\
         container.seccomp.security.alpha.kubernetes.io/*,seccomp.security.alpha.kubernetes.io/pod}]",
        VALIDATION,
        "it chooses a security profile",
    )
    .unless(
        "a field of the securityContext says it as well",
        Verdict::Dropped,
        "field and annotation must agree, and only the field counts",
    ),
    Rule::rewritten(
        "metadata.uid",
        FILE_SOURCE,
        "each activation has a UID of its own: the kubelet never retries one that it rejected, and the parent's is the parent's",
    ),
    Rule::refused(
        &[Refusal::Terminating],
        "metadata.deletionTimestamp",
        "pkg/kubelet/pod_workers.go",
        "the pod is going; its successor is captured",
    ),
    Rule::dropped("metadata.ownerReferences.**", "", "the twin belongs to no controller and is counted by none")
        .unless(
            "the controller is a StatefulSet and its owner did not accept that, or it is the node",
            Verdict::Refused(&[Refusal::StatefulSet, Refusal::MirrorOrStatic]),
            "a StatefulSet's pod may have been started elsewhere; the node's own are static pods",
        ),
    Rule::dropped(
        "metadata.{creationTimestamp,deletionGracePeriodSeconds,generation,managedFields,resourceVersion,selfLink}.**",
        "",
        "the API server keeps it for its object, and a static pod is none",
    ),
    Rule::dropped("metadata.{finalizers,generateName}.**", "", "only an object in the API is deleted or named with it"),
    Rule::dropped("spec.activeDeadlineSeconds", "", "the time would count from the twin's start anew"),
    Rule::dropped(
        "spec.{affinity,nodeSelector}.**",
        "pkg/kubelet/lifecycle/predicate.go",
        "the pod is on its node already; a required affinity that fails makes the kubelet ask the API server, and wait",
    ),
    Rule::dropped(
        "spec.{nodeName,schedulerName,schedulingGates,schedulingGroup,tolerations,topologySpreadConstraints}.**",
        FILE_SOURCE,
        "nobody schedules a static pod",
    ),
    Rule::dropped(
        "spec.preemptionPolicy",
        "plugin/pkg/admission/priority",
        "only the scheduler looks at it",
    ),
    Rule::dropped("spec.readinessGates.**", "", "who sets the condition writes to the API server"),
    Rule::kept("spec.overhead[*]", "pkg/kubelet/kuberuntime/kuberuntime_sandbox_linux.go", "the pod's cgroup is that much larger"),
    Rule::dropped(
        "spec.ephemeralContainers.**",
        VALIDATION,
        "they were for a look at the parent, and no pod may begin with them",
    ),
    Rule::rewritten(
        "spec.automountServiceAccountToken",
        REFERENCES,
        "a static pod has no service account; the parent's token comes as a file",
    )
    .added("a static pod has no service account; the parent's token comes as a file"),
    Rule::dropped(
        "spec.{serviceAccount,serviceAccountName}",
        REFERENCES,
        "a static pod may not name one; the parent's token comes as a file",
    ),
    Rule::dropped(
        "spec.imagePullSecrets.**",
        REFERENCES,
        "a static pod may not name one; the images are on the node",
    ),
    Rule::rewritten(
        "spec.enableServiceLinks",
        ENVIRONMENT,
        "the variables of Services are among the captured ones",
    )
    .added("the variables of Services are among the captured ones"),
    Rule::kept(
        "spec.{dnsPolicy,dnsConfig.nameservers[*],dnsConfig.searches[*],dnsConfig.options[*].name,\
         dnsConfig.options[*].value,hostAliases[*].ip,hostAliases[*].hostnames[*]}",
        "pkg/kubelet/network/dns",
        "the kubelet makes resolv.conf and hosts from it, for a static pod as well",
    ),
    Rule::kept("spec.{hostIPC,hostNetwork,hostPID,hostUsers,shareProcessNamespace}", "", "the same namespaces"),
    Rule::kept("spec.hostname", HOSTNAME, "programs know themselves by it")
        .added("the parent's came from its name, and a twin's name ends in the node's")
        .unless("it is empty", Verdict::Rewritten, "the parent's came from its name, and a twin's name ends in the node's"),
    Rule::kept("spec.hostnameOverride", HOSTNAME, "programs know themselves by it")
        .added("the parent's hostname came from its name, and one with dots can be said only here"),
    Rule::kept("spec.setHostnameAsFQDN", HOSTNAME, "programs know themselves by it").unless(
        "the hostname is said as hostnameOverride",
        Verdict::Dropped,
        "the two exclude each other, and without a subdomain the name is the same",
    ),
    Rule::kept("spec.subdomain", HOSTNAME, "programs know themselves by it").unless(
        "the pod's name holds dots and spec.hostname is not set",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "no field of a static pod gives such a name below a subdomain",
    ),
    Rule::rewritten(
        "spec.priority",
        "plugin/pkg/admission/priority",
        "plus one: the API server refuses a mirror pod whose priority is not its class's own, and the kubelet does not mind",
    )
    .added("the API server refuses a mirror pod whose priority is not its class's own"),
    Rule::kept("spec.priorityClassName", "pkg/kubelet/qos/policy.go", "the OOM score goes by the class's name"),
    Rule::refused(
        &[Refusal::ResourceClaim],
        "spec.{resourceClaims,resources.claims,containers[*].resources.claims,initContainers[*].resources.claims}.**",
        REFERENCES,
        "the kubelet refuses resource claims in static pods",
    ),
    Rule::kept(
        "spec.{resources,containers[*].resources,initContainers[*].resources}.{limits,requests}[*]",
        "pkg/kubelet/cm",
        "cgroup limits, shares and the OOM score come from it",
    )
    .unless(
        "it is a device plugin's, and not 0",
        Verdict::Refused(&[Refusal::ExtendedResource]),
        "a plugin that has not registered yet makes the kubelet reject the pod for good",
    ),
    Rule::refused(
        &[Refusal::HugePages],
        "spec.{resources,containers[*].resources,initContainers[*].resources}.{limits,requests}[hugepages-*]",
        "pkg/kubelet/cm",
        "twin and returning parent would be counted together",
    )
    .unless("it is 0", Verdict::Kept, "nothing is asked for"),
    Rule::kept("spec.os.name", "", "linux").unless(
        "it is not linux",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "what this program does on a node is Linux's",
    ),
    Rule::kept("spec.restartPolicy", "", "Always").unless(
        "it is not Always",
        Verdict::Refused(&[Refusal::RestartPolicy]),
        "a pod that ends must not run twice",
    ),
    Rule::refused(
        &[Refusal::RuntimeClass],
        "spec.runtimeClassName",
        "pkg/kubelet/runtimeclass",
        "the kubelet looks the class up in the API; dropped when capture finds that its handler is the runtime's default",
    ),
    Rule::kept(
        "spec.securityContext.{appArmorProfile.localhostProfile,appArmorProfile.type,fsGroup,fsGroupChangePolicy,\
         runAsGroup,runAsNonRoot,runAsUser,seLinuxOptions.level,seLinuxOptions.role,seLinuxOptions.type,\
         seLinuxOptions.user,seccompProfile.localhostProfile,seccompProfile.type,supplementalGroups[*],\
         supplementalGroupsPolicy,sysctls[*].name,sysctls[*].value,windowsOptions.gmsaCredentialSpec,\
         windowsOptions.gmsaCredentialSpecName,windowsOptions.hostProcess,windowsOptions.runAsUserName}",
        "",
        "the same identity and confinement",
    ),
    Rule::kept("spec.securityContext.seLinuxChangePolicy", VALIDATION, "Recursive is what happens anyway").unless(
        "it is not Recursive",
        Verdict::Dropped,
        "it counts only for volumes that a twin cannot have, and a kubelet without the gate SELinuxMount refuses it",
    ),
    Rule::rewritten(
        "spec.terminationGracePeriodSeconds",
        "pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer",
        "more by the time that a twin is held while its returning parent starts; then it gets what the parent has",
    )
    .added("the parent's default, and the time that a twin is held while its returning parent starts"),
    Rule::kept(
        "spec.{containers,initContainers}[*].{args[*],command[*],name,stdin,stdinOnce,terminationMessagePath,\
         terminationMessagePolicy,tty,workingDir}",
        "",
        "the same process",
    ),
    Rule::rewritten(
        "spec.{containers,initContainers}[*].env[*].{name,value}",
        ENVIRONMENT,
        "what the parent's container got, word for word (each `$` doubled); only the pod's address stays a reference",
    )
    .added("the parent's container got it from a Secret, a ConfigMap, a Service or a field"),
    Rule::concrete(
        "spec.{containers,initContainers}[*].env[*].valueFrom.{configMapKeyRef,fileKeyRef,resourceFieldRef,secretKeyRef}.**",
        REFERENCES,
        "the value that the parent's container got stands in its place",
    ),
    Rule::concrete(
        "spec.{containers,initContainers}[*].env[*].valueFrom.fieldRef.{apiVersion,fieldPath}",
        ENVIRONMENT,
        "the value that the parent's container got stands in its place: the twin's own field differs",
    )
    .unless(
        "it is the pod's address, on the pod network",
        Verdict::Kept,
        "it must mean the twin's address",
    ),
    Rule::concrete(
        "spec.{containers,initContainers}[*].envFrom.**",
        REFERENCES,
        "the variables that the parent's container got stand in `env`",
    ),
    Rule::kept("spec.{containers,initContainers}[*].image", "", "the same image").unless(
        "its tag has moved since",
        Verdict::Rewritten,
        "what ran is named, so that the same runs again",
    ),
    Rule::rewritten(
        "spec.{containers,initContainers}[*].imagePullPolicy",
        "pkg/kubelet/images/image_manager.go",
        "the image is on the node, and the registry may not answer",
    )
    .added("the image is on the node, and the registry may not answer"),
    Rule::kept(
        "spec.{containers,initContainers}[*].lifecycle.{postStart,preStop}.{exec.command[*],httpGet.host,\
         httpGet.httpHeaders[*].name,httpGet.httpHeaders[*].value,httpGet.path,httpGet.scheme,tcpSocket.host}",
        "pkg/kubelet/lifecycle/handlers.go",
        "the same hook",
    ),
    Rule::kept("spec.{containers,initContainers}[*].lifecycle.{postStart.sleep.seconds,stopSignal}", "", "the same hook"),
    Rule::kept("spec.{containers,initContainers}[*].lifecycle.preStop.sleep.seconds", "", "the same hook").added(
        "it holds the twin when the kubelet ends it, until its parent serves again; the supervisor ends it earlier",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].{lifecycle.postStart,lifecycle.preStop,livenessProbe,readinessProbe,\
         startupProbe}.{httpGet,tcpSocket}.port",
        "pkg/probe ResolveContainerPort",
        "the same port",
    )
    .unless(
        "it is a name and the pod is on the host network",
        Verdict::Rewritten,
        "the ports and so their names are dropped there",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].{livenessProbe,readinessProbe,startupProbe}.{failureThreshold,grpc.port,\
         grpc.service,httpGet.host,httpGet.httpHeaders[*].name,httpGet.httpHeaders[*].value,httpGet.path,httpGet.scheme,\
         initialDelaySeconds,periodSeconds,successThreshold,tcpSocket.host,timeoutSeconds}",
        "",
        "the same probe",
    ),
    Rule::rewritten(
        "spec.{containers,initContainers}[*].{livenessProbe,readinessProbe,startupProbe}.exec.command[*]",
        "pkg/kubelet/container/helpers.go ExpandContainerCommandOnlyStatic",
        "expanded with the variables as they were declared: the twin declares other words",
    ),
    Rule::rewritten(
        "spec.{containers,initContainers}[*].{livenessProbe,startupProbe}.terminationGracePeriodSeconds",
        "pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer",
        "1 where the container is held, so that a failed probe does not wait for that",
    )
    .added("the pod's own is longer by the time that a twin is held, and a failed probe must not wait for that"),
    Rule::kept(
        "spec.{containers,initContainers}[*].readinessProbe.terminationGracePeriodSeconds",
        VALIDATION,
        "it means nothing there",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].ports[*].{containerPort,hostIP,hostPort,name,protocol}",
        "",
        "probes and port mappings go by them",
    )
    .unless(
        "the pod is on the host network",
        Verdict::Dropped,
        "each would count as a host port, and the returning parent would be rejected for it",
    ),
    Rule::kept(
        "spec.{containers[*].resizePolicy[*].resourceName,containers[*].resizePolicy[*].restartPolicy}",
        "",
        "the kubelet restarts the container by it",
    ),
    Rule::dropped(
        "spec.initContainers[*].resizePolicy.**",
        "pkg/kubelet/config/common.go (v1.34)",
        "kubelets up to v1.34 refuse it there in a static pod, and nobody resizes a twin",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].{restartPolicy,\
         restartPolicyRules[*].action,restartPolicyRules[*].exitCodes.operator,restartPolicyRules[*].exitCodes.values[*]}",
        "",
        "the kubelet restarts the container by it",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].securityContext.{allowPrivilegeEscalation,appArmorProfile.localhostProfile,\
         appArmorProfile.type,capabilities.add[*],capabilities.drop[*],privileged,procMount,readOnlyRootFilesystem,\
         runAsGroup,runAsNonRoot,runAsUser,seLinuxOptions.level,seLinuxOptions.role,seLinuxOptions.type,\
         seLinuxOptions.user,seccompProfile.localhostProfile,seccompProfile.type,windowsOptions.gmsaCredentialSpec,\
         windowsOptions.gmsaCredentialSpecName,windowsOptions.hostProcess,windowsOptions.runAsUserName}",
        "",
        "the same identity and confinement",
    ),
    Rule::refused(
        &[Refusal::PersistentVolume],
        "spec.{containers,initContainers}[*].volumeDevices.**",
        REFERENCES,
        "a block device comes from a claim",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].volumeMounts[*].{mountPath,mountPropagation,name,recursiveReadOnly,subPath,\
         subPathExpr}",
        "",
        "the same mount",
    ),
    Rule::kept("spec.{containers,initContainers}[*].volumeMounts[*].readOnly", "", "the same mount")
        .added("a captured volume is read-only, as the parent saw it: a host path is not by itself")
        .unless(
            "the volume is captured",
            Verdict::Rewritten,
            "a captured volume is read-only, as the parent saw it: a host path is not by itself",
        ),
    Rule::kept("spec.volumes[*].name", "", "mounts name it").unless(
        "it is no DNS label",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "it becomes part of paths on the host",
    ),
    Rule::concrete(
        "spec.volumes[*].{configMap,downwardAPI,projected,secret}.**",
        REFERENCES,
        "the files that the parent saw come as a host path, in memory: bytes, modes, owners and links",
    ),
    Rule::kept("spec.volumes[*].hostPath.{path,type}", "", "the same directory")
        .added("a captured volume is unpacked there"),
    Rule::kept("spec.volumes[*].{emptyDir.medium,emptyDir.sizeLimit}", "", "it begins empty, like the parent's"),
    Rule::kept("spec.volumes[*].{nfs.path,nfs.readOnly,nfs.server}", "", "the kubelet mounts it without the API server"),
    Rule::kept("spec.volumes[*].image.reference", "", "the same image"),
    Rule::rewritten(
        "spec.volumes[*].image.pullPolicy",
        "pkg/kubelet/images/image_manager.go",
        "the image is on the node, and the registry may not answer",
    )
    .added("the image is on the node, and the registry may not answer"),
    Rule::refused(
        &[Refusal::PersistentVolume],
        "spec.volumes[*].persistentVolumeClaim.**",
        REFERENCES,
        "the kubelet refuses claims in static pods: the API server must bind and attach them; an accepted one that capture \
         finds to be a local or hostPath volume becomes that path",
    ),
    Rule::refused(
        &[Refusal::CsiVolume],
        "spec.volumes[*].csi.**",
        REFERENCES,
        "the kubelet refuses inline CSI volumes in static pods",
    ),
    Rule::refused(
        &[Refusal::EphemeralVolume],
        "spec.volumes[*].ephemeral.**",
        REFERENCES,
        "the API server makes a claim for it",
    ),
    Rule::refused(
        &[Refusal::RejectedByKubeletRules],
        "spec.volumes[*].{awsElasticBlockStore,azureDisk,azureFile,cephfs,cinder,fc,flexVolume,flocker,gcePersistentDisk,\
         gitRepo,glusterfs,iscsi,photonPersistentDisk,portworxVolume,quobyte,rbd,scaleIO,storageos,vsphereVolume}.**",
        REFERENCES,
        "somebody must attach it, or the kubelet refuses it in static pods",
    ),
    Rule::dropped("status.**", "", "the kubelet finds out for itself").unless(
        "the pod has ended",
        Verdict::Refused(&[Refusal::Terminating]),
        "its successor is captured",
    ),
];

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field of an object.
    Field(String),
    /// An element of a list, or a key of a map.
    Element(String),
}

/// `spec.containers[app].image`.
pub fn text(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |mut text, segment| {
        match segment {
            Segment::Field(name) if text.is_empty() => text.push_str(name),
            // Writing to a string cannot fail.
            Segment::Field(name) => drop(write!(text, ".{name}")),
            Segment::Element(name) => drop(write!(text, "[{name}]")),
        }
        text
    })
}

/// The opposite of [`text`], for patterns and for the paths of a schema: in these no element holds a bracket.
fn parse(path: &str) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some((element, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            found.push(Segment::Element(element.to_owned()));
            rest = after;
        } else {
            let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            found.push(Segment::Field(name.to_owned()));
            rest = after;
        }
    }
    found
}

#[derive(Default)]
struct Node {
    below: BTreeMap<Segment, Node>,
    rule: Option<&'static Rule>,
    /// Of everything below, and of this.
    rest: Option<&'static Rule>,
}

static TREE: LazyLock<Node> = LazyLock::new(|| {
    let mut tree = Node::default();
    for rule in RULES {
        for pattern in rule.patterns() {
            let (path, is_rest) = pattern.strip_suffix(".**").map_or((pattern.as_str(), false), |path| (path, true));
            let node = parse(path).into_iter().fold(&mut tree, |node, segment| node.below.entry(segment).or_default());
            if is_rest {
                node.rest = Some(rule);
            } else {
                node.rule = Some(rule);
            }
        }
    }
    tree
});

impl Node {
    fn step(&self, segment: &Segment) -> Option<&Self> {
        if let Some(below) = self.below.get(segment) {
            return Some(below);
        }
        let Segment::Element(name) = segment else { return None };
        let matching = self.below.iter().filter_map(|(pattern, below)| match pattern {
            Segment::Element(pattern) => {
                pattern.strip_suffix('*').filter(|it| name.starts_with(it)).map(|it| (it, below))
            }
            Segment::Field(_) => None,
        });
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, below)| below)
    }
}

/// The most specific rule of a field; `None`: no rule names it.
pub fn of(path: &[Segment]) -> Option<&'static Rule> {
    let mut node = &*TREE;
    let mut rest = None;
    for segment in path {
        let Some(next) = node.step(segment) else { return rest };
        node = next;
        rest = node.rest.or(rest);
    }
    node.rule.or(rest)
}

/// The first rule of something in this field that a twin may have where the parent has none.
pub fn within(path: &[Segment]) -> Option<&'static Rule> {
    fn first(node: &Node) -> Option<&'static Rule> {
        let own = node.rule.or(node.rest).filter(|rule| rule.added.is_some());
        own.or_else(|| node.below.values().find_map(first))
    }
    path.iter().try_fold(&*TREE, |node, segment| node.step(segment)).and_then(first)
}

/// Are the keys of this object its owner's own, as those of labels are?
pub fn has_free_keys(path: &[Segment]) -> bool {
    let node = path.iter().try_fold(&*TREE, |node, segment| node.step(segment));
    node.is_some_and(|node| node.below.keys().any(|segment| matches!(segment, Segment::Element(_))))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
