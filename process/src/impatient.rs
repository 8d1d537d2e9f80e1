//! How long a watch waits after an error.

use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use std::time::Duration;

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The client's own backoff, but never more than five seconds: what is decided from a watch must not be stale for long after an outage.
#[derive(Default)]
pub struct Impatient(DefaultBackoff);

impl Iterator for Impatient {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Impatient {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pause_is_long() {
        let pauses: Vec<_> = Impatient::default().take(20).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses[0] < LONGEST_PAUSE);
    }
}
