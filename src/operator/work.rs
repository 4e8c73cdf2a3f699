//! The pieces of work that the leader starts. Each asks the API server and ends with an
//! [`Outcome`].

use std::rc::Rc;

use kube::api::{ApiResource, DynamicObject};
use kube::{Client, Resource as _};
use kube_runtime::events::{EventType, Recorder};

use crate::api::podcheckpointer::{PodCheckpointer, PodCheckpointerSpec, PodCheckpointerStatus};
use crate::client;
use crate::names::APPLIED;
use crate::operator::apply::{self, Failure, Round};
use crate::operator::kinds::Fingerprints;
use crate::operator::process::Settings;
use crate::operator::settings::{self, Checked, DEFAULT};
use crate::operator::status::Applied;

/// The result of a piece of work.
pub(crate) enum Outcome {
    /// The objects were applied, with these fingerprints.
    Applied {
        generation: Option<i64>,
        fingerprints: Fingerprints,
        applied: Applied,
    },
    /// The finalizer was added.
    Finalizer(Result<(), Failure>),
    /// A round of the removal has ended.
    Removal {
        nodes_left: bool,
        result: Result<Round, Failure>,
    },
    /// The status was written.
    Status(Result<(), Failure>),
    /// An Event was recorded.
    Event(Result<(), kube::Error>),
}

/// Adds the finalizer to the `PodCheckpointer`.
pub(crate) async fn add_finalizer(client: Client, wanted: DynamicObject) -> Outcome {
    Outcome::Finalizer(apply::set_finalizer(&client, &wanted, true).await)
}

/// Applies everything that the `PodCheckpointer` asks for.
pub(crate) async fn apply(
    client: Client,
    settings: Rc<Settings>,
    wanted: DynamicObject,
) -> Outcome {
    let (fingerprints, applied) = match checked(&client, &settings, &wanted).await {
        Ok(checked) => apply::apply(&client, &checked).await,
        Err(Failure { reason, message }) => (Fingerprints::new(), Applied::No { reason, message }),
    };
    Outcome::Applied {
        generation: wanted.metadata.generation,
        fingerprints,
        applied,
    }
}

/// A round of the removal of everything, these PodCheckpoints among it. `nodes_left`: an earlier
/// round found every node left that has to be waited for. After the last round the finalizer is
/// removed.
pub(crate) async fn remove(
    client: Client,
    settings: Rc<Settings>,
    wanted: DynamicObject,
    checkpoints: Vec<(String, String)>,
    mut nodes_left: bool,
) -> Outcome {
    let round = async {
        // a spec that cannot be read does not say on which nodes the agents are, so the defaults
        // must do
        let spec = settings::spec(&wanted).unwrap_or_default();
        let image = image(&client, &settings, &spec).await?;
        let retiring = Checked::retiring(spec, image);
        let round = apply::remove(&client, &retiring, &checkpoints, &mut nodes_left).await?;
        if round == Round::Done {
            apply::set_finalizer(&client, &wanted, false).await?;
        }
        Ok(round)
    };
    let result = round.await;
    Outcome::Removal { nodes_left, result }
}

/// Writes the status of the `PodCheckpointer`.
pub(crate) async fn write_status(client: Client, status: PodCheckpointerStatus) -> Outcome {
    Outcome::Status(apply::write_status(&client, DEFAULT, &status).await)
}

/// Records an Event on the `PodCheckpointer`: how far it is applied.
pub(crate) async fn record(recorder: Recorder, wanted: DynamicObject, applied: Applied) -> Outcome {
    let (type_, reason, message) = match &applied {
        Applied::Yes(_) => (EventType::Normal, APPLIED, "every object matches the spec"),
        Applied::No { reason, message } => (EventType::Warning, *reason, message.as_str()),
        Applied::Removing(message) => (EventType::Normal, "Removing", message.as_str()),
    };
    let event = client::event(type_, reason, message, "Apply");
    let regarding = wanted.object_ref(&ApiResource::erase::<PodCheckpointer>(&()));
    Outcome::Event(recorder.publish(&event, &regarding).await)
}

/// The settings of this `PodCheckpointer`, with the image that its agents run.
async fn checked(
    client: &Client,
    settings: &Settings,
    wanted: &DynamicObject,
) -> Result<Checked, Failure> {
    let spec = settings::spec(wanted)?;
    let image = image(client, settings, &spec).await?;
    Ok(Checked::new(spec, image)?)
}

/// The image that agents run. If neither the spec nor the flag names one, it is that of the
/// operator's own pod.
async fn image(
    client: &Client,
    settings: &Settings,
    spec: &PodCheckpointerSpec,
) -> Result<String, Failure> {
    match settings::image(spec, settings.image.as_deref()) {
        Some(image) => Ok(image.to_owned()),
        None => {
            apply::own_image(
                client,
                &settings.pod_namespace,
                settings.pod_name.as_deref(),
            )
            .await
        }
    }
}
