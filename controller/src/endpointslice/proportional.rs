//! Distribution of endpoints over zones in proportion to their CPU (KEP-2433, the topology annotation).
//!
//! Pure. Hints that are good enough stay as they are, so that one new endpoint does not rewrite every slice; ties are broken by the
//! zones' names, so that equal inputs give equal hints.

use super::endpoint::is_ready;
use super::packing::Draft;
use crate::objects::Nodes;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForZone};
use std::collections::BTreeMap;

/// Tolerated overload of an endpoint beyond its share (KEP-2433: 20 %).
const OVERLOAD_THRESHOLD: f64 = 0.2;

/// Reasons for no hints. They contain no numbers: numbers change with every pod, and each change would be a new Event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Disabled {
    /// A ready node without zone or CPU.
    #[error("a ready node has no zone label or no allocatable CPU, or all nodes are in one zone")]
    NodeInformation,
    /// Some zone would get none.
    #[error("there are fewer ready endpoints than zones")]
    FewEndpoints,
    /// No split is fair enough.
    #[error("the ready endpoints cannot be shared among the zones without overloading one by more than 20 %")]
    Overload,
    /// An endpoint on a node without zone.
    #[error("an endpoint has no zone")]
    EndpointWithoutZone,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    desired: f64,
    maximum: usize,
}

/// Puts hints into the drafts; one whose hints change must be written. On an error nothing is changed.
pub(super) fn assign(nodes: &Nodes, drafts: &mut [Draft]) -> Result<(), Disabled> {
    let ready = drafts
        .iter()
        .flat_map(|draft| &draft.endpoints)
        .filter(|endpoint| is_ready(endpoint))
        .count();
    let shares = shares(&ratios(nodes)?, ready)?;
    let mut given: BTreeMap<String, usize> = BTreeMap::new();
    let mut reassigned = Vec::new();
    for draft in drafts {
        match (!draft.is_changed)
            .then(|| good_hints(draft, &given, &shares))
            .flatten()
        {
            Some(zones) => zones
                .into_iter()
                .for_each(|(zone, n)| *given.entry(zone).or_default() += n),
            None => reassigned.push(draft),
        }
    }
    let endpoints = reassigned
        .iter()
        .flat_map(|draft| &draft.endpoints)
        .filter(|endpoint| is_ready(endpoint));
    for zone in endpoints.map(zone_of) {
        *given.entry(zone?.to_owned()).or_default() += 1;
    }
    let (mut giving, mut receiving) = exchange(&shares, &given);
    for draft in reassigned {
        for endpoint in &mut draft.endpoints {
            let own = zone_of(endpoint).ok().filter(|_| is_ready(endpoint));
            let hints = own.map(|own| {
                for_zone(receiver(own, &mut giving, &mut receiving).unwrap_or_else(|| own.to_owned()))
            });
            draft.is_changed |= endpoint.hints != hints;
            endpoint.hints = hints;
        }
    }
    Ok(())
}

fn zone_of(endpoint: &Endpoint) -> Result<&str, Disabled> {
    endpoint
        .zone
        .as_deref()
        .filter(|zone| !zone.is_empty())
        .ok_or(Disabled::EndpointWithoutZone)
}

/// Each zone's share of the CPU.
#[expect(
    clippy::cast_precision_loss,
    reason = "a cluster has fewer than 2^52 thousandths of a core"
)]
fn ratios(nodes: &Nodes) -> Result<BTreeMap<String, f64>, Disabled> {
    let mut by_zone: BTreeMap<String, u64> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.takes_traffic) {
        let Some(zone) = node.zone.clone().filter(|_| node.millicores > 0) else {
            return Err(Disabled::NodeInformation);
        };
        *by_zone.entry(zone).or_default() += node.millicores;
    }
    let total: u64 = by_zone.values().sum();
    if by_zone.len() < 2 {
        return Err(Disabled::NodeInformation);
    }
    Ok(by_zone
        .into_iter()
        .map(|(zone, cpu)| (zone, cpu as f64 / total as f64))
        .collect())
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a Service has fewer than 2^52 endpoints, and a share is never negative"
)]
fn shares(ratios: &BTreeMap<String, f64>, endpoints: usize) -> Result<BTreeMap<String, Share>, Disabled> {
    if ratios.len() > endpoints {
        return Err(Disabled::FewEndpoints);
    }
    let minimum = |ratio: f64| (ratio * endpoints as f64 / (1.0 + OVERLOAD_THRESHOLD)).ceil() as usize;
    let total: usize = ratios.values().map(|ratio| minimum(*ratio)).sum();
    let spare = endpoints.checked_sub(total).ok_or(Disabled::Overload)?;
    let of_zone = |ratio: f64| Share {
        desired: (ratio * endpoints as f64).max(minimum(ratio) as f64),
        maximum: minimum(ratio) + spare,
    };
    Ok(ratios
        .iter()
        .map(|(zone, ratio)| (zone.clone(), of_zone(*ratio)))
        .collect())
}

/// Counts the hints of an unchanged slice per zone; `None` if they are incomplete or give a zone too many.
fn good_hints(
    draft: &Draft,
    given: &BTreeMap<String, usize>,
    shares: &BTreeMap<String, Share>,
) -> Option<BTreeMap<String, usize>> {
    let mut by_zone: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in draft.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint
            .hints
            .as_ref()?
            .for_zones
            .as_ref()
            .filter(|zones| !zones.is_empty())?;
        for zone in zones {
            *by_zone.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = given.get(zone).copied().unwrap_or(0);
        shares
            .get(zone)
            .is_some_and(|share| before + count <= share.maximum)
    };
    by_zone.iter().all(fits).then_some(by_zone)
}

/// Numbers of endpoints that zones with too many give to zones with too few.
#[expect(
    clippy::cast_precision_loss,
    reason = "a Service has fewer than 2^52 endpoints"
)]
fn exchange(
    shares: &BTreeMap<String, Share>,
    given: &BTreeMap<String, usize>,
) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let surplus = |(zone, share): (&String, &Share)| {
        (
            zone.clone(),
            given.get(zone).copied().unwrap_or(0) as f64 - share.desired,
        )
    };
    let (mut over, mut under): (BTreeMap<_, _>, BTreeMap<_, _>) = shares
        .iter()
        .map(surplus)
        .filter(|(_, n)| *n != 0.0)
        .partition(|(_, n)| *n > 0.0);
    for lack in under.values_mut() {
        *lack = -*lack;
    }
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    while let (Some((giver, has)), Some((taker, lacks))) = (most(&over), most(&under)) {
        if (has < 1.0 && lacks < 1.0) || has < 0.5 || lacks < 0.5 {
            break;
        }
        *giving.entry(giver.clone()).or_default() += 1;
        *receiving.entry(taker.clone()).or_default() += 1;
        over.insert(giver, has - 1.0);
        under.insert(taker, lacks - 1.0);
    }
    (giving, receiving)
}

fn most(zones: &BTreeMap<String, f64>) -> Option<(String, f64)> {
    let positive = zones.iter().filter(|(_, n)| **n > 0.0);
    // The first of equals, by name.
    positive
        .rev()
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(zone, n)| (zone.clone(), *n))
}

/// The zone that takes this endpoint over from its own, if its own gives any away.
fn receiver(
    own: &str,
    giving: &mut BTreeMap<String, usize>,
    receiving: &mut BTreeMap<String, usize>,
) -> Option<String> {
    let gives = giving.get_mut(own).filter(|left| **left > 0)?;
    let (zone, takes) = receiving.iter_mut().find(|(_, left)| **left > 0)?;
    *gives -= 1;
    *takes -= 1;
    Some(zone.clone())
}

/// The hints that send a zone's clients to an endpoint.
fn for_zone(zone: String) -> EndpointHints {
    EndpointHints {
        for_zones: Some(vec![ForZone { name: zone }]),
        for_nodes: None,
    }
}
