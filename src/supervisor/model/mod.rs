//! Runs the real [`crate::supervisor::core::Core`] against a model of a node: kubelet, container
//! runtime, API server, agent and time.
//!
//! ```text
//! schedule (random, by seed) ──► api ─┐
//!                                     ├─► node: kubelet, runtime ──► probes, sockets, lists, owned ──► Core (real)
//! links, stops (some of which fail) ◄─┴─────────────────────────────────────────────────────────────────┘
//! ```
//! The core is driven as the shell drives it: looks take time, longer if kubelet or runtime hang;
//! stops continue in the background; passes come when the core says, or when something is heard;
//! and every restart rebuilds it from what is on the node. To test that the model can find faults,
//! they are planted ([`Flaw`]): each must be found.
//!
//! The model's kubelet does what the stories of `tests/node` saw a kubelet do: sources stay seen, a
//! parent is admitted next to its twin, removed static pods continue until the first list, a
//! rejected UID is never tried again, volumes wait a minute for dropped packets, no container is
//! created before the services are read, back-off, and a preStop sleep that runs to its end.
//!
//! `MODEL_STEPS=5000000 MODEL_SEED=7 cargo test --lib supervisor::model` runs it for longer, or
//! repeats a run.

mod kubelet;
mod pods;
mod random;
mod recordings;
mod supervised;
mod world;

use std::io::Write as _;

use pods::Marked;
use supervised::Flaw;
use world::World;

/// Steps of 50 ms of one test, all seeds together.
const STEPS: u64 = 500_000;
/// Steps within which a planted fault must be found. Most are found in far fewer.
const PLANTED_STEPS: u64 = 4_000_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
    })
}

/// Runs random schedules until the steps are used up. A violated invariant reports its seed and the
/// last events.
fn run(name: &str, steps: u64, first_seed: u64, world: impl Fn(u64) -> World) {
    let steps = variable("MODEL_STEPS").unwrap_or(steps);
    let (mut done, mut schedules, mut tally) = (0, 0, world::Tally::default());
    let first_seed = variable("MODEL_SEED").unwrap_or(first_seed);
    while done < steps {
        let mut world = world(first_seed + schedules);
        done += world.run();
        tally += world.tally;
        schedules += 1;
    }
    // bypasses the capture of test output: the counts are part of the proof
    let _ = writeln!(
        std::io::stderr(),
        "model, {name}: {done} steps in {schedules} schedules from seed {first_seed}: {tally:?}"
    );
    assert!(
        tally.activations > schedules / 4 && tally.handovers > schedules / 4,
        "hardly anything was tried: {tally:?}"
    );
}

#[test]
fn any_order_of_events_leaves_one_of_each_pod_running() {
    run("ordinary node", STEPS, 1, |seed| {
        World::new(seed, pods::ordinary())
    });
}

#[test]
fn a_self_hosted_api_server_comes_back_whatever_happens() {
    run("self-hosted node", STEPS, 1_000_000, |seed| {
        World::new(seed, pods::self_hosted())
    });
}

/// Plants a fault, and runs until the model finds it.
fn plant(flaw: Flaw, pods: fn() -> Vec<Marked>) {
    run(&format!("{flaw:?}"), PLANTED_STEPS, 1, |seed| {
        World::new(seed, pods()).with(flaw)
    });
}

#[test]
#[should_panic(expected = "its twin holds what it needs")]
fn the_model_rejects_parents_when_twins_are_not_released_at_the_first_answer() {
    plant(Flaw::BlindToAnswers, pods::ordinary);
}

#[test]
#[should_panic(expected = "linked while the kubelet owns its parent")]
fn the_model_notices_a_twin_of_a_parent_that_the_kubelet_owns() {
    // without pods that would be rejected first
    plant(Flaw::BlindToOwner, || {
        pods::ordinary()
            .into_iter()
            .filter(|pod| !pod.excludes)
            .collect()
    });
}

#[test]
#[should_panic(expected = "linked while its parent runs")]
fn the_model_notices_a_twin_of_a_running_parent() {
    plant(Flaw::BlindToParent, pods::ordinary);
}

#[test]
#[should_panic(expected = "linked while the API server answers")]
fn the_model_notices_a_twin_of_a_pod_whose_owner_wants_none_while_the_kubelet_is_locked_out() {
    plant(Flaw::BlindToWill, pods::ordinary);
}

#[test]
#[should_panic(expected = "shop/api: it is down")]
fn the_model_loses_an_api_server_whose_twin_ends_before_the_services_are_read() {
    plant(Flaw::BlindToServices, pods::self_hosted);
}

#[test]
#[should_panic(expected = "its twin holds what it needs")]
fn the_model_rejects_parents_when_a_hung_runtime_delays_the_release() {
    plant(Flaw::ReleasesLate, pods::ordinary);
}

#[test]
#[should_panic(expected = "left in the end")]
fn the_model_notices_what_is_left_when_a_failed_action_is_taken_for_done() {
    plant(Flaw::ForgetsFailures, pods::ordinary);
}

#[test]
#[should_panic(expected = "its parent is")]
fn the_model_notices_a_stop_that_is_taken_to_be_over_too_soon() {
    plant(Flaw::ForgetsStops, pods::self_hosted);
}

#[test]
#[should_panic(expected = "not at rest in the end: []")]
fn the_model_loses_a_pod_whose_checkpoint_is_forgotten_with_its_twin() {
    plant(Flaw::ForgetsCheckpoints, pods::ordinary);
}

#[test]
#[should_panic(expected = "is not asked to end")]
fn the_model_notices_a_supervisor_that_sleeps_while_parents_wait() {
    plant(Flaw::Sleeps, pods::ordinary);
}

#[test]
#[should_panic(expected = "left the node though the agent lives")]
fn the_model_notices_a_supervisor_that_leaves_although_an_agent_runs() {
    plant(Flaw::DeafToAgent, pods::ordinary);
}
