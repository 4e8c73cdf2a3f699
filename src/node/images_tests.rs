use super::*;

const ID: &str = "sha256:6e38f40d628db3002f5617342c8872c935de530d867d0f709a2fbda1a302a562";
const IMAGE: &str = "registry.example:5000/team/app:v1";

struct Node {
    directory: tempfile::TempDir,
    settings: Settings,
}

impl Node {
    fn new(policy: Option<&str>, allowlist: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for kind in ["pulled", "pulling"] {
            std::fs::create_dir_all(
                directory
                    .path()
                    .join("var/lib/kubelet/image_manager")
                    .join(kind),
            )
            .unwrap();
        }
        let settings = Settings {
            pull_verification: policy.map(str::to_owned),
            pull_allowlist: allowlist
                .iter()
                .map(|&pattern| pattern.to_owned())
                .collect(),
            ..Settings::default()
        };
        Self {
            directory,
            settings,
        }
    }

    fn with(self, kind: &str, key: &str, text: &str) -> Self {
        let directory = self
            .directory
            .path()
            .join("var/lib/kubelet/image_manager")
            .join(kind);
        std::fs::write(directory.join(record_name(key)), text).unwrap();
        self
    }

    fn pulled(self, repository: &str, credentials: &str) -> Self {
        let text = format!(
            r#"{{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1",
                "lastUpdatedTime":"2026-01-01T00:00:00Z","imageRef":"{ID}",
                "credentialMapping":{{"{repository}":{credentials}}}}}"#
        );
        self.with("pulled", ID, &text)
    }

    fn is_usable(&self) -> bool {
        let root = HostRoot::new(self.directory.path());
        is_usable_without_secret(
            &root,
            Path::new("/var/lib/kubelet"),
            &self.settings,
            IMAGE,
            ID,
        )
        .unwrap()
    }
}

const SECRET: &str =
    r#"{"kubernetesSecrets":[{"uid":"u","namespace":"n","name":"s","credentialHash":"h"}]}"#;
const ANYBODY: &str = r#"{"nodePodsAccessible":true}"#;
const REPOSITORY: &str = "registry.example:5000/team/app";
const POLICIES: [Option<&str>; 5] = [
    None,
    Some("NeverVerify"),
    Some("NeverVerifyPreloadedImages"),
    Some("NeverVerifyAllowlistedImages"),
    Some("AlwaysVerify"),
];

#[test]
fn the_record_of_an_image_is_named_after_the_hash_of_its_id() {
    // A name from the kubelet's own test data (pkg/kubelet/images/pullmanager/testdata/pulling).
    assert_eq!(
        record_name("docker.io/testing/test:latest"),
        "sha256-aef2af226629a35d5f3ef0fdbb29fdbebf038d0acd8850590e8c48e1e283aa56"
    );
}

#[test]
fn an_image_that_was_pulled_with_a_secret_is_usable_only_where_nothing_is_verified() {
    let usable = POLICIES.map(|policy| {
        Node::new(policy, &[])
            .pulled(REPOSITORY, SECRET)
            .is_usable()
    });
    assert_eq!(usable, [false, true, false, false, false]);
}

#[test]
fn an_image_that_was_pulled_for_every_pod_of_the_node_is_usable() {
    let usable = POLICIES.map(|policy| {
        Node::new(policy, &[])
            .pulled(REPOSITORY, ANYBODY)
            .is_usable()
    });
    assert_eq!(usable, [true; 5]);
}

#[test]
fn a_preloaded_image_is_usable_by_default_and_not_where_it_is_verified() {
    let usable = POLICIES.map(|policy| Node::new(policy, &[]).is_usable());
    assert_eq!(usable, [true, true, true, false, false]);
}

#[test]
fn an_allowed_image_is_usable_whatever_its_record() {
    for (pattern, usable) in [
        ("registry.example:5000/team/app", true),
        ("registry.example:5000/team/*", true),
        ("registry.example:5000/*", true),
        ("registry.example:5000/team/ap", false),
        ("registry.example:5000/team/ap*", false),
        ("*", false),
    ] {
        let node =
            Node::new(Some("NeverVerifyAllowlistedImages"), &[pattern]).pulled(REPOSITORY, SECRET);
        assert_eq!(node.is_usable(), usable, "{pattern}");
    }
}

#[test]
fn a_record_of_another_repository_with_the_same_content_does_not_count() {
    assert!(
        !Node::new(None, &[])
            .pulled("registry.example:5000/other", ANYBODY)
            .is_usable()
    );
}

#[test]
fn a_pull_that_was_begun_and_not_recorded_needs_the_secret_again() {
    let intent = format!(r#"{{"image":"{IMAGE}"}}"#);
    assert!(
        !Node::new(None, &[])
            .with("pulling", IMAGE, &intent)
            .is_usable()
    );
    assert!(
        Node::new(None, &[])
            .with("pulling", IMAGE, r#"{"image":"other"}"#)
            .is_usable()
    );
    assert!(
        !Node::new(None, &[])
            .with("pulling", IMAGE, "torn")
            .is_usable()
    );
}

#[test]
fn a_damaged_record_makes_the_kubelet_pull() {
    assert!(!Node::new(None, &[]).with("pulled", ID, "{").is_usable());
}

#[test]
fn a_record_that_names_another_id_is_no_record() {
    assert!(
        Node::new(None, &[])
            .with("pulled", ID, r#"{"imageRef":"other"}"#)
            .is_usable()
    );
}

#[test]
fn tag_and_digest_are_no_part_of_the_repository() {
    for (image, expected) in [
        ("app", Some("app")),
        ("app:v1", Some("app")),
        ("r:5000/app", Some("r:5000/app")),
        ("r:5000/app:v1@sha256:00", Some("r:5000/app")),
        ("r/app@sha256:00", Some("r/app")),
        ("", None),
        ("@sha256:00", None),
    ] {
        assert_eq!(repository(image), expected, "{image}");
    }
}
