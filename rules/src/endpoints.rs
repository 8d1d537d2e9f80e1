//! Which endpoints of a Service's slices take new flows.
//!
//! Pure. Ready ones; if there is none, those that still serve while terminating, so that the last pod of a roll-out is not cut off
//! (KEP-1669); if there is none either, nobody, and flows are refused.

use crate::{Endpoint, Protocol, Slice};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The endpoints of one Service port in the family of `vip`. An address that several slices list counts once.
pub(crate) fn of_port<'a>(
    slices: &[&'a Slice],
    name: &str,
    protocol: Protocol,
    vip: IpAddr,
) -> BTreeSet<SocketAddr> {
    let listed: Vec<(&'a Endpoint, SocketAddr)> = slices
        .iter()
        .flat_map(|slice| listed(slice, name, protocol, vip))
        .collect();
    let takes = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<SocketAddr> {
        listed
            .iter()
            .filter(|(endpoint, _)| wanted(endpoint))
            .map(|(_, address)| *address)
            .collect()
    };
    let ready = takes(|endpoint| endpoint.ready);
    if ready.is_empty() {
        takes(|endpoint| endpoint.serving && endpoint.terminating)
    } else {
        ready
    }
}

fn listed<'a>(
    slice: &'a Slice,
    name: &str,
    protocol: Protocol,
    vip: IpAddr,
) -> impl Iterator<Item = (&'a Endpoint, SocketAddr)> {
    let ports = slice
        .ports
        .iter()
        .filter(move |(port_name, port)| port_name == name && port.protocol == protocol);
    let numbers: Vec<u16> = ports.map(|(_, port)| port.number).collect();
    slice.endpoints.iter().flat_map(move |endpoint| {
        let numbers = numbers.clone();
        let addresses = endpoint
            .addresses
            .iter()
            .filter(move |address| address.is_ipv4() == vip.is_ipv4());
        addresses.flat_map(move |address| {
            numbers
                .clone()
                .into_iter()
                .map(move |number| (endpoint, SocketAddr::new(*address, number)))
        })
    })
}
