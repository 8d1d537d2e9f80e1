//! Selection of the endpoints of a Service's slices that receive new flows, and of those that keep their flows.
//!
//! Pure. The order is kube-proxy's (`pkg/proxy/topology.go`, `CategorizeEndpoints`), so that the same Service means the same on both
//! networks:
//!
//! 1. `internalTrafficPolicy: Local`: of the endpoints on the client's node, the ready ones; if there is none, those that still serve
//!    while terminating; hints do not count.
//! 2. Else the ready ones that fit the topology hints. Hints count only if *every* ready endpoint has one and some fit: node hints
//!    first, then zone hints. If no endpoint is left, all that still serve while terminating (KEP-1669), on any node.
//! 3. Else none: flows are rejected at once.

use crate::settings::Node;
use crate::{Endpoint, Places, Protocol, Slice};
use api::address::ReservedAddresses;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The endpoints of one Service port in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Endpoints that receive new flows.
    pub(crate) endpoints: Places,
    /// Endpoints that receive none, but still serve: established flows continue.
    pub(crate) draining: BTreeSet<SocketAddr>,
}

/// Criteria of the selection.
pub(crate) struct Choice<'a> {
    pub(crate) node: &'a Node,
    pub(crate) reserved: &'a ReservedAddresses,
    pub(crate) is_local: bool,
}

/// A Service port, in the family of `vip`.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) protocol: Protocol,
    pub(crate) vip: IpAddr,
}

impl Choice<'_> {
    /// Selects the endpoints. An address in several slices counts once, with the most permissive of its conditions.
    pub(crate) fn of_port(&self, slices: &[&Slice], wanted: Wanted<'_>) -> Chosen {
        let listed: Vec<(&Endpoint, SocketAddr)> = slices
            .iter()
            .flat_map(|slice| listed(slice, wanted))
            .filter(|(_, address)| self.reserved.check(address.ip()).is_ok())
            .collect();
        let endpoints = self.taking(&listed);
        let draining = match wanted.protocol {
            // A TCP flow continues in any case, so draining endpoints need not be known.
            Protocol::Tcp => BTreeSet::new(),
            Protocol::Udp | Protocol::Sctp => {
                let serving = those(&listed, |endpoint| endpoint.serving);
                serving.difference(&endpoints).copied().collect()
            }
        };
        let endpoints = endpoints.into_iter().collect();
        Chosen { endpoints, draining }
    }

    fn taking(&self, listed: &[(&Endpoint, SocketAddr)]) -> BTreeSet<SocketAddr> {
        let is_here = |endpoint: &Endpoint| {
            !self.is_local
                || !self.node.name.is_empty() && endpoint.node.as_deref() == Some(self.node.name.as_str())
        };
        let topology = if self.is_local {
            Topology::Anywhere
        } else {
            Topology::of(listed, self.node)
        };
        let ready = those(listed, |endpoint| {
            endpoint.ready && is_here(endpoint) && topology.fits(endpoint, self.node)
        });
        if ready.is_empty() {
            those(listed, |endpoint| {
                endpoint.serving && endpoint.terminating && is_here(endpoint)
            })
        } else {
            ready
        }
    }
}

/// Hints that are respected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

impl Topology {
    fn of(listed: &[(&Endpoint, SocketAddr)], node: &Node) -> Self {
        let hinted = |hints: fn(&Endpoint) -> &BTreeSet<String>, here: &str| {
            let mut ready = listed
                .iter()
                .map(|(endpoint, _)| *endpoint)
                .filter(|endpoint| endpoint.ready);
            let mut some_fit = false;
            let all_have_one = ready.all(|endpoint| {
                some_fit |= hints(endpoint).contains(here);
                !hints(endpoint).is_empty()
            });
            all_have_one && some_fit
        };
        if hinted(|endpoint| &endpoint.node_hints, &node.name) {
            Self::SameNode
        } else if node
            .zone
            .as_ref()
            .is_some_and(|zone| hinted(|endpoint| &endpoint.zone_hints, zone))
        {
            Self::SameZone
        } else {
            Self::Anywhere
        }
    }

    fn fits(self, endpoint: &Endpoint, node: &Node) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameNode => endpoint.node_hints.contains(&node.name),
            Self::SameZone => node
                .zone
                .as_ref()
                .is_some_and(|zone| endpoint.zone_hints.contains(zone)),
        }
    }
}

fn those(listed: &[(&Endpoint, SocketAddr)], wanted: impl Fn(&Endpoint) -> bool) -> BTreeSet<SocketAddr> {
    let kept = listed.iter().filter(|(endpoint, _)| wanted(endpoint));
    kept.map(|(_, address)| *address).collect()
}

fn listed<'a>(
    slice: &'a Slice,
    wanted: Wanted<'_>,
) -> impl Iterator<Item = (&'a Endpoint, SocketAddr)> + use<'a> {
    let ports = slice
        .ports
        .iter()
        .filter(|(name, port)| name == wanted.name && port.protocol == wanted.protocol);
    let numbers: Vec<u16> = ports.map(|(_, port)| port.number).collect();
    let is_ipv4 = wanted.vip.is_ipv4();
    slice.endpoints.iter().flat_map(move |endpoint| {
        let addresses = endpoint.addresses.iter();
        let fitting = addresses.filter(move |address| address.is_ipv4() == is_ipv4);
        let numbers = numbers.clone();
        fitting.flat_map(move |address| {
            numbers
                .clone()
                .into_iter()
                .map(move |number| (endpoint, SocketAddr::new(*address, number)))
        })
    })
}

#[cfg(test)]
mod tests;
