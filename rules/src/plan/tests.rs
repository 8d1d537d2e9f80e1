//! Planning and tracing, by tables and by properties.
//!
//! Address plan: service-network pods 10.1.0.0/16 and fd00:1::/64, VIPs 172.30.0.0/16 and fd00:96::/112.

use crate::{Origin, Packet, Plan, PodRules, Port, Protocol, ServedService, Settings, Slice, Verdict};
use api::NamespaceIsolation;
use api::names::{
    MANAGED_BY, MANAGED_BY_LABEL, PROXY_NAME, PROXY_NAME_LABEL, SERVICE_NAME_LABEL,
    SERVICE_NETWORK_ANNOTATION,
};
use api::network_status::NetworkStatus;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

fn service(name: &str, vips: &[&str], ports: &Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "web", "uid": format!("uid-{name}"),
            "labels": {PROXY_NAME_LABEL: PROXY_NAME}, "annotations": {SERVICE_NETWORK_ANNOTATION: "macvlan1"},
        },
        "spec": {"clusterIPs": vips, "ports": ports},
    }))
    .unwrap()
}

fn slice(service: &str, suffix: &str, endpoints: &Value) -> EndpointSlice {
    let family = if endpoints.to_string().contains("fd00") {
        "IPv6"
    } else {
        "IPv4"
    };
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{service}-multus-{suffix}"), "namespace": "web",
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: service},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": format!("uid-{service}")}],
        },
        "addressType": family,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        "endpoints": endpoints,
    }))
    .unwrap()
}

fn http() -> Value {
    json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}])
}

fn attachment(network: &str, interface: &str, addresses: &[&str]) -> NetworkStatus {
    NetworkStatus {
        network: network.to_owned(),
        interface: interface.to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn net1() -> Vec<NetworkStatus> {
    vec![
        attachment("cbr0", "eth0", &["10.128.0.7"]),
        attachment("web/macvlan1", "net1", &["10.1.0.7", "fd00:1::7"]),
    ]
}

/// With default settings.
fn plan(services: &[Service], slices: &[EndpointSlice], attachments: &[NetworkStatus]) -> Plan {
    crate::plan(&Settings::default(), services, slices, "web", attachments)
}

fn packet(destination: &str, protocol: Protocol, number: u16) -> Packet {
    Packet {
        origin: Origin::Pod,
        destination: destination.parse().unwrap(),
        port: Some(Port { protocol, number }),
    }
}

/// `reject`, `pass`, or `interface source -> endpoint endpoint`.
fn traced(rules: &PodRules, packet: Packet) -> String {
    match rules.trace(packet) {
        Verdict::Pass => "pass".to_owned(),
        Verdict::Reject => "reject".to_owned(),
        Verdict::Translate {
            endpoints,
            source,
            seen,
            ..
        } => {
            let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
            format!("{} {} -> {}", source.interface, seen, endpoints.join(" "))
        }
    }
}

#[test]
fn a_node_without_affinity_serves_the_rest_and_reports_it() {
    let mut sticky = service("nginx", &["172.30.0.10"], &http());
    sticky.spec.as_mut().unwrap().session_affinity = Some("ClientIP".to_owned());
    let slices = [slice("nginx", "a", &json!([{"addresses": ["10.1.0.2"]}]))];
    let under = |lacks_affinity| {
        let settings = Settings {
            lacks_affinity,
            ..Settings::default()
        };
        let plan = crate::plan(&settings, std::slice::from_ref(&sticky), &slices, "web", &net1());
        let (vip, port) = (
            "172.30.0.10".parse().unwrap(),
            packet("::", Protocol::Tcp, 80).port.unwrap(),
        );
        let affinity = plan.rules.translation(vip, port).unwrap().affinity;
        let reported: Vec<_> = plan.unserved.iter().map(ToString::to_string).collect();
        (affinity.is_some(), reported.join(""))
    };
    assert_eq!(under(false), (true, String::new()));
    let (is_kept, reported) = under(true);
    assert!(
        !is_kept && reported.contains("\"web/nginx\" is served without its sessionAffinity"),
        "{reported}"
    );
}

#[rstest]
#[case::served(
    packet("172.30.0.10", Protocol::Tcp, 80),
    "net1 10.1.0.7 -> 10.1.0.2:8080 10.1.0.3:8080"
)]
#[case::served_udp(
    packet("172.30.0.10", Protocol::Udp, 53),
    "net1 10.1.0.7 -> 10.1.0.2:5353 10.1.0.3:5353"
)]
#[case::served_ipv6(packet("fd00:96::a", Protocol::Tcp, 80), "net1 fd00:1::7 -> [fd00:1::2]:8080")]
#[case::unused_port(packet("172.30.0.10", Protocol::Tcp, 81), "reject")]
#[case::other_protocol_on_the_port(packet("172.30.0.10", Protocol::Sctp, 80), "reject")]
#[case::endpoint_port_is_not_a_service_port(packet("172.30.0.10", Protocol::Tcp, 8080), "reject")]
#[case::forwarded(Packet { origin: Origin::Forwarded("192.168.50.2".parse().unwrap()), ..packet("172.30.0.10", Protocol::Tcp, 80) }, "net1 192.168.50.2 -> 10.1.0.2:8080 10.1.0.3:8080")]
#[case::ping(Packet { origin: Origin::Pod, destination: "172.30.0.10".parse().unwrap(), port: None }, "reject")]
#[case::not_a_vip(packet("172.30.0.11", Protocol::Tcp, 80), "pass")]
#[case::endpoint_itself(packet("10.1.0.2", Protocol::Tcp, 8080), "pass")]
fn every_port_of_a_vip_is_served_or_rejected(#[case] packet: Packet, #[case] want: &str) {
    let slices = [
        slice(
            "nginx",
            "a",
            &json!([{"addresses": ["10.1.0.3"]}, {"addresses": ["10.1.0.2"]}]),
        ),
        slice("nginx", "b", &json!([{"addresses": ["10.1.0.2"]}])),
        slice("nginx", "c", &json!([{"addresses": ["fd00:1::2"]}])),
    ];
    let plan = plan(
        &[service("nginx", &["172.30.0.10", "fd00:96::a"], &http())],
        &slices,
        &net1(),
    );
    assert_eq!(traced(&plan.rules, packet), want);
    assert_eq!((plan.unserved, plan.shortcomings.len()), (vec![], 0));
}

#[rstest]
#[case::ready_only(&[(2, "ready"), (3, "unready"), (4, "terminating")], "net1 10.1.0.7 -> 10.1.0.2:8080")]
#[case::terminating_when_none_is_ready(&[(3, "unready"), (4, "terminating"), (5, "gone")], "net1 10.1.0.7 -> 10.1.0.4:8080")]
#[case::published_though_not_ready(&[(2, "published")], "net1 10.1.0.7 -> 10.1.0.2:8080")]
#[case::rejected_when_none_serves(&[(3, "unready"), (5, "gone")], "reject")]
#[case::rejected_without_endpoints(&[], "reject")]
#[case::ready_in_one_slice_and_not_in_another(&[(2, "unready"), (2, "ready")], "net1 10.1.0.7 -> 10.1.0.2:8080")]
fn readiness_selects_endpoints(#[case] endpoints: &[(u8, &str)], #[case] want: &str) {
    let conditions = |state: &str| match state {
        "ready" => json!({"ready": true, "serving": true, "terminating": false}),
        "unready" => json!({"ready": false, "serving": false, "terminating": false}),
        "terminating" => json!({"ready": false, "serving": true, "terminating": true}),
        "gone" => json!({"ready": false, "serving": false, "terminating": true}),
        "published" => json!({"ready": true, "serving": false, "terminating": true}),
        other => panic!("{other}"),
    };
    let slices: Vec<_> = (0..)
        .zip(endpoints)
        .map(|(i, (host, state))| {
            let endpoint = json!({"addresses": [format!("10.1.0.{host}")], "conditions": conditions(state)});
            slice("nginx", &i.to_string(), &json!([endpoint]))
        })
        .collect();
    let plan = plan(&[service("nginx", &["172.30.0.10"], &http())], &slices, &net1());
    assert_eq!(
        traced(&plan.rules, packet("172.30.0.10", Protocol::Tcp, 80)),
        want
    );
}

#[test]
fn slices_of_a_deleted_service_do_not_serve_its_successor() {
    let mut successor = service("nginx", &["172.30.0.10"], &http());
    successor.metadata.uid = Some("uid-of-the-second".to_owned());
    let plan = plan(
        &[successor],
        &[slice("nginx", "a", &json!([{"addresses": ["10.1.0.2"]}]))],
        &net1(),
    );
    assert_eq!(
        traced(&plan.rules, packet("172.30.0.10", Protocol::Tcp, 80)),
        "reject"
    );
}

#[test]
fn slices_of_another_namespace_do_not_count() {
    let mut foreign = slice("nginx", "a", &json!([{"addresses": ["10.1.0.2"]}]));
    foreign.metadata.namespace = Some("evil".to_owned());
    let plan = plan(
        &[service("nginx", &["172.30.0.10"], &http())],
        &[foreign],
        &net1(),
    );
    assert_eq!(
        traced(&plan.rules, packet("172.30.0.10", Protocol::Tcp, 80)),
        "reject"
    );
}

#[test]
fn a_broken_service_does_not_affect_others() {
    let good = service("nginx", &["172.30.0.10"], &http());
    let mut broken = service("broken", &["172.30.0.11"], &http());
    broken.metadata.annotations = None;
    let taken = service("taken", &["172.30.0.10"], &http());
    let slices = [
        slice("nginx", "a", &json!([{"addresses": ["10.1.0.2"]}])),
        slice("taken", "a", &json!([{"addresses": ["127.0.0.1"]}])),
    ];
    let plan = plan(&[taken, broken, good.clone()], &slices, &net1());
    assert_eq!(plan.rules, super::tests::plan(&[good], &slices, &net1()).rules);
    let reported: Vec<_> = plan.unserved.iter().map(ToString::to_string).collect();
    assert_eq!(reported.len(), 3, "{reported:?}");
    assert!(
        reported[0].contains("\"web/taken-multus-a\"") && reported[0].contains("loopback"),
        "{reported:?}"
    );
    assert!(
        reported[1].contains("\"web/broken\"") && reported[1].contains("is missing"),
        "{reported:?}"
    );
    assert!(
        reported[2].contains("\"web/taken\"") && reported[2].contains("\"web/nginx\", which keeps it"),
        "{reported:?}"
    );
}

#[rstest]
#[case::none(&[], "pass", &[])]
#[case::cluster_network_only(&[("cbr0", "eth0", &["10.128.0.7"][..])], "pass", &[])]
#[case::network_of_another_namespace(&[("shop/macvlan1", "net1", &["10.1.0.7"][..])], "pass", &[])]
#[case::layer_2(&[("web/macvlan1", "net1", &[][..])], "reject", &["has an IPv4 address"])]
#[case::other_family(&[("web/macvlan1", "net1", &["fd00:1::7"][..])], "reject", &["has an IPv4 address"])]
#[case::link_local(&[("web/macvlan1", "net1", &["169.254.7.7"][..])], "reject", &["has an IPv4 address"])]
#[case::interface_not_named(&[("web/macvlan1", "", &["10.1.0.7"][..])], " 10.1.0.7 -> 10.1.0.2:8080", &[])]
#[case::two_interfaces_not_named(&[("web/macvlan1", "", &["10.1.0.7"][..]), ("web/macvlan1", "", &["10.1.0.8"][..])], " 10.1.0.7 -> 10.1.0.2:8080", &["use \"with 10.1.0.7\""])]
#[case::second_address_fits(&[("web/macvlan1", "net1", &["fd00:1::7", "10.1.0.7"][..])], "net1 10.1.0.7 -> 10.1.0.2:8080", &[])]
#[case::two_interfaces(&[("web/macvlan1", "net2", &["10.1.0.8"][..]), ("web/macvlan1", "net1", &["10.1.0.7"][..])], "net2 10.1.0.8 -> 10.1.0.2:8080", &["2 interfaces are on network"])]
#[case::first_interface_without_address(&[("web/macvlan1", "net1", &[][..]), ("web/macvlan1", "net2", &["10.1.0.8"][..])], "net2 10.1.0.8 -> 10.1.0.2:8080", &[])]
fn a_pod_is_served_on_its_attachments(
    #[case] attachments: &[(&str, &str, &[&str])],
    #[case] want: &str,
    #[case] lacks: &[&str],
) {
    let attachments: Vec<_> = attachments
        .iter()
        .map(|(network, interface, addresses)| attachment(network, interface, addresses))
        .collect();
    let slices = [slice("nginx", "a", &json!([{"addresses": ["10.1.0.2"]}]))];
    let plan = plan(
        &[service("nginx", &["172.30.0.10"], &http())],
        &slices,
        &attachments,
    );
    assert_eq!(
        traced(&plan.rules, packet("172.30.0.10", Protocol::Tcp, 80)),
        want
    );
    let reported: Vec<_> = plan.shortcomings.iter().map(ToString::to_string).collect();
    assert_eq!(reported.len(), lacks.len(), "{reported:?}");
    assert!(
        reported
            .iter()
            .zip(lacks)
            .all(|(reported, lacks)| reported.contains(lacks)),
        "{reported:?}"
    );
}

#[rstest]
#[case::of_its_own_namespace("web", &["default"], true)]
#[case::of_another("shop", &["default"], false)]
#[case::of_another_though_global("shop", &["web"], true)]
fn a_client_uses_networks_of_its_own_namespace_and_global_ones(
    #[case] namespace: &str,
    #[case] global: &[&str],
    #[case] is_served: bool,
) {
    let slices = [slice("nginx", "a", &json!([{"addresses": ["10.1.0.2"]}]))];
    let services = [service("nginx", &["172.30.0.10"], &http())];
    let plan_under = |isolation| {
        let settings = Settings {
            isolation,
            ..Settings::default()
        };
        crate::plan(&settings, &services, &slices, namespace, &net1())
    };
    let isolated = plan_under(NamespaceIsolation::Isolated {
        global_namespaces: global.iter().map(ToString::to_string).collect(),
    });
    assert_eq!(isolated.rules.is_empty(), !is_served);
    let reported: Vec<_> = isolated.shortcomings.iter().map(ToString::to_string).collect();
    assert_eq!(
        reported
            .iter()
            .any(|reported| reported.contains("spec.networkNamespaceIsolation")),
        !is_served,
        "{reported:?}"
    );
    let open = plan_under(NamespaceIsolation::Open);
    assert!(!open.rules.is_empty() && open.shortcomings.is_empty());
    // A network without Services is not reported.
    let nothing = crate::plan(&Settings::default(), &[], &[], namespace, &net1());
    assert_eq!(nothing.shortcomings.len(), 0);
}

#[test]
fn a_network_without_services_has_no_rules() {
    assert!(plan(&[], &[], &net1()).rules.is_empty());
    let headless = service("db", &["None"], &http());
    assert_eq!(plan(&[headless], &[], &net1()), Plan::default());
}

#[test]
fn routes_and_sources_are_those_of_the_vips() {
    let both = [
        service("nginx", &["172.30.0.10", "fd00:96::a"], &http()),
        service("db", &["172.30.0.11"], &http()),
    ];
    let rules = plan(&both, &[], &net1()).rules;
    let routes: Vec<_> = rules
        .routes()
        .iter()
        .map(|(vip, source)| format!("{vip} dev {} src {}", source.interface, source.address))
        .collect();
    assert_eq!(
        routes,
        [
            "172.30.0.10 dev net1 src 10.1.0.7",
            "172.30.0.11 dev net1 src 10.1.0.7",
            "fd00:96::a dev net1 src fd00:1::7"
        ]
    );
    assert_eq!(rules.sources().count(), 2);
}

prop_compose! {
    /// Few names and addresses, so that they collide.
    fn any_service()(name in "[a-d]", hosts in prop::collection::vec(0u8..6, 0..3), six in any::<bool>(), ports in prop::collection::btree_set((0usize..3, 0i32..4), 0..4), labelled in prop::bool::weighted(0.9)) -> Service {
        let vips: Vec<String> = hosts.iter().map(|host| format!("172.30.0.{host}")).chain(six.then(|| format!("fd00:96::{name}"))).collect();
        let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
        let names = ["http", "dns", "x"];
        let protocols = ["TCP", "UDP", "SCTP"];
        let ports: Vec<Value> = ports.iter().map(|(i, port)| json!({"name": names[*i], "port": port, "protocol": protocols[*i]})).collect();
        let mut service = service(&name, &vips, &json!(ports));
        if !labelled { service.metadata.labels = None; }
        service
    }
}

prop_compose! {
    fn any_slice()(service in "[a-d]", suffix in "[a-z]{3}", hosts in prop::collection::vec((1u8..9, any::<(Option<bool>, Option<bool>, Option<bool>)>()), 0..5)) -> EndpointSlice {
        let endpoints: Vec<Value> = hosts.iter().map(|(host, (ready, serving, terminating))| json!({"addresses": [format!("10.1.0.{host}")], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})).collect();
        slice(&service, &suffix, &json!(endpoints))
    }
}

/// The apiserver keeps names unique.
fn unique(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_by_key(|service| service.metadata.name.clone());
    services.dedup_by_key(|service| service.metadata.name.clone());
    services
}

proptest! {
    #[test]
    fn every_vip_port_is_served_or_rejected_never_leaked(services in prop::collection::vec(any_service(), 0..5), slices in prop::collection::vec(any_slice(), 0..6), number in 0u16..5) {
        let services = unique(services);
        let plan = plan(&services, &slices, &net1());
        for served in services.iter().filter_map(|service| ServedService::parse(service).ok()) {
            for (vip, protocol) in served.vips.iter().flat_map(|vip| Protocol::ALL.map(|protocol| (*vip, protocol))) {
                match plan.rules.trace(Packet { origin: Origin::Pod, destination: vip, port: Some(Port { protocol, number }) }) {
                    Verdict::Pass => prop_assert!(false, "{vip} leaks"),
                    Verdict::Reject => {}
                    Verdict::Translate { endpoints, source, .. } => {
                        prop_assert!(!endpoints.is_empty());
                        prop_assert!(endpoints.iter().all(|endpoint| endpoint.is_ipv4() == vip.is_ipv4()));
                        prop_assert_eq!(Some(source), plan.rules.routes().get(&vip).copied());
                    }
                }
            }
        }
    }

    #[test]
    fn order_does_not_matter(services in prop::collection::vec(any_service(), 0..5), slices in prop::collection::vec(any_slice(), 0..6)) {
        let services = unique(services);
        let forward = plan(&services, &slices, &net1());
        let reversed = |mut services: Vec<Service>, mut slices: Vec<EndpointSlice>| { services.reverse(); slices.reverse(); plan(&services, &slices, &net1()) };
        prop_assert_eq!(forward, reversed(services, slices));
    }

    #[test]
    fn a_ready_endpoint_is_never_lost(slices in prop::collection::vec(any_slice(), 0..6)) {
        let rules = plan(&[service("a", &["172.30.0.10"], &http())], &slices, &net1()).rules;
        let ready = slices.iter().filter_map(|slice| Slice::parse(slice).ok()).filter(|slice| slice.service.name == "a")
            .flat_map(|slice| slice.endpoints).filter(|endpoint| endpoint.ready).flat_map(|endpoint| endpoint.addresses);
        for address in ready {
            let Verdict::Translate { endpoints, .. } = rules.trace(packet("172.30.0.10", Protocol::Tcp, 80)) else { panic!("rejected") };
            prop_assert!(endpoints.contains(&(address, 8080).into()));
        }
    }
}
