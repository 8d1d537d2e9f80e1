//! Pending deletions of flows in one namespace while its rules continue to change.
//!
//! Pure. It records the ports to search, not the entries to delete: those follow from the rules at the time of the cleanup. A flow that
//! began since is translated by these rules, and stays.

use super::Allowed;
use rules::{Delta, PodRules, Port};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Largest number of removed ports that are pending. Existing ports are bounded by the rules.
const GONE: usize = 1 << 14;

/// VIPs and ports that may have stale flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// UDP and SCTP ports whose flows may be translated to removed endpoints.
    ports: BTreeSet<(IpAddr, Port)>,
    /// VIPs that were foreign addresses before.
    new: BTreeSet<IpAddr>,
    /// A VIP with entries of rejected UDP flows was removed.
    has_rejected: bool,
    /// VIPs whose current translation is unknown: they have to wait.
    unknown: BTreeSet<IpAddr>,
}

impl Pending {
    /// Returns what is pending after `delta` was written, except for the VIPs in `unknown`. `is_young`: no flow can be older than the rules.
    pub(crate) fn of(delta: &Delta<'_>, unknown: &BTreeSet<IpAddr>, is_young: bool) -> Self {
        let is_known = |vip: &IpAddr| !unknown.contains(vip);
        let ports = delta.flows.keys().filter(|(vip, _)| is_known(vip));
        let new = delta.reject.iter().filter(|vip| !is_young && is_known(vip));
        Self {
            ports: ports.copied().collect(),
            new: new.copied().collect(),
            // An earlier process may have been killed before it deleted them.
            has_rejected: delta.is_from_kernel_state() || delta.unreject_udp.iter().any(is_known),
            unknown: unknown.clone(),
        }
    }

    /// Returns what is pending without any flows: only VIPs whose translation is unknown.
    pub(crate) fn none_but(unknown: &BTreeSet<IpAddr>) -> Self {
        Self {
            unknown: unknown.clone(),
            ..Self::default()
        }
    }

    /// Returns true when nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.new.is_empty() && !self.has_rejected
    }

    /// Returns true when something can be cleaned up now.
    pub fn is_due(&self) -> bool {
        let vips = self.ports.iter().map(|(vip, _)| vip).chain(&self.new);
        self.has_rejected || vips.into_iter().any(|vip| !self.unknown.contains(vip))
    }

    /// Adds what a later change left; afterwards the namespace has `rules`.
    pub fn add(&mut self, later: Self, rules: &PodRules) {
        self.ports.extend(later.ports);
        self.new.extend(later.new);
        self.has_rejected |= later.has_rejected;
        self.unknown = later.unknown;
        self.bound(rules);
    }

    /// Records a cleanup: only VIPs that have to wait remain.
    pub fn done(&mut self) {
        let unknown = &self.unknown;
        self.ports.retain(|(vip, _)| unknown.contains(vip));
        self.new.retain(|vip| unknown.contains(vip));
        self.has_rejected = false;
    }

    /// Returns the arguments of [`forget`](super::forget) for a namespace that has `rules`.
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

    /// Bounds the number of removed ports, which can grow while no cleanup is possible.
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

/// Endpoints of flows to a port of a VIP. A removed VIP is an ordinary address: untranslated flows to it are correct.
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
