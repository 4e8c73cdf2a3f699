//! The real decision code against a model of a node: kubelet, container runtime, API server, agent and time.
//!
//! ```text
//! schedule (random, by seed) ──► api ─┐
//!                                     ├─► node: kubelet, runtime ──► lists, owned, sockets ──► observe, decide (real)
//! links, stops (what act would do) ◄──┴───────────────────────────────────────────────────────────────┘
//! ```
//! What the model's kubelet does is what real kubelets were seen to do, in `tests/node` above all: sources that stay
//! seen, admission of a parent beside its twin, removed static pods that run on until the first list, a rejected UID
//! that is never tried again, volumes that wait a minute for a black hole, no container before the services are read,
//! back-off, and a preStop sleep that is slept to its end.
//!
//! `MODEL_STEPS=5000000 MODEL_SEED=7 cargo test --lib supervisor::model` runs it longer, or again.

mod kubelet;
mod pods;
mod random;
mod recordings;
mod supervised;
mod world;

use std::io::Write as _;

use supervised::Blind;
use world::World;

/// Steps of 50 ms of one test, all seeds together.
const STEPS: u64 = 500_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Random schedules until the steps are used up; a violated invariant tells its seed and the last things that happened.
fn run(name: &str, first_seed: u64, world: impl Fn(u64) -> World) {
    let steps = variable("MODEL_STEPS").unwrap_or(STEPS);
    let (mut done, mut schedules, mut told) = (0, 0, world::Told::default());
    let first_seed = variable("MODEL_SEED").unwrap_or(first_seed);
    while done < steps {
        let mut world = world(first_seed + schedules);
        done += world.run();
        told += world.told;
        schedules += 1;
    }
    // past the capture of test output: the counts are part of the proof
    let _ = writeln!(
        std::io::stderr(),
        "model, {name}: {done} steps in {schedules} schedules from seed {first_seed}: {told:?}"
    );
    assert!(told.activations > schedules / 4 && told.handovers > schedules / 4, "nothing was tried: {told:?}");
}

#[test]
fn any_order_of_events_leaves_one_of_each_pod_running() {
    run("ordinary node", 1, |seed| World::new(seed, pods::ordinary()));
}

#[test]
fn a_self_hosted_api_server_comes_back_whatever_happens() {
    run("self-hosted node", 1_000_000, |seed| World::new(seed, pods::self_hosted()));
}

#[test]
#[should_panic(expected = "its twin holds what it needs")]
fn the_model_rejects_parents_when_twins_are_not_released_at_the_first_answer() {
    run("blind", 1, |seed| World::new(seed, pods::ordinary()).blind_to(Blind::Answers));
}

#[test]
#[should_panic(expected = "linked while the kubelet owns its parent")]
fn the_model_notices_a_twin_beside_a_parent_that_the_kubelet_owns() {
    run("blind", 1, |seed| World::new(seed, pods::ordinary()).blind_to(Blind::Owner));
}

#[test]
#[should_panic(expected = "linked while its parent runs")]
fn the_model_notices_a_twin_beside_a_running_parent() {
    run("blind", 1, |seed| World::new(seed, pods::ordinary()).blind_to(Blind::Parent));
}

#[test]
#[should_panic(expected = "linked while the API server answers")]
fn the_model_notices_a_twin_of_a_pod_whose_owner_wants_none_while_the_kubelet_is_locked_out() {
    run("blind", 1, |seed| World::new(seed, pods::ordinary()).blind_to(Blind::Will));
}

#[test]
#[should_panic(expected = "shop_api: nobody runs it")]
fn the_model_loses_an_api_server_whose_twin_ends_before_the_services_are_read() {
    run("blind", 1, |seed| World::new(seed, pods::self_hosted()).blind_to(Blind::Services));
}
