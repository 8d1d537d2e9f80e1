//! `plan`: computes the rules of a pod's network namespace from Services, slices and the pod's attachments.
//!
//! Pure. In two steps, because the first is the same for all pods: [`network_rules`] once per network and change, [`pod_rules`]
//! per pod. What cannot be served is a value beside the rules and does not affect others.

use crate::endpoint_selection::{Choice, Chosen, Wanted};
use crate::{
    AttachedNetwork, InvalidAddress, NetworkRules, NotServed, PodRules, Port, PortRules, ServedService,
    Settings, Slice, Source, VipRules,
};
use api::address::ReservedAddresses;
use api::network_status::{self, Fault, NetworkStatus};
use api::{Family, NamespaceIsolation, NetworkRef, ObjectName};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The rules of a pod, and what it is not served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The rules.
    pub rules: PodRules,
    /// Services, and addresses of Services, that are served to no pod.
    pub unserved: Vec<Unserved>,
    /// Shortcomings of this pod.
    pub shortcomings: BTreeSet<Shortcoming>,
}

/// A Service or address that is served to no pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// A Service.
    #[error("Service \"{service}\" is not served: {why}")]
    Service {
        /// Name of the Service.
        service: ObjectName,
        /// Reason.
        why: NotServed,
    },
    /// An endpoint address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The session affinity of a Service that is served otherwise.
    #[error(
        "Service \"{service}\" is served without its sessionAffinity on this node: the kernel lacks what the backend needs for it (xt_recent with iptables)"
    )]
    Affinity {
        /// Name of the Service.
        service: ObjectName,
    },
}

/// Shortcoming of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Shortcoming {
    /// A network mapped to an interface of the node is not served to the node itself.
    #[error(
        "network \"{network}\" is mapped to interface {interface:?} of the node by spec.proxy.hostNetworks: {why}; its ClusterIPs are not served to the node"
    )]
    HostNetwork {
        /// The network.
        network: NetworkRef,
        /// The interface.
        interface: String,
        /// Reason.
        why: String,
    },
    /// No interface of the pod on the network has an address of a family in which Services have ClusterIPs.
    #[error(
        "no interface on network \"{network}\" has an {family} address: {family} ClusterIPs of its Services are rejected in this pod; give the network-attachment-definition an {family} IPAM range"
    )]
    NoAddress {
        /// The network.
        network: NetworkRef,
        /// The family.
        family: Family,
    },
    /// network-status names a network that pods of this namespace may not use.
    #[error(
        "network-status names network \"{network}\" of another namespace, which is not one of spec.globalNamespaces: its ClusterIPs are not served to this pod (spec.networkNamespaceIsolation); attach the pod to a network of its own namespace or of a global one"
    )]
    ForeignNetwork {
        /// The network.
        network: NetworkRef,
    },
    /// A part of the pod's network-status cannot be read.
    #[error("{0}; this part is ignored: correct the CNI plugin or its IPAM and restart the pod")]
    NetworkStatus(Fault),
    /// The pod is on a network of the same name as the Services', but of another namespace.
    #[error(
        "the pod is attached to \"{attached}\", and Services are on network \"{network}\": their ClusterIPs have no route from this pod; only pods attached to \"{network}\" itself reach them, name it with its namespace in k8s.v1.cni.cncf.io/networks"
    )]
    OtherNamespace {
        /// Network of the pod.
        attached: String,
        /// Network of the Services.
        network: NetworkRef,
    },
    /// Packets do not pass the pod's network namespace, where the rules are.
    #[error(
        "{by} uses interface {interface:?} on network \"{network}\" past the pod's network namespace: its flows to ClusterIPs are not served"
    )]
    Bypassed {
        /// The network.
        network: NetworkRef,
        /// The interface.
        interface: String,
        /// The process that uses the interface.
        by: String,
    },
    /// Several interfaces could serve; one does.
    #[error(
        "{count} interfaces are on network \"{network}\": flows to {family} ClusterIPs use {interface:?}, the first one listed"
    )]
    SeveralInterfaces {
        /// The network.
        network: NetworkRef,
        /// The family.
        family: Family,
        /// The interface in use.
        interface: String,
        /// Number of interfaces.
        count: usize,
    },
}

/// Plans one pod of `namespace` from the objects. The proxy plans in steps; tests use this.
pub fn plan(
    settings: &Settings,
    services: &[Service],
    slices: &[EndpointSlice],
    namespace: &str,
    attachments: &[NetworkStatus],
) -> Plan {
    let mut unserved = Vec::new();
    let mut served = Vec::new();
    for service in services {
        match ServedService::parse(service) {
            Ok(service) => served.push(service),
            Err(why) if why.is_fault() => unserved.push(Unserved::Service {
                service: ObjectName::of(service),
                why,
            }),
            Err(_) => {}
        }
    }
    let slices: Vec<Slice> = slices
        .iter()
        .filter_map(|slice| Slice::parse(slice).ok())
        .collect();
    let rejected = slices.iter().flat_map(|slice| slice.rejected.iter().cloned());
    unserved.extend(rejected.map(Unserved::Address));
    let mut networks = BTreeMap::new();
    for network in served
        .iter()
        .map(|service| &service.network)
        .collect::<BTreeSet<_>>()
    {
        let on_it = served.iter().filter(|service| service.network == *network);
        let (rules, not_served) = network_rules(settings, on_it.map(|service| (service, slices.iter())));
        networks.insert(network.clone(), Arc::new(rules));
        unserved.extend(not_served);
    }
    unserved.sort_by_key(ToString::to_string);
    let (rules, shortcomings) = pod_rules(&settings.isolation, namespace, attachments, &networks);
    Plan {
        rules,
        unserved,
        shortcomings,
    }
}

/// Returns the rules of one network from its Services, each with the slices that may count for it.
///
/// When two Services claim one ClusterIP the first by name keeps it; the other is reported.
pub fn network_rules<'a, S>(
    settings: &Settings,
    services: impl IntoIterator<Item = (&'a ServedService, S)>,
) -> (NetworkRules, Vec<Unserved>)
where
    S: IntoIterator<Item = &'a Slice>,
{
    let mut sorted: Vec<_> = services.into_iter().collect();
    sorted.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let (mut rules, mut unserved) = (NetworkRules::default(), Vec::new());
    for (service, slices) in sorted {
        let ServicePlan {
            vips,
            unserved: lacks,
        } = service_plan(settings, service, slices);
        unserved.extend(lacks);
        for (vip, vip_rules) in vips {
            match rules.vips().get(&vip) {
                None => rules.insert(vip, vip_rules),
                Some(kept) => {
                    let other = kept.service.clone();
                    unserved.push(Unserved::Service {
                        service: service.name.clone(),
                        why: NotServed::VipTaken { vip, other },
                    });
                }
            }
        }
    }
    (rules, unserved)
}

/// The rules of one Service, for every pod on its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// Its VIPs.
    pub vips: BTreeMap<IpAddr, Arc<VipRules>>,
    /// The Service, or addresses of it, that are served to no pod.
    pub unserved: Vec<Unserved>,
}

impl ServicePlan {
    /// Returns the plan with endpoints in places derived from those of the previous plan: see [`Places`](crate::Places).
    #[must_use]
    pub fn placed_after(mut self, before: &BTreeMap<IpAddr, Arc<VipRules>>) -> Self {
        for (vip, rules) in &mut self.vips {
            if let Some(before) = before.get(vip) {
                Arc::make_mut(rules).placed_after(before);
            }
        }
        self
    }
}

/// Plans one Service from the slices that may count for it.
pub fn service_plan<'a>(
    settings: &Settings,
    service: &ServedService,
    slices: impl IntoIterator<Item = &'a Slice>,
) -> ServicePlan {
    if !settings
        .isolation
        .allows(&service.name.namespace, &service.network)
    {
        let why = NotServed::NetworkNotAllowed {
            network: service.network.clone(),
        };
        let service = service.name.clone();
        return ServicePlan {
            vips: BTreeMap::new(),
            unserved: vec![Unserved::Service { service, why }],
        };
    }
    let slices = slices.into_iter().filter(|slice| slice.counts_for(service));
    let slices: Vec<&Slice> = slices.collect();
    let choice = Choice {
        node: &settings.node,
        reserved: &settings.reserved,
        is_local: service.is_local,
    };
    let affinity = service.affinity.filter(|_| !settings.lacks_affinity);
    let vip_rules = |vip: IpAddr| VipRules {
        service: service.name.clone(),
        ports: service
            .ports
            .iter()
            .map(|(port, name)| {
                let rules = port_rules(affinity, &choice, &slices, *port, name, vip);
                (*port, Box::new(rules))
            })
            .collect(),
    };
    let vips = service.vips.iter().map(|vip| (*vip, Arc::new(vip_rules(*vip))));
    let addresses = reserved(&settings.reserved, &slices).map(Unserved::Address);
    let affinity = (settings.lacks_affinity && service.affinity.is_some()).then(|| Unserved::Affinity {
        service: service.name.clone(),
    });
    ServicePlan {
        vips: vips.collect(),
        unserved: addresses.chain(affinity).collect(),
    }
}

fn port_rules(
    affinity: Option<Duration>,
    choice: &Choice<'_>,
    slices: &[&Slice],
    port: Port,
    name: &str,
    vip: IpAddr,
) -> PortRules {
    let wanted = Wanted {
        name,
        protocol: port.protocol,
        vip,
    };
    let Chosen { endpoints, draining } = choice.of_port(slices, wanted);
    PortRules {
        name: name.to_owned(),
        endpoints,
        affinity,
        draining,
    }
}

/// Returns endpoints with reserved addresses.
fn reserved(reserved: &ReservedAddresses, slices: &[&Slice]) -> impl Iterator<Item = InvalidAddress> {
    let of_slice = |slice: &&Slice| {
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let rejected = addresses.filter_map(|address| Some((address, reserved.check(*address).err()?)));
        let rejected = rejected.map(|(address, why)| InvalidAddress {
            slice: slice.name.clone(),
            address: address.to_string(),
            why: why.to_string(),
        });
        rejected.collect::<BTreeSet<_>>()
    };
    slices.iter().flat_map(of_slice)
}

/// Returns the rules of a pod of `namespace` with these attachments, given the rules of all networks.
///
/// A client that may patch a pod can name any network in its network-status. With isolation a network of another namespace gets no
/// rules, as Multus with `namespaceIsolation` creates no such attachment: rules disclose the endpoints of the network's Services.
pub fn pod_rules(
    isolation: &NamespaceIsolation,
    namespace: &str,
    attachments: &[NetworkStatus],
    networks: &BTreeMap<NetworkRef, Arc<NetworkRules>>,
) -> (PodRules, BTreeSet<Shortcoming>) {
    let (mut rules, mut shortcomings) = (PodRules::default(), BTreeSet::new());
    for (network, shared) in networks.iter().filter(|(_, shared)| !shared.is_empty()) {
        let interfaces: Vec<&NetworkStatus> = network_status::on(attachments, network).collect();
        if interfaces.is_empty() {
            continue;
        }
        if !isolation.allows(namespace, network) {
            let network = network.clone();
            shortcomings.insert(Shortcoming::ForeignNetwork { network });
            continue;
        }
        let mut source = |family| source(network, shared, &interfaces, family, &mut shortcomings);
        let attached = AttachedNetwork {
            ipv4: source(Family::V4),
            ipv6: source(Family::V6),
            rules: Arc::clone(shared),
        };
        rules.networks.insert(network.clone(), attached);
    }
    (rules, shortcomings)
}

/// Returns the first usable address of `family`, if a VIP needs one.
fn source(
    network: &NetworkRef,
    shared: &NetworkRules,
    interfaces: &[&NetworkStatus],
    family: Family,
    shortcomings: &mut BTreeSet<Shortcoming>,
) -> Option<Source> {
    if !shared.has(family) {
        return None;
    }
    let usable = interfaces.iter().filter_map(|status| usable(status, family));
    let candidates: Vec<Source> = usable.collect();
    match candidates.as_slice() {
        [] => {
            shortcomings.insert(Shortcoming::NoAddress {
                network: network.clone(),
                family,
            });
        }
        [_] => {}
        [first, ..] => {
            let interface = if first.interface.is_empty() {
                format!("with {}", first.address)
            } else {
                first.interface.clone()
            };
            shortcomings.insert(Shortcoming::SeveralInterfaces {
                network: network.clone(),
                family,
                interface,
                count: candidates.len(),
            });
        }
    }
    candidates.into_iter().next()
}

fn usable(status: &NetworkStatus, family: Family) -> Option<Source> {
    let fits = |address: &&IpAddr| Family::of(**address) == family && api::address::check(**address).is_ok();
    let address = *status.addresses.iter().find(fits)?;
    Some(Source {
        interface: status.interface.clone(),
        address,
    })
}

#[cfg(test)]
mod tests;
