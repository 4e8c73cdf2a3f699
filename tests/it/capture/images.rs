//! Which image a twin names.

use super::*;

#[tokio::test]
async fn images_are_looked_up_by_name_then_by_what_ran() {
    let node = Node::new();
    node.container("web", |container| {
        container.spec.image_id = Some("sha256:0e0e".into());
    });
    let named = async || {
        let checkpoint = node.capture(&Node::pod()).await.unwrap();
        (
            checkpoint.manifest["spec"]["containers"][0]["image"].clone(),
            checkpoint.images["web"].id.clone(),
        )
    };
    assert_eq!(named().await, (json!(WEB), "sha256:0e0e".into()));
    // The tag moved: what ran is named by its id.
    node.change(|state| drop(state.images.insert(WEB.into(), "sha256:beef".into())));
    assert_eq!(named().await, (json!("sha256:0e0e"), "sha256:0e0e".into()));
    // The tag is gone altogether.
    node.change(|state| drop(state.images.remove(WEB)));
    assert_eq!(named().await, (json!("sha256:0e0e"), "sha256:0e0e".into()));
    // The image that ran is gone too; another image with the same name does not replace it.
    node.change(|state| drop(state.images.remove("sha256:0e0e")));
    assert_eq!(
        refusals(&node.refused(&Node::pod()).await),
        [Refusal::ImageAbsent]
    );
    node.change(|state| drop(state.images.insert(WEB.into(), "sha256:beef".into())));
    assert_eq!(
        refusals(&node.refused(&Node::pod()).await),
        [Refusal::ImageAbsent]
    );
}

#[tokio::test]
async fn an_image_that_needs_a_pull_secret_is_refused_for_containers_and_for_volumes() {
    let mut node = Node::new();
    node.settings.pull_verification = Some("AlwaysVerify".into());
    let mut pod = Node::pod();
    let image =
        |name: &str, reference: &str| json!({"name": name, "image": {"reference": reference}});
    pod["spec"]["volumes"] = json!([
        image("data", WEB),
        image("absent", "registry.example/absent:1")
    ]);
    let reasons = node.refused(&pod).await;
    let needs = Refusal::ImageNeedsPullSecret;
    assert_eq!(
        refusals(&reasons),
        [needs, needs, needs, Refusal::ImageAbsent],
        "{reasons:?}"
    );
}

#[tokio::test]
async fn an_image_whose_tag_moved_is_named_by_its_digest_in_the_same_repository() {
    const DIGEST: &str = "@sha256:00000000000000000000000000000000000000000000000000000000000000d1";
    let mut node = Node::new();
    node.container("web", |container| {
        container.spec.image_id = Some("sha256:0e0e".into());
    });
    let named = format!("registry.example/web{DIGEST}");
    node.change(|state| {
        state.images.insert(WEB.into(), "sha256:beef".into());
        // A runtime spells names out.
        state.digests.insert(
            "sha256:0e0e".into(),
            format!("spelt.out/registry.example/web{DIGEST}"),
        );
        state.images.insert(named.clone(), "sha256:0e0e".into());
    });
    let checkpoint = node.capture(&Node::pod()).await.unwrap();
    assert_eq!(
        checkpoint.manifest["spec"]["containers"][0]["image"],
        json!(named)
    );
    assert_eq!(
        checkpoint.images["web"],
        Image {
            name: named.clone(),
            id: "sha256:0e0e".into()
        }
    );

    // The kubelet's pull record names the repository: by that name any pod may use the image, by
    // its bare id none.
    node.settings.pull_verification = Some("AlwaysVerify".into());
    let record = |id: &str, repository: &str| {
        let name = format!("var/lib/kubelet/image_manager/pulled/sha256-{}", sha256(id));
        let mapping = json!({repository: {"nodePodsAccessible": true}});
        node.file(
            &name,
            &json!({"imageRef": id, "credentialMapping": mapping}).to_string(),
        );
    };
    record("sha256:0e0e", "registry.example/web");
    record("sha256:7001", "registry.example/tools");
    assert_eq!(
        node.capture(&Node::pod()).await.unwrap().images["web"].name,
        named
    );
    node.change(|state| drop(state.images.remove(&named)));
    let reasons = node.refused(&Node::pod()).await;
    assert_eq!(
        refusals(&reasons),
        [Refusal::ImageNeedsPullSecret],
        "{reasons:?}"
    );
}

fn sha256(text: &str) -> String {
    pod_checkpointer::checkpoint::encoding::sha256(text.as_bytes())
        .trim_start_matches("sha256:")
        .to_owned()
}

#[tokio::test]
async fn an_image_volume_is_pinned_by_what_was_mounted() {
    const DATA: &str = "registry.example/data:1";
    let node = Node::new();
    let mut pod = Node::pod();
    pod["spec"]["volumes"] =
        json!([{"name": "data", "image": {"reference": DATA, "pullPolicy": "Always"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data", "subPath": "www"}]);
    node.container("web", |container| {
        container.spec.image_mounts = vec![("/data".into(), "sha256:da7a".into())];
    });
    node.change(|state| {
        state.images.insert(DATA.into(), "sha256:da7a".into());
        state
            .images
            .insert("sha256:da7a".into(), "sha256:da7a".into());
    });
    let named = async || {
        let checkpoint = node.capture(&pod).await.unwrap();
        let volume = &checkpoint.manifest["spec"]["volumes"][0]["image"];
        assert_eq!(volume["pullPolicy"], "IfNotPresent");
        assert_eq!(checkpoint.images["volume data"].id, "sha256:da7a");
        assert_eq!(
            json!(checkpoint.images["volume data"].name),
            volume["reference"]
        );
        volume["reference"].clone()
    };
    assert_eq!(named().await, json!(DATA));
    node.change(|state| drop(state.images.insert(DATA.into(), "sha256:beef".into())));
    assert_eq!(named().await, json!("sha256:da7a"));
    node.change(|state| drop(state.images.remove("sha256:da7a")));
    assert_eq!(refusals(&node.refused(&pod).await), [Refusal::ImageAbsent]);
}
