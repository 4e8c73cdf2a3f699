//! `ages.yaml` in the state directory: how long each checkpoint with a maximum age has not been
//! known to be current.
//!
//! The agent writes it, seldom ([`interval`]). A checkpoint is current while the API server reports
//! its pod as marked and the capture of that very state is the newest generation. Only time that is
//! certain counts: uptime, and of a boot that nobody recorded nothing. No wall clock is asked, so
//! that one that lies neither expires nor revives anything.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::read::Directory;
use crate::files::write;
use crate::names::AGES;
use crate::places::store::{Error, Store};
use crate::pod::id::PodId;

/// Longest file, in bytes.
const LONGEST: u64 = 4 << 20;
/// The file is written this many times within the smallest maximum age.
const PARTS: u32 = 10;
/// The shortest time between two writes.
const SHORTEST: Duration = Duration::from_mins(1);
/// The longest time between two writes.
const LONGEST_INTERVAL: Duration = Duration::from_hours(1);

/// The age of one checkpoint at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Age {
    /// UID of the parent.
    pub uid: String,
    /// Number of the generation.
    pub generation: u64,
    /// For how many seconds it had not been known to be current at that moment.
    pub seconds: u64,
    /// Boot of that moment.
    pub boot_id: String,
    /// Uptime at that moment, in seconds.
    pub uptime_seconds: u64,
}

impl Age {
    /// The age now, as far as is certain. `now`: time since boot.
    pub fn at(&self, boot_id: &str, now: Duration) -> Duration {
        let since = if self.boot_id == boot_id {
            now.saturating_sub(Duration::from_secs(self.uptime_seconds))
        } else {
            now
        };
        since.saturating_add(Duration::from_secs(self.seconds))
    }
}

/// A checkpoint with a maximum age, as the agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aging {
    /// The pod.
    pub key: PodId,
    /// UID of the parent.
    pub uid: String,
    /// Number of its newest generation.
    pub generation: u64,
    /// Its maximum age.
    pub max_age: Duration,
    /// It is known to be current.
    pub is_current: bool,
}

/// The ages of checkpoints, by `<namespace>_<pod>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ages {
    /// The ages.
    pub pods: BTreeMap<PodId, Age>,
}

impl Ages {
    /// The age of this generation of a checkpoint; `None`: not recorded.
    pub fn of(&self, key: &PodId, uid: &str, generation: u64) -> Option<&Age> {
        self.pods
            .get(key)
            .filter(|age| age.uid == uid && age.generation == generation)
    }

    /// The ages at this moment: 0 of what is current, and of the others what they were and the time
    /// since. `now`: time since boot.
    #[must_use]
    pub fn renewed(&self, checkpoints: &[Aging], boot_id: &str, now: Duration) -> Self {
        let renew = |it: &Aging| {
            let seconds = if it.is_current {
                0
            } else {
                let before = self.of(&it.key, &it.uid, it.generation)?;
                before.at(boot_id, now).as_secs()
            };
            let age = Age {
                uid: it.uid.clone(),
                generation: it.generation,
                seconds,
                boot_id: boot_id.to_owned(),
                uptime_seconds: now.as_secs(),
            };
            Some((it.key.clone(), age))
        };
        Self {
            pods: checkpoints.iter().filter_map(renew).collect(),
        }
    }
}

/// Time between two writes of the file; `None`: no checkpoint has a maximum age, and nothing is
/// written.
pub fn interval(checkpoints: &[Aging]) -> Option<Duration> {
    let least = checkpoints.iter().map(|it| it.max_age).min()?;
    Some((least / PARTS).clamp(SHORTEST, LONGEST_INTERVAL))
}

impl Store {
    /// The recorded ages; none, if nothing was recorded.
    pub fn ages(&self) -> Result<Ages, Error> {
        let path = self.directory().join(AGES);
        let read =
            Directory::open(self.directory()).and_then(|directory| directory.file(AGES, LONGEST));
        match read {
            Ok(bytes) => {
                serde_yaml::from_slice(&bytes).map_err(|source| Error::Syntax(path, source))
            }
            Err(error) if error.is_absent() => Ok(Ages::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the ages at this moment. `now`: time since boot. Waits while the store is tidied. A
    /// file that cannot be parsed is written again.
    pub fn renew_ages(
        &self,
        checkpoints: &[Aging],
        boot_id: &str,
        now: Duration,
    ) -> Result<(), Error> {
        // tidying would take its unfinished file for one that a crash left
        let _order = self.order.read().unwrap_or_else(PoisonError::into_inner);
        let before = match self.ages() {
            Err(Error::Syntax(..)) => Ages::default(),
            before => before?,
        };
        let ages = before.renewed(checkpoints, boot_id, now);
        let text = serde_yaml::to_string(&ages)
            .map_err(|source| Error::Serialize(AGES.to_owned(), source))?;
        Ok(write::file(
            &self.directory().join(AGES),
            text.as_bytes(),
            0o600,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::id::id;

    const HOUR: Duration = Duration::from_hours(1);

    fn aging(is_current: bool) -> Vec<Aging> {
        vec![Aging {
            key: id("shop_till"),
            uid: "u1".into(),
            generation: 1,
            max_age: HOUR * 72,
            is_current,
        }]
    }

    fn age(ages: &Ages, boot_id: &str, now: Duration) -> Option<Duration> {
        let age = ages.of(&id("shop_till"), "u1", 1);
        age.map(|age| age.at(boot_id, now))
    }

    #[test]
    fn an_age_is_uptime_over_all_boots_since_the_checkpoint_was_last_current() {
        let ages = Ages::default().renewed(&aging(true), "boot-1", HOUR);
        assert_eq!(age(&ages, "boot-1", HOUR * 3), Some(HOUR * 2));
        // healthy and unchanged
        let ages = ages.renewed(&aging(true), "boot-1", HOUR * 100);
        assert_eq!(age(&ages, "boot-1", HOUR * 101), Some(HOUR));
        // the API server is silent
        let ages = ages.renewed(&aging(false), "boot-1", HOUR * 110);
        assert_eq!(age(&ages, "boot-2", HOUR * 2), Some(HOUR * 12));
        let ages = ages.renewed(&aging(false), "boot-2", HOUR * 4);
        let ages = ages.renewed(&aging(false), "boot-3", HOUR);
        assert_eq!(age(&ages, "boot-3", HOUR * 2), Some(HOUR * 16));
        let ages = ages.renewed(&aging(true), "boot-3", HOUR * 2);
        assert_eq!(age(&ages, "boot-3", HOUR * 2), Some(Duration::ZERO));
    }

    #[test]
    fn an_age_is_that_of_one_generation_of_one_pod() {
        let ages = Ages::default().renewed(&aging(true), "boot-1", HOUR);
        assert_eq!(ages.of(&id("shop_till"), "u2", 1), None);
        assert_eq!(ages.of(&id("shop_till"), "u1", 2), None);
        assert_eq!(
            Ages::default().renewed(&aging(false), "boot-1", HOUR),
            Ages::default()
        );
        assert_eq!(ages.renewed(&[], "boot-1", HOUR), Ages::default());
    }

    #[test]
    fn it_is_written_seldom_and_not_at_all_without_a_maximum_age() {
        assert_eq!(interval(&[]), None);
        let of = |max_age| {
            let aging = aging(true).remove(0);
            interval(&[Aging { max_age, ..aging }])
        };
        assert_eq!(of(HOUR * 72), Some(HOUR));
        assert_eq!(of(HOUR), Some(HOUR / 10));
        assert_eq!(of(Duration::from_secs(1)), Some(SHORTEST));
    }

    #[test]
    fn what_is_recorded_is_read_and_a_damaged_file_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.create().unwrap();
        assert_eq!(store.ages().unwrap(), Ages::default());
        store.renew_ages(&aging(true), "boot-1", HOUR).unwrap();
        let ages = store.ages().unwrap();
        assert_eq!(age(&ages, "boot-1", HOUR), Some(Duration::ZERO));
        std::fs::write(directory.path().join(AGES), "pods: 1").unwrap();
        assert!(store.ages().is_err());
        store.renew_ages(&aging(true), "boot-1", HOUR).unwrap();
        assert_eq!(store.ages().unwrap(), ages);
    }
}
