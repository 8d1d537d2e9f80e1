//! Properties of the phases of several pods that share their timers, under any sequence of verbs.

use super::tests::{resting, runtime};
use super::*;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_mins(1);
const PODS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Verb {
    Start,
    Clean,
    /// The work ends, if any runs.
    End(Option<u32>),
    Check(u32),
    ForgetRoutes,
    Invalidate,
    /// The earliest timer of all pods fires.
    Fire,
    /// The pod is deleted; another one follows under its UID.
    Delete,
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        3 => Just(Verb::Start),
        2 => Just(Verb::Clean),
        4 => proptest::option::of(1..9_u32).prop_map(Verb::End),
        3 => (1..9_u32).prop_map(Verb::Check),
        1 => Just(Verb::ForgetRoutes),
        1 => Just(Verb::Invalidate),
        2 => Just(Verb::Fire),
        1 => Just(Verb::Delete),
    ]
}

/// A pod, and what was asked of it.
struct Modelled {
    phase: Phase,
    /// The state that the running work has taken, and whether the work is an attempt.
    running: Option<(NetnsState, bool)>,
    /// Minutes until the earliest attempt that was asked for since the last one began; 0: at once.
    wanted_in: Option<u32>,
    /// The next attempt has to read routes.
    are_routes_dirty: bool,
}

impl Modelled {
    fn new() -> Self {
        Self {
            phase: resting(),
            running: None,
            wanted_in: None,
            are_routes_dirty: false,
        }
    }

    fn want(&mut self, minutes: u32) {
        let wanted = self.wanted_in.map_or(minutes, |before| before.min(minutes));
        self.wanted_in = Some(wanted);
    }

    fn start(&mut self, timers: &mut Timers) {
        let Some(netns_state) = self.phase.start(timers) else {
            assert!(self.running.is_some(), "an attempt is lost");
            return self.want(0);
        };
        assert!(self.running.is_none(), "two attempts at once");
        let is_read = !netns_state.knows_routes();
        assert!(is_read || !self.are_routes_dirty, "routes are not read");
        self.running = Some((netns_state, true));
        (self.wanted_in, self.are_routes_dirty) = (None, false);
    }

    fn end(&mut self, uid: &str, retry_in: Option<u32>, timers: &mut Timers) {
        let Some((before, is_attempt)) = self.running.take() else {
            return;
        };
        let netns_state = if is_attempt {
            NetnsState::with_routes()
        } else {
            before
        };
        let retry = retry_in.map(|minutes| minutes * MINUTE);
        let is_changed = self.wanted_in == Some(0);
        let is_rerun = self.phase.end(netns_state, uid, retry, timers);
        assert_eq!(is_rerun, is_changed, "a change during work leads to one attempt");
        if is_rerun {
            self.start(timers);
            assert!(self.running.is_some());
        } else if let Some(minutes) = retry_in {
            self.want(minutes);
        }
    }

    fn check(&mut self, uid: &str, minutes: u32, timers: &mut Timers) {
        self.phase.check(uid, minutes * MINUTE, timers);
        self.want(if self.running.is_some() { 0 } else { minutes });
        self.are_routes_dirty = true;
    }

    fn invalidate(&mut self, timers: &mut Timers) {
        self.phase.invalidate(timers);
        if self.running.is_some() {
            self.want(0);
            self.are_routes_dirty = true;
        }
    }

    fn apply(&mut self, verb: Verb, uid: &str, timers: &mut Timers) {
        match verb {
            Verb::Start => self.start(timers),
            Verb::Clean => {
                if let Some(netns_state) = self.phase.clean() {
                    assert!(self.running.is_none(), "a cleanup beside other work");
                    self.running = Some((netns_state, false));
                }
            }
            Verb::End(retry_in) => self.end(uid, retry_in, timers),
            Verb::Check(minutes) => self.check(uid, minutes, timers),
            Verb::ForgetRoutes => {
                self.phase.forget_routes();
                self.are_routes_dirty = true;
            }
            Verb::Invalidate => self.invalidate(timers),
            Verb::Fire => {
                self.phase.fired();
                self.are_routes_dirty = true;
                self.start(timers);
            }
            Verb::Delete => std::mem::replace(self, Self::new()).phase.cancel(timers),
        }
    }

    /// Returns the timer of the pod; asserts that no attempt that was asked for is lost or late.
    fn timer(&self, timers: &Timers) -> Option<&Timer> {
        let (timer, is_rerun) = match &self.phase {
            Phase::Resting { timer, .. } => (timer.as_ref(), false),
            Phase::Syncing { needs_rerun, .. } => (None, *needs_rerun),
            Phase::Cleaning { next, .. } => match next {
                Next::Rest => (None, false),
                Next::Scheduled(timer) => (Some(timer), false),
                Next::Rerun => (None, true),
            },
        };
        if let Some(wanted) = self.wanted_in {
            let is_in_time = timer.is_some_and(|timer| timers.waits(timer).0 <= u64::from(wanted));
            assert!(
                is_rerun || is_in_time,
                "an attempt in {wanted} is lost: {timer:?}"
            );
        }
        timer
    }
}

fn check(verbs: &[(usize, Verb)]) {
    let _runtime = runtime().enter();
    let mut timers = Timers::new();
    let mut pods: [Modelled; PODS] = std::array::from_fn(|_| Modelled::new());
    for (index, verb) in verbs {
        let fired = matches!(verb, Verb::Fire).then(|| timers.fire());
        let index = match &fired {
            None => *index,
            Some(None) => continue,
            Some(Some(uid)) => uid.parse().unwrap(),
        };
        pods[index].apply(*verb, &index.to_string(), &mut timers);
        let scheduled = pods.iter().filter_map(|pod| pod.timer(&timers)).count();
        assert_eq!(timers.len(), scheduled, "timers in the queue and in the pods");
    }
    for pod in pods {
        pod.phase.cancel(&mut timers);
    }
    assert_eq!(timers.len(), 0, "timers of deleted pods");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_attempt_is_lost_and_none_runs_beside_another(verbs in prop::collection::vec((0..PODS, verb()), 0..40)) {
        check(&verbs);
    }
}
