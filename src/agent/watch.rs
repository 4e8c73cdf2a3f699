//! The watch of the pods of this node, as JSON, so that fields newer than the program's types
//! survive; and the watch of the labels of namespaces, used only where these can mark pods.
//!
//! A list comes in pages, once; afterwards the server ends each watch after half a minute and it
//! goes on from where it was, so a connection that died silently is noticed, and nothing is listed
//! again unless the resource version has expired.

use std::time::Duration;

use futures::{Stream, StreamExt as _, future};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube_runtime::{WatchStreamExt as _, watcher};
use tokio::time::Instant;

/// Seconds after which the server ends a watch; the watcher gives up on a silent one 5 s later.
const WATCH_SECONDS: u32 = 30;
/// Pods in a page of the list: what is in memory parsed at a time, and what the heap keeps of it
/// afterwards. Pages of 16 cost 3 MB more with 110 pods than pages of 4.
const PAGE: u32 = 4;
/// Namespaces in a page; each is small.
const NAMESPACE_PAGE: u32 = 100;

/// How soon a second 410 after the last one counts as an ordinary fault.
const FORGOTTEN_AGAIN: Duration = Duration::from_mins(1);

/// The type of pods, without a type.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&())
}

/// Everything that happens to the pods of this node. Continues after a pause when there is a fault.
pub(crate) fn pods(
    client: kube::Client,
    node: &str,
) -> impl Stream<Item = Result<watcher::Event<DynamicObject>, watcher::Error>> + use<> {
    let api: Api<DynamicObject> = Api::all_with(client, &resource());
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .page_size(PAGE)
        .timeout(WATCH_SECONDS);
    listed_at_once(watcher(api, config)).default_backoff()
}

/// Everything that happens to namespaces, as metadata only.
pub(crate) fn namespaces(
    client: kube::Client,
) -> impl Stream<Item = Result<watcher::Event<PartialObjectMeta<Namespace>>, watcher::Error>> + use<>
{
    let config = watcher::Config::default()
        .page_size(NAMESPACE_PAGE)
        .timeout(WATCH_SECONDS);
    listed_at_once(watcher(
        Api::<PartialObjectMeta<Namespace>>::all(client),
        config,
    ))
    .default_backoff()
}

/// Drops errors with the code 410 (resource version expired), so that the watcher lists again at
/// once.
///
/// An API server sends one after an outage, once the watch has begun. The back-off has reached its
/// longest pause by then: up to a minute in which the agent would know nothing although the server
/// answers. Repeated errors of this kind are met with pauses.
fn listed_at_once<T>(
    events: impl Stream<Item = Result<watcher::Event<T>, watcher::Error>>,
) -> impl Stream<Item = Result<watcher::Event<T>, watcher::Error>> {
    let mut forgotten: Option<Instant> = None;
    events.filter(move |event| {
        let is_forgotten =
            matches!(event, Err(watcher::Error::WatchError(status)) if status.code == 410);
        let is_again =
            is_forgotten && forgotten.is_some_and(|last| last.elapsed() < FORGOTTEN_AGAIN);
        if is_forgotten {
            forgotten = Some(Instant::now());
        }
        future::ready(!is_forgotten || is_again)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_410_the_watcher_lists_again_without_a_pause_once_in_a_minute() {
        let faults = async |code: u16, seconds: &[u64]| {
            let status = kube::core::Status {
                code,
                ..kube::core::Status::default()
            };
            let events = futures::stream::iter(seconds.to_vec()).then(move |seconds| {
                let error = watcher::Error::WatchError(Box::new(status.clone()));
                async move {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    Err::<watcher::Event<()>, _>(error)
                }
            });
            listed_at_once(events).count().await
        };
        assert_eq!(faults(410, &[0]).await, 0);
        assert_eq!(faults(410, &[0, 60, 60]).await, 0);
        assert_eq!(faults(410, &[0, 59, 59]).await, 2, "counted from the last");
        assert_eq!(faults(500, &[0, 60]).await, 2);
    }
}
