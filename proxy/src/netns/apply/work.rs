//! Running apply: its steps, and how a failed step changes the following ones.
//!
//! Writes: rules through the backend, routes.

use super::Error;
use super::parts::{Failed, Parts, Step, read_again};
use crate::backend::{self, Backend, KnownRules};
use crate::netlink::Netlink;
use crate::netns::addresses::Addresses;
use crate::netns::conntrack::{self, Pending};
use crate::netns::counters::ROUTES_REPAIRED;
use crate::netns::failure::{Effect, Failures};
use crate::netns::routes::Routes;
use crate::netns::{self, legacy_proxy};
use netlink_packet_route::RouteNetlinkMessage;
use process::error_chain;
use rules::{Delta, KernelState, PodRules};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

/// Known rules of a namespace.
#[derive(Clone)]
pub(super) enum Known<'a> {
    Nothing,
    Rules(&'a PodRules),
    Read(Rc<KernelState>),
}

impl<'a> Known<'a> {
    /// Reads the rules if they are unknown.
    pub(super) fn read(
        backend: &dyn Backend,
        held: &'a KnownRules<PodRules>,
    ) -> Result<Self, backend::Error> {
        Ok(match held {
            KnownRules::Nothing => Self::Nothing,
            KnownRules::Exactly(rules) => Self::Rules(rules),
            KnownRules::Unknown => Self::Read(Rc::new(backend.dump()?)),
        })
    }

    /// Returns unread content: see [`KernelState::unread`].
    pub(super) fn unread(&self) -> BTreeSet<String> {
        match self {
            Self::Read(dump) => dump.unread.clone(),
            Self::Nothing | Self::Rules(_) => BTreeSet::new(),
        }
    }

    /// Adds VIPs to those that are rejected in the namespace.
    pub(super) fn add_rejected(&mut self, vips: impl Iterator<Item = IpAddr>) {
        if let Self::Read(dump) = self {
            Rc::make_mut(dump).rejected.extend(vips);
        }
    }

    /// Returns true when no managed route to this VIP is known.
    pub(super) fn has_no_route(&self, vip: IpAddr) -> bool {
        match self {
            Self::Nothing => true,
            Self::Rules(rules) => rules.vip(vip).is_none_or(|(_, source)| source.is_none()),
            Self::Read(_) => false,
        }
    }

    pub(super) fn delta<'d>(&'d self, wanted: &'d PodRules) -> Delta<'d> {
        match self {
            Self::Nothing => Delta::from_nothing(wanted),
            Self::Rules(held) => Delta::between(held, wanted),
            Self::Read(dump) => Delta::from_kernel_state(dump, wanted),
        }
    }
}

pub(super) struct Work<'a> {
    backend: &'a dyn Backend,
    known: &'a Known<'a>,
    /// Delta before any failure.
    first: &'a Delta<'a>,
    /// Known and target rules after a failure.
    changed: Option<(Known<'a>, PodRules)>,
    /// VIPs that are rejected because of a failure.
    rejected: BTreeSet<IpAddr>,
    /// VIPs that stay unchanged because rejecting them failed, too.
    frozen: BTreeSet<IpAddr>,
    pub(super) failures: Failures,
    written: bool,
    is_exact: bool,
}

/// Result of the steps.
pub(super) struct Done {
    pub(super) rules: PodRules,
    pub(super) written: bool,
    pub(super) failures: Failures,
    pub(super) is_exact: bool,
}

/// Returns the delta to write now.
fn now<'d>(first: &'d Delta<'d>, changed: Option<&'d (Known<'_>, PodRules)>) -> Cow<'d, Delta<'d>> {
    match changed {
        None => Cow::Borrowed(first),
        Some((known, target)) => Cow::Owned(known.delta(target)),
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(backend: &'a dyn Backend, known: &'a Known<'a>, first: &'a Delta<'a>) -> Self {
        Self {
            backend,
            known,
            first,
            changed: None,
            rejected: BTreeSet::new(),
            frozen: BTreeSet::new(),
            failures: Failures::default(),
            written: false,
            is_exact: true,
        }
    }

    /// Runs a step for as many VIPs as possible.
    pub(super) fn step(&mut self, step: Step) -> Result<(), backend::Error> {
        let Some(failed) = self.make(step)? else {
            return Ok(());
        };
        if step == Step::Translate {
            return self.reject_untranslated(failed);
        }
        let effect = if step == Step::Reject {
            Effect::Unknown
        } else {
            Effect::Kept
        };
        self.freeze(effect, failed);
        self.look()
    }

    /// Returns the VIPs for which the step failed; `None`: success.
    fn make(&mut self, step: Step) -> Result<Option<Failed>, backend::Error> {
        let now = now(self.first, self.changed.as_ref());
        if !step.is_due(&now) {
            return Ok(None);
        }
        self.written = true;
        let began = Instant::now();
        let Err(error) = step.run(self.backend, &now) else {
            return Ok(None);
        };
        if matches!(error, backend::Error::Stale) {
            return Err(error);
        }
        self.is_exact = false;
        let took = began.elapsed();
        let parts = Parts::new(self.backend, step, now.wanted(), &self.frozen, &error, took);
        parts.make().map(Some)
    }

    /// Rejects VIPs whose new translation failed, rather than keep their former translation.
    fn reject_untranslated(&mut self, failed: Failed) -> Result<(), backend::Error> {
        let is_wanted = |vip: &IpAddr| self.first.wanted().vip(*vip).is_some();
        let (wanted, gone): (Failed, Failed) = failed.into_iter().partition(|(vip, _)| is_wanted(vip));
        self.freeze(Effect::Unchanged, gone);
        self.rejected.extend(wanted.keys());
        self.look()?;
        let stuck = self.make(Step::Translate)?.unwrap_or_default();
        let (stuck, rejected): (Failed, Failed) =
            wanted.into_iter().partition(|(vip, _)| stuck.contains_key(vip));
        self.freeze(Effect::Unchanged, stuck);
        self.note(Effect::Rejected, rejected);
        self.look()
    }

    /// Adds the routes of all VIPs that may lack one. VIPs without a route are rejected. Returns the VIPs with a foreign route.
    pub(super) fn add_routes(
        &mut self,
        routes: &mut Routes,
        netlink: &mut Netlink<RouteNetlinkMessage>,
        addresses: &Addresses,
        foreign_before: BTreeSet<IpAddr>,
    ) -> BTreeSet<IpAddr> {
        let rules = self.first.wanted();
        let (mut wanted, mut foreign) = if routes.are_read() {
            (rules.routes(), BTreeSet::new())
        } else {
            (self.first.route.clone(), foreign_before)
        };
        wanted.retain(|vip, _| !self.frozen.contains(vip));
        let added = routes.add(netlink, addresses, &wanted);
        ROUTES_REPAIRED.inc_by(self.repaired(&added.written));
        if !added.failed.is_empty() {
            self.rejected.extend(added.failed.keys());
            self.note(Effect::Rejected, causes(&added.failed));
            self.retarget();
        }
        foreign.retain(|vip| rules.vip(*vip).is_some_and(|(_, source)| source.is_some()));
        foreign.extend(added.foreign);
        foreign
    }

    /// Returns the number of routes that this process had written before, and that no change of rules asked for.
    fn repaired(&self, written: &[IpAddr]) -> u64 {
        let Known::Rules(_) = self.known else {
            return 0;
        };
        let repaired = written.iter().filter(|vip| !self.first.route.contains_key(*vip));
        repaired.count() as u64
    }

    /// Removes all other routes. A VIP that keeps its route stays rejected: its packets would leave untranslated.
    pub(super) fn remove_routes(
        &mut self,
        routes: &mut Routes,
        netlink: &mut Netlink<RouteNetlinkMessage>,
    ) -> Result<(), backend::Error> {
        let failed = if routes.are_read() {
            let wanted = self.first.wanted().routes();
            let is_kept = |vip: &IpAddr| wanted.contains_key(vip) || self.frozen.contains(vip);
            causes(&routes.remove_others(netlink, is_kept))
        } else {
            let gone = self
                .first
                .unroute
                .iter()
                .filter(|vip| !self.frozen.contains(*vip));
            causes(&Routes::remove(netlink, gone.copied()))
        };
        if failed.is_empty() {
            return Ok(());
        }
        self.is_exact = false;
        let is_wanted = |vip: &IpAddr| self.first.wanted().vip(*vip).is_some();
        let (wanted, gone): (Failed, Failed) = failed.into_iter().partition(|(vip, _)| is_wanted(vip));
        self.note(Effect::Rejected, wanted);
        self.freeze(Effect::Kept, gone);
        self.look()
    }

    /// Removes rules of other backends and of the legacy proxy, once ours are complete.
    pub(super) fn clear_others(&mut self) {
        if !self.failures.is_empty() {
            // Those rules may serve VIPs that ours do not. The next attempt reads everything and retries.
            self.is_exact = false;
            return;
        }
        let by_backends = self.backend.replace_others().map_err(Error::from);
        // The legacy proxy wrote into pods only.
        let by_the_legacy_proxy = if netns::is_home() {
            Ok(())
        } else {
            legacy_proxy::remove()
        };
        for error in [by_backends, by_the_legacy_proxy]
            .into_iter()
            .filter_map(Result::err)
        {
            self.is_exact = false;
            self.failures
                .note(Effect::LeftOver, None, error_chain(&error), self.first.wanted());
        }
    }

    /// Returns the pending deletions of flows; none if the namespace has no flows: checked after the rules are written, so that later flows are
    /// translated by them.
    pub(super) fn pending(&self, is_young: bool) -> Pending {
        let pending = match &self.changed {
            None => Pending::of(self.first, &self.frozen, is_young),
            Some((_, target)) => Pending::of(&self.known.delta(target), &self.frozen, is_young),
        };
        if !pending.is_empty() && conntrack::is_idle() {
            return Pending::none_but(&self.frozen);
        }
        pending
    }

    pub(super) fn done(self) -> Done {
        let rules = match self.changed {
            None => self.first.wanted().clone(),
            Some(_) => self
                .first
                .wanted()
                .rejecting(&self.rejected)
                .without_vips(&self.frozen),
        };
        Done {
            rules,
            written: self.written,
            failures: self.failures,
            is_exact: self.is_exact,
        }
    }

    /// Leaves VIPs unchanged.
    fn freeze(&mut self, effect: Effect, failed: Failed) {
        self.frozen.extend(failed.keys());
        self.note(effect, failed);
    }

    fn note(&mut self, effect: Effect, failed: Failed) {
        for (vip, cause) in failed {
            self.failures.note(effect, Some(vip), cause, self.first.wanted());
        }
    }

    /// Reads the rules after a failure.
    fn look(&mut self) -> Result<(), backend::Error> {
        let known = Known::Read(Rc::new(read_again(self.backend)?));
        self.changed = Some((known, PodRules::default()));
        self.retarget();
        Ok(())
    }

    /// Reduces the target after a failure.
    fn retarget(&mut self) {
        let known = match self.changed.take() {
            Some((known, _)) => known,
            None => self.known.clone(),
        };
        let mut target = self.first.wanted().rejecting(&self.rejected);
        if let (Known::Read(read), false) = (&known, self.frozen.is_empty()) {
            target = target.partial_update(read, |vip| !self.frozen.contains(&vip));
        }
        self.changed = Some((known, target));
    }
}

fn causes<E: std::error::Error + 'static>(failed: &BTreeMap<IpAddr, E>) -> Failed {
    let failed = failed.iter();
    failed.map(|(vip, error)| (*vip, error_chain(error))).collect()
}
