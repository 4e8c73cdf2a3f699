//! The API server's client with a limit on every wait for an answer, and the time of its last word on pods.
//!
//! kube's watcher neither limits the wait for an answer's head nor says that it hears nothing, or that it hears again: a
//! reflector's last state looks the same after an hour of silence. Whoever relies on a word must know how old it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use kube_runtime::watcher;
use tokio::time::{Instant, timeout};

use crate::text::chain;

/// How long the head of an answer may take. A watch's head comes at once, its events later.
const LIMIT: Duration = Duration::from_secs(15);

/// When the API server last let us list or watch pods. A watch begins anew every half minute.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    /// Was it within this time?
    pub fn is_within(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last.elapsed() <= age)
    }

    /// How long ago it was.
    pub fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// The same client, bounded, with the time of the last word on pods.
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

/// What the API server said, or why it said nothing, in one line. kube's own text repeats itself and the whole status.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        error => chain(error),
    }
}

/// The same of the watch.
pub fn explain_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => explain(source),
        watcher::Error::WatchError(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}
