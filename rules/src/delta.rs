//! `Delta`: the writes that bring a namespace from its present rules to the wanted ones.
//!
//! Pure. Backends and routes write a delta and nothing else, so a change costs what changed. Two rules that share a network's
//! [`NetworkRules`](crate::NetworkRules), or a VIP's [`VipRules`](crate::VipRules), are equal there without a comparison.

use crate::vip_map::differing_vips;
use crate::{
    AttachedNetwork, KernelState, Places, PodRules, Port, PortRules, Protocol, Source, Translation, VipRules,
};
use api::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The difference between held and wanted rules. Sorted.
#[derive(Clone, Debug)]
pub struct Delta<'a> {
    held: Held<'a>,
    wanted: &'a PodRules,
    /// The family of the delta; `None`: both.
    family: Option<Family>,
    /// VIPs to reject that are not rejected yet: written first.
    pub reject: BTreeSet<IpAddr>,
    /// VIPs whose flows leave with another source address than before. New addresses are written before routes and translation, which
    /// may send flows by them; addresses that have no successor are removed last.
    pub sources: BTreeMap<IpAddr, SourceChange>,
    /// Routes to add or to replace: written before the translation.
    pub route: BTreeMap<IpAddr, &'a Source>,
    /// VIPs whose rejected UDP flows are to end at the loopback address and do not yet: written with the translation.
    pub reject_udp: BTreeSet<IpAddr>,
    /// VIPs whose UDP flows no longer end there: removed with the translation.
    pub unreject_udp: BTreeSet<IpAddr>,
    /// Ports whose translation changes. Neither side is the same as the other.
    pub ports: BTreeMap<(IpAddr, Port), PortChange<'a>>,
    /// VIPs whose Service, or a port of it, has another name: comments only, for backends that show them.
    pub renamed: BTreeSet<IpAddr>,
    /// Routes to remove: written after the translation. Only complete when the held rules are known; otherwise the routes have to be read.
    pub unroute: BTreeSet<IpAddr>,
    /// VIPs that are no longer rejected: written last before conntrack.
    pub unreject: BTreeSet<IpAddr>,
    /// UDP and SCTP ports that may have flows to endpoints that no longer serve them, and the endpoints that do: all other conntrack
    /// entries of these ports are deleted, last.
    pub flows: BTreeMap<(IpAddr, Port), BTreeSet<SocketAddr>>,
}

/// A port whose translation changes. `None`: it is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortChange<'a> {
    /// Value in the namespace.
    pub old: Option<Translation<'a>>,
    /// Wanted value.
    pub new: Option<Translation<'a>>,
}

/// The source address of the pod's own flows to a VIP. `None`: they are rejected. Neither side is the same as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceChange {
    /// Value in the namespace.
    pub old: Option<IpAddr>,
    /// Wanted value.
    pub new: Option<IpAddr>,
}

/// State of the namespace before the change.
#[derive(Clone, Copy, Debug)]
enum Held<'a> {
    Nothing,
    Rules(&'a PodRules),
    KernelState(&'a KernelState),
}

/// Presence of the backend's own hooks, besides VIPs, in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// No proxy has written there.
    Absent,
    /// Unknown: the namespace had a VIP once.
    Unknown,
    /// The namespace has a VIP.
    Present,
}

impl<'a> Delta<'a> {
    /// For a namespace without rules, into which no proxy can have written.
    pub fn from_nothing(wanted: &'a PodRules) -> Self {
        Self::new(Held::Nothing, wanted)
    }

    /// For a namespace that holds exactly `held`.
    pub fn between(held: &'a PodRules, wanted: &'a PodRules) -> Self {
        Self::new(Held::Rules(held), wanted)
    }

    /// For a namespace that was read. When it [is damaged](Self::is_rebuild) everything has to be written.
    pub fn from_kernel_state(held: &'a KernelState, wanted: &'a PodRules) -> Self {
        Self::new(Held::KernelState(held), wanted)
    }

    /// Whether the state before was read from the kernel.
    pub fn is_from_kernel_state(&self) -> bool {
        matches!(self.held, Held::KernelState(_))
    }

    /// Returns the wanted rules.
    pub fn wanted(&self) -> &'a PodRules {
        self.wanted
    }

    /// Returns the wanted rules with endpoints in places that are cheap to reach from those held; `None`: they are in such places. Differences
    /// from the plan are specific to this namespace, as after a restart.
    pub fn placed(&self) -> Option<PodRules> {
        if self.is_rebuild() {
            return None;
        }
        let mut placed = BTreeMap::<IpAddr, BTreeMap<Port, Places>>::new();
        for ((vip, port), change) in &self.ports {
            if let PortChange {
                old: Some(old),
                new: Some(new),
            } = change
                && let Some(places) = old.endpoints.closer_to(new.endpoints)
            {
                placed.entry(*vip).or_default().insert(*port, places);
            }
        }
        (!placed.is_empty()).then(|| self.wanted.with_places(placed))
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.is_rebuild()
            && self.reject.is_empty()
            && self.sources.is_empty()
            && self.route.is_empty()
            && self.reject_udp.is_empty()
            && self.unreject_udp.is_empty()
            && self.ports.is_empty()
            && self.renamed.is_empty()
            && self.unroute.is_empty()
            && self.unreject.is_empty()
    }

    /// Whether the rules in the namespace are damaged: all of them are replaced by the wanted ones in one transaction, so that there is
    /// no gap.
    pub fn is_rebuild(&self) -> bool {
        matches!(self.held, Held::KernelState(state) if !(state.damage.is_empty() && state.unread.is_empty()))
    }

    /// Returns the families with writes.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let family = self.family;
        Family::ALL
            .into_iter()
            .filter(move |other| family.is_none_or(|family| family == *other))
    }

    /// Returns the part of one family.
    #[must_use]
    pub fn of(&self, family: Family) -> Self {
        let of_family = |vip: &IpAddr| Family::of(*vip) == family;
        let mut part = self.clone();
        part.family = Some(family);
        part.reject.retain(of_family);
        part.sources.retain(|vip, _| of_family(vip));
        part.route.retain(|vip, _| of_family(vip));
        part.reject_udp.retain(of_family);
        part.unreject_udp.retain(of_family);
        part.ports.retain(|(vip, _), _| of_family(vip));
        part.renamed.retain(of_family);
        part.unroute.retain(of_family);
        part.unreject.retain(of_family);
        part.flows.retain(|(vip, _), _| of_family(vip));
        part
    }

    /// Returns the VIPs whose translation changes, or its comment.
    pub fn translated(&self) -> BTreeSet<IpAddr> {
        let ports = self.ports.keys().map(|(vip, _)| *vip);
        ports.chain(self.renamed.iter().copied()).collect()
    }

    /// Whether the first step has something to write: VIPs to reject, or source addresses.
    pub fn rejects(&self) -> bool {
        self.is_rebuild()
            || !self.reject.is_empty()
            || self.sources.values().any(|change| change.new.is_some())
    }

    /// Whether the second step has: translations, their comments, or the rejection of UDP flows.
    pub fn translates(&self) -> bool {
        let is_idle = self.ports.is_empty()
            && self.renamed.is_empty()
            && self.sources.is_empty()
            && self.reject_udp.is_empty()
            && self.unreject_udp.is_empty();
        self.is_rebuild() || !is_idle
    }

    /// Returns the delta in which only `vips` begin or cease to reject UDP flows.
    #[must_use]
    pub fn rejecting_udp_of(mut self, vips: &BTreeSet<IpAddr>) -> Self {
        self.reject_udp.retain(|vip| vips.contains(vip));
        self.unreject_udp.retain(|vip| vips.contains(vip));
        self
    }

    /// Returns the wanted VIPs of `family`.
    pub fn wanted_vips(&self, family: Family) -> BTreeSet<IpAddr> {
        self.wanted.vips(family).into_keys().collect()
    }

    /// Returns the VIPs of `family` whose rejected UDP flows end at the loopback address after the second step.
    pub fn rejected_udp(&self, family: Family) -> BTreeSet<IpAddr> {
        let mut vips = match self.held {
            Held::Nothing => BTreeSet::new(),
            Held::Rules(rules) => rules.vips(family).into_keys().collect(),
            Held::KernelState(state) => state.rejected_udp.clone(),
        };
        vips.extend(&self.reject_udp);
        vips.retain(|vip| Family::of(*vip) == family && !self.unreject_udp.contains(vip));
        vips
    }

    /// Whether the last step has: VIPs that are no longer rejected, or source addresses without a successor.
    pub fn unrejects(&self) -> bool {
        !self.unreject.is_empty() || self.sources.values().any(|change| change.new.is_none())
    }

    /// Returns the source changes of `family`.
    pub fn sources(&self, family: Family) -> impl Iterator<Item = (IpAddr, SourceChange)> {
        let of_family = move |(vip, _): &(&IpAddr, &SourceChange)| Family::of(**vip) == family;
        let changes = self.sources.iter().filter(of_family);
        changes.map(|(vip, change)| (*vip, *change))
    }

    /// Returns, by VIP of `family`, the source addresses after the first step and before the last.
    pub fn sources_meanwhile(&self, family: Family) -> BTreeMap<IpAddr, IpAddr> {
        let mut sources = self.wanted.source_addresses(family);
        let without_successor = self.sources(family).filter(|(_, change)| change.new.is_none());
        sources.extend(without_successor.filter_map(|(vip, change)| Some((vip, change.old?))));
        sources
    }

    /// Returns the presence of the backend's own hooks for `family`.
    pub fn base(&self, family: Family) -> Base {
        let any = match self.held {
            Held::Nothing => return Base::Absent,
            Held::Rules(rules) => rules.has(family),
            Held::KernelState(state) => state.has(family),
        };
        if any { Base::Present } else { Base::Unknown }
    }

    /// Returns the VIPs of `family` that are rejected after `reject` and before `unreject`.
    pub fn rejected_meanwhile(&self, family: Family) -> BTreeSet<IpAddr> {
        let held = self.held.vips(family).into_iter();
        held.chain(self.wanted.vips(family).into_keys()).collect()
    }

    fn new(held: Held<'a>, wanted: &'a PodRules) -> Self {
        let mut delta = Self {
            held,
            wanted,
            family: None,
            reject: BTreeSet::new(),
            sources: BTreeMap::new(),
            route: BTreeMap::new(),
            reject_udp: BTreeSet::new(),
            unreject_udp: BTreeSet::new(),
            ports: BTreeMap::new(),
            renamed: BTreeSet::new(),
            unroute: BTreeSet::new(),
            unreject: BTreeSet::new(),
            flows: BTreeMap::new(),
        };
        for vip in held.candidates(wanted) {
            match held {
                Held::Nothing => delta.compare(vip, None),
                Held::Rules(rules) => delta.compare(vip, rules.vip(vip)),
                Held::KernelState(state) => delta.compare_read(vip, state),
            }
        }
        delta
    }

    /// Compares one VIP whose previous rules are known.
    fn compare(&mut self, vip: IpAddr, old: Option<(&'a VipRules, Option<&'a Source>)>) {
        let new = self.wanted.vip(vip);
        match (old, new) {
            (None, Some(_)) => {
                self.reject.insert(vip);
                self.reject_udp.insert(vip);
            }
            (Some(_), None) => {
                self.unreject.insert(vip);
                self.unreject_udp.insert(vip);
            }
            _ => {}
        }
        let source = |of: Option<(&VipRules, Option<&'a Source>)>| of.and_then(|(_, source)| source);
        match (source(old), source(new)) {
            (old, Some(new)) if old != Some(new) => _ = self.route.insert(vip, new),
            (Some(_), None) => _ = self.unroute.insert(vip),
            _ => {}
        }
        let address = |of| source(of).map(|source| source.address);
        let (old_source, new_source) = (address(old), address(new));
        self.change_source(vip, old_source, new_source);
        // Established flows have the old one.
        let is_moved = old_source.is_some() && new_source.is_some() && old_source != new_source;
        if let (Some((old, _)), Some((new, _))) = (old, new)
            && is_renamed(old, new)
        {
            self.renamed.insert(vip);
        }
        for port in ports(old.map(|(rules, _)| rules), new.map(|(rules, _)| rules)) {
            let (old, new) = (At::of(old, port), At::of(new, port));
            self.change(vip, port, old.translation, new.translation);
            if port.protocol != Protocol::Tcp && (is_moved || !old.keeps_all_in(new)) {
                self.flows.insert((vip, port), new.keepers());
            }
        }
    }

    /// Compares one VIP with the state that was read. Flows are not known: all that may be stale are checked.
    fn compare_read(&mut self, vip: IpAddr, state: &'a KernelState) {
        let new = self.wanted.vip(vip);
        match (state.rejected.contains(&vip), new) {
            (false, Some(_)) => _ = self.reject.insert(vip),
            (true, None) => _ = self.unreject.insert(vip),
            _ => {}
        }
        match (state.rejected_udp.contains(&vip), new) {
            (false, Some(_)) => _ = self.reject_udp.insert(vip),
            (true, None) => _ = self.unreject_udp.insert(vip),
            _ => {}
        }
        if let Some((_, Some(source))) = new {
            self.route.insert(vip, source);
        }
        let new_source = new.and_then(|(_, source)| Some(source?.address));
        self.change_source(vip, state.sources.get(&vip).copied(), new_source);
        let read = state.translated.range((vip, Port::FIRST)..=(vip, Port::LAST));
        let mut all: BTreeSet<Port> = read.map(|((_, port), _)| *port).collect();
        all.extend(new.into_iter().flat_map(|(rules, _)| rules.ports.keys()));
        for port in all {
            let old = state.translated.get(&(vip, port));
            let new = At::of(new, port);
            self.change(vip, port, old.map(|old| old.as_translation()), new.translation);
            if port.protocol != Protocol::Tcp {
                self.flows.insert((vip, port), new.keepers());
            }
        }
    }

    fn change_source(&mut self, vip: IpAddr, old: Option<IpAddr>, new: Option<IpAddr>) {
        if old != new {
            self.sources.insert(vip, SourceChange { old, new });
        }
    }

    fn change(
        &mut self,
        vip: IpAddr,
        port: Port,
        old: Option<Translation<'a>>,
        new: Option<Translation<'a>>,
    ) {
        if old != new {
            self.ports.insert((vip, port), PortChange { old, new });
        }
    }
}

/// State of one port before or after.
#[derive(Clone, Copy)]
struct At<'a> {
    rules: Option<&'a PortRules>,
    translation: Option<Translation<'a>>,
}

impl<'a> At<'a> {
    fn of(vip: Option<(&'a VipRules, Option<&'a Source>)>, port: Port) -> Self {
        let (rules, source) = vip.map_or((None, None), |(vip, source)| (vip.ports.get(&port), source));
        let rules = rules.map(AsRef::as_ref);
        Self {
            rules,
            translation: rules.and_then(|rules| rules.translation(source)),
        }
    }

    /// Endpoints that may have established flows.
    fn keepers(self) -> BTreeSet<SocketAddr> {
        let (Some(translation), Some(rules)) = (self.translation, self.rules) else {
            return BTreeSet::new();
        };
        let draining = rules.draining.iter();
        translation.endpoints.iter().chain(draining).copied().collect()
    }

    /// Whether every possible flow is allowed in `new`. Where nothing was translated before, flows can have begun to the VIP
    /// itself, or before the rules.
    fn keeps_all_in(self, new: Self) -> bool {
        match (self.translation, new.translation) {
            (None, None) => true,
            (Some(before), Some(after)) => {
                let is_kept = |endpoint: &SocketAddr| {
                    after.endpoints.contains(endpoint)
                        || new.rules.is_some_and(|rules| rules.draining.contains(endpoint))
                };
                let drained = self.rules.into_iter().flat_map(|rules| &rules.draining).copied();
                let mut gone = before.endpoints.not_in(Some(after.endpoints)).chain(drained);
                gone.all(|endpoint| is_kept(&endpoint))
            }
            _ => false,
        }
    }
}

impl Held<'_> {
    fn vips(self, family: Family) -> BTreeSet<IpAddr> {
        match self {
            Self::Nothing => BTreeSet::new(),
            Self::Rules(rules) => rules.vips(family).into_keys().collect(),
            Self::KernelState(state) => {
                let translated = state.translated.keys().map(|(vip, _)| vip);
                let all = state.rejected.iter().chain(translated).copied();
                all.filter(|vip| Family::of(*vip) == family).collect()
            }
        }
    }

    /// Returns the VIPs that may differ.
    fn candidates(self, wanted: &PodRules) -> BTreeSet<IpAddr> {
        let Self::Rules(held) = self else {
            let of = |family| {
                let wanted = wanted.vips(family).into_keys();
                self.vips(family).into_iter().chain(wanted)
            };
            let mut candidates: BTreeSet<IpAddr> = Family::ALL.into_iter().flat_map(of).collect();
            if let Self::KernelState(state) = self {
                candidates.extend(state.sources.keys().chain(&state.rejected_udp));
            }
            return candidates;
        };
        let mut candidates = BTreeSet::new();
        let networks: BTreeSet<_> = held.networks.keys().chain(wanted.networks.keys()).collect();
        for network in networks {
            differing(
                held.networks.get(network),
                wanted.networks.get(network),
                &mut candidates,
            );
        }
        candidates
    }
}

/// Adds the VIPs of one network that may differ. The network that has a VIP claimed by two can only change with one of these.
fn differing(
    old: Option<&AttachedNetwork>,
    new: Option<&AttachedNetwork>,
    candidates: &mut BTreeSet<IpAddr>,
) {
    let has_same_source = |family| match (old, new) {
        (Some(old), Some(new)) => old.source(family) == new.source(family),
        _ => false,
    };
    if let (Some(old), Some(new)) = (old, new)
        && !Arc::ptr_eq(&old.rules, &new.rules)
        && Family::ALL.into_iter().any(has_same_source)
    {
        candidates.extend(differing_vips(old.rules.vips(), new.rules.vips()));
    }
    for family in Family::ALL {
        if !has_same_source(family) {
            let both = old.into_iter().chain(new);
            candidates.extend(both.flat_map(|attached| attached.rules.of(family).map(|(vip, _)| vip)));
        }
    }
}

fn is_renamed(old: &VipRules, new: &VipRules) -> bool {
    let mut both = new
        .ports
        .iter()
        .filter_map(|(port, new)| Some((old.ports.get(port)?, new)));
    old.service != new.service || both.any(|(old, new)| old.name != new.name)
}

fn ports(old: Option<&VipRules>, new: Option<&VipRules>) -> BTreeSet<Port> {
    let both = old.into_iter().chain(new);
    both.flat_map(|rules| rules.ports.keys().copied()).collect()
}

#[cfg(test)]
mod tests;
