//! Phase of a pod: the work that runs, and what follows it.
//!
//! Pure, but for the clock of the timers. The task that takes the state of the namespace is the only work of the pod; it hands it back at
//! the end. A change during an attempt is one more attempt afterwards.
//!
//! ```text
//!              start                        clean
//! Syncing ◄────────────── Resting ──────────────────► Cleaning
//!    │   end                 ▲  ▲                 end    │
//!    └───────────────────────┘  └────────────────────────┘
//! ```

use crate::sync::netns_state::NetnsState;
use crate::sync::timers::{Timer, Timers};
use std::time::Duration;

/// Phase of a pod.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be one allocation per attempt"
)]
pub(super) enum Phase {
    /// No work runs. With a timer the pod is scheduled for an attempt, without one it is idle.
    Resting {
        netns_state: NetnsState,
        timer: Option<Timer>,
    },
    /// An attempt runs.
    Syncing {
        /// The pod changed: another attempt follows.
        needs_rerun: bool,
        /// Another process may have changed routes: the next attempt reads them.
        are_routes_dirty: bool,
    },
    /// A cleanup of flows runs.
    Cleaning { next: Next, are_routes_dirty: bool },
}

/// What follows a cleanup.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing.
    Rest,
    /// An attempt when the timer fires, also during the cleanup.
    Scheduled(Timer),
    /// An attempt at once.
    Rerun,
}

const SYNCING: Phase = Phase::Syncing {
    needs_rerun: false,
    are_routes_dirty: false,
};

impl Phase {
    /// Begins an attempt, which takes the state of the namespace. `None`: other work runs; an attempt follows it.
    pub(super) fn start(&mut self, timers: &mut Timers) -> Option<NetnsState> {
        let Some((mut netns_state, timer)) = self.leave_rest() else {
            self.rerun(timers);
            return None;
        };
        if timer.is_some_and(|timer| timers.cancel(timer)) {
            netns_state.forget_routes();
        }
        Some(netns_state)
    }

    /// Begins a cleanup, which takes the state of the namespace. `None`: other work runs.
    pub(super) fn clean(&mut self) -> Option<NetnsState> {
        let (netns_state, timer) = self.leave_rest()?;
        *self = Self::Cleaning {
            next: timer.map_or(Next::Rest, Next::Scheduled),
            are_routes_dirty: false,
        };
        Some(netns_state)
    }

    /// Ends the work with an attempt after `retry_in`, if set. Returns true when the pod changed meanwhile: the caller starts an attempt
    /// now, instead.
    #[must_use]
    pub(super) fn end(
        &mut self,
        mut netns_state: NetnsState,
        uid: &str,
        retry_in: Option<Duration>,
        timers: &mut Timers,
    ) -> bool {
        let (needs_rerun, are_routes_dirty, mut timer) = match std::mem::replace(self, SYNCING) {
            Self::Syncing {
                needs_rerun,
                are_routes_dirty,
            } => (needs_rerun, are_routes_dirty, None),
            Self::Cleaning {
                next,
                are_routes_dirty,
            } => match next {
                Next::Rest => (false, are_routes_dirty, None),
                Next::Scheduled(timer) => (false, are_routes_dirty, Some(timer)),
                Next::Rerun => (true, are_routes_dirty, None),
            },
            resting @ Self::Resting { .. } => {
                *self = resting;
                return false;
            }
        };
        if are_routes_dirty {
            netns_state.forget_routes();
        }
        if let (false, Some(wait)) = (needs_rerun, retry_in) {
            timers.retry(&mut timer, uid, wait);
        }
        *self = Self::Resting { netns_state, timer };
        needs_rerun
    }

    /// Schedules a check, routes included, after `wait`, or after the work that runs.
    pub(super) fn check(&mut self, uid: &str, wait: Duration, timers: &mut Timers) {
        if let Self::Resting { timer, .. } = self {
            timers.check(timer, uid, wait);
        } else {
            self.forget_routes();
            self.rerun(timers);
        }
    }

    /// Makes the next attempt read routes, links and addresses.
    pub(super) fn forget_routes(&mut self) {
        match self {
            Self::Resting { netns_state, .. } => netns_state.forget_routes(),
            Self::Syncing { are_routes_dirty, .. } | Self::Cleaning { are_routes_dirty, .. } => {
                *are_routes_dirty = true;
            }
        }
    }

    /// Records that anything in the namespace may have changed. Another attempt follows the work that runs.
    pub(super) fn invalidate(&mut self, timers: &mut Timers) {
        if let Self::Resting { netns_state, .. } = self {
            netns_state.invalidate();
        } else {
            self.forget_routes();
            self.rerun(timers);
        }
    }

    /// The timer fired: the caller starts an attempt now. The attempt reads routes.
    pub(super) fn fired(&mut self) {
        match self {
            Self::Resting { timer, .. } => *timer = None,
            Self::Cleaning { next, .. } if matches!(next, Next::Scheduled(_)) => *next = Next::Rest,
            Self::Syncing { .. } | Self::Cleaning { .. } => {}
        }
        self.forget_routes();
    }

    /// Ends everything: the pod is deleted.
    pub(super) fn cancel(self, timers: &mut Timers) {
        let (Self::Resting {
            timer: Some(timer), ..
        }
        | Self::Cleaning {
            next: Next::Scheduled(timer),
            ..
        }) = self
        else {
            return;
        };
        timers.cancel(timer);
    }

    /// Returns the state of the namespace. `None`: work runs.
    pub(super) fn netns_state(&self) -> Option<&NetnsState> {
        match self {
            Self::Resting { netns_state, .. } => Some(netns_state),
            Self::Syncing { .. } | Self::Cleaning { .. } => None,
        }
    }

    /// Becomes `Syncing` if no work runs.
    fn leave_rest(&mut self) -> Option<(NetnsState, Option<Timer>)> {
        match std::mem::replace(self, SYNCING) {
            Self::Resting { netns_state, timer } => Some((netns_state, timer)),
            working => {
                *self = working;
                None
            }
        }
    }

    /// Another attempt follows the work that runs.
    fn rerun(&mut self, timers: &mut Timers) {
        match self {
            Self::Resting { .. } => {}
            Self::Syncing { needs_rerun, .. } => *needs_rerun = true,
            Self::Cleaning {
                next,
                are_routes_dirty,
            } => {
                if let Next::Scheduled(timer) = std::mem::replace(next, Next::Rerun) {
                    *are_routes_dirty |= timers.cancel(timer);
                }
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(super) mod tests;
