//! Flows that are still to be ended in one namespace, while its rules go on changing.
//!
//! Pure. What is kept is where to look, not what to end: that follows from the rules that the namespace has when it is done. A flow that
//! began since is translated by them, and stays.

use super::Allowed;
use rules::{Delta, PodRules, Port};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Ports that are gone and still to be looked at. Those that are there are bounded by the rules.
const GONE: usize = 1 << 14;

/// Where flows may be that may not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// UDP and SCTP ports whose flows may be translated to endpoints that may not have them.
    ports: BTreeSet<(IpAddr, Port)>,
    /// VIPs that were somebody else's addresses until now.
    new: BTreeSet<IpAddr>,
    /// A VIP is gone whose rejected UDP flows have entries.
    has_rejected: bool,
    /// VIPs of which it is not known how they are translated now: they have to wait.
    unknown: BTreeSet<IpAddr>,
}

impl Pending {
    /// After `delta` was written, but for the VIPs in `unknown`. `is_young`: no flow can be older than the rules.
    pub(crate) fn of(delta: &Delta<'_>, unknown: &BTreeSet<IpAddr>, is_young: bool) -> Self {
        let is_known = |vip: &IpAddr| !unknown.contains(vip);
        let ports = delta.flows.keys().filter(|(vip, _)| is_known(vip));
        let new = delta.reject.iter().filter(|vip| !is_young && is_known(vip));
        Self {
            ports: ports.copied().collect(),
            new: new.copied().collect(),
            // An earlier process may have been killed before it ended them.
            has_rejected: delta.is_from_kernel_state() || delta.unreject_udp.iter().any(is_known),
            unknown: unknown.clone(),
        }
    }

    /// There are no flows; but of these VIPs it is not known how they are translated.
    pub(crate) fn none_but(unknown: &BTreeSet<IpAddr>) -> Self {
        Self {
            unknown: unknown.clone(),
            ..Self::default()
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.new.is_empty() && !self.has_rejected
    }

    /// Whether there is something that can be looked for now.
    pub fn is_due(&self) -> bool {
        let vips = self.ports.iter().map(|(vip, _)| vip).chain(&self.new);
        self.has_rejected || vips.into_iter().any(|vip| !self.unknown.contains(vip))
    }

    /// Adds what a later change left, after which the namespace has `rules`.
    pub fn add(&mut self, later: Self, rules: &PodRules) {
        self.ports.extend(later.ports);
        self.new.extend(later.new);
        self.has_rejected |= later.has_rejected;
        self.unknown = later.unknown;
        self.bound(rules);
    }

    /// It is done: only what has to wait is left.
    pub fn done(&mut self) {
        let unknown = &self.unknown;
        self.ports.retain(|(vip, _)| unknown.contains(vip));
        self.new.retain(|vip| unknown.contains(vip));
        self.has_rejected = false;
    }

    /// What [`forget`](super::forget) has to look for in a namespace that has `rules`.
    pub(crate) fn under(&self, rules: &PodRules) -> (Allowed, BTreeSet<IpAddr>) {
        let is_known = |vip: &IpAddr| !self.unknown.contains(vip);
        let ports = self.ports.iter().filter(|(vip, _)| is_known(vip));
        let allowed = ports.map(|(vip, port)| ((*vip, *port), keepers(rules, *vip, *port)));
        let new = self
            .new
            .iter()
            .filter(|vip| is_known(vip) && rules.vip(**vip).is_some());
        (allowed.collect(), new.copied().collect())
    }

    /// Ports come and go while nothing can be ended: of those that are gone not all are kept.
    fn bound(&mut self, rules: &PodRules) {
        self.new
            .retain(|vip| rules.vip(*vip).is_some() || self.unknown.contains(vip));
        if self.ports.len() > GONE {
            let mut gone = 0;
            self.ports.retain(|(vip, port)| {
                let is_there = has_port(rules, *vip, *port);
                gone += usize::from(!is_there);
                is_there || gone <= GONE
            });
        }
    }
}

fn has_port(rules: &PodRules, vip: IpAddr, port: Port) -> bool {
    rules
        .vip(vip)
        .is_some_and(|(of_vip, _)| of_vip.ports.contains_key(&port))
}

/// Where flows to a port of a VIP may be. A VIP that is gone is an address as any other: flows to it that are not translated are right.
fn keepers(rules: &PodRules, vip: IpAddr, port: Port) -> BTreeSet<SocketAddr> {
    let Some((of_vip, source)) = rules.vip(vip) else {
        return BTreeSet::from([SocketAddr::new(vip, port.number)]);
    };
    let of_port = of_vip.ports.get(&port);
    let keepers = of_port.and_then(|of_port| {
        let translation = of_port.translation(source)?;
        Some(
            translation
                .endpoints
                .iter()
                .chain(&of_port.draining)
                .copied()
                .collect(),
        )
    });
    keepers.unwrap_or_default()
}

#[cfg(test)]
mod tests;
