//! Host networks: networks that are mapped to an interface of the node, for pods with `hostNetwork` and for programs on the node. The
//! driver treats the node as one more pod, whose namespace is the node's and whose addresses are read from the interface.
//!
//! Reads only.

use crate::backend::Backend;
use crate::backend::iptables::{Iptables, Variant};
use crate::backend::nftables::Nftables;
use crate::index::{LocalPod, NodePod, Update};
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::netns::addresses::Addresses;
use api::NetworkRef;
use api::network_status::NetworkStatus;
use futures::{Stream, StreamExt, stream};
use netlink_sys::protocols::NETLINK_ROUTE;
use process::error_chain;
use process::watch::Change;
use rules::{PodRules, Shortcoming};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::str::FromStr;
use std::time::Duration;
use tracing::warn;

/// Interval of checks of the interfaces. Notifications of the node's namespace include those of every veth: the monitor does not subscribe.
const LOOK: Duration = Duration::from_secs(10);

/// Longest name of an interface.
const NAME_LIMIT: usize = 15;

/// Network that the node reaches through one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Network.
    pub network: NetworkRef,
    /// Interface.
    pub interface: String,
}

/// Error of parsing a mapping.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} maps no network to an interface; use NAMESPACE/NAME=INTERFACE")]
pub struct ParseHostInterface(String);

impl FromStr for HostInterface {
    type Err = ParseHostInterface;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseHostInterface(text.chars().take(128).collect());
        let (network, interface) = text.split_once('=').ok_or_else(wrong)?;
        let is_name = |c: char| !c.is_whitespace() && c != '/' && c != ':';
        let is_interface = (1..=NAME_LIMIT).contains(&interface.len()) && interface.chars().all(is_name);
        let network = NetworkRef::parse(network, "").map_err(|_| wrong())?;
        is_interface
            .then(|| Self {
                network,
                interface: interface.to_owned(),
            })
            .ok_or_else(wrong)
    }
}

/// Returns the node as a pod, at first and after each change. Without a mapping only if the node has rules of an earlier proxy.
pub fn updates(mapped: Vec<HostInterface>) -> impl Stream<Item = Update> {
    let first = !mapped.is_empty() || holds_something();
    let looks = stream::unfold(None::<LocalPod>, move |before| {
        let mapped = mapped.clone();
        async move {
            loop {
                if before.is_some() {
                    tokio::time::sleep(LOOK).await;
                }
                match look(&mapped) {
                    Ok(now) if before.as_ref() != Some(&now) => {
                        let update = Update::Pod(Change::Apply((
                            now.uid.clone(),
                            Some(NodePod::Attached(now.clone())),
                        )));
                        return Some((update, Some(now)));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        warn!(error = %error_chain(&error), "Failed to read the addresses of the node");
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        }
    });
    stream::iter(first.then_some(looks)).flatten()
}

fn holds_something() -> bool {
    // The iptables-legacy backend never writes on the node.
    let backends: [&dyn Backend; 2] = [&Nftables, &Iptables::new(Variant::Nft)];
    let found = Netns::home().and_then(|home| {
        home.run(|| {
            backends
                .iter()
                .any(|backend| backend.is_present().unwrap_or_default())
        })
    });
    found.unwrap_or_default()
}

fn look(mapped: &[HostInterface]) -> io::Result<LocalPod> {
    let read = || Addresses::read(&mut Netlink::open(NETLINK_ROUTE)?);
    let addresses = Netns::home()
        .and_then(|home| home.run(read))
        .map_err(io::Error::other)??;
    let attachment = |HostInterface { network, interface }: &HostInterface| NetworkStatus {
        network: network.to_string(),
        interface: interface.clone(),
        addresses: addresses.of(interface),
    };
    Ok(LocalPod::host(mapped.iter().map(attachment).collect()))
}

/// Interfaces of the node that are parents of pods' macvlan or ipvlan interfaces, by network. A mapping to one of them is rejected: the node
/// and those pods cannot reach each other.
#[derive(Debug, Default)]
pub(crate) struct Parents(BTreeMap<NetworkRef, BTreeMap<String, u32>>);

impl Parents {
    /// Records the parents of a pod; returns true when they changed.
    pub(crate) fn note(&mut self, pod: &str, shown: &BTreeMap<NetworkRef, u32>) -> bool {
        let before = self.0.clone();
        self.forget(pod);
        for (network, parent) in shown {
            self.0
                .entry(network.clone())
                .or_default()
                .insert(pod.to_owned(), *parent);
        }
        before != self.0
    }

    /// Forgets a deleted pod; returns true when the parents changed.
    pub(crate) fn forget(&mut self, pod: &str) -> bool {
        let before = self.0.len();
        let mut lost = false;
        for pods in self.0.values_mut() {
            lost |= pods.remove(pod).is_some();
        }
        self.0.retain(|_, pods| !pods.is_empty());
        lost || before != self.0.len()
    }

    /// Returns the part of `rules` that may be written on the node, and the reasons for what is left out.
    pub(crate) fn allowed(
        &self,
        backend: &dyn Backend,
        rules: PodRules,
        host: &LocalPod,
    ) -> (PodRules, BTreeSet<Shortcoming>) {
        let (mut allowed, mut rejected) = (rules, BTreeSet::new());
        let own = Netns::home()
            .and_then(|home| home.run(own_parents))
            .unwrap_or_default();
        allowed.networks.retain(|network, _| {
            let statuses = host.attachments.iter().flatten();
            let interface = statuses.into_iter().find(|status| network.is_named(&status.network));
            let interface = interface.map(|status| status.interface.clone()).unwrap_or_default();
            let index = own.indices.get(&interface).copied();
            let shown = self.0.get(network).into_iter().flat_map(BTreeMap::values);
            let why = if !backend.supports_host_netns() {
                format!("backend {} cannot share its lock with the programs of the node; use NFTables", backend.name())
            } else if index.is_none() {
                "the node has no such interface".to_owned()
            } else if shown.chain(&own.parents).any(|parent| Some(*parent) == index) {
                "it is the parent of macvlan or ipvlan interfaces, which it cannot reach; map the network to a macvlan or ipvlan interface of the node".to_owned()
            } else {
                return true;
            };
            rejected.insert(Shortcoming::HostNetwork { network: network.clone(), interface, why });
            false
        });
        (allowed, rejected)
    }
}

#[derive(Default)]
struct Own {
    indices: BTreeMap<String, u32>,
    parents: BTreeSet<u32>,
}

fn own_parents() -> Own {
    let addresses = Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| Addresses::read(&mut netlink));
    addresses
        .map(|addresses| Own {
            indices: addresses.interfaces(),
            parents: addresses.parents_here(),
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_names_a_network_with_its_namespace_and_an_interface() {
        let mapped: HostInterface = "web/macvlan1=ens3.100".parse().unwrap();
        assert_eq!(
            (mapped.network.to_string().as_str(), mapped.interface.as_str()),
            ("web/macvlan1", "ens3.100")
        );
        for wrong in [
            "",
            "web/macvlan1",
            "macvlan1=ens3",
            "web/macvlan1=",
            "web/macvlan1=a b",
            "web/macvlan1=../x",
            "web/macvlan1=sixteen-is-too-l",
        ] {
            assert!(wrong.parse::<HostInterface>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parents_of_a_pod_apply_until_it_is_deleted() {
        let network = NetworkRef::parse("macvlan1", "web").unwrap();
        let shown = BTreeMap::from([(network, 3)]);
        let mut parents = Parents::default();
        assert!(parents.note("a", &shown) && !parents.note("a", &shown));
        assert!(parents.note("b", &shown) && parents.forget("a"));
        assert!(parents.forget("b") && !parents.forget("b") && parents.0.is_empty());
    }
}
