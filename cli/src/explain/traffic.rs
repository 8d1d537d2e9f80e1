//! Links about the rules for the client's packets to the Service.
//!
//! Pure. `rules::PodRules::trace` defines the meaning of the proxy's rules.

use super::case::Case;
use super::client::planned;
use crate::chain::{Link, Topic};
use crate::facts::Known as _;
use crate::situations::Cause;
use k8s_openapi::api::core::v1::Pod;
use rules::{Origin, Packet, PodRules, ServedService, Verdict};
use std::net::IpAddr;

/// Returns the links about rules.
pub(super) fn rules(case: &Case<'_>) -> Vec<Link> {
    let client = case.facts.client.as_ref();
    let Some(pod) = client.and_then(|client| client.pod.as_ref().ok()?.as_ref()) else {
        return Vec::new();
    };
    vec![of_pod(case, pod)]
}

fn of_pod(case: &Case<'_>, pod: &Pod) -> Link {
    let Ok(served) = &case.served else {
        let text = "there is no ClusterIP to translate: DNS returns the addresses of the endpoints";
        return Link::good(Topic::Rules, text);
    };
    if pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true))
    {
        return Link::unknown(
            Topic::Rules,
            "the pod meets the rules of its node, which are not in the API",
        );
    }
    if let Some(read_error) = case.facts.slices.read_error() {
        return Link::unknown(Topic::Rules, read_error.to_string());
    }
    let (rules, _) = planned(case, pod);
    let mut details = Vec::new();
    for vip in &served.vips {
        for port in served.ports.keys() {
            let packet = Packet {
                origin: Origin::Pod,
                destination: *vip,
                port: Some(*port),
            };
            match flow(served, &rules, packet) {
                Ok(text) => details.push(text),
                Err(port) => {
                    let values = case.values.clone().and("port", port);
                    let values = values.and("node", case.node().unwrap_or_default());
                    return Cause::NoLocalEndpoint.broken(&values).with(details);
                }
            }
        }
    }
    let applied = case.facts.applied.read_error();
    details.extend(applied.map(|read_error| {
        format!("as planned from the API; the applied state of the node is not available: {read_error}")
    }));
    Link::good(Topic::Rules, "by the proxy's own plan").with(details)
}

/// Returns the verdict on a packet; an error names a port without an endpoint on the client's node under internalTrafficPolicy Local.
fn flow(served: &ServedService, rules: &PodRules, packet: Packet) -> Result<String, String> {
    let port = packet
        .port
        .map(|port| format!(" port {}/{}", port.number, port.protocol));
    let flow = format!("{}{}", packet.destination, port.unwrap_or_default());
    Ok(match rules.trace(packet) {
        Verdict::Translate {
            endpoints,
            source,
            seen,
            ..
        } => {
            let chance = endpoints.len();
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            let endpoints = endpoints.join(", ");
            let interface = &source.interface;
            format!(
                "{flow}: by {interface} from {seen}, to each of {chance} with probability 1/{chance}: {endpoints}"
            )
        }
        Verdict::Reject if !has_source(served, rules, packet.destination) => {
            format!("{flow}: rejected at once, the client has no address of this family")
        }
        Verdict::Reject if served.is_local => return Err(flow),
        Verdict::Reject => format!("{flow}: rejected at once, no endpoint is ready"),
        Verdict::Pass => format!("{flow}: no rule"),
    })
}

fn has_source(served: &ServedService, rules: &PodRules, vip: IpAddr) -> bool {
    let attached = rules.networks.get(&served.network);
    attached.is_some_and(|attached| {
        if vip.is_ipv4() {
            attached.ipv4.is_some()
        } else {
            attached.ipv6.is_some()
        }
    })
}
