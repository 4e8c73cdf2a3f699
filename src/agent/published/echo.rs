//! Watches the metadata of the PodCheckpoints of this node, so that one that was deleted, alone or
//! with its definition, is written again. The watch starts with the existing objects, so they never
//! have to be listed.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kube::api::{Api, PartialObjectMeta, WatchEvent, WatchParams};
use kube::{Client, Error, ResourceExt as _};
use tokio::time::{Instant, sleep};

use crate::api::podcheckpoint::{PodCheckpoint, node_selector};
use crate::client::retry::Retry;
use crate::pod::id::PodId;

/// Seconds after which the server ends a watch; the next one continues where it ended.
const WATCH_SECONDS: u32 = 240;
/// Longest silence on its connection.
pub(crate) const SILENCE: Duration = Duration::from_secs(255);
/// Between attempts: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(2));
/// A watch that lasted this long was healthy.
const WELL: Duration = Duration::from_secs(20);
/// Resource version for the existing objects, from the server's cache.
const ANY: &str = "0";

/// What the watch reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// The watch starts: each existing object is reported within seconds.
    Begins,
    /// The object of this pod exists.
    There(PodId),
    /// The object of this pod, with this UID, was deleted.
    Gone(PodId, Option<String>),
}

type Events = BoxStream<'static, Result<WatchEvent<PartialObjectMeta<PodCheckpoint>>, Error>>;

struct State {
    api: Api<PodCheckpoint>,
    params: WatchParams,
    version: String,
    /// The events of the watch, and when it began.
    events: Option<(Events, Instant)>,
    retry: Retry,
}

/// Everything that happens to the PodCheckpoints of this node. Continues after a pause when there
/// is a fault; never ends.
pub(crate) fn checkpoints(client: Client, node: &str) -> impl Stream<Item = Echo> + use<> {
    let state = State {
        api: Api::all(client),
        params: WatchParams::default()
            .labels(&node_selector(node))
            .timeout(WATCH_SECONDS),
        version: ANY.to_owned(),
        events: None,
        retry: Retry::new(PAUSES.0, PAUSES.1),
    };
    stream::unfold(state, |mut state| async {
        loop {
            let Some((events, begun)) = &mut state.events else {
                match state
                    .api
                    .watch_metadata(&state.params, &state.version)
                    .await
                {
                    Ok(events) => state.events = Some((events.boxed(), Instant::now())),
                    Err(error) => {
                        tracing::debug!("cannot start the watch of PodCheckpoints: {error}");
                        forget(&mut state.version, &error);
                        sleep(state.retry.pause()).await;
                    }
                }
                if state.events.is_some() && state.version == ANY {
                    return Some((Echo::Begins, state));
                }
                continue;
            };
            let error = match events
                .next()
                .await
                .map(|event| event.and_then(|event| take(event, &mut state.version)))
            {
                Some(Ok(Some(echo))) => return Some((echo, state)),
                Some(Ok(None)) => continue,
                Some(Err(error)) => Some(error),
                None => None,
            };
            let lasted = begun.elapsed();
            state.events = None;
            let is_well = lasted > WELL;
            if is_well {
                state.retry.reset();
            }
            if let Some(error) = &error {
                tracing::debug!("the watch of PodCheckpoints: {error}");
                forget(&mut state.version, error);
            }
            // a watch that ended at its time limit continues at once
            if error.is_some() || !is_well {
                sleep(state.retry.pause()).await;
            }
        }
    })
}

/// What an event says. The existing objects are reported in no order at the start, so the watch
/// cannot continue from any of them before the first bookmark.
fn take(
    event: WatchEvent<PartialObjectMeta<PodCheckpoint>>,
    version: &mut String,
) -> Result<Option<Echo>, Error> {
    let key = |object: &PartialObjectMeta<PodCheckpoint>| {
        PodId::new(&object.namespace().unwrap_or_default(), &object.name_any()).ok()
    };
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            go_on(version, &object);
            Ok(key(&object).map(Echo::There))
        }
        WatchEvent::Deleted(object) => {
            go_on(version, &object);
            Ok(key(&object).map(|key| Echo::Gone(key, object.uid())))
        }
        WatchEvent::Bookmark(bookmark) => {
            *version = bookmark.metadata.resource_version;
            Ok(None)
        }
        WatchEvent::Error(status) => Err(Error::Api(status)),
    }
}

fn go_on(version: &mut String, object: &PartialObjectMeta<PodCheckpoint>) {
    if version != ANY {
        *version = object.resource_version().unwrap_or_else(|| ANY.to_owned());
    }
}

/// The server does not have this resource version any more, or does not know the kind: the watch
/// must start over.
fn forget(version: &mut String, error: &Error) {
    if matches!(error, Error::Api(status) if matches!(status.code, 404 | 410)) {
        ANY.clone_into(version);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(version: &str) -> PartialObjectMeta<PodCheckpoint> {
        let metadata =
            json!({"namespace": "shop", "name": "till", "uid": "u1", "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn error(code: u16) -> Box<kube::core::Status> {
        Box::new(kube::core::Status {
            code,
            ..kube::core::Status::default()
        })
    }

    #[test]
    fn events_are_reported_and_the_watch_continues_from_the_last_once_the_first_look_is_over() {
        let mut version = ANY.to_owned();
        let there = Echo::There("shop_till".parse().unwrap());
        assert_eq!(
            take(WatchEvent::Added(object("7")), &mut version).unwrap(),
            Some(there.clone())
        );
        assert_eq!(version, ANY, "others may not have been reported yet");
        let bookmark = serde_json::from_value(
            json!({"kind": "PodCheckpoint", "apiVersion": "podcheckpointer.io/v1alpha1",
            "metadata": {"resourceVersion": "8"}}),
        );
        assert_eq!(
            take(WatchEvent::Bookmark(bookmark.unwrap()), &mut version).unwrap(),
            None
        );
        assert_eq!(version, "8");
        assert_eq!(
            take(WatchEvent::Modified(object("9")), &mut version).unwrap(),
            Some(there)
        );
        let gone = Echo::Gone("shop_till".parse().unwrap(), Some("u1".into()));
        assert_eq!(
            take(WatchEvent::Deleted(object("10")), &mut version).unwrap(),
            Some(gone)
        );
        assert_eq!(version, "10");
        let failed = take(WatchEvent::Error(error(500)), &mut version).unwrap_err();
        forget(&mut version, &failed);
        assert_eq!(version, "10", "a fault is not forgetting");
        let failed = take(WatchEvent::Error(error(410)), &mut version).unwrap_err();
        forget(&mut version, &failed);
        assert_eq!(version, ANY);
    }
}
