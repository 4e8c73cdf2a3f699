//! The client of the container runtime.

use std::error::Error as _;
use std::time::{Duration, Instant};

use pod_checkpointer::node::runtime::{Error, Runtime as Client, State};

use crate::stub::runtime::{Call, Spec};
use crate::stub::{Fault, PATIENCE, Pod, Runtime};

const SHORT: Duration = Duration::from_millis(200);

/// A pod with two containers of different images, the first of them an init container.
fn pod() -> Pod {
    let mut pod = Pod::new("shop", "web-1", "uid-web");
    let init = Spec {
        is_init: true,
        ..Spec::new("setup", "registry.example/setup:v2")
    };
    let main = Spec {
        env: vec![
            ("LEVEL".into(), "high".into()),
            ("EMPTY".into(), String::new()),
        ],
        mounts: vec![(
            "/etc/web".into(),
            "/var/lib/kubelet/pods/uid-web/volumes/web".into(),
        )],
        ..Spec::new("web", "registry.example/web:v1")
    };
    pod.containers = vec![init, main];
    pod
}

fn started() -> (Runtime, Client) {
    let runtime = Runtime::start();
    runtime.change(|state| {
        state
            .images
            .insert("registry.example/web:v1".into(), "sha256:web".into());
        state
            .images
            .insert("registry.example/setup:v2".into(), "sha256:setup".into());
        state.run(&pod());
        state.run(&Pod::new("shop", "cart-1", "uid-cart"));
    });
    let client = runtime.client(PATIENCE);
    (runtime, client)
}

#[tokio::test]
async fn a_runtime_reports_its_name_and_version() {
    let (runtime, client) = started();
    runtime.change(|state| (state.name, state.version) = ("cri-o".into(), "1.37.0".into()));
    let version = client.version().await.unwrap();
    assert_eq!(
        (version.name.as_str(), version.version.as_str()),
        ("cri-o", "1.37.0")
    );
}

#[tokio::test]
async fn sandboxes_carry_the_pod_and_where_the_kubelet_knows_it_from() {
    let (runtime, client) = started();
    runtime.change(|state| state.sandboxes.values_mut().next().unwrap().ready = false);
    let sandboxes = client.sandboxes().await.unwrap();
    assert_eq!(sandboxes.len(), 2);
    let web = sandboxes
        .iter()
        .find(|sandbox| sandbox.uid == "uid-web")
        .unwrap();
    assert_eq!(
        (web.namespace.as_str(), web.name.as_str(), web.ready),
        ("shop", "web-1", false)
    );
    assert_eq!(web.annotations["kubernetes.io/config.source"], "api");
    assert!(
        sandboxes
            .iter()
            .any(|sandbox| sandbox.uid == "uid-cart" && sandbox.ready)
    );
}

#[tokio::test]
async fn containers_name_their_image_as_the_pod_does_and_as_the_runtime_does() {
    let (_runtime, client) = started();
    let containers = client.containers_of("uid-web").await.unwrap();
    assert_eq!(client.containers().await.unwrap().len(), 3);
    assert_eq!(containers.len(), 2);
    let web = containers
        .iter()
        .find(|container| container.name == "web")
        .unwrap();
    assert_eq!(
        (web.pod_uid.as_str(), web.state),
        ("uid-web", State::Running)
    );
    assert_eq!(
        (web.image.as_str(), web.image_id.as_str()),
        ("registry.example/web:v1", "sha256:web")
    );
    let setup = containers
        .iter()
        .find(|container| container.name == "setup")
        .unwrap();
    assert_eq!(
        (setup.state, setup.image_id.as_str()),
        (State::Exited, "sha256:setup")
    );
    assert_eq!(web.sandbox, setup.sandbox);
}

#[tokio::test]
async fn verbose_status_shows_the_environment_in_the_form_of_each_runtime() {
    let (runtime, client) = started();
    let web = client
        .containers_of("uid-web")
        .await
        .unwrap()
        .into_iter()
        .find(|one| one.name == "web")
        .unwrap();
    let detail = client.detail(&web.id).await.unwrap().unwrap();
    assert_eq!(
        (detail.state, detail.image_id.as_str()),
        (State::Running, "sha256:web")
    );
    assert!(detail.started > 0);
    assert_eq!(
        detail.info["config"]["envs"],
        serde_json::json!([{"key": "LEVEL", "value": "high"}, {"key": "EMPTY", "value": ""}])
    );

    runtime.change(|state| state.name = "cri-o".into());
    let detail = client.detail(&web.id).await.unwrap().unwrap();
    assert_eq!(detail.info.get("config"), None);
    let env = detail.info["runtimeSpec"]["process"]["env"]
        .as_array()
        .unwrap();
    assert!(env.contains(&"LEVEL=high".into()));
}

#[tokio::test]
async fn an_answer_larger_than_what_grpc_takes_by_default_is_read() {
    let (runtime, client) = started();
    let value = "v".repeat(6 * 1024 * 1024);
    let id = runtime.change(|state| {
        let (id, container) = state
            .containers
            .iter_mut()
            .find(|(_, one)| one.spec.name == "web")
            .unwrap();
        container.spec.env = vec![("BIG".into(), value.clone())];
        id.clone()
    });
    let detail = client.detail(&id).await.unwrap().unwrap();
    assert_eq!(
        detail.info["config"]["envs"][0]["value"]
            .as_str()
            .map(str::len),
        Some(value.len())
    );
}

#[tokio::test]
async fn an_absent_object_is_none_and_not_an_error() {
    let (_runtime, client) = started();
    assert_eq!(client.detail("container-none").await.unwrap(), None);
    assert_eq!(
        client.image("registry.example/none:v1").await.unwrap(),
        None
    );
    assert_eq!(
        client
            .image("registry.example/web:v1")
            .await
            .unwrap()
            .as_deref(),
        Some("sha256:web")
    );
}

#[tokio::test]
async fn stopping_passes_the_grace_period_in_whole_seconds_and_stops() {
    let (runtime, client) = started();
    let web = client
        .containers_of("uid-web")
        .await
        .unwrap()
        .into_iter()
        .find(|one| one.name == "web")
        .unwrap();
    client
        .stop_container(&web.id, Duration::from_millis(1500))
        .await
        .unwrap();
    assert_eq!(
        runtime.state.borrow().calls,
        [Call::StopContainer(web.id.clone(), 2)]
    );
    assert_eq!(
        client.detail(&web.id).await.unwrap().unwrap().state,
        State::Exited
    );

    client.stop_sandbox(&web.sandbox).await.unwrap();
    client.remove_sandbox(&web.sandbox).await.unwrap();
    assert_eq!(client.containers_of("uid-web").await.unwrap(), []);
    assert_eq!(client.sandboxes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn stopping_what_is_gone_is_success() {
    let (_runtime, client) = started();
    client
        .stop_container("container-none", Duration::ZERO)
        .await
        .unwrap();
    client.stop_sandbox("sandbox-none").await.unwrap();
    client.remove_sandbox("sandbox-none").await.unwrap();
}

#[tokio::test]
async fn a_stop_may_take_the_grace_period_and_no_other_call_longer_than_the_limit() {
    let (runtime, _) = started();
    let client = runtime.client(SHORT);
    let id = runtime.change(|state| {
        let (id, container) = state
            .containers
            .iter_mut()
            .find(|(_, one)| one.spec.name == "web")
            .unwrap();
        container.spec.ends_after = SHORT * 2;
        id.clone()
    });
    client
        .stop_container(&id, Duration::from_secs(5))
        .await
        .unwrap();

    runtime.change(|state| state.fault = Fault::Hang);
    let error = client.sandboxes().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TimedOut {
                call: "ListPodSandbox",
                limit: SHORT,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_runtime_that_hung_is_asked_again_on_a_new_connection() {
    let (runtime, _) = started();
    let client = runtime.client(SHORT);
    runtime.change(|state| state.fault = Fault::Hang);
    client.version().await.unwrap_err();
    runtime.change(|state| state.fault = Fault::None);
    client.version().await.unwrap();
}

#[tokio::test]
async fn a_refused_call_names_the_call_and_the_runtimes_answer() {
    let (runtime, client) = started();
    runtime.change(|state| state.fault = Fault::Error);
    let error = client.containers().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the container runtime answered ListContainers with an error"
    );
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("the stub was told to say so")
    );
}

#[tokio::test]
async fn without_a_runtime_the_error_comes_at_once_and_names_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("none.sock");
    let began = Instant::now();
    let error = Client::new(absent.clone(), PATIENCE)
        .version()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Connect(socket, _) if *socket == absent),
        "{error:?}"
    );
    assert!(began.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn a_runtime_that_restarts_is_found_again_without_a_failed_call() {
    let (runtime, client) = started();
    client.version().await.unwrap();
    runtime.stop().await;
    assert!(matches!(
        client.version().await.unwrap_err(),
        Error::Connect(..)
    ));
    runtime.resume();
    client.version().await.unwrap();

    runtime.stop().await;
    runtime.resume();
    client.version().await.unwrap();
}

#[tokio::test]
async fn a_socket_that_speaks_something_else_is_an_error_within_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("other.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        stream
    });
    let error = Client::new(socket, PATIENCE).version().await.unwrap_err();
    assert!(matches!(error, Error::Connect(..)), "{error:?}");
    server.abort();
}
