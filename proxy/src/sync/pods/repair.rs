//! Changes of rules by other processes: a pod whose ruleset has another generation is checked soon.
//!
//! Writes: nothing itself.

use super::Pods;
use crate::sync::repair::PollEvent;
use std::time::Instant;

impl Pods {
    /// Handles an event of the poll.
    pub(super) fn polled(&mut self, event: PollEvent) {
        let now = Instant::now();
        match event {
            PollEvent::Changed { uid, known } => {
                if let Some(pod) = self.by_uid.get_mut(&uid) {
                    pod.rules_changed(&uid, known, &mut self.timers);
                }
            }
            PollEvent::Ended(took) => self.ruleset_poll.ended(took, now),
            PollEvent::Tick => {
                if self.ruleset_poll.tick(now) {
                    self.poll_all(now);
                }
            }
        }
    }

    fn poll_all(&mut self, now: Instant) {
        let is_reported = self.shared.backend.reports_ruleset_changes();
        let pods = self.by_uid.iter().filter(|_| is_reported);
        let targets = pods.filter_map(|(uid, pod)| pod.poll_target(uid));
        self.ruleset_poll.begin(targets, now);
    }
}
