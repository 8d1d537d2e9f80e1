//! How often rules of others' making are looked for.
//!
//! Pure.

use std::time::{Duration, Instant};

/// Shortest and longest pause between two rounds.
const SHORTEST: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_secs(3);

/// A round may take this part of a core: 0.1 %.
const SHARE: u32 = 1000;

/// To look at one pod's rules, time and again, may take this part of a core: 5 %, or what is needed to repair them in time.
const SHARE_OF_A_POD: u32 = 20;

/// Longest pause between two looks at a pod whose rules change and are right each time: as often as rules without a generation are looked at.
const IDLE_LOOKS: Duration = Duration::from_secs(25);

/// The pause after a round that took so long.
pub(super) fn pause(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(SHORTEST, LONGEST)
}

/// When to look at rules because others changed something: at once after a quiet time, and the more seldom the longer nothing of ours was concerned.
/// On a node whose kube-proxy writes nftables, or beside a program that does so in the pod, the generation grows all the time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    pause: Duration,
    until: Option<Instant>,
}

impl Backoff {
    /// How long to wait now.
    pub(super) fn wait(self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Rules were looked at because others changed something, and perhaps had to be repaired.
    pub(super) fn looked(&mut self, are_repaired: bool, took: Duration, now: Instant) {
        // The next round sees what changed meanwhile, so one pause between rounds is no quiet time.
        let is_quiet = self.until.is_none_or(|until| now > until + self.pause + LONGEST);
        let affordable = took.saturating_mul(SHARE_OF_A_POD);
        self.pause = if are_repaired {
            affordable.min(LONGEST)
        } else if is_quiet {
            affordable.min(IDLE_LOOKS)
        } else {
            (self.pause * 2).clamp(SHORTEST, IDLE_LOOKS)
        };
        self.until = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn rounds_take_a_thousandth_of_a_core_and_come_every_three_seconds_at_least() {
        let pauses = [0, 1, 2, 50].map(|millis| pause(millis * MILLISECOND).as_secs());
        assert_eq!(pauses, [1, 1, 2, 3]);
    }

    /// The waits after looks that follow each other as soon as they may, and each take so long.
    fn waits(are_repaired: bool, took: Duration) -> Vec<u64> {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut looks = Vec::new();
        for _ in 0..8 {
            now += took;
            backoff.looked(are_repaired, took, now);
            let wait = backoff.wait(now);
            looks.push(wait.as_secs());
            now += wait;
        }
        looks
    }

    #[test]
    fn changes_that_do_not_concern_us_are_looked_at_ever_more_seldom() {
        assert_eq!(waits(false, MILLISECOND), [0, 1, 2, 4, 8, 16, 25, 25]);
        assert_eq!(waits(false, 100 * MILLISECOND), [2, 4, 8, 16, 25, 25, 25, 25]);
    }

    /// Changes are seen in rounds: however short the pause that a cheap look asks for, the next look is a round later.
    #[test]
    fn changes_that_each_round_sees_are_looked_at_ever_more_seldom() {
        for round in [SHORTEST, LONGEST] {
            let (mut backoff, began) = (Backoff::default(), Instant::now());
            let mut looks = 0_u64;
            for rounds in 0..60 {
                let now = began + round * rounds;
                if backoff.wait(now).is_zero() {
                    backoff.looked(false, MILLISECOND, now);
                    looks += 1;
                }
            }
            let most = 7 + 60 * round.as_secs() / IDLE_LOOKS.as_secs();
            assert!(looks <= most, "{looks} looks in 60 rounds of {round:?}");
        }
    }

    #[test]
    fn damage_is_repaired_as_often_as_its_cost_allows() {
        assert_eq!(waits(true, MILLISECOND), [0; 8]);
        assert_eq!(waits(true, 100 * MILLISECOND), [2; 8]);
        assert_eq!(waits(true, Duration::from_mins(1)), [3; 8]);
    }

    #[test]
    fn after_a_quiet_time_a_change_is_looked_at_at_once() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for _ in 0..8 {
            backoff.looked(false, MILLISECOND, now);
            now += backoff.wait(now);
        }
        now += 2 * IDLE_LOOKS;
        assert_eq!(backoff.wait(now), Duration::ZERO);
        backoff.looked(false, MILLISECOND, now);
        assert!(backoff.wait(now) < SHORTEST);
    }
}
