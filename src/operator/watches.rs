//! Everything that the leader watches.

use futures::StreamExt as _;
use futures::stream::{LocalBoxStream, SelectAll};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube_runtime::{WatchStreamExt as _, watcher};

use crate::api::PodCheckpoint;
use crate::names::INSTALLATION;
use crate::operator::apply;
use crate::operator::kinds::{KINDS, Kind, POD_MONITOR};
use crate::operator::settings::DEFAULT;

/// Seconds after which the server ends a watch, to be continued from where it was. A dead
/// connection is noticed by then.
const WATCH_SECONDS: u32 = 240;
/// PodCheckpoints in a page of the first list.
const PAGE: u32 = 100;

/// An event of one of the watches, or its failure.
type Watched = Result<watcher::Event<DynamicObject>, watcher::Error>;

/// An event, by what is watched.
pub(crate) enum Event {
    /// Of the `PodCheckpointer`.
    Settings(Watched),
    /// Of the object of this kind.
    Object(Kind, Watched),
    /// Of a `PodCheckpoint`.
    Checkpoint(Watched),
}

/// All watches. Each object of the installation is watched by its name, so other objects of its
/// kind cause no events.
pub(crate) fn watches(client: &Client) -> SelectAll<LocalBoxStream<'static, Event>> {
    let named = |name: &str| {
        watcher::Config::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(WATCH_SECONDS)
    };
    let settings =
        watcher(apply::podcheckpointers(client.clone()), named(DEFAULT)).default_backoff();
    let mut all: Vec<LocalBoxStream<'static, Event>> =
        vec![settings.map(Event::Settings).boxed_local()];
    // the cluster may not know PodMonitors at all
    for kind in KINDS.into_iter().filter(|kind| *kind != POD_MONITOR) {
        let watch = watcher(kind.api(client.clone()), named(INSTALLATION)).default_backoff();
        all.push(
            watch
                .map(move |event| Event::Object(kind, event))
                .boxed_local(),
        );
    }
    let checkpoints =
        Api::<DynamicObject>::all_with(client.clone(), &ApiResource::erase::<PodCheckpoint>(&()));
    let config = watcher::Config::default()
        .page_size(PAGE)
        .timeout(WATCH_SECONDS);
    all.push(
        watcher(checkpoints, config)
            .default_backoff()
            .map(Event::Checkpoint)
            .boxed_local(),
    );
    all.into_iter().collect()
}
