//! Delays of retries of a pod.
//!
//! Pure.

use std::time::Duration;

/// Attempts while a sandbox is expected any moment: runtimes list one only when it is complete, some time after network-status was
/// written, and rules shall be there soon after. They span about a second. Some 20 ms after it is listed the kubelet starts the first
/// container, and from then on, for as long as runc takes, containerd reports nothing more about it: its shim handles one request at a time.
const EAGER: u32 = 100;
const EAGER_CAP: Duration = Duration::from_millis(10);

/// Attempts up to which a pod may be starting: about ten seconds.
const QUICK: u32 = EAGER + 45;
const QUICK_CAP: Duration = Duration::from_millis(200);

/// Longest delay.
const CAP: Duration = Duration::from_secs(30);

/// Time for which failures count as the startup of a pod. A single attempt can be slow: a runtime that hangs is waited for.
const START: Duration = Duration::from_secs(8);

/// Returns the delay after `failures` consecutive failures (1 after the first): 5 ms, then 10 ms for about a second,
/// 200 ms for about ten, then doubling to 30 s.
pub(super) fn startup_delay(failures: u32) -> Duration {
    let doubled = |base: Duration, times: u32| base.saturating_mul(2_u32.saturating_pow(times.min(16)));
    match failures {
        0..EAGER => doubled(Duration::from_millis(5), failures.saturating_sub(1)).min(EAGER_CAP),
        EAGER..QUICK => QUICK_CAP,
        _ => doubled(QUICK_CAP, failures - QUICK).min(CAP),
    }
}

/// Returns the delay in a sandbox whose rules were complete before: the pod is not starting, and the fault may last. 5 ms, doubling to 30 s.
pub(super) fn repair_delay(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    Duration::from_millis(5).saturating_mul(doubled).min(CAP)
}

/// Returns the delay after an attempt that was slow in the pod's namespace, where its owner can hold locks: a pod may occupy at most a
/// quarter of a worker's time.
pub(super) fn after_slow_attempt(delay: Duration, took: Duration) -> Duration {
    delay.max(took.saturating_mul(3)).min(CAP)
}

/// Returns true when failures outlast the startup of a pod and have to be reported.
pub(super) fn is_reportable(failures: u32, lasting: Duration) -> bool {
    failures >= QUICK || failures > 0 && lasting >= START
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_delays_begin_short_and_are_bounded() {
        let millis = |failures| startup_delay(failures).as_millis();
        assert_eq!(
            [1, 2, 3, 4, 99, 100, 144].map(millis),
            [5, 10, 10, 10, 10, 200, 200]
        );
        assert_eq!(
            [145, 146, 147, 153, 1_000_000, u32::MAX].map(millis),
            [200, 400, 800, 30_000, 30_000, 30_000]
        );
    }

    #[test]
    fn a_fault_after_startup_is_retried_with_growing_delays() {
        let millis = |failures| repair_delay(failures).as_millis();
        assert_eq!(
            [1, 2, 3, 12, 13, 14, u32::MAX].map(millis),
            [5, 10, 20, 10_240, 20_480, 30_000, 30_000]
        );
        let tries = (1..).take_while(|failures| (1..=*failures).map(repair_delay).sum::<Duration>() < START);
        assert!(tries.count() < 12);
    }

    #[test]
    fn a_slow_namespace_is_retried_later() {
        let millis = |delay, took| {
            after_slow_attempt(Duration::from_millis(delay), Duration::from_millis(took)).as_millis()
        };
        assert_eq!(
            [
                millis(25, 5),
                millis(25, 5_000),
                millis(30_000, 5_000),
                millis(25, 60_000)
            ],
            [25, 15_000, 30_000, 30_000]
        );
    }

    #[test]
    fn failures_of_a_starting_pod_are_reported_only_after_seconds() {
        let before: Duration = (1..QUICK).map(startup_delay).sum();
        assert!(before > START && before < Duration::from_secs(15), "{before:?}");
        assert!(!is_reportable(QUICK - 1, Duration::ZERO) && is_reportable(QUICK, Duration::ZERO));
    }

    #[test]
    fn a_few_slow_failures_are_reported_too() {
        assert!(!is_reportable(1, Duration::from_secs(5)) && is_reportable(2, Duration::from_secs(10)));
        assert!(!is_reportable(0, Duration::from_hours(1)));
    }
}
