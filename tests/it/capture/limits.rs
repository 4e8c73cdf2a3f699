//! Content that is hostile or too much.

use super::*;

#[tokio::test]
async fn hostile_and_oversized_volumes_are_refused_with_the_path() {
    let node = Node::new();
    std::os::unix::fs::symlink("/etc/shadow", node.volume().join("..1/out")).unwrap();
    let reasons = node.refused(&Node::pod()).await;
    assert_eq!(refusals(&reasons), [Refusal::RejectedByKubeletRules]);
    assert!(
        reasons[0].detail.contains("tls") && reasons[0].detail.contains("..1/out"),
        "{reasons:?}"
    );
    std::fs::remove_file(node.volume().join("..1/out")).unwrap();
    std::fs::File::create(node.volume().join("..1/giant"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert_eq!(
        refusals(&node.refused(&Node::pod()).await),
        [Refusal::TooLarge]
    );
}

#[tokio::test]
async fn a_manifest_longer_than_the_kubelet_reads_is_too_large() {
    let node = Node::new();
    let mut pod = Node::pod();
    pod["metadata"]["annotations"]["example.org/long"] = json!("x".repeat(9 << 20));
    assert_eq!(refusals(&node.refused(&pod).await), [Refusal::TooLarge]);
}
