//! The custom resources, as the API server knows them.

pub mod condition;
pub mod podcheckpoint;
pub mod podcheckpointer;

use kube::CustomResourceExt as _;

pub use condition::condition;
pub use podcheckpoint::{LastOutage, PodCheckpoint, PodCheckpointSpec, PodCheckpointStatus};
pub use podcheckpointer::{PodCheckpointer, PodCheckpointerSpec, PodCheckpointerStatus};

/// Every custom resource definition as YAML, with the name of its file in `crds/`.
pub fn definitions() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    [PodCheckpoint::crd(), PodCheckpointer::crd()]
        .into_iter()
        .map(|definition| {
            let name = format!(
                "{}.yaml",
                definition.metadata.name.as_deref().unwrap_or_default()
            );
            Ok((name, serde_yaml::to_string(&definition)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_crds_are_what_the_program_prints() {
        for (name, text) in definitions().unwrap() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("crds")
                .join(&name);
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(kept, text, "run `pod-checkpointer crd --directory crds`");
        }
    }
}
