//! Validation of a Service: acceptance, network and selector.
//!
//! Pure. It reads the Service alone, so an invalid one affects no other.

use crate::selector::Selector;
use crate::service_status::problem::{Problem, Reason};
use crate::settings::Settings;
use api::NetworkRef;
use api::names::{HEADLESS_LABEL, PROXY_NAME_LABEL, SELECTOR_ANNOTATION, SERVICE_NETWORK_ANNOTATION};
use k8s_openapi::api::core::v1::Service;

/// Network and selector of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The network its endpoints are on.
    pub network: NetworkRef,
    /// The pods that are its endpoints.
    pub selector: Selector,
    /// The selector is the annotation: no other controller writes slices for this Service.
    pub is_selectorless: bool,
}

/// Acceptance of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is served.
    Served(Binding),
    /// It has neither selector nor selector annotation: its author writes its endpoints, for this network.
    Manual(NetworkRef),
    /// It is not served; the problems say why.
    Rejected,
}

impl Acceptance {
    /// The network a Service that is served is bound to.
    pub fn network(&self) -> Option<&NetworkRef> {
        match self {
            Self::Served(binding) => Some(&binding.network),
            Self::Manual(network) => Some(network),
            Self::Rejected => None,
        }
    }
}

/// Validates a Service that has the service-proxy-name label.
pub fn validate(service: &Service, settings: &Settings) -> (Acceptance, Vec<Problem>) {
    let mut problems = Vec::new();
    let acceptance = match evaluate(service, settings, &mut problems) {
        Ok(acceptance) => acceptance,
        Err(problem) => {
            problems.push(problem);
            Acceptance::Rejected
        }
    };
    (acceptance, problems)
}

fn evaluate(
    service: &Service,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Result<Acceptance, Problem> {
    let spec = service.spec.as_ref();
    if spec.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName")) {
        return Err(Problem::new(
            Reason::ExternalName,
            format!(
                "spec.type ExternalName has no endpoints on a network; remove the label {PROXY_NAME_LABEL} or change the type to ClusterIP"
            ),
        ));
    }
    let network = api::service::network(service)
        .map_err(|error| Problem::new(Reason::InvalidNetwork, error.to_string()))?;
    check_namespace(service, &network, settings)?;
    let selector = selector(service, problems)?;
    problems.extend(unserved_parts(service));
    let Some((selector, is_selectorless)) = selector else {
        return Ok(Acceptance::Manual(network));
    };
    if !is_selectorless && is_headless(service) {
        problems.push(headless_with_selector());
    }
    Ok(Acceptance::Served(Binding {
        network,
        selector,
        is_selectorless,
    }))
}

/// As Multus' namespace isolation: a network of the own namespace, or of a namespace that is open to all.
fn check_namespace(service: &Service, network: &NetworkRef, settings: &Settings) -> Result<(), Problem> {
    let own_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    if settings.isolation.allows(own_namespace, network) {
        return Ok(());
    }
    let open = settings
        .isolation
        .global_namespaces()
        .collect::<Vec<_>>()
        .join(", ");
    Err(Problem::new(
        Reason::NetworkNotAllowed,
        format!(
            "annotation {SERVICE_NETWORK_ANNOTATION} names network {:?} of another namespace; name a network of the Service's own namespace or of one open to all ({open}), or let an administrator add {:?} to the global namespaces",
            network.to_string(),
            network.namespace(),
        ),
    ))
}

/// `spec.selector` wins over the annotation: kube-controller-manager serves it too, so DNS would answer both sets of pods.
fn selector(service: &Service, problems: &mut Vec<Problem>) -> Result<Option<(Selector, bool)>, Problem> {
    let annotation = service
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(SELECTOR_ANNOTATION));
    let from_spec = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref())
        .and_then(Selector::from_map);
    if let Some(selector) = from_spec {
        if annotation.is_some() {
            problems.push(Problem::new(
                Reason::SelectorIgnored,
                format!("annotation {SELECTOR_ANNOTATION} is ignored because spec.selector is set; remove one of them (without spec.selector, only secondary-network addresses are published)"),
            ));
        }
        return Ok(Some((selector, false)));
    }
    annotation
        .map(|text| {
            Selector::parse(text)
                .map(|selector| (selector, true))
                .map_err(|error| {
                    Problem::new(
                        Reason::InvalidSelector,
                        format!("annotation {SELECTOR_ANNOTATION} {error}"),
                    )
                })
        })
        .transpose()
}

/// Returns true if the Service has no ClusterIP; its slices then have the headless label.
pub fn is_headless(service: &Service) -> bool {
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(cluster_ip, None | Some("" | "None"))
}

/// Checks for the label that Kubernetes puts on the slices of headless Services, with any value.
fn has_headless_label(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(HEADLESS_LABEL))
}

fn headless_with_selector() -> Problem {
    Problem::new(
        Reason::HeadlessWithSelector,
        format!(
            "DNS answers the pods' cluster-network addresses beside those of the secondary network, because spec.selector makes Kubernetes publish them too; to publish the secondary network alone, remove spec.selector and set annotation {SELECTOR_ANNOTATION} instead"
        ),
    )
}

fn unserved_parts(service: &Service) -> Option<Problem> {
    let spec = service.spec.as_ref()?;
    if !is_headless(service) && has_headless_label(service) {
        return Some(Problem::new(
            Reason::UnsupportedServiceType,
            format!(
                "label {HEADLESS_LABEL}: service proxies ignore Services with it, so the ClusterIP is not served; remove the label, or set clusterIP None"
            ),
        ));
    }
    let part = match spec.type_.as_deref() {
        Some("LoadBalancer") => "spec.type LoadBalancer: its load-balancer address and node ports are",
        Some("NodePort") => "spec.type NodePort: its node ports are",
        _ if spec.external_ips.iter().flatten().next().is_some() => "spec.externalIPs: these addresses are",
        _ => return None,
    };
    Some(Problem::new(
        Reason::UnsupportedServiceType,
        format!(
            "{part} not served on a secondary network, only the ClusterIP is; change spec.type to ClusterIP without externalIPs, or expose the pods by a second Service without the label {PROXY_NAME_LABEL}"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Labels;
    use api::NamespaceIsolation;
    use api::names::PROXY_NAME;
    use rstest::rstest;
    use serde_json::json;

    fn service(annotations: &serde_json::Value, spec: &serde_json::Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {PROXY_NAME_LABEL: PROXY_NAME}, "annotations": annotations},
            "spec": spec,
        }))
        .unwrap()
    }

    fn on(network: &str) -> serde_json::Value {
        json!({SERVICE_NETWORK_ANNOTATION: network})
    }

    fn evaluated(annotations: &serde_json::Value, spec: &serde_json::Value) -> (Acceptance, Vec<Reason>) {
        let (acceptance, problems) = validate(&service(annotations, spec), &Settings::default());
        (
            acceptance,
            problems.into_iter().map(|problem| problem.reason).collect(),
        )
    }

    #[rstest]
    #[case::own_network("macvlan1", "shop/macvlan1")]
    #[case::own_network_qualified("shop/macvlan1", "shop/macvlan1")]
    #[case::spaces(" macvlan1 ", "shop/macvlan1")]
    #[case::global_namespace("default/macvlan1", "default/macvlan1")]
    fn a_service_is_served_from_its_network(#[case] annotation: &str, #[case] want: &str) {
        let (acceptance, problems) = evaluated(
            &on(annotation),
            &json!({"clusterIP": "172.30.0.10", "selector": {"app": "web"}}),
        );
        let Acceptance::Served(binding) = acceptance else {
            panic!("{acceptance:?}")
        };
        assert_eq!(binding.network.to_string(), want);
        assert!(!binding.is_selectorless);
        assert_eq!(problems, []);
    }

    #[rstest]
    #[case::no_annotation(json!({}), json!({"selector": {"a": "b"}}), Reason::InvalidNetwork)]
    #[case::malformed(on("a/b/c"), json!({"selector": {"a": "b"}}), Reason::InvalidNetwork)]
    #[case::list(on("a,b"), json!({"selector": {"a": "b"}}), Reason::InvalidNetwork)]
    #[case::foreign_namespace(on("bank/macvlan1"), json!({"selector": {"a": "b"}}), Reason::NetworkNotAllowed)]
    #[case::external_name(on("macvlan1"), json!({"type": "ExternalName", "externalName": "x"}), Reason::ExternalName)]
    #[case::bad_selector(json!({SERVICE_NETWORK_ANNOTATION: "n", SELECTOR_ANNOTATION: "a in"}), json!({}), Reason::InvalidSelector)]
    #[case::empty_selector(json!({SERVICE_NETWORK_ANNOTATION: "n", SELECTOR_ANNOTATION: " "}), json!({}), Reason::InvalidSelector)]
    fn a_service_that_cannot_be_served_is_rejected(
        #[case] annotations: serde_json::Value,
        #[case] spec: serde_json::Value,
        #[case] want: Reason,
    ) {
        assert_eq!(evaluated(&annotations, &spec), (Acceptance::Rejected, vec![want]));
        assert!(want.is_rejection());
    }

    #[rstest]
    #[case::node_port(json!({"type": "NodePort", "clusterIP": "172.30.0.10", "selector": {"a": "b"}}), Reason::UnsupportedServiceType)]
    #[case::load_balancer(json!({"type": "LoadBalancer", "clusterIP": "172.30.0.10", "selector": {"a": "b"}}), Reason::UnsupportedServiceType)]
    #[case::external_ips(json!({"externalIPs": ["203.0.113.9"], "clusterIP": "172.30.0.10", "selector": {"a": "b"}}), Reason::UnsupportedServiceType)]
    #[case::headless(json!({"clusterIP": "None", "selector": {"a": "b"}}), Reason::HeadlessWithSelector)]
    fn a_service_that_is_served_in_part_is_warned_about(
        #[case] spec: serde_json::Value,
        #[case] want: Reason,
    ) {
        let (acceptance, problems) = evaluated(&on("macvlan1"), &spec);
        assert!(matches!(acceptance, Acceptance::Served(_)));
        assert_eq!(problems, [want]);
        assert!(!want.is_rejection());
    }

    #[rstest]
    #[case::cluster_ip("172.30.0.10", &[Reason::UnsupportedServiceType])]
    #[case::headless("None", &[])]
    fn the_headless_label_is_reported_where_it_hides_a_cluster_ip(
        #[case] cluster_ip: &str,
        #[case] want: &[Reason],
    ) {
        let mut service = service(
            &json!({SERVICE_NETWORK_ANNOTATION: "n", SELECTOR_ANNOTATION: "app=web"}),
            &json!({"clusterIP": cluster_ip}),
        );
        let labels = service.metadata.labels.get_or_insert_default();
        labels.insert(HEADLESS_LABEL.into(), String::new());
        let (acceptance, problems) = validate(&service, &Settings::default());
        assert!(
            matches!(acceptance, Acceptance::Served(_)),
            "DNS and others still use its slices"
        );
        let reasons: Vec<_> = problems.iter().map(|problem| problem.reason).collect();
        assert_eq!(reasons, want);
    }

    #[test]
    fn the_selector_annotation_serves_a_service_without_selector() {
        let annotations = json!({SERVICE_NETWORK_ANNOTATION: "n", SELECTOR_ANNOTATION: "app in (web,api)"});
        let (acceptance, problems) = evaluated(&annotations, &json!({"clusterIP": "None"}));
        let Acceptance::Served(binding) = acceptance else {
            panic!("{acceptance:?}")
        };
        assert!(binding.is_selectorless);
        assert!(
            binding
                .selector
                .matches(&Labels::from(Some([("app".to_owned(), "api".to_owned())].into())))
        );
        assert_eq!(problems, []);
    }

    #[test]
    fn the_selector_of_the_spec_wins_over_the_annotation() {
        let annotations = json!({SERVICE_NETWORK_ANNOTATION: "n", SELECTOR_ANNOTATION: "{{{"});
        let (acceptance, problems) = evaluated(
            &annotations,
            &json!({"clusterIP": "172.30.0.10", "selector": {"a": "b"}}),
        );
        assert!(matches!(acceptance, Acceptance::Served(binding) if !binding.is_selectorless));
        assert_eq!(problems, [Reason::SelectorIgnored]);
    }

    #[rstest]
    #[case::none(json!({"clusterIP": "172.30.0.10"}))]
    #[case::empty(json!({"clusterIP": "172.30.0.10", "selector": {}}))]
    fn the_endpoints_of_a_service_without_selector_are_its_authors(#[case] spec: serde_json::Value) {
        let network = NetworkRef::parse("macvlan1", "shop").unwrap();
        assert_eq!(
            evaluated(&on("macvlan1"), &spec),
            (Acceptance::Manual(network), vec![])
        );
    }

    #[test]
    fn without_isolation_any_network_may_be_named() {
        let settings = Settings {
            isolation: NamespaceIsolation::Open,
            ..Settings::default()
        };
        let (acceptance, _) = validate(
            &service(&on("bank/macvlan1"), &json!({"selector": {"a": "b"}})),
            &settings,
        );
        assert!(matches!(acceptance, Acceptance::Served(_)));
    }
}
