//! Whether this process is ready and alive, as its probes report it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A loop that has not turned for this long is taken for stuck.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// Shared by the work, which reports, and the probes, which ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    ready: AtomicBool,
    /// Milliseconds from `started` to the last beat.
    last_heartbeat: AtomicU64,
    stuck_after: Duration,
}

impl Health {
    /// Not ready yet, alive as of now.
    pub fn new() -> Self {
        Self::with_limit(STUCK_AFTER)
    }

    fn with_limit(stuck_after: Duration) -> Self {
        Self(Arc::new(State {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            last_heartbeat: AtomicU64::new(0),
            stuck_after,
        }))
    }

    /// Says whether the process does its job.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Says that the main loop turned. To be called at least every 20 s, also when idle.
    pub fn heartbeat(&self) {
        let elapsed = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_heartbeat.store(elapsed, Ordering::Relaxed);
    }

    /// Whether the process does its job.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// Whether the main loop turned within the last minute.
    pub fn is_alive(&self) -> bool {
        let last_heartbeat = Duration::from_millis(self.0.last_heartbeat.load(Ordering::Relaxed));
        self.0.started.elapsed().saturating_sub(last_heartbeat) < self.0.stuck_after
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_only_once_it_says_so() {
        let health = Health::new();
        assert!(!health.is_ready());
        health.set_ready(true);
        assert!(health.is_ready());
    }

    #[test]
    fn a_loop_that_stops_turning_is_not_alive() {
        let health = Health::with_limit(Duration::from_millis(40));
        assert!(health.is_alive());
        std::thread::sleep(Duration::from_millis(60));
        assert!(!health.is_alive());
        health.heartbeat();
        assert!(health.is_alive());
    }
}
