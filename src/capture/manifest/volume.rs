//! Volumes: kept, captured or refused.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, NFSVolumeSource, PodSpec, Volume,
};

use super::{Mapping, keep};
use crate::capture::eligibility::is_name;
use crate::names::Refusal;

/// The kubelet's directory of a captured volume: the name of its plugin, escaped (pkg/volume, `kubernetes.io~…`).
pub fn captured_directory(volume: &Volume) -> Option<&'static str> {
    match volume {
        Volume { config_map: Some(_), .. } => Some("kubernetes.io~configmap"),
        Volume { secret: Some(_), .. } => Some("kubernetes.io~secret"),
        Volume { projected: Some(_), .. } => Some("kubernetes.io~projected"),
        Volume { downward_api: Some(_), .. } => Some("kubernetes.io~downward-api"),
        _ => None,
    }
}

pub(super) fn captured_names(spec: &PodSpec) -> BTreeSet<String> {
    let captured = spec.volumes.iter().flatten().filter(|volume| captured_directory(volume).is_some());
    captured.map(|volume| volume.name.clone()).collect()
}

impl Mapping<'_> {
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
        // Of the kinds below, those without a secret would pass the kubelet's rules, but all need somebody to attach them.
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
        if let Some(claim) = persistent_volume_claim {
            self.refuse(Refusal::PersistentVolume, format!("{path}.persistentVolumeClaim: {}", claim.claim_name));
        }
        if let Some(csi) = csi {
            self.refuse(Refusal::CsiVolume, format!("{path}.csi: {}", csi.driver));
        }
        if ephemeral.is_some() {
            self.refuse(Refusal::EphemeralVolume, format!("{path}.ephemeral"));
        }
        let is_captured = config_map.is_some() || secret.is_some() || projected.is_some() || downward_api.is_some();
        // It becomes part of paths on the host.
        if !is_name(name) || name.contains('.') {
            self.refuse(Refusal::RejectedByKubeletRules, format!("spec.volumes: {name:?} is not a name"));
        }
        Volume {
            empty_dir: empty_dir.as_ref().map(|it| keep!(it, EmptyDirVolumeSource { medium, size_limit })),
            host_path: if is_captured {
                Some(HostPathVolumeSource {
                    path: self.volumes.join(name).to_string_lossy().into_owned(),
                    type_: Some("Directory".into()),
                })
            } else {
                host_path.as_ref().map(|it| keep!(it, HostPathVolumeSource { path, type_ }))
            },
            image: image.as_ref().map(|ImageVolumeSource { pull_policy: _, reference }| ImageVolumeSource {
                pull_policy: Some("IfNotPresent".into()),
                reference: reference.clone(),
            }),
            name: name.clone(),
            nfs: nfs.as_ref().map(|it| keep!(it, NFSVolumeSource { path, read_only, server })),
            ..Volume::default()
        }
    }
}
