//! Writes `status.yaml` and `outages.yaml`, which the agent publishes, each only when it changed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::metrics::figures::Figures;
use crate::node::clock;
use crate::places::reports::{OUTAGES, Outages, STATUS, Status};
use crate::places::run::{self, RunDir};
use crate::supervisor::core::outages::OutageLog;

/// Writes the two files.
#[derive(Debug, Default)]
pub struct Recorder {
    status: Option<Status>,
    /// The files that could not be written at the last attempt.
    unwritten: BTreeSet<&'static str>,
}

/// The outages that an earlier supervisor recorded in this boot.
pub fn read_outages(run: &RunDir) -> Outages {
    let outages = run.read(OUTAGES).unwrap_or_else(|error| {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the record of outages begins again"
        );
        None
    });
    outages.unwrap_or_default()
}

impl Recorder {
    /// Writes what changed, and returns what is exported as metrics. A failed write is retried at
    /// the next pass, and logged only when it begins and when it ends, because passes follow each
    /// other quickly while a directory is full.
    pub fn write(&mut self, run: &RunDir, status: Status, log: &mut OutageLog) -> Figures {
        if let Some(outages) = log.unwritten() {
            add_wall_times(outages, clock::boot_time());
            let result = run.write(OUTAGES, outages);
            if self.is_written(OUTAGES, result) {
                log.written();
            }
        }
        let figures = Figures::new(&status, &log.outages().counts);
        if self.status.as_ref() != Some(&status)
            && self.is_written(STATUS, run.write(STATUS, &status))
        {
            self.status = Some(status);
        }
        figures
    }

    fn is_written(&mut self, file: &'static str, result: Result<(), run::Error>) -> bool {
        match result {
            Ok(()) if self.unwritten.remove(file) => tracing::info!(file, "written again"),
            Err(error) if self.unwritten.insert(file) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(file, error, "cannot write what the agent and `status` read");
            }
            Ok(()) | Err(_) => {}
        }
        !self.unwritten.contains(file)
    }
}

/// Adds the wall-clock times, for people, to what was recorded since the last write.
fn add_wall_times(outages: &mut Outages, now: Duration) {
    let wall_now = jiff::Timestamp::now();
    let wall = |at: u64| {
        let ago =
            jiff::SignedDuration::try_from(now.saturating_sub(Duration::from_millis(at))).ok();
        format!(
            "{:.3}",
            ago.and_then(|ago| wall_now.checked_sub(ago).ok())
                .unwrap_or(wall_now)
        )
    };
    for outage in &mut outages.outages {
        if outage.from_wall.is_empty() {
            outage.from_wall = wall(outage.from);
        }
        if outage.to_wall.is_none() {
            outage.to_wall = outage.to.map(wall);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::reports::Outage;

    #[test]
    fn what_cannot_be_written_is_remembered_and_written_later() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("run");
        std::fs::write(&path, "no directory").unwrap();
        let run = RunDir::new(&path, "/run/pod-checkpointer");
        let (mut recorder, mut log) = (Recorder::default(), OutageLog::default());
        log.unstuck();
        recorder.write(&run, Status::default(), &mut log);
        recorder.write(&run, Status::default(), &mut log);
        assert_eq!(recorder.unwritten, [OUTAGES, STATUS].into());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        recorder.write(&run, Status::default(), &mut log);
        assert_eq!(recorder.unwritten, [].into());
        assert!(run.read::<Status>(STATUS).unwrap().is_some());
        assert_eq!(read_outages(&run).counts.unstuck, 1);
    }

    #[test]
    fn wall_clock_times_are_taken_once_and_do_not_change() {
        let wall: jiff::Timestamp = jiff::Timestamp::now();
        let known = Outage {
            from: 1,
            from_wall: "then".into(),
            ..Outage::default()
        };
        let fresh = Outage {
            from: 40_000,
            to: Some(90_000),
            ..Outage::default()
        };
        let mut outages = Outages {
            outages: vec![known, fresh],
            ..Outages::default()
        };
        add_wall_times(&mut outages, Duration::from_secs(100));
        let [known, fresh] = outages.outages.as_slice() else {
            panic!("{outages:?}")
        };
        assert_eq!((known.from_wall.as_str(), &known.to_wall), ("then", &None));
        let ago = |text: &str| wall.duration_since(text.parse().unwrap()).as_secs_f64();
        assert!((59.0..61.0).contains(&ago(&fresh.from_wall)), "{fresh:?}");
        assert!(
            (9.0..11.0).contains(&ago(fresh.to_wall.as_ref().unwrap())),
            "{fresh:?}"
        );
    }
}
