//! `PodRules`: the managed rules of one pod's network namespace, as a value.
//!
//! Pure. Sorted throughout, so equal rules render to equal bytes. The share of a network is one [`Arc`] for all pods on it; a
//! pod's own part is only which interface and source address it uses.

use crate::{Places, RulesSize, VipMap};
use api::{Family, NetworkRef, ObjectName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Parses the name in the Kubernetes API; absent means TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Formatted as iptables and nft do.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of a VIP or of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Transport protocol.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub number: u16,
}

impl Port {
    /// Sorts before all others.
    pub(crate) const FIRST: Self = Self {
        protocol: Protocol::Tcp,
        number: 0,
    };
    /// Sorts after all others.
    pub(crate) const LAST: Self = Self {
        protocol: Protocol::Sctp,
        number: u16::MAX,
    };
}

/// Rules for new and established flows to one port of a VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRules {
    /// The Service port's name; empty when it has none.
    pub name: String,
    /// Endpoints of new flows, each with equal weight. Empty: new flows are rejected.
    pub endpoints: Places,
    /// A client whose last flow to this port began less than this ago stays with the endpoint it had, while that is one of
    /// `endpoints`. A client is a source address: of the pod itself, or of a host it forwards for. Whole seconds, at least one.
    pub affinity: Option<Duration>,
    /// UDP and SCTP only: endpoints that receive no new flows and keep their flows, because they still serve. None of `endpoints`.
    pub draining: BTreeSet<SocketAddr>,
}

/// Translation of a port: the part of [`PortRules`] that a backend renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<'a> {
    /// Endpoints of new flows, each with equal weight. Never empty.
    pub endpoints: &'a Places,
    /// As [`PortRules::affinity`].
    pub affinity: Option<Duration>,
}

impl VipRules {
    /// Moves endpoints to places derived from those in `before`.
    pub(crate) fn placed_after(&mut self, before: &Self) {
        for (port, rules) in &mut self.ports {
            if let Some(before) = before.ports.get(port) {
                rules.endpoints = before.endpoints.toward(&rules.endpoints);
            }
        }
    }

    /// Returns the rules with endpoints in the order of their addresses: places do not affect flows.
    #[must_use]
    pub fn regardless_of_places(&self) -> Self {
        let mut rules = self.clone();
        for port in rules.ports.values_mut() {
            port.endpoints = port.endpoints.iter().copied().collect();
        }
        rules
    }
}

impl PortRules {
    /// Returns the translation of flows from `source`; `None`: they are rejected.
    pub fn translation(&self, source: Option<&Source>) -> Option<Translation<'_>> {
        (source.is_some() && !self.endpoints.is_empty()).then_some(Translation {
            endpoints: &self.endpoints,
            affinity: self.affinity,
        })
    }
}

/// One VIP. A port that is not here is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipRules {
    /// Service of the VIP.
    pub service: ObjectName,
    /// Its ports. Boxed: a node of the map has room for eleven, and most VIPs have one.
    pub ports: BTreeMap<Port, Box<PortRules>>,
}

/// The VIPs on one network; the same for every pod attached to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRules {
    vips: VipMap,
    size: RulesSize,
}

impl FromIterator<(IpAddr, Arc<VipRules>)> for NetworkRules {
    fn from_iter<I: IntoIterator<Item = (IpAddr, Arc<VipRules>)>>(vips: I) -> Self {
        let mut rules = Self::default();
        for (vip, of_vip) in vips {
            rules.insert(vip, of_vip);
        }
        rules
    }
}

impl NetworkRules {
    /// By ClusterIP.
    pub fn vips(&self) -> &VipMap {
        &self.vips
    }

    /// Number of items that a backend writes.
    pub fn size(&self) -> &RulesSize {
        &self.size
    }

    /// Sets the rules of a VIP.
    pub fn insert(&mut self, vip: IpAddr, rules: Arc<VipRules>) {
        self.size.add(&rules);
        if let Some(before) = self.vips.insert_cow(vip, rules) {
            self.size.subtract(&before);
        }
    }

    /// Removes a VIP.
    pub fn remove(&mut self, vip: &IpAddr) {
        if let Some(before) = self.vips.remove_cow(vip) {
            self.size.subtract(&before);
        }
    }

    /// Returns the rules with endpoints in the order of their addresses.
    fn regardless_of_places(&self) -> Self {
        let vips = self.vips.into_iter();
        vips.map(|(vip, rules)| (*vip, Arc::new(rules.regardless_of_places())))
            .collect()
    }

    /// Shares equal parts with `held`, the rules of a namespace. Endpoints that are sorted by address here, because their places were not known,
    /// adopt the places in the namespace. Returns the VIPs that adopted places.
    pub fn adopt(&mut self, held: &mut Arc<Self>) -> Vec<(IpAddr, Arc<VipRules>)> {
        let (mut adopted, mut shared) = (Vec::new(), Vec::new());
        for (vip, theirs) in &held.vips {
            let Some(ours) = self.vips.get(vip).filter(|ours| !Arc::ptr_eq(ours, theirs)) else {
                continue;
            };
            if ours == theirs {
                shared.push((*vip, Arc::clone(ours)));
            } else if **ours == theirs.regardless_of_places() {
                adopted.push((*vip, Arc::clone(theirs)));
            }
        }
        for (vip, theirs) in &adopted {
            self.insert(*vip, Arc::clone(theirs));
        }
        if !shared.is_empty() {
            let held = Arc::make_mut(held);
            for (vip, ours) in shared {
                held.insert(vip, ours);
            }
        }
        adopted
    }

    /// Whether the network has no VIP.
    pub fn is_empty(&self) -> bool {
        self.vips.len() == 0
    }

    /// Returns the VIPs of one family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = (IpAddr, &Arc<VipRules>)> {
        let first_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let range = match family {
            Family::V4 => (Bound::Unbounded, Bound::Excluded(first_ipv6)),
            Family::V6 => (Bound::Included(first_ipv6), Bound::Unbounded),
        };
        self.vips
            .range::<IpAddr, _>(range)
            .map(|(vip, rules)| (*vip, rules))
    }

    /// Returns the rules without endpoints of `vips`.
    fn rejecting(&self, vips: &BTreeSet<IpAddr>) -> Self {
        let mut rules = self.clone();
        for vip in vips {
            let Some(whole) = self.vips.get(vip) else { continue };
            let mut rest = VipRules::clone(whole);
            for port in rest.ports.values_mut() {
                port.endpoints.clear();
                port.draining.clear();
            }
            rules.insert(*vip, Arc::new(rest));
        }
        rules
    }

    fn without(&self, lost: &BTreeSet<IpAddr>) -> Self {
        let mut rules = self.clone();
        let is_lost = |endpoint: &SocketAddr| lost.contains(&endpoint.ip());
        for (vip, whole) in &self.vips {
            if whole
                .ports
                .values()
                .any(|port| port.endpoints.iter().any(is_lost))
            {
                let mut rest = VipRules::clone(whole);
                for port in rest.ports.values_mut() {
                    port.endpoints.retain(|endpoint| !is_lost(endpoint));
                }
                rules.insert(*vip, Arc::new(rest));
            }
        }
        rules
    }

    /// Whether it has a VIP of `family`.
    pub fn has(&self, family: Family) -> bool {
        // By its ends: a range of this map visits most of its nodes.
        let mut ends = self.vips.into_iter();
        let end = match family {
            Family::V4 => ends.next(),
            Family::V6 => ends.next_back(),
        };
        end.is_some_and(|(vip, _)| Family::of(*vip) == family)
    }
}

/// Interface and source address of a pod's flows to the VIPs of a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Interface in the pod. Empty: the one that has the address, which is only known in the namespace.
    pub interface: String,
    /// An address of that interface.
    pub address: IpAddr,
}

/// An endpoint that flows from a source cannot reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreachable {
    /// Source of the flows.
    pub source: Source,
    /// The endpoint's address.
    pub endpoint: IpAddr,
}

/// A pod's attachment to one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedNetwork {
    /// Source for IPv4 VIPs. `None`: they are rejected, because the flow would leave by another interface.
    pub ipv4: Option<Source>,
    /// Source for IPv6 VIPs.
    pub ipv6: Option<Source>,
    /// Rules of the network.
    pub rules: Arc<NetworkRules>,
}

impl AttachedNetwork {
    /// Returns the source for VIPs of `family`.
    pub fn source(&self, family: Family) -> Option<&Source> {
        match family {
            Family::V4 => self.ipv4.as_ref(),
            Family::V6 => self.ipv6.as_ref(),
        }
    }
}

/// The managed rules of one pod's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRules {
    /// Attachments by network. Only networks that have a VIP.
    pub networks: BTreeMap<NetworkRef, AttachedNetwork>,
}

impl PodRules {
    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Number of VIPs on all networks; a VIP on two networks counts twice.
    pub fn vip_count(&self) -> usize {
        let networks = self.networks.values();
        networks.map(|network| network.rules.vips().len()).sum()
    }

    /// Number of items that a backend writes: VIPs, their ports, and the endpoints of these.
    pub fn item_count(&self) -> usize {
        let networks = self.networks.values();
        networks.map(|network| network.rules.size.items()).sum()
    }

    /// Number of distinct endpoint counts and affinities of ports: backends may write an object for each.
    pub fn class_count(&self) -> usize {
        let sizes = self.networks.values().map(|network| network.rules.size());
        RulesSize::classes_of(sizes)
    }

    /// Returns every VIP of `family` with its rules and the source of its flows; without a source all flows are rejected.
    ///
    /// A ClusterIP is unique in a cluster. If two networks claim one, the first network has it.
    pub fn vips(&self, family: Family) -> BTreeMap<IpAddr, (&VipRules, Option<&Source>)> {
        let mut vips = BTreeMap::new();
        for attached in self.networks.values() {
            let source = attached.source(family);
            for (vip, rules) in attached.rules.of(family) {
                vips.entry(vip).or_insert_with(|| (rules.as_ref(), source));
            }
        }
        vips
    }

    /// Returns one VIP as in [`vips`](Self::vips).
    pub fn vip(&self, vip: IpAddr) -> Option<(&VipRules, Option<&Source>)> {
        self.networks.values().find_map(|attached| {
            let rules = attached.rules.vips().get(&vip)?;
            Some((rules.as_ref(), attached.source(Family::of(vip))))
        })
    }

    /// Returns the source address of the pod's own flows, by VIP of `family`.
    pub fn source_addresses(&self, family: Family) -> BTreeMap<IpAddr, IpAddr> {
        let vips = self.vips(family).into_iter();
        vips.filter_map(|(vip, (_, source))| Some((vip, source?.address)))
            .collect()
    }

    /// Returns the translation of a port of a VIP. `None`: it does not exist, or is rejected.
    pub fn translation(&self, vip: IpAddr, port: Port) -> Option<Translation<'_>> {
        let (rules, source) = self.vip(vip)?;
        rules.ports.get(&port)?.translation(source)
    }

    /// Whether there is a VIP of `family`.
    pub fn has(&self, family: Family) -> bool {
        self.networks.values().any(|attached| attached.rules.has(family))
    }

    /// Returns the host routes to VIPs and their sources.
    pub fn routes(&self) -> BTreeMap<IpAddr, &Source> {
        let of = |family| self.vips(family).into_iter();
        let routed = Family::ALL.into_iter().flat_map(of);
        routed
            .filter_map(|(vip, (_, source))| Some((vip, source?)))
            .collect()
    }

    /// Returns the sources in use by network: addresses that the namespace must have before flows are routed by them.
    pub fn sources(&self) -> impl Iterator<Item = (&NetworkRef, &Source)> {
        let networks = self.networks.iter();
        networks.flat_map(|(network, attached)| {
            Family::ALL
                .into_iter()
                .filter(|family| attached.rules.has(*family))
                .filter_map(move |family| Some((network, attached.source(family)?)))
        })
    }

    /// Returns the rules with the interface of each source that names none, where `holder` returns one.
    #[must_use]
    pub fn with_interfaces(&self, holder: impl Fn(IpAddr) -> Option<String>) -> Self {
        let mut rules = self.clone();
        for attached in rules.networks.values_mut() {
            let sources = attached.ipv4.iter_mut().chain(&mut attached.ipv6);
            for source in sources.filter(|source| source.interface.is_empty()) {
                source.interface = holder(source.address).unwrap_or_default();
            }
        }
        rules
    }

    /// Returns the rules with every port of `rejected` rejected.
    #[must_use]
    pub fn rejecting(&self, rejected: &BTreeSet<IpAddr>) -> Self {
        self.changed(rejected, |rules| rules.rejecting(rejected))
    }

    /// Returns the rules without these VIPs.
    #[must_use]
    pub fn without_vips(&self, vips: &BTreeSet<IpAddr>) -> Self {
        let mut rules = self.changed(vips, |rules| {
            let mut rest = rules.clone();
            for vip in vips {
                rest.remove(vip);
            }
            rest
        });
        rules.networks.retain(|_, attached| !attached.rules.is_empty());
        rules
    }

    /// Returns the rules with endpoints in the order of their addresses: their meaning, regardless of places.
    #[must_use]
    pub fn regardless_of_places(&self) -> Self {
        let mut rules = self.clone();
        for attached in rules.networks.values_mut() {
            attached.rules = Arc::new(attached.rules.regardless_of_places());
        }
        rules
    }

    /// Returns the rules with the endpoints of these ports in these places.
    pub(crate) fn with_places(&self, placed: BTreeMap<IpAddr, BTreeMap<Port, Places>>) -> Self {
        let mut rules = self.clone();
        for (vip, ports) in placed {
            // If two networks claim a VIP, the first has it.
            let mut networks = rules.networks.values_mut();
            let Some(attached) = networks.find(|attached| attached.rules.vips().get(&vip).is_some()) else {
                continue;
            };
            let network = Arc::make_mut(&mut attached.rules);
            let Some(mut changed) = network.vips().get(&vip).map(|rules| VipRules::clone(rules)) else {
                continue;
            };
            for (port, places) in ports {
                if let Some(rules) = changed.ports.get_mut(&port) {
                    rules.endpoints = places;
                }
            }
            network.insert(vip, Arc::new(changed));
        }
        rules
    }

    /// Returns the rules with `change` applied to networks that have one of `vips`.
    fn changed(&self, vips: &BTreeSet<IpAddr>, change: impl Fn(&NetworkRules) -> NetworkRules) -> Self {
        let mut rules = self.clone();
        for attached in rules.networks.values_mut() {
            if vips.iter().any(|vip| attached.rules.vips().get(vip).is_some()) {
                attached.rules = Arc::new(change(&attached.rules));
            }
        }
        rules
    }

    /// Returns the rules with flows from the `absent` sources rejected.
    #[must_use]
    pub fn without_sources(&self, absent: &[Source]) -> Self {
        let mut rules = self.clone();
        let keep = |source: &Source| !absent.contains(source);
        for attached in rules.networks.values_mut() {
            attached.ipv4 = attached.ipv4.take().filter(keep);
            attached.ipv6 = attached.ipv6.take().filter(keep);
        }
        rules
    }

    /// Returns the rules without unreachable endpoints. A port without other endpoints rejects flows.
    #[must_use]
    pub fn without_endpoints(&self, unreachable: &BTreeSet<Unreachable>) -> Self {
        let mut rules = self.clone();
        for attached in rules.networks.values_mut() {
            for family in Family::ALL {
                let source = attached.source(family);
                let lost = unreachable.iter().filter(|lost| Some(&lost.source) == source);
                let lost: BTreeSet<IpAddr> = lost.map(|lost| lost.endpoint).collect();
                if !lost.is_empty() {
                    attached.rules = Arc::new(attached.rules.without(&lost));
                }
            }
        }
        rules
    }
}
