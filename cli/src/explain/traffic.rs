//! Links about the rules for the client's packets to the Service.
//!
//! Pure. `rules::PodRules::trace` defines the meaning of the proxy's rules.

use super::case::Case;
use super::client::planned;
use crate::chain::{Link, Topic};
use crate::differences::Compared;
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
    let (compared, says) = match compared(case, &rules) {
        Ok((compared, says)) => (Some(compared), says),
        Err(says) => (None, says),
    };
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
            let differences = compared.iter().flat_map(|compared| compared.differences(packet));
            let differences: Vec<String> = differences.collect();
            if !differences.is_empty() {
                return differ(case).with(details).with(differences);
            }
        }
    }
    Link::good(Topic::Rules, says).with(details)
}

/// Returns the plan with the rules in force, and a statement about it; an error says why they are not known.
fn compared(case: &Case<'_>, planned: &PodRules) -> Result<(Compared, String), String> {
    let unknown = |reason: String| {
        format!("planned from the API's objects; the applied state of the node is not available: {reason}")
    };
    let applied = case.facts.applied.as_ref();
    let applied = applied.map_err(|error| unknown(error.to_string()))?;
    let compared = Compared::new(planned, &applied.rules).map_err(|error| unknown(error.to_string()))?;
    Ok((
        compared,
        format!(
            "the rules in force are those of the plan; {} read them",
            applied.proxy
        ),
    ))
}

fn differ(case: &Case<'_>) -> Link {
    let proxy = case.facts.applied.as_ref().map(|applied| applied.proxy.clone());
    let values = case.values.clone().and("proxy", proxy.unwrap_or_default());
    Cause::RulesDiffer.broken(&values)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::State;
    use crate::facts::{Applied, Facts};
    use crate::trace::tests::facts;
    use ::rules::AppliedRules;

    /// The link about the rules of the client for Service `web`.
    fn link(facts: &Facts) -> Link {
        let service = &facts.services.as_ref().unwrap()[0];
        rules(&Case::new(facts, service)).remove(0)
    }

    fn with_applied(rules: AppliedRules) -> Facts {
        let proxy = "multus-service-proxy-a".to_owned();
        Facts {
            applied: Ok(Applied { proxy, rules }),
            ..facts()
        }
    }

    #[test]
    fn rules_in_force_that_are_planned_are_good() {
        let facts = facts();
        let case = Case::new(&facts, &facts.services.as_ref().unwrap()[0]);
        let pod = facts.client.as_ref().unwrap().pod.as_ref().unwrap().as_ref();
        let (planned, _) = planned(&case, pod.unwrap());
        let applied = AppliedRules::new(Vec::new(), &planned.kernel_state(), Vec::new());
        let link = link(&with_applied(applied));
        assert_eq!(link.state, State::Good, "{link:?}");
        assert!(
            link.says.ends_with("multus-service-proxy-a read them"),
            "{link:?}"
        );
    }

    #[test]
    fn rules_that_are_missing_differ() {
        let link = link(&with_applied(AppliedRules::default()));
        assert_eq!(
            (link.state, link.cause),
            (State::Broken, Some(Cause::RulesDiffer))
        );
        let difference = "endpoints: planned 10.1.0.2:8080, 10.1.0.3:8080, applied none";
        assert!(link.details.iter().any(|detail| detail == difference), "{link:?}");
    }

    #[test]
    fn rules_that_cannot_be_read_are_named_as_such() {
        let link = link(&facts());
        assert_eq!(link.state, State::Good);
        assert!(
            link.says
                .ends_with("is not available: no proxy is running on node node-1"),
            "{link:?}"
        );
    }
}
