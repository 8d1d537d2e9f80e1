//! Session affinity: ports that have it, and the clients whose endpoint is remembered.
//!
//! Pure.

use super::found::Found;
use super::parts::Parts;
use crate::backend::nftables::element::Element;
use crate::backend::nftables::layout::Class;
use api::Family;
use rules::{Places, Port};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Ports with affinity.
pub(in crate::backend::nftables) type Affinities = BTreeMap<(IpAddr, Port), Sticky>;

/// Reads the ports with affinity from the sets of endpoints that may be remembered.
pub(in crate::backend::nftables) fn affinities(family: Family, found: &Found) -> Affinities {
    let mut affinities = Affinities::new();
    for (name, set) in &found.sets {
        let Some(Class::Affinity(seconds)) = Class::of_set(name) else {
            continue;
        };
        for element in &set.elements {
            let mut parts = Parts::new(family, &element.key);
            if let Some(port) = parts.service() {
                let sticky = affinities.entry(port).or_insert_with(|| Sticky::new(seconds));
                sticky.members.extend(parts.endpoint());
            }
        }
    }
    affinities
}

/// Port with affinity.
pub(in crate::backend::nftables) struct Sticky {
    pub(super) seconds: u32,
    /// Endpoints that may be remembered.
    pub(super) members: BTreeSet<SocketAddr>,
}

impl Sticky {
    fn new(seconds: u32) -> Self {
        Self {
            seconds,
            members: BTreeSet::new(),
        }
    }
}

/// Returns true when the endpoint of a client still exists.
pub(in crate::backend::nftables) fn is_with_a_member(
    family: Family,
    client: &Element,
    seconds: u32,
    affinities: &Affinities,
) -> bool {
    let port = Parts::new(family, &client.key).service();
    let sticky = port.and_then(|port| affinities.get(&port));
    let value = client.value.as_deref().unwrap_or_default();
    let endpoint = Parts::new(family, value).endpoint();
    sticky
        .zip(endpoint)
        .is_some_and(|(sticky, endpoint)| sticky.seconds == seconds && sticky.members.contains(&endpoint))
}

/// Returns true when an entry of an affinity map refers to an endpoint that the port no longer has.
pub(in crate::backend::nftables) fn has_to_be_forgotten(
    family: Family,
    client: &Element,
    keep: &BTreeMap<(IpAddr, Port), &Places>,
) -> bool {
    let port = Parts::new(family, &client.key).service();
    let Some(keep) = port.and_then(|port| keep.get(&port)) else {
        return false;
    };
    let value = client.value.as_ref();
    let endpoint = value.and_then(|value| Parts::new(family, value).endpoint());
    endpoint.is_none_or(|endpoint| !keep.contains(&endpoint))
}
