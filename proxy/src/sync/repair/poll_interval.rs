//! Intervals of the polls for rules that other processes changed.
//!
//! Pure.

use std::time::{Duration, Instant};

/// Shortest and longest pause between two rounds.
const SHORTEST: Duration = Duration::from_secs(1);
pub(in crate::sync) const LONGEST: Duration = Duration::from_secs(3);

/// A round may take this part of a core: 0.1 %.
const SHARE: u32 = 1000;

/// Repeated checks of one pod's rules may take this part of a core: 5 %, or what is needed to repair them in time.
const SHARE_OF_A_POD: u32 = 20;

/// Longest pause between checks of a pod whose ruleset changes while our rules stay intact: the resync interval of rules without a generation.
const IDLE_CHECKS: Duration = Duration::from_secs(25);

/// Returns the pause after a round that took `took`.
pub(in crate::sync) fn pause(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(SHORTEST, LONGEST)
}

/// Backoff of checks after changes by other processes: at once after a quiet period, then at growing intervals while our rules are not affected.
/// On a node whose kube-proxy writes nftables, or beside a program that does so in the pod, the generation grows all the time.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sync) struct CheckBackoff {
    pause: Duration,
    until: Option<Instant>,
}

impl CheckBackoff {
    /// Returns the delay of the next check.
    pub(in crate::sync) fn wait(self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Records a check of the rules, and whether they had to be repaired.
    pub(in crate::sync) fn checked(&mut self, are_repaired: bool, took: Duration, now: Instant) {
        // The next round sees what changed meanwhile, so one pause between rounds is no quiet period.
        let is_quiet = self.until.is_none_or(|until| now > until + self.pause + LONGEST);
        let affordable = took.saturating_mul(SHARE_OF_A_POD);
        self.pause = if are_repaired {
            affordable.min(LONGEST)
        } else if is_quiet {
            affordable.min(IDLE_CHECKS)
        } else {
            (self.pause * 2).clamp(SHORTEST, IDLE_CHECKS)
        };
        self.until = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn rounds_take_a_thousandth_of_a_core_and_run_at_least_every_three_seconds() {
        let pauses = [0, 1, 2, 50].map(|millis| pause(millis * MILLISECOND).as_secs());
        assert_eq!(pauses, [1, 1, 2, 3]);
    }

    /// Returns the waits after consecutive checks that each take `took`.
    fn waits(are_repaired: bool, took: Duration) -> Vec<u64> {
        let (mut backoff, mut now) = (CheckBackoff::default(), Instant::now());
        let mut checks = Vec::new();
        for _ in 0..8 {
            now += took;
            backoff.checked(are_repaired, took, now);
            let wait = backoff.wait(now);
            checks.push(wait.as_secs());
            now += wait;
        }
        checks
    }

    #[test]
    fn foreign_changes_are_checked_at_growing_intervals() {
        assert_eq!(waits(false, MILLISECOND), [0, 1, 2, 4, 8, 16, 25, 25]);
        assert_eq!(waits(false, 100 * MILLISECOND), [2, 4, 8, 16, 25, 25, 25, 25]);
    }

    /// Changes are seen in rounds: however short the pause after a cheap check is, the next check is a round later.
    #[test]
    fn changes_seen_in_every_round_are_checked_at_growing_intervals() {
        for round in [SHORTEST, LONGEST] {
            let (mut backoff, began) = (CheckBackoff::default(), Instant::now());
            let mut checks = 0_u64;
            for rounds in 0..60 {
                let now = began + round * rounds;
                if backoff.wait(now).is_zero() {
                    backoff.checked(false, MILLISECOND, now);
                    checks += 1;
                }
            }
            let most = 7 + 60 * round.as_secs() / IDLE_CHECKS.as_secs();
            assert!(checks <= most, "{checks} checks in 60 rounds of {round:?}");
        }
    }

    #[test]
    fn drift_is_repaired_as_often_as_its_cost_allows() {
        assert_eq!(waits(true, MILLISECOND), [0; 8]);
        assert_eq!(waits(true, 100 * MILLISECOND), [2; 8]);
        assert_eq!(waits(true, Duration::from_mins(1)), [3; 8]);
    }

    #[test]
    fn a_change_after_a_quiet_period_is_checked_at_once() {
        let (mut backoff, mut now) = (CheckBackoff::default(), Instant::now());
        for _ in 0..8 {
            backoff.checked(false, MILLISECOND, now);
            now += backoff.wait(now);
        }
        now += 2 * IDLE_CHECKS;
        assert_eq!(backoff.wait(now), Duration::ZERO);
        backoff.checked(false, MILLISECOND, now);
        assert!(backoff.wait(now) < SHORTEST);
    }
}
