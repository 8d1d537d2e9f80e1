//! Differential test of the kernel and `trace`. Random Services follow each other in the same pod; each state is reached as a difference
//! from the previous one, by adoption, or after a chain was flushed.
//!
//! Scenarios are the same in every run. `DIFFERENTIAL_SEED` (a number) selects others; `DIFFERENTIAL_SCENARIOS` sets their number.

use super::fixture::CLIENT;
use super::matrix::{BackendKind, for_every_backend};
use super::objects::{Endpoint, Service};
use super::sctp;
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Outcome, Server, probe, request_from};
use api::Family;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proxy::backend::KnownRules;
use rules::Protocol::{Sctp, Tcp, Udp};
use rules::{Node, Origin, Packet, PodRules, Port, PreviousFlow, Protocol, Settings, Verdict};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

for_every_backend![kernel_agrees_with_trace];

/// Number of scenarios, large enough that every verdict occurs.
const SCENARIOS: u64 = 10;

/// Returns an environment variable, or the default.
fn env_or(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Servers, on both networks. On network 2 the host number is higher by this offset.
const HOSTS: [u8; 3] = [2, 3, 4];
const ON_NETWORK_2: u8 = 50;

/// Maximum requests until every allowed endpoint has responded. With three endpoints one is missed in 1 of 10^10 runs.
const MAX_REQUESTS: usize = 60;

/// Minimum requests: two for each address that a socket may be bound to.
const MIN_REQUESTS: usize = 8;

/// Address that the client's socket is bound to: none, or one of the client's addresses.
fn bound(family: Family, times: usize) -> Option<IpAddr> {
    let cluster = match family {
        Family::V4 => IpAddr::from([10, 128, 0, CLIENT]),
        Family::V6 => format!("fd00:128::{CLIENT}").parse().unwrap(),
    };
    let (net1, net2) = (
        address(1, family, CLIENT),
        address(2, family, CLIENT + ON_NETWORK_2),
    );
    [None, Some(cluster), Some(net1), Some(net2)][times % 4]
}

/// Service ports and target ports.
const PORTS: [(Protocol, u16, u16); 6] = [
    (Tcp, 80, 8080),
    (Tcp, 81, 8081),
    (Udp, 53, 5353),
    (Udp, 80, 8080),
    (Sctp, 80, sctp::PORT),
    (Sctp, 3868, sctp::PORT),
];

/// Requested ports that no Service has.
const UNUSED: [(Protocol, u16); 3] = [(Tcp, 8080), (Udp, 81), (Sctp, 81)];

/// Initial knowledge of the writer.
#[derive(Clone, Copy, Debug)]
enum ApplyMode {
    /// The current rules are known.
    Difference,
    /// The current rules are read first.
    Adoption,
    /// The current rules are read after managed rules were removed, and everything is written again.
    Rebuild,
}

#[derive(Clone, Debug)]
struct Scenario {
    services: Vec<Option<ServiceShape>>,
    mode: ApplyMode,
}

/// A Service without its name and VIP.
#[derive(Clone, Debug)]
struct ServiceShape {
    network: u8,
    ports: Vec<(Protocol, u16, u16)>,
    endpoints: Vec<(u8, EndpointShape)>,
    has_affinity: bool,
    is_local_only: bool,
    slices: usize,
}

/// An endpoint without its address.
#[expect(
    clippy::struct_excessive_bools,
    reason = "an EndpointSlice has as many conditions"
)]
#[derive(Clone, Copy, Debug)]
struct EndpointShape {
    ready: bool,
    serving: bool,
    terminating: bool,
    is_local: bool,
    zone: Option<&'static str>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let service = prop::option::weighted(0.85, service());
    let mode = prop_oneof![3 => Just(ApplyMode::Difference), 1 => Just(ApplyMode::Adoption), 1 => Just(ApplyMode::Rebuild)];
    (prop::collection::vec(service, 4), mode).prop_map(|(services, mode)| Scenario { services, mode })
}

fn service() -> impl Strategy<Value = ServiceShape> {
    let endpoint = (
        prop::sample::select(HOSTS.to_vec()),
        prop::bool::weighted(0.7),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::option::weighted(0.8, prop::sample::select(vec!["a", "b"])),
    );
    let endpoint = endpoint.prop_map(|(host, ready, serving, terminating, is_local, zone)| {
        let shape = EndpointShape {
            ready,
            serving,
            terminating,
            is_local,
            zone,
        };
        (host, shape)
    });
    (
        1u8..=2,
        prop::sample::subsequence(PORTS.to_vec(), 1..=PORTS.len()),
        prop::collection::vec(endpoint, 0..=4),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
        1usize..=2,
    )
        .prop_map(
            |(network, ports, endpoints, has_affinity, is_local_only, slices)| ServiceShape {
                network,
                ports,
                endpoints,
                has_affinity,
                is_local_only,
                slices,
            },
        )
}

impl ServiceShape {
    fn service(&self, index: u8) -> Service {
        let mut service = Service::new(&format!("s{index}"), 10 + index).ports(&self.ports);
        service.network = self.network;
        service.slices = self.slices;
        service.endpoints = self
            .endpoints
            .iter()
            .map(|(host, shape)| self.endpoint(*host, *shape))
            .collect();
        service.spec = json!({
            "sessionAffinity": if self.has_affinity { "ClientIP" } else { "None" },
            "internalTrafficPolicy": if self.is_local_only { "Local" } else { "Cluster" },
        });
        service
    }

    fn endpoint(&self, host: u8, shape: EndpointShape) -> Endpoint {
        let host = if self.network == 2 {
            host + ON_NETWORK_2
        } else {
            host
        };
        let mut object = json!({
            "conditions": {"ready": shape.ready, "serving": shape.serving, "terminating": shape.terminating},
            "nodeName": if shape.is_local { "here" } else { "elsewhere" },
        });
        if let Some(zone) = shape.zone {
            object["hints"] = json!({"forZones": [{"name": zone}]});
        }
        Endpoint {
            host,
            object,
            network: None,
        }
    }
}

/// A client pod, and its known state.
struct Checker {
    client: Pod,
    kind: BackendKind,
    held: KnownRules<PodRules>,
    /// Last endpoint of each client, by port with affinity. A client is the address of a socket before translation.
    last_endpoints: BTreeMap<(IpAddr, Port, IpAddr), SocketAddr>,
    verdict_counts: BTreeMap<&'static str, usize>,
}

fn kernel_agrees_with_trace(kind: BackendKind) {
    let mut testbed = Testbed::new();
    let mut client = testbed.pod(CLIENT);
    testbed.attach(&mut client, 2, "net2", CLIENT + ON_NETWORK_2);
    let servers = HOSTS.map(|host| {
        let mut pod = testbed.pod(host);
        testbed.attach(&mut pod, 2, "net2", host + ON_NETWORK_2);
        (Server::start(&pod), sctp::Server::start(&pod))
    });
    let mut checker = Checker {
        client,
        kind,
        held: KnownRules::Nothing,
        last_endpoints: BTreeMap::new(),
        verdict_counts: BTreeMap::new(),
    };
    let (scenarios, seed) = (
        env_or("DIFFERENTIAL_SCENARIOS", SCENARIOS),
        env_or("DIFFERENTIAL_SEED", 0),
    );
    // Printed when the test fails.
    println!("{kind:?}: repeat with DIFFERENTIAL_SEED={seed} DIFFERENTIAL_SCENARIOS={scenarios}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    for number in 0..scenarios {
        let scenario = scenario().new_tree(&mut runner).unwrap().current();
        checker.run_scenario(&scenario, number);
    }
    drop(servers);
    let verdict_counts = &checker.verdict_counts;
    let all = ["pass", "rejected", "translated", "kept"];
    assert!(
        scenarios < SCENARIOS
            || all
                .iter()
                .all(|verdict| verdict_counts.get(verdict).is_some_and(|n| *n > 0)),
        "{verdict_counts:?}"
    );
    println!("{kind:?}: {verdict_counts:?}");
}

impl Checker {
    fn run_scenario(&mut self, scenario: &Scenario, number: u64) {
        let rules = self.plan(scenario);
        let held = match scenario.mode {
            ApplyMode::Difference => std::mem::take(&mut self.held),
            ApplyMode::Adoption => KnownRules::Unknown,
            ApplyMode::Rebuild => {
                self.flush_rules();
                KnownRules::Unknown
            }
        };
        let applied = self.client.apply(self.kind, &held, &rules);
        assert_eq!((applied.absent, applied.conntrack), (vec![], None));
        let read = self.client.run(|| self.kind.backend().dump()).unwrap();
        assert_eq!(
            read,
            applied.rules.kernel_state(),
            "scenario {number}: the rules read back differ from the rules written"
        );
        assert_eq!(
            read.regardless_of_places(),
            rules.kernel_state(),
            "scenario {number}: the rules written differ from the desired rules"
        );
        self.forget(&rules);
        let service_ports = PORTS.iter().map(|(protocol, port, _)| (*protocol, *port));
        for (protocol, number) in service_ports.chain(UNUSED) {
            let port = Port { protocol, number };
            for index in 0..4 {
                for family in Family::ALL {
                    let vip = Service::new("", 10 + index).vip(family);
                    self.check(&rules, vip, port);
                }
            }
        }
        self.held = KnownRules::Exactly(applied.rules);
    }

    /// Flushes a chain, as an administrator might.
    fn flush_rules(&self) {
        let chain = match self.kind {
            BackendKind::IptablesNft => "iptables-nft -t nat -F MSP-SERVICES",
            BackendKind::IptablesLegacy => "iptables-legacy -t nat -F MSP-SERVICES",
            BackendKind::Nftables => "nft flush chain ip multus-proxy dispatch",
        };
        // No rules exist before the first Service.
        self.client.sh(&format!("{chain} 2>/dev/null || true"));
    }

    fn plan(&self, scenario: &Scenario) -> PodRules {
        let services = (0..)
            .zip(&scenario.services)
            .filter_map(|(index, shape)| Some(shape.as_ref()?.service(index)));
        let services: Vec<Service> = services.collect();
        let settings = Settings {
            node: Node {
                name: "here".to_owned(),
                zone: Some("a".to_owned()),
            },
            ..Settings::default()
        };
        let objects: Vec<_> = services.iter().map(Service::object).collect();
        let slices: Vec<_> = services.iter().flat_map(Service::slice_objects).collect();
        let plan = rules::plan(&settings, &objects, &slices, "web", &self.client.status);
        assert_eq!((plan.unserved, plan.shortcomings.len()), (vec![], 0));
        plan.rules
    }

    /// Forgets endpoints that were removed, even if they return later.
    fn forget(&mut self, rules: &PodRules) {
        self.last_endpoints.retain(|(vip, port, _), endpoint| {
            let translation = rules.translation(*vip, *port);
            translation.is_some_and(|now| now.affinity.is_some() && now.endpoints.contains(endpoint))
        });
    }

    /// Sends requests until all allowed endpoints have responded, and fails if another one does.
    fn check(&mut self, rules: &PodRules, vip: IpAddr, port: Port) {
        let packet = Packet {
            origin: Origin::Pod,
            destination: vip,
            port: Some(port),
        };
        let verdict = rules.trace(packet);
        let mut seen = BTreeSet::new();
        for times in 1..=MAX_REQUESTS {
            let bound = bound(Family::of(vip), times);
            let by_route = match verdict {
                Verdict::Translate { source, .. } => source.address,
                _ => vip,
            };
            let client = bound.unwrap_or(by_route);
            let allowed = verdict.endpoints_after(self.previous_flow(vip, port, client));
            let Some(endpoint) = self.probe(&verdict, &allowed, bound, vip, port) else {
                return;
            };
            seen.insert(endpoint);
            let is_sticky = matches!(
                verdict,
                Verdict::Translate {
                    affinity: Some(_),
                    ..
                }
            );
            if is_sticky {
                self.last_endpoints.insert((vip, port, client), endpoint);
            }
            let allowed = verdict.endpoints_after(self.previous_flow(vip, port, client));
            if times >= MIN_REQUESTS && allowed.is_subset(&seen) {
                let kind = if is_sticky && verdict.endpoints_after(None).len() > 1 {
                    "kept"
                } else {
                    "translated"
                };
                *self.verdict_counts.entry(kind).or_default() += 1;
                return;
            }
        }
        panic!(
            "{vip} {port:?}: trace expects {verdict:?}, but only {seen:?} answered in {MAX_REQUESTS} attempts"
        );
    }

    fn previous_flow(&self, vip: IpAddr, port: Port, client: IpAddr) -> Option<PreviousFlow> {
        let endpoint = *self.last_endpoints.get(&(vip, port, client))?;
        Some(PreviousFlow {
            endpoint,
            age: Duration::ZERO,
        })
    }

    /// Sends one request. Returns the endpoint that responded, if the VIP is translated.
    fn probe(
        &mut self,
        verdict: &Verdict<'_>,
        allowed: &BTreeSet<SocketAddr>,
        bound: Option<IpAddr>,
        vip: IpAddr,
        port: Port,
    ) -> Option<SocketAddr> {
        let Verdict::Translate { source, seen, .. } = verdict else {
            return self.expect_no_response(verdict, vip, port);
        };
        let response = self
            .client
            .run(|| request_from(bound, port.protocol, SocketAddr::new(vip, port.number)));
        let answer = response.unwrap_or_else(|error| {
            panic!("{vip} {port:?} from {bound:?}: trace expects {verdict:?}, the kernel returned {error}")
        });
        let network = if source.interface == "net2" { 2 } else { 1 };
        let host = if network == 2 {
            answer.host + ON_NETWORK_2
        } else {
            answer.host
        };
        let answered = SocketAddr::new(address(network, Family::of(vip), host), answer.port);
        assert_eq!(
            answer.seen, *seen,
            "{vip} {port:?} from {bound:?}: trace expects another source"
        );
        assert!(
            allowed.contains(&answered),
            "{vip} {port:?}: {answered} answered, trace expects {allowed:?}"
        );
        Some(answered)
    }

    fn expect_no_response(&mut self, verdict: &Verdict<'_>, vip: IpAddr, port: Port) -> Option<SocketAddr> {
        if *verdict == Verdict::Pass {
            // The packet would leave by the default route and get lost there; the route lookup shows this without waiting.
            let route = self.client.sh(&format!("ip route get {vip}"));
            assert!(route.contains("dev eth0"), "{vip}: {route}");
            *self.verdict_counts.entry("pass").or_default() += 1;
            return None;
        }
        let outcome = self
            .client
            .run(|| probe(port.protocol, SocketAddr::new(vip, port.number)));
        assert_eq!(
            outcome,
            Outcome::Rejected,
            "{vip} {port:?}: trace expects {verdict:?}"
        );
        *self.verdict_counts.entry("rejected").or_default() += 1;
        None
    }
}
