//! The rule for every field of a pod: what happens to it in a twin, and why.
//!
//! This is what people read (`docs/rules.md`, `render --explain`). The code is in
//! [`super::manifest`] and [`super::eligibility`]; tests compare the two, and every field of the
//! newest version of the API must have a rule here. Only a rule for fields that are not carried
//! over may cover a whole subtree (`**`), so that a new field below something kept has no rule,
//! which a test detects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::reasons::Refusal;

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The twin has the same.
    Kept,
    /// The twin has it, with a value that means the same there.
    Rewritten,
    /// It is a reference to the API; the twin has what it refers to, elsewhere.
    Concrete,
    /// The twin does not have it: it means nothing for a pod that is already on its node, or
    /// without an API server.
    Dropped,
    /// A pod that has it cannot come back.
    Refused(&'static [Refusal]),
}

/// A condition under which another verdict holds.
#[derive(Clone, Copy, Debug)]
pub struct Unless {
    /// The condition, to be read after "unless".
    pub when: &'static str,
    /// What happens to the field then.
    pub verdict: Verdict,
    /// Why, to be read after "because".
    pub why: &'static str,
}

/// The rule for some fields.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The fields: names separated by dots, `{a,b}` for either, `[*]` for each element of a list or
    /// each key of a map, `[x*]` for the keys that begin so, and `**` at the end for everything
    /// below. A list or an object has no rule of its own, only what is in it.
    pub paths: &'static str,
    /// What happens to them.
    pub verdict: Verdict,
    /// Why, a sentence without its full stop.
    pub why: &'static str,
    /// File of the Kubernetes repository that this rests on; empty: it is obvious, or a choice of
    /// this program.
    pub source: &'static str,
    /// Why the twin may have it although the parent does not; `None`: it never has it then.
    pub added: Option<&'static str>,
    /// When another verdict holds.
    pub unless: Option<Unless>,
}

impl Rule {
    const fn new(
        verdict: Verdict,
        paths: &'static str,
        source: &'static str,
        why: &'static str,
    ) -> Self {
        Self {
            paths,
            verdict,
            why,
            source,
            added: None,
            unless: None,
        }
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

    /// The paths with each `{a,b}` expanded.
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
    let Some((before, inner, after)) = parts else {
        return vec![paths.to_owned()];
    };
    inner
        .split(',')
        .flat_map(|choice| alternatives(&format!("{before}{choice}{after}")))
        .collect()
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
        "the kubelet appends the node's name to a static pod's, so the two names always differ",
    )
    .unless(
        "it is too long together with the node's name",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "both together must be a valid pod name and fit into the name of a log directory",
    ),
    Rule::kept("metadata.namespace", FILE_SOURCE, "network policies and log paths depend on it"),
    Rule::kept("metadata.labels[*]", "", "network policies select pods by them; a Service cannot, as long as there is no mirror pod"),
    Rule::kept("metadata.annotations[*]", "", "the runtime or the network plugin may configure the pod by it"),
    Rule::dropped(
        "metadata.annotations[podcheckpointer.io/*]",
        "",
        "already applied, and a twin is not checkpointed itself",
    )
    .added("it names the parent of the twin")
    .unless(
        "its value is invalid",
        Verdict::Refused(&[Refusal::InvalidAnnotation, Refusal::StatefulSet]),
        "an invalid setting must not be ignored",
    ),
    Rule::dropped(
        "metadata.annotations[checkpointer.alpha.coreos.com/*]",
        "",
        "already applied, and a twin is not checkpointed itself",
    ),
    Rule::dropped(
        "metadata.annotations[kubernetes.io/config.*]",
        "pkg/kubelet/types/pod_update.go",
        "the kubelet sets it itself for each pod",
    )
    .unless(
        "it says that the pod is static",
        Verdict::Refused(&[Refusal::MirrorOrStatic]),
        "the kubelet starts static pods by itself",
    ),
    Rule::dropped(
        "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]",
        "",
        "only kubectl uses it",
    ),
    Rule::dropped(
        "metadata.annotations[{k8s.v1.cni.cncf.io/network-status,k8s.v1.cni.cncf.io/networks-status,\
         k8s.ovn.org/pod-networks,cni.projectcalico.org/*}]",
        "",
        "a network plugin recorded there what the parent got, such as its address; the twin gets its own",
    ),
    Rule::kept(
        "metadata.annotations[{container.apparmor.security.beta.kubernetes.io/*,\
         container.seccomp.security.alpha.kubernetes.io/*,seccomp.security.alpha.kubernetes.io/pod}]",
        VALIDATION,
        "it selects a security profile",
    )
    .unless(
        "a field of the securityContext sets the same",
        Verdict::Dropped,
        "field and annotation must agree, and the field is enough",
    ),
    Rule::rewritten(
        "metadata.uid",
        FILE_SOURCE,
        "each activation has a UID of its own: the kubelet never retries one that it rejected, and the parent's belongs to the parent",
    ),
    Rule::refused(
        &[Refusal::Terminating],
        "metadata.deletionTimestamp",
        "pkg/kubelet/pod_workers.go",
        "the pod is being deleted; its successor is captured",
    ),
    Rule::dropped("metadata.ownerReferences.**", "", "the twin has no controller, and none must count it")
        .unless(
            "the controller is a StatefulSet and the pod's owner did not accept that, or it is the Node",
            Verdict::Refused(&[Refusal::StatefulSet, Refusal::MirrorOrStatic]),
            "a StatefulSet's pod may have been started elsewhere, and pods owned by a Node are static pods",
        ),
    Rule::dropped(
        "metadata.{creationTimestamp,deletionGracePeriodSeconds,generation,managedFields,resourceVersion,selfLink}.**",
        "",
        "it belongs to an object in the API, and a static pod is not one",
    ),
    Rule::dropped("metadata.{finalizers,generateName}.**", "", "only objects in the API are deleted or named by it"),
    Rule::dropped("spec.activeDeadlineSeconds", "", "the time would start again with the twin"),
    Rule::dropped(
        "spec.{affinity,nodeSelector}.**",
        "pkg/kubelet/lifecycle/predicate.go",
        "the pod is already on its node; for a required affinity that does not match, the kubelet would ask the API server and wait",
    ),
    Rule::dropped(
        "spec.{nodeName,schedulerName,schedulingGates,schedulingGroup,tolerations,topologySpreadConstraints}.**",
        FILE_SOURCE,
        "a static pod is not scheduled",
    ),
    Rule::dropped(
        "spec.preemptionPolicy",
        "plugin/pkg/admission/priority",
        "only the scheduler uses it",
    ),
    Rule::dropped("spec.readinessGates.**", "", "the condition would be set through the API server"),
    Rule::kept("spec.overhead[*]", "pkg/kubelet/kuberuntime/kuberuntime_sandbox_linux.go", "the pod's cgroup is that much larger"),
    Rule::dropped(
        "spec.ephemeralContainers.**",
        VALIDATION,
        "they were added to debug the parent, and no pod may start with them",
    ),
    Rule::rewritten(
        "spec.automountServiceAccountToken",
        REFERENCES,
        "a static pod has no service account; the twin gets the parent's token as a file",
    )
    .added("a static pod has no service account; the twin gets the parent's token as a file"),
    Rule::dropped(
        "spec.{serviceAccount,serviceAccountName}",
        REFERENCES,
        "a static pod must not name one; the twin gets the parent's token as a file",
    ),
    Rule::dropped(
        "spec.imagePullSecrets.**",
        REFERENCES,
        "a static pod must not name one; the images are on the node",
    ),
    Rule::rewritten(
        "spec.enableServiceLinks",
        ENVIRONMENT,
        "the captured variables already contain those of Services",
    )
    .added("the captured variables already contain those of Services"),
    Rule::kept(
        "spec.{dnsPolicy,dnsConfig.nameservers[*],dnsConfig.searches[*],dnsConfig.options[*].name,\
         dnsConfig.options[*].value,hostAliases[*].ip,hostAliases[*].hostnames[*]}",
        "pkg/kubelet/network/dns",
        "the kubelet writes resolv.conf and hosts from it, also for a static pod",
    ),
    Rule::kept("spec.{hostIPC,hostNetwork,hostPID,hostUsers,shareProcessNamespace}", "", "the same namespaces"),
    Rule::kept("spec.hostname", HOSTNAME, "programs may identify themselves by it")
        .added("the parent's came from its name, and the twin's name ends in the node's name")
        .unless("it is empty", Verdict::Rewritten, "the parent's came from its name, and the twin's name ends in the node's name"),
    Rule::kept("spec.hostnameOverride", HOSTNAME, "programs may identify themselves by it")
        .added("the parent's hostname came from its name, and one with dots is allowed only here"),
    Rule::kept("spec.setHostnameAsFQDN", HOSTNAME, "programs may identify themselves by it").unless(
        "the hostname is set as hostnameOverride",
        Verdict::Dropped,
        "the two exclude each other, and without a subdomain the name is the same",
    ),
    Rule::kept("spec.subdomain", HOSTNAME, "programs may identify themselves by it").unless(
        "the pod's name contains dots and spec.hostname is not set",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "no field of a static pod can set such a name together with a subdomain",
    ),
    Rule::rewritten(
        "spec.priority",
        "plugin/pkg/admission/priority",
        "plus one: the API server then refuses a mirror pod of the twin, because its priority differs from its class's; the kubelet accepts it",
    )
    .added("the API server then refuses a mirror pod of the twin, because its priority differs from its class's"),
    Rule::kept("spec.priorityClassName", "pkg/kubelet/qos/policy.go", "the OOM score depends on the name of the class"),
    Rule::refused(
        &[Refusal::ResourceClaim],
        "spec.{resourceClaims,resources.claims,containers[*].resources.claims,initContainers[*].resources.claims}.**",
        REFERENCES,
        "the kubelet refuses resource claims in static pods",
    ),
    Rule::kept(
        "spec.{resources,containers[*].resources,initContainers[*].resources}.{limits,requests}[*]",
        "pkg/kubelet/cm",
        "cgroup limits, shares and the OOM score depend on it",
    )
    .unless(
        "it is a device plugin's and not 0",
        Verdict::Refused(&[Refusal::ExtendedResource]),
        "a plugin that has not registered yet makes the kubelet reject the pod for good",
    ),
    Rule::refused(
        &[Refusal::HugePages],
        "spec.{resources,containers[*].resources,initContainers[*].resources}.{limits,requests}[hugepages-*]",
        "pkg/kubelet/cm",
        "those of the twin and of the returning parent would be counted together",
    )
    .unless("it is 0", Verdict::Kept, "nothing is requested"),
    Rule::kept("spec.os.name", "", "linux").unless(
        "it is not linux",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "this program supports only Linux nodes",
    ),
    Rule::kept("spec.restartPolicy", "", "Always").unless(
        "it is not Always",
        Verdict::Refused(&[Refusal::RestartPolicy]),
        "a pod that runs to completion must not run twice",
    ),
    Rule::refused(
        &[Refusal::RuntimeClass],
        "spec.runtimeClassName",
        "pkg/kubelet/runtimeclass",
        "the kubelet looks the class up in the API; dropped if capture finds that its handler is the runtime's default",
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
    Rule::kept("spec.securityContext.seLinuxChangePolicy", VALIDATION, "Recursive is the behavior anyway").unless(
        "it is not Recursive",
        Verdict::Dropped,
        "it affects only volumes that a twin cannot have, and a kubelet without the feature gate SELinuxMount refuses it",
    ),
    Rule::rewritten(
        "spec.terminationGracePeriodSeconds",
        "pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer",
        "longer by the time that a twin is kept while its returning parent starts; after that it gets the parent's period",
    )
    .added("the parent's default, plus the time that a twin is kept while its returning parent starts"),
    Rule::kept(
        "spec.{containers,initContainers}[*].{args[*],command[*],name,stdin,stdinOnce,terminationMessagePath,\
         terminationMessagePolicy,tty,workingDir}",
        "",
        "the same process",
    ),
    Rule::rewritten(
        "spec.{containers,initContainers}[*].env[*].{name,value}",
        ENVIRONMENT,
        "exactly what the parent's container got (each `$` doubled); only the pod's address stays a reference",
    )
    .added("the parent's container got it from a Secret, a ConfigMap, a Service or a field"),
    Rule::concrete(
        "spec.{containers,initContainers}[*].env[*].valueFrom.{configMapKeyRef,fileKeyRef,resourceFieldRef,secretKeyRef}.**",
        REFERENCES,
        "replaced by the value that the parent's container got",
    ),
    Rule::concrete(
        "spec.{containers,initContainers}[*].env[*].valueFrom.fieldRef.{apiVersion,fieldPath}",
        ENVIRONMENT,
        "replaced by the value that the parent's container got, because the twin's own field differs",
    )
    .unless(
        "it is the pod's address, on the pod network",
        Verdict::Kept,
        "it must be the twin's address",
    ),
    Rule::concrete(
        "spec.{containers,initContainers}[*].envFrom.**",
        REFERENCES,
        "`env` has the variables that the parent's container got",
    ),
    Rule::kept("spec.{containers,initContainers}[*].image", "", "the same image").unless(
        "its tag has since been moved to another image",
        Verdict::Rewritten,
        "the twin names the image that ran, so that the same one runs again",
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
        "it keeps the twin alive while the kubelet stops it, until its parent serves again; the supervisor ends it earlier",
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
        "the ports, and with them their names, are dropped there",
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
        "expanded with the variables that the parent declares, because the twin's declarations differ",
    ),
    Rule::rewritten(
        "spec.{containers,initContainers}[*].{livenessProbe,startupProbe}.terminationGracePeriodSeconds",
        "pkg/kubelet/kuberuntime/kuberuntime_container.go killContainer",
        "1 if the container is kept alive at its end, so that a failed probe does not wait for that",
    )
    .added("the pod's period is longer by the time that a twin is kept, and a failed probe must not wait for that"),
    Rule::kept(
        "spec.{containers,initContainers}[*].readinessProbe.terminationGracePeriodSeconds",
        VALIDATION,
        "it has no effect there",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].ports[*].{containerPort,hostIP,hostPort,name,protocol}",
        "",
        "probes and port mappings use them",
    )
    .unless(
        "the pod is on the host network",
        Verdict::Dropped,
        "each would count as a host port, and the kubelet would reject the returning parent",
    ),
    Rule::kept(
        "spec.{containers[*].resizePolicy[*].resourceName,containers[*].resizePolicy[*].restartPolicy}",
        "",
        "it controls how the kubelet restarts the container",
    ),
    Rule::dropped(
        "spec.initContainers[*].resizePolicy.**",
        "pkg/kubelet/config/common.go (v1.34)",
        "kubelets up to v1.34 refuse it there in a static pod, and a twin is never resized",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].{restartPolicy,\
         restartPolicyRules[*].action,restartPolicyRules[*].exitCodes.operator,restartPolicyRules[*].exitCodes.values[*]}",
        "",
        "it controls how the kubelet restarts the container",
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
        "a block device comes from a PersistentVolumeClaim",
    ),
    Rule::kept(
        "spec.{containers,initContainers}[*].volumeMounts[*].{mountPath,mountPropagation,name,recursiveReadOnly,subPath,\
         subPathExpr}",
        "",
        "the same mount",
    ),
    Rule::kept("spec.{containers,initContainers}[*].volumeMounts[*].readOnly", "", "the same mount")
        .added("a captured volume is read-only, as for the parent; a host path would be writable")
        .unless(
            "the volume is captured",
            Verdict::Rewritten,
            "a captured volume is read-only, as for the parent; a host path would be writable",
        ),
    Rule::kept("spec.volumes[*].name", "", "mounts refer to it").unless(
        "it is not a DNS label",
        Verdict::Refused(&[Refusal::RejectedByKubeletRules]),
        "it becomes part of paths on the host",
    ),
    Rule::concrete(
        "spec.volumes[*].{configMap,downwardAPI,projected,secret}.**",
        REFERENCES,
        "the twin gets the parent's files as a host path in memory, with their contents, modes, owners and links",
    ),
    Rule::kept("spec.volumes[*].hostPath.{path,type}", "", "the same directory")
        .added("a captured volume is unpacked there"),
    Rule::kept("spec.volumes[*].{emptyDir.medium,emptyDir.sizeLimit}", "", "it starts empty, as the parent's did"),
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
        "the kubelet refuses claims in static pods, because binding and attaching need the API server; an accepted claim that capture finds bound to a local or hostPath volume becomes that path",
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
        "its claim is created through the API server",
    ),
    Rule::refused(
        &[Refusal::RejectedByKubeletRules],
        "spec.volumes[*].{awsElasticBlockStore,azureDisk,azureFile,cephfs,cinder,fc,flexVolume,flocker,gcePersistentDisk,\
         gitRepo,glusterfs,iscsi,photonPersistentDisk,portworxVolume,quobyte,rbd,scaleIO,storageos,vsphereVolume}.**",
        REFERENCES,
        "it must be attached by a controller, or the kubelet refuses it in static pods",
    ),
    Rule::dropped("status.**", "", "the kubelet determines it itself").unless(
        "the pod has ended",
        Verdict::Refused(&[Refusal::Terminating]),
        "its successor is captured",
    ),
];

/// A part of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field of an object.
    Field(String),
    /// An element of a list, or a key of a map.
    Element(String),
}

/// The path as text, for example `spec.containers[app].image`.
pub fn text(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |mut text, segment| {
        match segment {
            Segment::Field(name) if text.is_empty() => text.push_str(name),
            // writing to a string cannot fail
            Segment::Field(name) => drop(write!(text, ".{name}")),
            Segment::Element(name) => drop(write!(text, "[{name}]")),
        }
        text
    })
}

/// The inverse of [`text`], for patterns and for the paths of a schema: their elements contain no
/// bracket.
fn parse(path: &str) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some((element, after)) = rest
            .strip_prefix('[')
            .and_then(|inner| inner.split_once(']'))
        {
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
    /// The rule for this node and everything below it.
    rest: Option<&'static Rule>,
}

static TREE: LazyLock<Node> = LazyLock::new(|| {
    let mut tree = Node::default();
    for rule in RULES {
        for pattern in rule.patterns() {
            let (path, is_rest) = pattern
                .strip_suffix(".**")
                .map_or((pattern.as_str(), false), |path| (path, true));
            let node = parse(path).into_iter().fold(&mut tree, |node, segment| {
                node.below.entry(segment).or_default()
            });
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
        let Segment::Element(name) = segment else {
            return None;
        };
        let matching = self
            .below
            .iter()
            .filter_map(|(pattern, below)| match pattern {
                Segment::Element(pattern) => pattern
                    .strip_suffix('*')
                    .filter(|it| name.starts_with(it))
                    .map(|it| (it, below)),
                Segment::Field(_) => None,
            });
        matching
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, below)| below)
    }
}

/// The most specific rule for a field; `None` if no rule covers it.
pub fn of(path: &[Segment]) -> Option<&'static Rule> {
    let mut node = &*TREE;
    let mut rest = None;
    for segment in path {
        let Some(next) = node.step(segment) else {
            return rest;
        };
        node = next;
        rest = node.rest.or(rest);
    }
    node.rule.or(rest)
}

/// The first rule for something within this field that a twin may have although the parent does
/// not.
pub fn within(path: &[Segment]) -> Option<&'static Rule> {
    fn first(node: &Node) -> Option<&'static Rule> {
        let own = node.rule.or(node.rest).filter(|rule| rule.added.is_some());
        own.or_else(|| node.below.values().find_map(first))
    }
    path.iter()
        .try_fold(&*TREE, |node, segment| node.step(segment))
        .and_then(first)
}

/// Whether users choose the keys of this object, like those of labels.
pub fn has_free_keys(path: &[Segment]) -> bool {
    let node = path
        .iter()
        .try_fold(&*TREE, |node, segment| node.step(segment));
    node.is_some_and(|node| {
        node.below
            .keys()
            .any(|segment| matches!(segment, Segment::Element(_)))
    })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
