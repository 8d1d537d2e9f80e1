//! Table of all phases and verbs.

use super::*;
use rstest::rstest;

const MINUTE: Duration = Duration::from_mins(1);

/// Timers need the clock of a runtime.
pub(in crate::sync::pod_state) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

pub(super) fn resting() -> Phase {
    Phase::Resting {
        netns_state: NetnsState::with_routes(),
        timer: None,
    }
}

/// Renders a phase: times in minutes, `*` if the next attempt reads routes.
fn render(phase: &Phase, timers: &Timers) -> String {
    let timer = |timer: &Timer| match timers.waits(timer) {
        (due, None) => format!("scheduled in {due}"),
        (due, Some(check)) => format!("scheduled in {due}, check in {check}"),
    };
    let (text, are_routes_dirty) = match phase {
        Phase::Resting {
            netns_state,
            timer: None,
        } => ("idle".to_owned(), !netns_state.knows_routes()),
        Phase::Resting {
            netns_state,
            timer: Some(next),
        } => (timer(next), !netns_state.knows_routes()),
        Phase::Syncing {
            needs_rerun,
            are_routes_dirty,
        } => {
            let text = if *needs_rerun { "syncing, rerun" } else { "syncing" };
            (text.to_owned(), *are_routes_dirty)
        }
        Phase::Cleaning {
            next,
            are_routes_dirty,
        } => {
            let text = match next {
                Next::Rest => "cleaning".to_owned(),
                Next::Scheduled(next) => format!("cleaning, {}", timer(next)),
                Next::Rerun => "cleaning, rerun".to_owned(),
            };
            (text, *are_routes_dirty)
        }
    };
    text + if are_routes_dirty { " *" } else { "" }
}

/// Applies a verb; returns its effect.
fn apply(verb: &str, phase: &mut Phase, timers: &mut Timers) -> &'static str {
    let taken = |netns_state: Option<NetnsState>| match netns_state {
        None => "",
        Some(netns_state) if netns_state.knows_routes() => ": runs",
        Some(_) => ": runs *",
    };
    match verb {
        "start" => taken(phase.start(timers)),
        "clean" => taken(phase.clean()),
        "end" => {
            let is_rerun = phase.end(NetnsState::with_routes(), "a", Some(7 * MINUTE), timers);
            if is_rerun { ": rerun" } else { "" }
        }
        "check" => {
            phase.check("a", 5 * MINUTE, timers);
            ""
        }
        "forget_routes" => {
            phase.forget_routes();
            ""
        }
        "invalidate" => {
            phase.invalidate(timers);
            ""
        }
        "fired" => {
            timers.fire();
            phase.fired();
            ""
        }
        verb => panic!("{verb}"),
    }
}

/// Reaches a phase by verbs.
fn reach(phase: &str, timers: &mut Timers) -> Phase {
    let mut reached = resting();
    let (work, next) = phase.split_once(", ").unwrap_or((phase, ""));
    let (work, next) = if work.starts_with("scheduled") {
        ("", phase)
    } else {
        (work, next)
    };
    if let Some(wait) = next.strip_prefix("scheduled in ") {
        let (due, check) = wait.split_once(", check in ").unwrap_or((wait, ""));
        let due: u32 = due.parse().unwrap();
        drop(reached.start(timers));
        assert!(!reached.end(NetnsState::with_routes(), "a", Some(due * MINUTE), timers));
        if !check.is_empty() {
            let check: u32 = check.parse().unwrap();
            reached.check("a", check * MINUTE, timers);
        }
    }
    match work {
        "syncing" => drop(reached.start(timers)),
        "cleaning" => drop(reached.clean()),
        _ => {}
    }
    if next == "rerun" {
        assert!(reached.start(timers).is_none());
    }
    assert_eq!(render(&reached, timers), phase);
    reached
}

const VERBS: [&str; 7] = [
    "start",
    "clean",
    "end",
    "check",
    "forget_routes",
    "invalidate",
    "fired",
];

/// `end` wants a retry in 7 minutes, `check` a check in 5. Each row has the phase and the effect of each of [`VERBS`].
#[rstest]
#[case::idle("idle", [
    "syncing: runs", "cleaning: runs", "idle", "scheduled in 5, check in 5", "idle *", "idle", "idle *",
])]
#[case::scheduled("scheduled in 9", [
    "syncing: runs", "cleaning, scheduled in 9: runs", "scheduled in 9", "scheduled in 5, check in 5",
    "scheduled in 9 *", "scheduled in 9", "idle *",
])]
#[case::scheduled_before_the_check("scheduled in 3", [
    "syncing: runs", "cleaning, scheduled in 3: runs", "scheduled in 3", "scheduled in 3, check in 5",
    "scheduled in 3 *", "scheduled in 3", "idle *",
])]
#[case::scheduled_for_a_check("scheduled in 4, check in 4", [
    "syncing: runs *", "cleaning, scheduled in 4, check in 4: runs", "scheduled in 4, check in 4",
    "scheduled in 4, check in 4", "scheduled in 4, check in 4 *", "scheduled in 4, check in 4", "idle *",
])]
#[case::scheduled_for_a_later_check("scheduled in 8, check in 8", [
    "syncing: runs *", "cleaning, scheduled in 8, check in 8: runs", "scheduled in 8, check in 8",
    "scheduled in 5, check in 5", "scheduled in 8, check in 8 *", "scheduled in 8, check in 8", "idle *",
])]
#[case::syncing("syncing", [
    "syncing, rerun", "syncing", "scheduled in 7", "syncing, rerun *", "syncing *", "syncing, rerun *", "syncing *",
])]
#[case::syncing_and_changed("syncing, rerun", [
    "syncing, rerun", "syncing, rerun", "idle: rerun", "syncing, rerun *", "syncing, rerun *",
    "syncing, rerun *", "syncing, rerun *",
])]
#[case::cleaning("cleaning", [
    "cleaning, rerun", "cleaning", "scheduled in 7", "cleaning, rerun *", "cleaning *", "cleaning, rerun *",
    "cleaning *",
])]
#[case::cleaning_before_a_retry("cleaning, scheduled in 3", [
    "cleaning, rerun", "cleaning, scheduled in 3", "scheduled in 3", "cleaning, rerun *",
    "cleaning, scheduled in 3 *", "cleaning, rerun *", "cleaning *",
])]
#[case::cleaning_before_a_check("cleaning, scheduled in 9, check in 9", [
    "cleaning, rerun *", "cleaning, scheduled in 9, check in 9", "scheduled in 7, check in 9", "cleaning, rerun *",
    "cleaning, scheduled in 9, check in 9 *", "cleaning, rerun *", "cleaning *",
])]
#[case::cleaning_and_changed("cleaning, rerun", [
    "cleaning, rerun", "cleaning, rerun", "idle: rerun", "cleaning, rerun *", "cleaning, rerun *",
    "cleaning, rerun *", "cleaning, rerun *",
])]
fn each_verb_leads_from_one_phase_to_another(#[case] before: &str, #[case] expected: [&str; VERBS.len()]) {
    let _runtime = runtime().enter();
    let reached = VERBS.map(|verb| {
        let mut timers = Timers::new();
        let mut phase = reach(before, &mut timers);
        let effect = apply(verb, &mut phase, &mut timers);
        let after = render(&phase, &timers);
        let is_scheduled = usize::from(after.contains("scheduled"));
        assert_eq!(timers.len(), is_scheduled, "{before}: {verb}: timers");
        phase.cancel(&mut timers);
        assert_eq!(timers.len(), 0, "{before}: {verb}: timers after cancel");
        after + effect
    });
    assert_eq!(reached.each_ref().map(String::as_str), expected, "{VERBS:?}");
}
