//! When to retry after a passing fault: the only module that uses the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// Growing intervals with jitter, without a last one.
#[derive(Debug)]
pub struct Retry(ExponentialBackoff);

impl Retry {
    /// Intervals from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: most,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// How long to wait after one more failure.
    pub fn pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// To be called after a success: the next failure waits for the first interval again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Retry {
    /// From half a second to a minute: what a busy runtime or a restarting API server needs.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_mins(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_up_to_the_limit_and_start_again_after_a_success() {
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(1));
        let first = retry.pause();
        assert!(first <= Duration::from_millis(150), "{first:?}");
        let later = (0..20).map(|_| retry.pause()).last().unwrap();
        assert!(
            later >= Duration::from_millis(500) && later <= Duration::from_millis(1500),
            "{later:?}"
        );
        retry.reset();
        assert!(retry.pause() <= Duration::from_millis(150));
    }
}
