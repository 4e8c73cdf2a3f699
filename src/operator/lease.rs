//! Which of several operators acts: the one that holds the Lease. The rules are those of client-go
//! (tools/leaderelection).
//!
//! [`Election`] is pure: from the Lease and the time of the operator's own clock it follows what to
//! write. Clocks of different nodes are never compared: another holder counts as gone when its
//! Lease has not changed for long enough as seen *from here*, and this operator's own hold ends a
//! fixed time after it *began* its last successful renewal. [`Contender`] does the reading and
//! writing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::time::{sleep, timeout};

use crate::client::heard::explain;
use crate::client::retry::Retry;
use crate::names::OPERATOR;
use crate::node::clock;
use crate::problems::Problems;

/// How long a Lease that does not change still belongs to its holder.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long the holder goes on without a successful renewal. This is less than [`LEASE`], so that
/// it has stopped before another operator begins.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// About how long to wait between two looks at the Lease.
pub(crate) const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// What one operator knows of the Lease. Times are those of its own monotonic clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Election {
    /// Identity of this operator.
    me: String,
    /// The spec of the Lease as it was last seen, and when it was first seen like that.
    seen: Option<(LeaseSpec, Duration)>,
    /// When this operator began its last successful renewal; `None`: it does not hold the Lease.
    renewed: Option<Duration>,
}

/// What to do about the Lease.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing: another operator holds it.
    Wait,
    /// There is none: create it with this spec.
    Create(LeaseSpec),
    /// Replace the spec by this one. The API server refuses that if another operator was faster.
    Replace(LeaseSpec),
}

impl Election {
    /// An operator that does not hold the Lease. `me` is unique, and differs after a restart.
    pub(crate) fn new(me: String) -> Self {
        Self {
            me,
            ..Self::default()
        }
    }

    /// What to do about this Lease at the time `now` of the operator's own clock. The time `wall`
    /// is written for people only.
    pub(crate) fn step(
        &mut self,
        lease: Option<&LeaseSpec>,
        now: Duration,
        wall: Timestamp,
    ) -> Step {
        let Some(lease) = lease else {
            self.seen = None;
            return Step::Create(self.spec(None, wall));
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        let held_for = lease
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or_default();
        let is_over =
            holder.is_empty() || now.saturating_sub(since) >= Duration::from_secs(held_for);
        if holder == self.me || is_over {
            Step::Replace(self.spec(Some(lease), wall))
        } else {
            Step::Wait
        }
    }

    /// The step was written; `began` is the time before the Lease was read for it.
    pub(crate) fn won(&mut self, began: Duration) {
        self.renewed = Some(began);
    }

    /// Another operator holds the Lease, or was faster.
    pub(crate) fn lost(&mut self) {
        self.renewed = None;
    }

    /// Does this operator hold the Lease for certain?
    pub(crate) fn leads(&self, now: Duration) -> bool {
        self.renewed
            .is_some_and(|renewed| now.saturating_sub(renewed) < RENEW_DEADLINE)
    }

    /// When this operator's hold ends unless it is renewed; `None`: it does not hold the Lease.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.renewed
            .map(|renewed| renewed.saturating_add(RENEW_DEADLINE))
    }

    /// Identity of the last known holder.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.seen
            .as_ref()
            .and_then(|(lease, _)| lease.holder_identity.as_deref())
            .filter(|holder| !holder.is_empty())
    }

    /// The spec that gives the Lease back, so that another operator need not wait.
    fn given_back(lease: &LeaseSpec) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..lease.clone()
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let stays =
            before.filter(|before| before.holder_identity.as_deref() == Some(self.me.as_str()));
        let transitions = before
            .and_then(|before| before.lease_transitions)
            .unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: stays
                .and_then(|before| before.acquire_time.clone())
                .or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(if stays.is_some() || before.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..before.cloned().unwrap_or_default()
        }
    }
}

/// Acquires and renews the Lease in the operator's own namespace.
pub(crate) struct Contender {
    api: Api<Lease>,
    election: Election,
    /// The Lease as this operator last wrote it: it is renewed without being read again.
    written: Option<Lease>,
    retry: Retry,
    problems: Problems,
}

impl Contender {
    /// Does not hold the Lease yet. `pod` is the name of this operator's pod, to which a random
    /// number is added.
    pub(crate) fn new(client: Client, namespace: &str, pod: &str) -> Self {
        let mut nonce = [0_u8; 8];
        // if that fails, the name alone must do: it is unique as long as the pod lives
        let _ = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty());
        let nonce = u64::from_ne_bytes(nonce);
        Self {
            api: Api::namespaced(client, namespace),
            election: Election::new(format!("{pod}_{nonce:016x}")),
            written: None,
            // with jitter, so that operators that started at the same moment do not stay in step
            retry: Retry::new(RETRY_PERIOD, RETRY_PERIOD),
            problems: Problems::default(),
        }
    }

    /// Returns when this operator holds the Lease. `answered` is called whenever the API server
    /// answers who holds it.
    pub(crate) async fn acquire(&mut self, mut answered: impl FnMut()) {
        let mut holder = None;
        loop {
            if self.look(LEASE).await {
                answered();
            }
            if self.election.leads(clock::boot_time()) {
                tracing::info!("this operator holds the Lease and acts");
                return;
            }
            let now = self.election.holder().map(str::to_owned);
            if now.is_some() && now != holder {
                tracing::info!(holder = now, "another operator holds the Lease and acts");
                holder = now;
            }
            sleep(self.retry.pause()).await;
        }
    }

    /// Renews the Lease. Returns as soon as this operator does not hold it for certain.
    pub(crate) async fn keep(&mut self) {
        loop {
            sleep(self.retry.pause().min(self.rest())).await;
            let rest = self.rest();
            if rest.is_zero() {
                tracing::warn!(
                    "the Lease could not be renewed in time: this operator stops until it holds the Lease again"
                );
                return;
            }
            self.look(rest).await;
            if self.election.deadline().is_none() {
                tracing::warn!(
                    holder = self.election.holder(),
                    "another operator took the Lease: this one stops"
                );
                return;
            }
        }
    }

    /// Gives the Lease back, if this operator holds it.
    pub(crate) async fn give_back(&mut self) {
        if !self.election.leads(clock::boot_time()) {
            return;
        }
        let work = async {
            let mut lease = self.api.get(OPERATOR).await?;
            if let Some(spec) = lease.spec.as_mut() {
                *spec = Election::given_back(spec);
            }
            self.api
                .replace(OPERATOR, &PostParams::default(), &lease)
                .await
        };
        let _ = timeout(RETRY_PERIOD, work).await;
        self.election.lost();
    }

    fn rest(&self) -> Duration {
        self.election
            .deadline()
            .unwrap_or_default()
            .saturating_sub(clock::boot_time())
    }

    /// Reads the Lease and writes what there is to write, within this time. False: the API server
    /// did not answer.
    async fn look(&mut self, limit: Duration) -> bool {
        let began = clock::boot_time();
        let result = timeout(limit, self.try_once()).await;
        let problem = match result {
            Ok(Ok(true)) => {
                self.election.won(began);
                None
            }
            Ok(Ok(false)) => {
                self.election.lost();
                None
            }
            Ok(Err(error)) => Some(explain(&error)),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        let is_answered = problem.is_none();
        self.problems.set(
            "Lease",
            problem.map(|problem| format!("cannot be read or written: {problem}")),
        );
        is_answered
    }

    /// Does this operator hold the Lease now?
    async fn try_once(&mut self) -> Result<bool, Error> {
        if let Some(written) = self.written.take()
            && self.write(Some(written)).await?
        {
            return Ok(true);
        }
        let lease = self.api.get_opt(OPERATOR).await?;
        self.write(lease).await
    }

    /// Writes what there is to write, given the Lease as it was read. False: another operator holds
    /// it, or was faster.
    async fn write(&mut self, lease: Option<Lease>) -> Result<bool, Error> {
        let spec = lease
            .as_ref()
            .map(|lease| lease.spec.clone().unwrap_or_default());
        let step = self
            .election
            .step(spec.as_ref(), clock::boot_time(), Timestamp::now());
        // with the resource version that was read, so that a faster operator's write is not
        // overwritten
        let metadata = lease.map(|lease| lease.metadata);
        let named = || ObjectMeta {
            name: Some(OPERATOR.into()),
            ..ObjectMeta::default()
        };
        let lease = |spec| Lease {
            metadata: metadata.unwrap_or_else(named),
            spec: Some(spec),
        };
        let parameters = PostParams::default();
        let written = match step {
            Step::Wait => return Ok(false),
            Step::Create(spec) => self.api.create(&parameters, &lease(spec)).await,
            Step::Replace(spec) => self.api.replace(OPERATOR, &parameters, &lease(spec)).await,
        };
        match written {
            Ok(lease) => {
                self.written = Some(lease);
                Ok(true)
            }
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wall() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn write(step: Step) -> LeaseSpec {
        match step {
            Step::Create(spec) | Step::Replace(spec) => spec,
            Step::Wait => panic!("waits"),
        }
    }

    #[test]
    fn the_first_creates_the_lease_and_the_second_waits_until_it_has_not_changed_for_its_duration()
    {
        let (mut one, mut two) = (Election::new("one".into()), Election::new("two".into()));
        let lease = write(one.step(None, SECOND, wall()));
        one.won(SECOND);
        assert!(one.leads(SECOND * 10) && !one.leads(SECOND * 11));
        assert_eq!(lease.holder_identity.as_deref(), Some("one"));
        // its clock may show any time
        let start = SECOND * 5000;
        assert_eq!(two.step(Some(&lease), start, wall()), Step::Wait);
        assert_eq!(
            two.step(Some(&lease), start + SECOND * 14, wall()),
            Step::Wait
        );
        let taken = write(two.step(Some(&lease), start + LEASE, wall()));
        assert_eq!(
            (taken.holder_identity.as_deref(), taken.lease_transitions),
            (Some("two"), Some(1))
        );
        assert_eq!(two.holder(), Some("one"));
    }

    #[test]
    fn the_holder_has_stopped_before_another_can_begin() {
        // the other sees a renewal no earlier than it was begun
        const { assert!(RENEW_DEADLINE.as_secs() + RETRY_PERIOD.as_secs() < LEASE.as_secs()) };
        let mut one = Election::new("one".into());
        one.step(None, SECOND, wall());
        one.won(SECOND);
        assert_eq!(one.deadline(), Some(SECOND * 11));
        one.lost();
        assert!(!one.leads(SECOND * 2) && one.deadline().is_none());
    }

    #[test]
    fn each_renewal_restarts_the_wait_of_the_others() {
        let (mut one, mut two) = (Election::new("one".into()), Election::new("two".into()));
        let first = write(one.step(None, SECOND, wall()));
        two.step(Some(&first), Duration::ZERO, wall());
        let later = wall()
            .checked_add(jiff::SignedDuration::from_secs(10))
            .unwrap();
        let second = write(one.step(Some(&first), SECOND * 11, later));
        assert_eq!(second.acquire_time, first.acquire_time);
        assert_eq!(second.lease_transitions, Some(0));
        assert_ne!(second.renew_time, first.renew_time);
        assert_eq!(two.step(Some(&second), SECOND * 14, wall()), Step::Wait);
        assert_eq!(
            two.step(Some(&second), SECOND * 28, wall()),
            Step::Wait,
            "15 s after the first, 14 after the second"
        );
        assert!(matches!(
            two.step(Some(&second), SECOND * 29, wall()),
            Step::Replace(_)
        ));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once_and_a_restarted_operator_is_another_one() {
        let mut two = Election::new("two".into());
        let held = write(Election::new("one_1".into()).step(None, SECOND, wall()));
        assert!(matches!(
            two.step(Some(&Election::given_back(&held)), SECOND, wall()),
            Step::Replace(_)
        ));
        let mut again = Election::new("one_2".into());
        assert_eq!(again.step(Some(&held), SECOND, wall()), Step::Wait);
        assert!(
            matches!(
                again.step(Some(&LeaseSpec::default()), SECOND, wall()),
                Step::Replace(_)
            ),
            "without a holder"
        );
    }
}
