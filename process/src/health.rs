//! Readiness and liveness of the process, as its probes report them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A main loop without a heartbeat for this long is stalled.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// Shared by the work, which reports, and by the probes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    ready: AtomicBool,
    /// Milliseconds from `started` to the last heartbeat.
    last_heartbeat: AtomicU64,
    stuck_after: Duration,
}

impl Health {
    /// Not ready, alive as of now.
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

    /// Reports whether the process is ready.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Reports progress of the main loop. Call it at least every 20 s, also when idle.
    pub fn heartbeat(&self) {
        let elapsed = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_heartbeat.store(elapsed, Ordering::Relaxed);
    }

    /// Whether the process is ready.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// Whether the main loop made progress within the last minute.
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
    fn a_process_is_ready_only_after_it_reports_so() {
        let health = Health::new();
        assert!(!health.is_ready());
        health.set_ready(true);
        assert!(health.is_ready());
    }

    #[test]
    fn a_stalled_loop_is_not_alive() {
        let health = Health::with_limit(Duration::from_millis(40));
        assert!(health.is_alive());
        std::thread::sleep(Duration::from_millis(60));
        assert!(!health.is_alive());
        health.heartbeat();
        assert!(health.is_alive());
    }
}
