//! The index agrees with planning from scratch for any order of events, and marks only pods that changed.

use super::*;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;

fn service(name: &str, network: &str, vip: u8) -> Service {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "web", "uid": format!("uid-{name}"),
            "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
            "annotations": {"k8s.v1.cni.cncf.io/service-network": network},
        },
        "spec": {"clusterIP": format!("172.30.0.{vip}"), "ports": [{"port": 80}]},
    }))
    .unwrap()
}

fn slice(service: &str, suffix: &str, host: u8) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{service}-multus-{suffix}"), "namespace": "web",
            "labels": {"endpointslice.kubernetes.io/managed-by": "multus-endpointslice-controller.npwg.k8s.io", "kubernetes.io/service-name": service},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": format!("uid-{service}")}],
        },
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [format!("10.1.0.{host}")]}],
    }))
    .unwrap()
}

fn pod(uid: &str, network: &str) -> LocalPod {
    let status = json!([{"name": network, "interface": "net1", "ips": ["10.1.0.200"]}]).to_string();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "web", "uid": uid, "annotations": {"k8s.v1.cni.cncf.io/network-status": status}},
    }))
    .unwrap();
    LocalPod::parse(&pod).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName {
        namespace: "web".to_owned(),
        name: name.to_owned(),
    }
}

fn put(index: &mut Index, service: &Service) {
    index.apply_service(
        &name(service.metadata.name.as_deref().unwrap()),
        ServedService::parse(service),
    );
}

fn on_two_networks() -> Index {
    let mut index = Index::default();
    put(&mut index, &service("nginx", "red", 10));
    put(&mut index, &service("db", "blue", 11));
    index.apply_slice(Slice::parse(&slice("nginx", "a", 2)).unwrap());
    index.apply_pod(NodePod::Attached(pod("on-red", "web/red")));
    index.apply_pod(NodePod::Attached(pod("on-blue", "web/blue")));
    assert_eq!(
        index.take_stale(),
        BTreeSet::from(["on-red".to_owned(), "on-blue".to_owned()])
    );
    index
}

fn stale(index: &mut Index) -> Vec<String> {
    index.take_stale().into_iter().collect()
}

#[test]
fn a_change_marks_only_pods_on_its_network() {
    let mut index = on_two_networks();
    index.apply_slice(Slice::parse(&slice("nginx", "a", 3)).unwrap());
    assert_eq!(stale(&mut index), ["on-red"]);
    index.delete_service(&name("db"));
    assert_eq!(stale(&mut index), ["on-blue"]);
    put(&mut index, &service("nginx", "blue", 10));
    assert_eq!(stale(&mut index), ["on-blue", "on-red"]);
}

#[test]
fn events_without_a_change_mark_no_pod() {
    let mut index = on_two_networks();
    put(&mut index, &service("nginx", "red", 10));
    index.apply_slice(Slice::parse(&slice("nginx", "a", 2)).unwrap());
    index.apply_slice(Slice::parse(&slice("unknown", "a", 2)).unwrap());
    index.apply_pod(NodePod::Attached(pod("on-red", "web/red")));
    assert_eq!(stale(&mut index), Vec::<String>::new());
}

#[test]
fn a_new_list_removes_missing_objects() {
    let mut index = on_two_networks();
    index.reset_services(vec![(
        name("db"),
        ServedService::parse(&service("db", "blue", 11)),
    )]);
    assert_eq!(stale(&mut index), ["on-red"]);
    index.reset_pods(vec![NodePod::Attached(pod("on-blue", "web/blue"))]);
    assert_eq!(
        (stale(&mut index), index.pod("on-red")),
        (vec!["on-red".to_owned()], None)
    );
}

#[test]
fn an_undecodable_pod_keeps_its_last_state() {
    let mut index = on_two_networks();
    let unreadable = || NodePod::Unreadable {
        uid: "on-red".to_owned(),
    };
    index.apply_pod(unreadable());
    index.reset_pods(vec![unreadable(), NodePod::Attached(pod("on-blue", "web/blue"))]);
    assert_eq!(stale(&mut index), Vec::<String>::new());
    assert!(index.pod("on-red").is_some());
}

#[test]
fn a_service_that_cannot_be_served_is_reported_and_does_not_affect_others() {
    let mut index = on_two_networks();
    put(&mut index, &service("thief", "red", 10));
    put(&mut index, &service("bad", "a,b", 12));
    assert_eq!(stale(&mut index), Vec::<String>::new());
    let reasons: Vec<_> = index
        .unserved()
        .into_iter()
        .map(|(name, why)| format!("{name}: {why}"))
        .collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons[0].contains("several networks") && reasons[1].contains("which keeps it"),
        "{reasons:?}"
    );
}

/// Number of reported Services, and of reported addresses.
fn reported(index: &Index) -> (usize, usize) {
    (index.unserved().len(), index.invalid_addresses().count())
}

#[test]
fn a_fault_is_reported_until_it_is_repaired_or_deleted() {
    let mut index = on_two_networks();
    let invalid = || {
        let mut invalid = slice("nginx", "b", 3);
        invalid.endpoints[0].addresses = vec!["10.1.0.x".to_owned()];
        Slice::parse(&invalid).unwrap()
    };
    for repair in [true, false] {
        put(&mut index, &service("bad", "a,b", 12));
        index.apply_slice(invalid());
        index.take_stale();
        assert_eq!(reported(&index), (1, 1));
        if repair {
            put(&mut index, &service("bad", "red", 12));
            index.apply_slice(Slice::parse(&slice("nginx", "b", 3)).unwrap());
        } else {
            index.delete_service(&name("bad"));
            index.delete_slice(&name("nginx-multus-b"));
        }
        index.take_stale();
        assert_eq!(reported(&index), (0, 0), "repaired: {repair}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Service(u8, u8),
    NoService(u8),
    Slice(u8, u8, u8),
    NoSlice(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, 0..4u8).prop_map(|(service, vip)| Step::Service(service, vip)),
        (0..3u8).prop_map(Step::NoService),
        (0..3u8, 0..3u8, 1..9u8).prop_map(|(service, suffix, host)| Step::Slice(service, suffix, host)),
        (0..3u8, 0..3u8).prop_map(|(service, suffix)| Step::NoSlice(service, suffix)),
    ]
}

#[test]
fn the_legacy_proxy_is_recognized_in_trusted_namespaces_only() {
    let legacy_pod = |namespace: &str, of_a_daemon_set| NodePod::LegacyProxy {
        uid: format!("uid-{namespace}"),
        name: ObjectName {
            namespace: namespace.to_owned(),
            name: "multus-proxy".to_owned(),
        },
        of_a_daemon_set,
    };
    let apply = |legacy: &[&str], namespace: &str, of_a_daemon_set| {
        let legacy = legacy.iter().map(ToString::to_string).collect();
        let mut index = Index::new(Settings::default()).with_legacy_namespaces(legacy);
        index.apply_pod(legacy_pod(namespace, of_a_daemon_set));
        let seen = (index.legacy_proxy().is_some(), index.impostors().len());
        index.reset_pods(Vec::new());
        assert!(index.legacy_proxy().is_none() && index.impostors().is_empty());
        seen
    };
    assert_eq!(apply(&["kube-system"], "kube-system", true), (true, 0));
    assert_eq!(apply(&["kube-system"], "kube-system", false), (false, 1));
    assert_eq!(apply(&["kube-system"], "tenant", true), (false, 1));
    assert_eq!(apply(&["multus", "kube-system"], "multus", true), (true, 0));
    assert_eq!(apply(&[], "kube-system", true), (false, 1));
    assert_eq!(
        default_legacy_namespaces(),
        BTreeSet::from(["kube-system".to_owned()])
    );
}

#[test]
fn host_networks_are_exempt_from_namespace_isolation() {
    let mut index = on_two_networks();
    let attached =
        api::network_status::parse(r#"[{"name":"web/red","interface":"ens4","ips":["10.1.0.200"]}]"#);
    let host = LocalPod::host(attached.unwrap().statuses);
    index.apply_pod(NodePod::Attached(host));
    let (rules, shortcomings) = index.plan(index.pod(HOST_UID).unwrap());
    assert_eq!((rules.vip_count(), shortcomings.len()), (1, 0));
}

#[test]
fn a_pod_of_another_namespace_gets_an_event_and_no_rules_of_a_network() {
    let mut index = on_two_networks();
    let mut claimant = pod("claimant", "web/red");
    claimant.name.namespace = "tenant".to_owned();
    index.apply_pod(NodePod::Attached(claimant));
    let (rules, shortcomings) = index.plan(index.pod("claimant").unwrap());
    assert!(rules.is_empty());
    let notes: Vec<_> = shortcomings.iter().map(ToString::to_string).collect();
    assert!(
        notes.len() == 1 && notes[0].contains("\"web/red\" of another namespace"),
        "{notes:?}"
    );
}

/// Two slices of a Service, so that one endpoint can be replaced.
fn put_endpoints(index: &mut Index, hosts: [u8; 2]) {
    for (suffix, host) in ["a", "b"].into_iter().zip(hosts) {
        index.apply_slice(Slice::parse(&slice("nginx", suffix, host)).unwrap());
    }
    index.take_stale();
}

fn places(rules: &PodRules) -> Vec<String> {
    let vips = rules.networks.values().flat_map(|attached| attached.rules.vips());
    let ports = vips.flat_map(|(_, vip)| vip.ports.values());
    ports
        .flat_map(|port| port.endpoints.iter().map(ToString::to_string))
        .collect()
}

#[test]
fn an_endpoint_keeps_its_place_while_others_come_and_go() {
    let mut index = on_two_networks();
    let of = |index: &Index| places(&index.plan(index.pod("on-red").unwrap()).0);
    put_endpoints(&mut index, [3, 5]);
    assert_eq!(of(&index), ["10.1.0.3:8080", "10.1.0.5:8080"]);
    put_endpoints(&mut index, [9, 5]);
    assert_eq!(of(&index), ["10.1.0.9:8080", "10.1.0.5:8080"]);
    put_endpoints(&mut index, [9, 1]);
    assert_eq!(of(&index), ["10.1.0.9:8080", "10.1.0.1:8080"]);
}

/// Rules of an earlier proxy have places that the next one cannot compute.
#[test]
fn places_that_a_namespace_has_become_those_of_all_pods() {
    let mut earlier = on_two_networks();
    put_endpoints(&mut earlier, [3, 5]);
    put_endpoints(&mut earlier, [9, 5]);
    let held = earlier.plan(earlier.pod("on-red").unwrap()).0;
    let mut index = on_two_networks();
    put_endpoints(&mut index, [9, 5]);
    let wanted = index.plan(index.pod("on-red").unwrap()).0;
    assert_ne!(places(&wanted), places(&held));
    let (mut first, mut second) = (held.clone(), held.regardless_of_places());
    index.adopt(&mut first);
    let planned = index.plan(index.pod("on-red").unwrap()).0;
    assert_eq!(planned, held);
    let is_shared = |rules: &PodRules| {
        let both = rules.networks.values().zip(planned.networks.values());
        both.map(|(one, other)| Arc::ptr_eq(&one.rules, &other.rules))
            .collect::<Vec<_>>()
    };
    assert_eq!(is_shared(&first), [true], "a copy less");
    // Another namespace, with other places, changes nothing: the first one is adopted.
    index.adopt(&mut second);
    assert_eq!(
        (index.plan(index.pod("on-red").unwrap()).0, is_shared(&second)),
        (planned.clone(), vec![false])
    );
    // The next change begins from there.
    put_endpoints(&mut index, [9, 1]);
    assert_eq!(
        places(&index.plan(index.pod("on-red").unwrap()).0),
        ["10.1.0.9:8080", "10.1.0.1:8080"]
    );
}

proptest! {
    #[test]
    fn events_give_the_same_rules_as_planning_from_scratch(steps in prop::collection::vec(step(), 0..30)) {
        let mut index = Index::default();
        index.apply_pod(NodePod::Attached(pod("client", "web/red")));
        let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Service(i, vip) => { let s = service(&format!("s{i}"), "red", vip); put(&mut index, &s); services.insert(i, s); }
                Step::NoService(i) => { index.delete_service(&name(&format!("s{i}"))); services.remove(&i); }
                Step::Slice(i, j, host) => { let s = slice(&format!("s{i}"), &j.to_string(), host); index.apply_slice(Slice::parse(&s).unwrap()); slices.insert((i, j), s); }
                Step::NoSlice(i, j) => { index.delete_slice(&name(&format!("s{i}-multus-{j}"))); slices.remove(&(i, j)); }
            }
            index.take_stale();
        }
        let client = index.pod("client").unwrap();
        let (services, slices): (Vec<_>, Vec<_>) = (services.into_values().collect(), slices.into_values().collect());
        let scratch = rules::plan(&Settings::default(), &services, &slices, &client.name.namespace, client.attachments.as_ref().unwrap());
        prop_assert_eq!(index.plan(client).0.regardless_of_places(), scratch.rules);
    }

    #[test]
    fn an_addition_and_a_removal_cancel_out(vip in 0..20u8, host in 1..9u8) {
        let mut index = on_two_networks();
        let before = index.plan(index.pod("on-red").unwrap());
        put(&mut index, &service("new", "red", vip));
        index.apply_slice(Slice::parse(&slice("new", "a", host)).unwrap());
        index.take_stale();
        index.delete_slice(&name("new-multus-a"));
        index.delete_service(&name("new"));
        index.take_stale();
        prop_assert_eq!(index.plan(index.pod("on-red").unwrap()), before);
    }
}

/// A definition of the same name in another namespace is another network. A pod that is attached to it cannot reach the ClusterIPs.
#[test]
fn a_pod_on_a_namesake_of_a_network_with_services_gets_a_hint() {
    let mut index = on_two_networks();
    index.apply_pod(NodePod::Attached(pod("on-copy", "shop/red")));
    index.apply_pod(NodePod::Attached(pod("elsewhere", "shop/green")));
    index.take_stale();
    let lacks = |index: &Index, uid: &str| index.plan(index.pod(uid).unwrap()).1;
    let shortcomings = lacks(&index, "on-copy");
    assert_eq!(shortcomings.len(), 1);
    let hint =
        crate::report::pod_events::nothing_written(index.pod("on-copy").unwrap(), &shortcomings).unwrap();
    assert!(hint.is_hint(), "{hint:?}");
    assert!(
        hint.note
            .contains("attached to \"shop/red\", and Services are on network \"web/red\""),
        "{hint:?}"
    );
    for fine in ["on-red", "elsewhere"] {
        assert_eq!(lacks(&index, fine), BTreeSet::new(), "{fine}");
    }
    // With the last Service of that network the hint goes, and comes with the first.
    index.delete_service(&name("nginx"));
    assert!(stale(&mut index).contains(&"on-copy".to_owned()));
    assert_eq!(lacks(&index, "on-copy"), BTreeSet::new());
    put(&mut index, &service("nginx", "red", 10));
    assert!(stale(&mut index).contains(&"on-copy".to_owned()));
    assert_eq!(lacks(&index, "on-copy").len(), 1);
    // Services on the network that it is attached to: then that is the one it means.
    put(&mut index, &service("own", "shop/red", 12));
    let open = Settings {
        isolation: NamespaceIsolation::Open,
        ..Settings::default()
    };
    index.apply_settings(open);
    index.take_stale();
    assert_eq!(lacks(&index, "on-copy"), BTreeSet::new());
}

/// Events disclose no network that the pod may not attach to.
#[test]
fn a_namesake_network_is_not_disclosed_to_pods_that_may_not_attach() {
    let mut index = on_two_networks();
    let mut foreign = pod("foreign", "shop/red");
    foreign.name.namespace = "shop".to_owned();
    index.apply_pod(NodePod::Attached(foreign));
    index.take_stale();
    assert_eq!(index.plan(index.pod("foreign").unwrap()).1, BTreeSet::new());
}
