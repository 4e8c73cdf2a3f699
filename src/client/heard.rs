//! A client with a limit on every wait for an answer, and the time when the API server last
//! answered about pods.
//!
//! kube's watcher neither limits the wait for the head of an answer nor reports silence or its end:
//! a reflector's last state looks the same after an hour of silence. Code that relies on it must
//! know how old it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use kube_runtime::watcher;
use tokio::time::{Instant, timeout};

use crate::text::chain;

/// How long the head of an answer may take. The head of a watch comes at once, its events later.
const LIMIT: Duration = Duration::from_secs(15);

/// When the API server last answered a list or watch of pods. A watch is renewed every half minute.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    /// Whether the last answer is at most this old.
    pub fn is_within(&self, age: Duration) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|last| last.elapsed() <= age)
    }

    /// The age of the last answer; `None` if there was none yet.
    pub fn age(&self) -> Option<Duration> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .map(|last| last.elapsed())
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Wraps a client with the limit, and returns the time of the last answer about pods with it.
pub fn listen(client: Client) -> (Client, Heard) {
    let heard = Heard::default();
    let namespace = client.default_namespace().to_owned();
    let ear = heard.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, ear) = (client.clone(), ear.clone());
        async move {
            let of_pods = request.uri().path().ends_with("/pods");
            let response = timeout(LIMIT, client.send(request)).await??;
            if of_pods && response.status().is_success() {
                ear.now();
            }
            Ok::<_, tower::BoxError>(response)
        }
    });
    (Client::new(service, namespace), heard)
}

/// The API server's error, or why there is no answer, in one line. kube's own text repeats itself
/// and the whole status.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            format!("{} ({} {})", status.message, status.code, status.reason)
        }
        error => chain(error),
    }
}

/// Like [`explain`], for a watch.
pub fn explain_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => explain(source),
        watcher::Error::WatchError(status) => {
            format!("{} ({} {})", status.message, status.code, status.reason)
        }
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}
