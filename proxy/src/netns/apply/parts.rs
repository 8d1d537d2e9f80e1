//! Bisection of a step that the kernel rejects: applies it for as many VIPs as possible, and finds those for which it fails.
//!
//! Writes: through the backend. A transaction is accepted or rejected as a whole, and the kernel names at most one message of a rejected one;
//! so the VIPs are halved until each part is accepted or has one VIP. A failed step may have made some of its transactions: the rules are
//! read before each part.

use crate::backend::{Backend, Error};
use crate::netlink::generation;
use crate::netns::memory;
use api::Family;
use process::error_chain;
use rules::{Delta, KernelState, PodRules, SourceChange};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Largest number of tries per step: finds two VIPs among thousands. VIPs that are not tried by then count as failed.
const TRIES: u32 = 48;

/// Duration of a try after which no other is made: it waited for a lock that the pod's owner holds, as the next one would.
const SLOW: Duration = Duration::from_secs(3);

/// Time after which no further try begins.
const PATIENCE: Duration = Duration::from_secs(8);

/// Step of [`Backend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Reject,
    Translate,
    Unreject,
}

impl Step {
    /// Returns true when the delta has changes for this step.
    pub(super) fn is_due(self, delta: &Delta<'_>) -> bool {
        match self {
            Self::Reject => delta.rejects(),
            Self::Translate => delta.translates(),
            Self::Unreject => delta.unrejects(),
        }
    }

    pub(super) fn run(self, backend: &dyn Backend, delta: &Delta<'_>) -> Result<(), Error> {
        match self {
            Self::Reject => backend.reject(delta),
            Self::Translate => backend.translate(delta),
            Self::Unreject => backend.unreject(delta),
        }
    }

    /// Returns the VIPs that this step changes.
    fn vips(self, delta: &Delta<'_>) -> BTreeSet<IpAddr> {
        let (mut vips, is_of_the_step): (_, fn(&SourceChange) -> bool) = match self {
            Self::Reject => (delta.reject.clone(), |change| change.new.is_some()),
            Self::Translate => {
                let udp = delta.reject_udp.union(&delta.unreject_udp).copied();
                (delta.translated().into_iter().chain(udp).collect(), |_| true)
            }
            Self::Unreject => (delta.unreject.clone(), |change| change.new.is_none()),
        };
        let sources = delta.sources.iter().filter(|(_, change)| is_of_the_step(change));
        vips.extend(sources.map(|(vip, _)| *vip));
        vips
    }
}

/// Reads the rules after a rejected change. If they cannot be read completely, nothing is written: the attempt fails, and the next one has
/// the memory to read everything.
pub(super) fn read_again(backend: &dyn Backend) -> Result<KernelState, Error> {
    generation::expect(None);
    let dump = memory::uncharged(|| backend.dump())?;
    if dump.unread.is_empty() {
        return Ok(dump);
    }
    let unread = dump.unread.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::Kernel {
        action: "list the rules after a rejected change".to_owned(),
        source: io::Error::other(unread),
    })
}

/// VIPs for which a step failed, with the error.
pub(super) type Failed = BTreeMap<IpAddr, String>;

/// Bisection of one step, which failed as a whole with `error`.
pub(super) struct Parts<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) step: Step,
    /// Target rules.
    pub(super) target: &'a PodRules,
    /// VIPs that stay unchanged.
    pub(super) frozen: &'a BTreeSet<IpAddr>,
    began: Instant,
    slowest: Duration,
    error: String,
    tries: u32,
}

impl<'a> Parts<'a> {
    /// Creates a bisection. `took`: duration of the first try.
    pub(super) fn new(
        backend: &'a dyn Backend,
        step: Step,
        target: &'a PodRules,
        frozen: &'a BTreeSet<IpAddr>,
        error: &Error,
        took: Duration,
    ) -> Self {
        Self {
            backend,
            step,
            target,
            frozen,
            began: Instant::now(),
            slowest: took,
            error: error_chain(error),
            tries: 0,
        }
    }

    /// Applies the step for as many VIPs as possible.
    pub(super) fn make(mut self) -> Result<Failed, Error> {
        let mut failed = Failed::new();
        for family in Family::ALL {
            self.family(family, &mut failed)?;
        }
        Ok(failed)
    }

    fn family(&mut self, family: Family, failed: &mut Failed) -> Result<(), Error> {
        let read = read_again(self.backend)?;
        let delta = Delta::from_kernel_state(&read, self.target).of(family);
        if !self.step.is_due(&delta) {
            return Ok(());
        }
        if !delta.is_rebuild() {
            let vips = self.step.vips(&delta);
            return self.halve(family, vips, failed);
        }
        // Everything of the family is one transaction. If it is rejected again, then perhaps because of one VIP: first none is translated.
        if self.attempt(&delta) {
            return Ok(());
        }
        let all = delta.rejected_meanwhile(family);
        let bare = self.target.rejecting(&all);
        if self.step == Step::Translate && self.attempt(&Delta::from_kernel_state(&read, &bare).of(family)) {
            return self.halve(family, all, failed);
        }
        failed.extend(all.into_iter().map(|vip| (vip, self.error.clone())));
        Ok(())
    }

    fn halve(&mut self, family: Family, all: BTreeSet<IpAddr>, failed: &mut Failed) -> Result<(), Error> {
        let mut groups = vec![all];
        while let Some(mut group) = groups.pop() {
            group.retain(|vip| !self.frozen.contains(vip));
            if group.is_empty() {
                continue;
            }
            let read = read_again(self.backend)?;
            let part = self.target.partial_update(&read, |vip| group.contains(&vip));
            let delta = Delta::from_kernel_state(&read, &part)
                .of(family)
                .rejecting_udp_of(&group);
            if self.attempt(&delta) {
                continue;
            }
            match half(&group) {
                Some(middle) if !self.is_over() => {
                    let second = group.split_off(&middle);
                    groups.extend([second, group]);
                }
                _ => failed.extend(group.into_iter().map(|vip| (vip, self.error.clone()))),
            }
        }
        Ok(())
    }

    /// Tries once, and records the error.
    fn attempt(&mut self, delta: &Delta<'_>) -> bool {
        if self.is_over() {
            return false;
        }
        self.tries += 1;
        let began = Instant::now();
        let result = self.step.run(self.backend, delta);
        self.slowest = self.slowest.max(began.elapsed());
        if let Err(error) = &result {
            self.error = error_chain(error);
        }
        result.is_ok()
    }

    fn is_over(&self) -> bool {
        self.tries >= TRIES || self.slowest >= SLOW || self.began.elapsed() >= PATIENCE
    }
}

/// Returns the first VIP of the second half; `None`: there is only one VIP.
fn half(group: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    group
        .iter()
        .nth(group.len() / 2)
        .filter(|_| group.len() > 1)
        .copied()
}
