//! Renders the rules and routes of a network namespace in the syntax of `ip route` and nft.
//!
//! Pure. It is what the rules do: the layout in the kernel is the backend's, with maps instead of one rule after the other.

use super::{mark, pod_heading};
use crate::chain::State;
use crate::facts::PodRules;
use api::names::ROUTE_PROTOCOL;
use rules::{AppliedClusterIp, AppliedPort, AppliedRoute, AppliedRules};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

pub(super) fn text(report: &PodRules) -> String {
    let heading = pod_heading(&report.pod, report.node.as_deref());
    let applied = match &report.applied {
        Ok(applied) => applied,
        Err(error) => {
            return format!(
                "{heading}\n\n{} the applied state of the node is not available: {error}\n",
                mark(State::Unknown)
            );
        }
    };
    let backends = match applied.rules.backends.as_slice() {
        [] => "no rules".to_owned(),
        backends => backends.join(", "),
    };
    let mut text = format!("{heading}: {backends}, read by {}\n", applied.proxy);
    for damage in &applied.rules.damage {
        let _ = writeln!(text, "{} {damage}", mark(State::Broken));
    }
    text.push_str(&body(&applied.rules));
    text
}

fn body(rules: &AppliedRules) -> String {
    let mut text = String::new();
    if !rules.routes.is_empty() {
        let _ = writeln!(text, "\n# ip route show proto {ROUTE_PROTOCOL}");
        rules
            .routes
            .iter()
            .for_each(|one| _ = writeln!(text, "{}", route(one)));
    }
    for (family, is_v4) in [("ip", true), ("ip6", false)] {
        let addresses = rules
            .cluster_ips
            .iter()
            .filter(|one| one.cluster_ip.is_ipv4() == is_v4);
        let addresses: Vec<_> = addresses.collect();
        if !addresses.is_empty() {
            let _ = writeln!(text, "\ntable {family} multus-proxy {{");
            text.push_str(&chain(
                "services",
                addresses.iter().flat_map(|one| services(family, one)),
            ));
            text.push_str(&chain(
                "sources",
                addresses.iter().filter_map(|one| source(family, one)),
            ));
            text.push_str("}\n");
        }
    }
    text
}

fn route(route: &AppliedRoute) -> String {
    let source = route
        .source
        .map(|source| format!(" src {source}"))
        .unwrap_or_default();
    format!("{} dev {}{source}", route.cluster_ip, route.interface)
}

fn chain(name: &str, rules: impl Iterator<Item = String>) -> String {
    let rules: Vec<String> = rules.map(|rule| format!("\t\t{rule}\n")).collect();
    if rules.is_empty() {
        return String::new();
    }
    format!("\tchain {name} {{\n{}\t}}\n", rules.concat())
}

fn services(family: &str, one: &AppliedClusterIp) -> Vec<String> {
    let to = format!("{family} daddr {}", one.cluster_ip);
    let mut rules: Vec<String> = one
        .ports
        .iter()
        .map(|port| format!("{to} {}", translation(port)))
        .collect();
    rules.extend(one.rejects.then(|| format!("{to} reject")));
    rules
}

fn translation(port: &AppliedPort) -> String {
    let affinity = port
        .affinity_seconds
        .map(|seconds| format!(" # affinity of a client: {seconds} s"));
    let endpoints = match port.endpoints.as_slice() {
        [] => "reject".to_owned(),
        [only] => format!("dnat to {only}"),
        many => {
            let places = many
                .iter()
                .enumerate()
                .map(|(place, endpoint)| format!("{place} : {}", pair(*endpoint)));
            let places: Vec<String> = places.collect();
            format!(
                "dnat to numgen random mod {} map {{ {} }}",
                many.len(),
                places.join(", ")
            )
        }
    };
    format!(
        "{} dport {} {endpoints}{}",
        port.protocol,
        port.port,
        affinity.unwrap_or_default()
    )
}

fn pair(endpoint: SocketAddr) -> String {
    format!("{} . {}", endpoint.ip(), endpoint.port())
}

fn source(family: &str, one: &AppliedClusterIp) -> Option<String> {
    let source: IpAddr = one.source?;
    Some(format!(
        "ct original {family} daddr {} snat to {source}",
        one.cluster_ip
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Applied, ReadError};
    use crate::render::plain;
    use api::ObjectName;

    fn report(applied: Result<AppliedRules, ReadError>) -> PodRules {
        PodRules {
            pod: ObjectName::new("shop", "client"),
            node: Some("node-1".to_owned()),
            applied: applied.map(|rules| Applied {
                proxy: "multus-service-proxy-a".to_owned(),
                rules,
            }),
        }
    }

    #[test]
    fn rules_are_shown_in_the_syntax_of_nft() {
        let port = |protocol: &str, endpoints: &[&str], affinity_seconds| AppliedPort {
            protocol: protocol.to_owned(),
            port: 80,
            endpoints: endpoints
                .iter()
                .map(|endpoint| endpoint.parse().unwrap())
                .collect(),
            affinity_seconds,
        };
        let cluster_ip = |cluster_ip: &str, source: &str, ports| AppliedClusterIp {
            cluster_ip: cluster_ip.parse().unwrap(),
            rejects: true,
            rejects_udp: true,
            source: source.parse().ok(),
            ports,
        };
        let rules = AppliedRules {
            backends: vec!["nftables".to_owned()],
            routes: vec![AppliedRoute {
                cluster_ip: "172.30.0.1".parse().unwrap(),
                interface: "net1".to_owned(),
                source: "10.1.0.9".parse().ok(),
            }],
            cluster_ips: vec![
                cluster_ip(
                    "172.30.0.1",
                    "10.1.0.9",
                    vec![
                        port("tcp", &["10.1.0.2:8080", "10.1.0.3:8080"], Some(60)),
                        port("udp", &["10.1.0.2:53"], None),
                    ],
                ),
                cluster_ip("fd00:96::1", "", vec![]),
            ],
            damage: vec!["a hook is missing".to_owned()],
        };
        let want = "Pod shop/client on node node-1: nftables, read by multus-service-proxy-a
✗ a hook is missing

# ip route show proto 77
172.30.0.1 dev net1 src 10.1.0.9

table ip multus-proxy {
\tchain services {
\t\tip daddr 172.30.0.1 tcp dport 80 dnat to numgen random mod 2 map { 0 : 10.1.0.2 . 8080, 1 : 10.1.0.3 . 8080 } # affinity of a client: 60 s
\t\tip daddr 172.30.0.1 udp dport 80 dnat to 10.1.0.2:53
\t\tip daddr 172.30.0.1 reject
\t}
\tchain sources {
\t\tct original ip daddr 172.30.0.1 snat to 10.1.0.9
\t}
}

table ip6 multus-proxy {
\tchain services {
\t\tip6 daddr fd00:96::1 reject
\t}
}
";
        assert_eq!(plain(&text(&report(Ok(rules)))), want);
    }

    #[test]
    fn rules_that_cannot_be_read_have_a_reason() {
        let none = ReadError::NotAvailable("no proxy is running on node node-1".to_owned());
        let text = plain(&text(&report(Err(none))));
        assert!(
            text.contains(
                "? the applied state of the node is not available: no proxy is running on node node-1"
            ),
            "{text}"
        );
    }
}
