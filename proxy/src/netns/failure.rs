//! Failures of an apply: the effect, the affected addresses and the cause. One failure does not affect other addresses.
//!
//! Pure.

use crate::netns::addresses::Absence;
use api::{Family, NetworkRef};
use rules::{PodRules, Source};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Addresses that a text names before it counts the rest.
const NAMED: usize = 3;

/// Effect of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Flows to these ClusterIPs are rejected.
    Rejected,
    /// These ClusterIPs could not be rejected either: the pod behaves as without multus-service.
    Unknown,
    /// These ClusterIPs have the rules that they had before.
    Unchanged,
    /// These ClusterIPs belong to no Service any more and are still rejected.
    Kept,
    /// These endpoints get no flows.
    Endpoints,
    /// Rules or routes of an earlier proxy or another backend remain.
    LeftOver,
}

/// Addresses that one cause affects in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Effect.
    pub effect: Effect,
    /// Affected addresses, each with the name of its Service if it has one.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Cause, with its own causes.
    pub cause: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.named();
        match self.effect {
            Effect::Rejected => write!(f, "ClusterIPs {named} are rejected")?,
            Effect::Unknown => write!(f, "ClusterIPs {named} are neither served nor rejected")?,
            Effect::Unchanged => write!(
                f,
                "rules of ClusterIPs {named} are unchanged and may refer to removed endpoints"
            )?,
            Effect::Kept => write!(
                f,
                "ClusterIPs {named} are still rejected, but belong to no Service"
            )?,
            Effect::Endpoints => write!(f, "endpoints {named} get no flows from this pod")?,
            Effect::LeftOver => write!(
                f,
                "rules or routes of another backend or of the archived multus-service proxy remain"
            )?,
        }
        write!(f, ": {}; retrying", self.cause)
    }
}

impl Failure {
    /// Names the first addresses and counts the rest.
    fn named(&self) -> String {
        let first = self.addresses.iter().take(NAMED);
        let first = first.map(|(address, service)| {
            if service.is_empty() {
                address.to_string()
            } else {
                format!("{address} (Service {service})")
            }
        });
        let named = first.collect::<Vec<_>>().join(", ");
        match self.addresses.len().saturating_sub(NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

/// Failures of one apply, grouped by effect and cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<Failure>);

impl Failures {
    /// Returns true when nothing failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the failures.
    pub fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.0.iter()
    }

    /// Adds a failure. `rules` name the Service of an address.
    pub(crate) fn note(&mut self, effect: Effect, address: Option<IpAddr>, cause: String, rules: &PodRules) {
        let is_alike = |failure: &&mut Failure| failure.effect == effect && failure.cause == cause;
        let addressed = address.map(|address| {
            let service = rules.vip(address).map(|(rules, _)| rules.service.to_string());
            (address, service.unwrap_or_default())
        });
        if let Some(alike) = self.0.iter_mut().find(is_alike) {
            alike.addresses.extend(addressed);
        } else {
            self.0.push(Failure {
                effect,
                addresses: addressed.into_iter().collect(),
                cause,
            });
        }
    }
}

/// A source address that cannot be used: ClusterIPs of its network and family are rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Network.
    pub network: NetworkRef,
    /// Source address in the pod.
    pub address: IpAddr,
    /// Cause.
    pub why: Absence,
}

impl Absent {
    pub(crate) fn new(network: &NetworkRef, source: &Source, why: Absence) -> Self {
        Self {
            network: network.clone(),
            address: source.address,
            why,
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, network) = (Family::of(self.address), &self.network);
        let why = &self.why;
        write!(
            f,
            "{family} ClusterIPs on network \"{network}\" are rejected: {why}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([172, 30, 0, last])
    }

    #[test]
    fn failures_with_one_cause_are_grouped_and_the_first_addresses_are_named() {
        let (mut failures, rules) = (Failures::default(), PodRules::default());
        for last in 1..=5 {
            failures.note(
                Effect::Rejected,
                Some(address(last)),
                "no memory".to_owned(),
                &rules,
            );
        }
        failures.note(Effect::Kept, Some(address(9)), "no memory".to_owned(), &rules);
        let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "ClusterIPs 172.30.0.1, 172.30.0.2, 172.30.0.3 and 2 more are rejected: no memory; retrying",
                "ClusterIPs 172.30.0.9 are still rejected, but belong to no Service: no memory; retrying",
            ]
        );
    }
}
