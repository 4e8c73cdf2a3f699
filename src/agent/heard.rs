//! The API server's client with a limit on every wait for an answer, and the time of the last one.
//!
//! kube's watcher neither limits the wait for an answer's head nor says that it hears nothing: a reflector's last state
//! looks the same after an hour of silence. Whoever relies on the API server's word must know how old it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, timeout};

/// How long the head of an answer may take. A watch's head comes at once, its events later.
const LIMIT: Duration = Duration::from_secs(15);

/// When the API server last answered, with anything but a fault of its own.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    /// Was it heard within this time?
    pub fn is_within(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|last| last.elapsed() <= age)
    }

    /// How long ago it was last heard.
    pub fn age(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// The same client, bounded, with the time of its last answer.
pub fn listen(client: Client) -> (Client, Heard) {
    let heard = Heard::default();
    let namespace = client.default_namespace().to_owned();
    let ear = heard.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, ear) = (client.clone(), ear.clone());
        async move {
            let response = timeout(LIMIT, client.send(request)).await??;
            if !response.status().is_server_error() {
                ear.now();
            }
            Ok::<_, tower::BoxError>(response)
        }
    });
    (Client::new(service, namespace), heard)
}
