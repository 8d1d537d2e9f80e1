//! Flow of one packet, from the plan of its pod.
//!
//! Pure.

use super::{Fate, Flow, Target, with_address};
use crate::differences::Compared;
use api::ObjectName;
use api::names::ROUTE_PROTOCOL;
use api::network_status::{self, NetworkStatus};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rules::{Packet, Plan, ServedService, Slice, Source, Unserved, Verdict};
use std::net::{IpAddr, SocketAddr};

/// Inputs of all flows of a pod.
pub(super) struct Case<'a> {
    pub(super) pod: &'a ObjectName,
    pub(super) attached: &'a [NetworkStatus],
    pub(super) is_on_host_network: bool,
    pub(super) plan: &'a Plan,
    pub(super) services: &'a [Service],
    pub(super) slices: &'a [EndpointSlice],
    /// `None`: the rules in force are not known.
    pub(super) compared: Option<Compared>,
}

pub(super) fn flow(case: &Case<'_>, packet: Packet) -> Flow {
    let service = with_address(case.services, packet.destination);
    let mut flow = Flow {
        destination: shown(packet),
        service: service.map(|service| ObjectName::of(service).to_string()),
        fate: Fate::Passed,
        why: None,
        route: None,
        source: None,
        endpoints: Vec::new(),
        affinity_seconds: None,
        differences: case
            .compared
            .as_ref()
            .map(|compared| compared.differences(packet))
            .unwrap_or_default(),
        is_well: false,
    };
    if case.is_on_host_network {
        flow.fate = Fate::Unknown;
        flow.why = Some("the pod uses its node's network: the node's addresses on spec.proxy.hostNetworks are not in the API".to_owned());
        return flow;
    }
    match case.plan.rules.trace(packet) {
        Verdict::Pass => {
            let (why, is_well) = passed(case, service);
            flow.why = Some(why);
            flow.is_well = is_well;
        }
        Verdict::Reject => {
            flow.fate = Fate::Rejected;
            flow.why = Some(rejected(case, service, packet));
            flow.route = source(case, packet).map(|source| route(packet.destination, source));
        }
        Verdict::Translate {
            endpoints,
            source,
            seen,
            affinity,
        } => {
            flow.fate = Fate::Translated;
            flow.is_well = flow.differences.is_empty();
            flow.route = Some(route(packet.destination, source));
            flow.source = Some(seen.to_string());
            flow.affinity_seconds = affinity.map(|time| time.as_secs());
            let one_in = endpoints.len();
            let slices = slices_of(case, service);
            let targets = endpoints
                .iter()
                .map(|endpoint| target(&slices, *endpoint, one_in));
            flow.endpoints = targets.collect();
        }
    }
    flow
}

fn shown(packet: Packet) -> String {
    match packet.port {
        Some(port) => format!(
            "{}/{}",
            SocketAddr::new(packet.destination, port.number),
            port.protocol
        ),
        None => packet.destination.to_string(),
    }
}

fn route(vip: IpAddr, source: &Source) -> String {
    format!(
        "{vip} dev {} src {} proto {ROUTE_PROTOCOL}",
        source.interface, source.address
    )
}

/// Returns the pod's interface and address for a VIP.
fn source<'a>(case: &'a Case<'_>, packet: Packet) -> Option<&'a Source> {
    let networks = case.plan.rules.networks.values();
    let mut with_vip = networks.filter(|network| network.rules.vips().get(&packet.destination).is_some());
    let network = with_vip.next()?;
    if packet.destination.is_ipv4() {
        network.ipv4.as_ref()
    } else {
        network.ipv6.as_ref()
    }
}

/// No rule matches the packet, which is only intended if the address is not that of a labeled Service.
fn passed(case: &Case<'_>, service: Option<&Service>) -> (String, bool) {
    let Some(service) = service else {
        let text = "no Service that multus-service serves has this address: nothing of it touches the packet"
            .to_owned();
        return (text, true);
    };
    let key = ObjectName::of(service);
    let unserved = case
        .plan
        .unserved
        .iter()
        .find(|unserved| matches!(unserved, Unserved::Service { service, .. } if *service == key));
    if let Some(unserved) = unserved {
        return (unserved.to_string(), false);
    }
    let served = match ServedService::parse(service) {
        Ok(served) => served,
        Err(error) => return (error.to_string(), false),
    };
    let shortcomings = case.plan.shortcomings.iter().map(ToString::to_string);
    let about: Vec<String> = shortcomings
        .filter(|read_error| read_error.contains(&served.network.to_string()))
        .collect();
    if network_status::on(case.attached, &served.network)
        .next()
        .is_some()
        && !about.is_empty()
    {
        return (about.join("; "), false);
    }
    let text = format!(
        "pod {} is not attached to network {}: the packet leaves by the default route, and no host answers it there",
        case.pod, served.network
    );
    (text, false)
}

fn rejected(case: &Case<'_>, service: Option<&Service>, packet: Packet) -> String {
    let served = service.and_then(|service| ServedService::parse(service).ok());
    let Some(served) = served else {
        return "rejected at once in the pod".to_owned();
    };
    if packet.port.is_none_or(|port| !served.ports.contains_key(&port)) {
        let ports: Vec<String> = served
            .ports
            .keys()
            .map(|port| format!("{}/{}", port.number, port.protocol))
            .collect();
        return format!("the Service has no such port: it has {}", ports.join(", "));
    }
    if source(case, packet).is_none() {
        let shortcomings: Vec<String> = case.plan.shortcomings.iter().map(ToString::to_string).collect();
        return shortcomings.join("; ");
    }
    if served.is_local {
        return "internalTrafficPolicy is Local, and no ready endpoint is on the pod's node".to_owned();
    }
    "no endpoint is ready".to_owned()
}

/// Returns an endpoint from the slices of the Service: on another network another pod may have the same address.
fn target(slices: &[&EndpointSlice], address: SocketAddr, one_in: usize) -> Target {
    let text = address.ip().to_string();
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut listing = endpoints.filter(|endpoint| endpoint.addresses.contains(&text));
    let endpoint = listing.next();
    let object = endpoint.and_then(|endpoint| endpoint.target_ref.as_ref());
    let pod = object.and_then(|pod| Some(format!("{}/{}", pod.namespace.as_deref()?, pod.name.as_deref()?)));
    Target {
        address: address.to_string(),
        pod,
        node: endpoint.and_then(|endpoint| endpoint.node_name.clone()),
        one_in,
    }
}

fn slices_of<'a>(case: &Case<'a>, service: Option<&Service>) -> Vec<&'a EndpointSlice> {
    let Some(served) = service.and_then(|service| ServedService::parse(service).ok()) else {
        return Vec::new();
    };
    let counts = |slice: &&EndpointSlice| Slice::parse(slice).is_ok_and(|parsed| parsed.counts_for(&served));
    case.slices.iter().filter(counts).collect()
}
