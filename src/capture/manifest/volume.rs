//! Volumes: kept, captured or refused.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, NFSVolumeSource,
    PersistentVolumeClaimVolumeSource, PodSpec, Volume,
};

use super::{Answers, Mapping, keep};
use crate::capture::claims::Place;
use crate::pod::names::is_name;
use crate::reasons::Refusal;

/// The kubelet's directory for a captured volume, which is the escaped name of its plugin
/// (pkg/volume); `None` if the volume is not captured.
pub fn captured_directory(volume: &Volume) -> Option<&'static str> {
    match volume {
        Volume {
            config_map: Some(_),
            ..
        } => Some("kubernetes.io~configmap"),
        Volume {
            secret: Some(_), ..
        } => Some("kubernetes.io~secret"),
        Volume {
            projected: Some(_), ..
        } => Some("kubernetes.io~projected"),
        Volume {
            downward_api: Some(_),
            ..
        } => Some("kubernetes.io~downward-api"),
        _ => None,
    }
}

/// A path that exists on no node, so that the kubelet refuses it because of the type `Directory`.
const UNKNOWN: &str = "/known-when-captured";

impl Mapping<'_> {
    /// Volumes that were read-only for the parent, whatever its mounts say.
    pub(super) fn read_only(&self, spec: &PodSpec) -> BTreeSet<String> {
        let is_read_only = |volume: &&Volume| {
            captured_directory(volume).is_some()
                || volume
                    .persistent_volume_claim
                    .as_ref()
                    .is_some_and(|claim| {
                        claim.read_only == Some(true)
                            || self
                                .place(&volume.name)
                                .is_some_and(|place| place.read_only)
                    })
        };
        spec.volumes
            .iter()
            .flatten()
            .filter(is_read_only)
            .map(|volume| volume.name.clone())
            .collect()
    }

    fn place(&self, volume: &str) -> Option<&Place> {
        match &self.live.answers {
            Answers::All { claims, .. } => claims.get(volume)?.as_ref().ok(),
            Answers::Nothing | Answers::Later => None,
        }
    }

    /// The host path of a claim's volume. `readOnly` of the claim is applied to the mounts.
    fn claim(
        &mut self,
        name: &str,
        claim: &PersistentVolumeClaimVolumeSource,
    ) -> HostPathVolumeSource {
        let PersistentVolumeClaimVolumeSource {
            claim_name,
            read_only: _,
        } = claim;
        let path = format!("spec.volumes[{name}].persistentVolumeClaim: {claim_name}");
        let against = match &self.live.answers {
            _ if !self.accepts_claims => Some(path),
            Answers::Nothing => Some(format!("{path}: only its node knows which volume it is")),
            Answers::Later => None,
            Answers::All { claims, .. } => match claims.get(name) {
                Some(Ok(_)) => None,
                Some(Err(why)) => Some(format!("{path}: {why}")),
                None => Some(format!(
                    "{path}: its node does not report which volume it is"
                )),
            },
        };
        if let Some(detail) = against {
            self.refuse(Refusal::PersistentVolume, detail);
        }
        match self.place(name) {
            Some(Place {
                path,
                kind,
                read_only: _,
            }) => HostPathVolumeSource {
                path: path.clone(),
                type_: Some((*kind).to_owned()),
            },
            None => HostPathVolumeSource {
                path: format!("{UNKNOWN}/{claim_name}"),
                type_: Some("Directory".into()),
            },
        }
    }

    pub(super) fn volume(&mut self, volume: &Volume) -> Volume {
        let Volume {
            aws_elastic_block_store,
            azure_disk,
            azure_file,
            cephfs,
            cinder,
            config_map,
            csi,
            downward_api,
            empty_dir,
            ephemeral,
            fc,
            flex_volume,
            flocker,
            gce_persistent_disk,
            git_repo,
            glusterfs,
            host_path,
            image,
            iscsi,
            name,
            nfs,
            persistent_volume_claim,
            photon_persistent_disk,
            portworx_volume,
            projected,
            quobyte,
            rbd,
            scale_io,
            secret,
            storageos,
            vsphere_volume,
        } = volume;
        let path = format!("spec.volumes[{name}]");
        // some of these kinds would pass the kubelet's rules if they need no Secret, but all must
        // be attached by a controller
        let attached = [
            ("awsElasticBlockStore", aws_elastic_block_store.is_some()),
            ("azureDisk", azure_disk.is_some()),
            ("azureFile", azure_file.is_some()),
            ("cephfs", cephfs.is_some()),
            ("cinder", cinder.is_some()),
            ("fc", fc.is_some()),
            ("flexVolume", flex_volume.is_some()),
            ("flocker", flocker.is_some()),
            ("gcePersistentDisk", gce_persistent_disk.is_some()),
            ("gitRepo", git_repo.is_some()),
            ("glusterfs", glusterfs.is_some()),
            ("iscsi", iscsi.is_some()),
            ("photonPersistentDisk", photon_persistent_disk.is_some()),
            ("portworxVolume", portworx_volume.is_some()),
            ("quobyte", quobyte.is_some()),
            ("rbd", rbd.is_some()),
            ("scaleIO", scale_io.is_some()),
            ("storageos", storageos.is_some()),
            ("vsphereVolume", vsphere_volume.is_some()),
        ];
        for (kind, _) in attached.iter().filter(|(_, is_set)| *is_set) {
            self.refuse(Refusal::RejectedByKubeletRules, format!("{path}.{kind}"));
        }
        let claim = persistent_volume_claim
            .as_ref()
            .map(|claim| self.claim(name, claim));
        if let Some(csi) = csi {
            self.refuse(Refusal::CsiVolume, format!("{path}.csi: {}", csi.driver));
        }
        if ephemeral.is_some() {
            self.refuse(Refusal::EphemeralVolume, format!("{path}.ephemeral"));
        }
        let is_captured = config_map.is_some()
            || secret.is_some()
            || projected.is_some()
            || downward_api.is_some();
        // the name becomes part of paths on the host
        if !is_name(name) || name.contains('.') {
            self.refuse(
                Refusal::RejectedByKubeletRules,
                format!("spec.volumes: {name:?} is not a valid name"),
            );
        }
        Volume {
            empty_dir: empty_dir
                .as_ref()
                .map(|it| keep!(it, EmptyDirVolumeSource { medium, size_limit })),
            host_path: if is_captured {
                Some(HostPathVolumeSource {
                    path: self.volumes.join(name).to_string_lossy().into_owned(),
                    type_: Some("Directory".into()),
                })
            } else if claim.is_some() {
                claim
            } else {
                host_path
                    .as_ref()
                    .map(|it| keep!(it, HostPathVolumeSource { path, type_ }))
            },
            image: image.as_ref().map(
                |ImageVolumeSource {
                     pull_policy: _,
                     reference,
                 }| {
                    ImageVolumeSource {
                        pull_policy: Some("IfNotPresent".into()),
                        reference: self
                            .live
                            .image_volumes
                            .get(name)
                            .or(reference.as_ref())
                            .cloned(),
                    }
                },
            ),
            name: name.clone(),
            nfs: nfs.as_ref().map(|it| {
                keep!(
                    it,
                    NFSVolumeSource {
                        path,
                        read_only,
                        server
                    }
                )
            }),
            ..Volume::default()
        }
    }
}
