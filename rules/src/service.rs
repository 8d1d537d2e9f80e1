//! `ServedService`: a labeled Service, parsed once, so that the rest of the crate has no malformed one.
//!
//! Pure. A Service that cannot be served is an error value with a remedy, never a panic.

use crate::{Port, Protocol};
use api::service::{NoNetwork, has_proxy_label, network};
use api::{NetworkRef, ObjectName};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`, and its maximum.
const AFFINITY_SECONDS: (i32, i32) = (10_800, 86_400);

/// kube-proxy serves no Service with this label, regardless of its value.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// A Service that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedService {
    /// Its name.
    pub name: ObjectName,
    /// Its UID, which distinguishes it from an earlier Service of that name.
    pub uid: String,
    /// Network of its endpoints.
    pub network: NetworkRef,
    /// Its ClusterIPs.
    pub vips: BTreeSet<IpAddr>,
    /// Its ports and their names; an unnamed port has the name `""`.
    pub ports: BTreeMap<Port, String>,
    /// `sessionAffinity: ClientIP`: time after its last flow to a port for which a client stays with its endpoint.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`: only endpoints on the client's own node.
    pub is_local: bool,
}

/// Reason why a Service is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// It does not have the label.
    #[error(
        "it does not have the label {}={}",
        api::names::PROXY_NAME_LABEL,
        api::names::PROXY_NAME
    )]
    NotOurs,
    /// It names no network.
    #[error(transparent)]
    Network(#[from] NoNetwork),
    /// `type: ExternalName`.
    #[error(
        "spec.type is ExternalName, which has no ClusterIP: use ClusterIP, or remove the label {}",
        api::names::PROXY_NAME_LABEL
    )]
    ExternalName,
    /// `clusterIP: None`: DNS answers the endpoints themselves.
    #[error("spec.clusterIP is None: a headless Service has no ClusterIP to translate")]
    Headless,
    /// The label of headless Services, which kube-proxy skips.
    #[error(
        "label {} excludes its ClusterIP from translation: remove the label",
        HEADLESS_LABEL
    )]
    HeadlessLabel,
    /// The API server has not given it a ClusterIP yet.
    #[error("spec.clusterIP is not allocated yet")]
    NoVip,
    /// An entry of `clusterIPs` that is not a unicast address.
    #[error("spec.clusterIPs: {0:?} cannot be a ClusterIP: recreate the Service")]
    Vip(String),
    /// A port the API server would have rejected.
    #[error("spec.ports: {port} {protocol:?} is not a port: use 1 to 65535 and TCP, UDP or SCTP")]
    Port {
        /// Number of the port.
        port: i32,
        /// Protocol of the port.
        protocol: String,
    },
    /// A time the API server would have rejected.
    #[error("spec.sessionAffinityConfig.clientIP.timeoutSeconds: {0} is not between 1 and 86400")]
    Affinity(i32),
    /// A network of another namespace.
    #[error(
        "annotation {} names network \"{network}\" of another namespace: name a network of the Service's own namespace, or let an administrator add {:?} to the global namespaces",
        api::names::SERVICE_NETWORK_ANNOTATION,
        network.namespace()
    )]
    NetworkNotAllowed {
        /// The network.
        network: NetworkRef,
    },
    /// No name, namespace or UID, or one that Kubernetes does not allow.
    #[error("metadata: {0:?} does not have a valid name, namespace and UID")]
    Metadata(String),
    /// The Service cannot be parsed.
    #[error("failed to parse it: {0}")]
    Malformed(String),
    /// Another Service has the same ClusterIP.
    #[error(
        "spec.clusterIPs: {vip} is also the ClusterIP of Service \"{other}\", which keeps it: recreate one of the two"
    )]
    VipTaken {
        /// The address.
        vip: IpAddr,
        /// The Service that keeps it.
        other: ObjectName,
    },
}

impl NotServed {
    /// Whether to report it; a Service without the label is not a fault.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::NotOurs | Self::Headless | Self::HeadlessLabel | Self::NoVip
        )
    }
}

impl ServedService {
    /// Parses a Service of a watch.
    pub fn parse(service: &Service) -> Result<Self, NotServed> {
        if !has_proxy_label(service) {
            return Err(NotServed::NotOurs);
        }
        let mut labels = service.metadata.labels.iter().flatten();
        if labels.any(|(label, _)| label == HEADLESS_LABEL) {
            return Err(NotServed::HeadlessLabel);
        }
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return Err(NotServed::ExternalName);
        }
        let network = network(service)?;
        let (name, uid) = identity(service)?;
        let affinity = affinity(&spec)?;
        let is_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        let listed = spec.cluster_ips.filter(|vips| !vips.is_empty());
        let vips = listed.or_else(|| Some(vec![spec.cluster_ip?]));
        Ok(Self {
            name,
            uid,
            network,
            vips: parse_vips(&vips.unwrap_or_default())?,
            ports: parse_ports(&spec.ports.unwrap_or_default())?,
            affinity,
            is_local,
        })
    }
}

fn affinity(spec: &ServiceSpec) -> Result<Option<Duration>, NotServed> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return Ok(None);
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let (default, longest) = AFFINITY_SECONDS;
    let seconds = seconds.unwrap_or(default);
    let allowed = u64::try_from(seconds)
        .ok()
        .filter(|_| (1..=longest).contains(&seconds));
    let seconds = allowed.ok_or(NotServed::Affinity(seconds))?;
    Ok(Some(Duration::from_secs(seconds)))
}

fn identity(service: &Service) -> Result<(ObjectName, String), NotServed> {
    let name = ObjectName::of(service);
    let uid = service.metadata.uid.clone().unwrap_or_default();
    if is_plain(&name.namespace) && is_plain(&name.name) && !uid.is_empty() {
        Ok((name, uid))
    } else {
        Err(NotServed::Metadata(name.to_string().chars().take(128).collect()))
    }
}

fn parse_vips(vips: &[String]) -> Result<BTreeSet<IpAddr>, NotServed> {
    match vips {
        [] => Err(NotServed::NoVip),
        [none] if none.is_empty() => Err(NotServed::NoVip),
        [none, ..] if none == "None" => Err(NotServed::Headless),
        _ => vips.iter().map(|vip| parse_vip(vip)).collect(),
    }
}

fn parse_vip(text: &str) -> Result<IpAddr, NotServed> {
    let usable = |vip: &IpAddr| api::address::check(*vip).is_ok();
    let vip = text.parse().ok().filter(usable);
    vip.ok_or_else(|| NotServed::Vip(text.chars().take(64).collect()))
}

fn parse_ports(ports: &[ServicePort]) -> Result<BTreeMap<Port, String>, NotServed> {
    let mut parsed = BTreeMap::new();
    for port in ports {
        let name = port.name.clone().unwrap_or_default();
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
        let protocol = Protocol::parse(port.protocol.as_deref());
        match (number, protocol) {
            (Some(number), Some(protocol)) if name.is_empty() || is_plain(&name) => {
                parsed.entry(Port { protocol, number }).or_insert(name);
            }
            _ => {
                return Err(NotServed::Port {
                    port: port.port,
                    protocol: port.protocol.clone().unwrap_or_default(),
                });
            }
        }
    }
    Ok(parsed)
}

/// Names are part of rule comments, so they must be valid Kubernetes names.
fn is_plain(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !name.is_empty() && name.len() <= 253 && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn service(patch: &Value) -> Service {
        let mut service = json!({
            "metadata": {
                "name": "nginx", "namespace": "web", "uid": "u-1",
                "labels": {"service.kubernetes.io/service-proxy-name": "multus-proxy"},
                "annotations": {"k8s.v1.cni.cncf.io/service-network": "macvlan1"},
            },
            "spec": {"clusterIP": "172.30.0.10", "clusterIPs": ["172.30.0.10", "fd00:96::a"], "ports": [{"port": 80}]},
        });
        merge(&mut service, patch);
        serde_json::from_value(service).unwrap()
    }

    /// RFC 7386.
    fn merge(target: &mut Value, patch: &Value) {
        match (target, patch) {
            (Value::Object(target), Value::Object(patch)) => {
                for (key, value) in patch {
                    if value.is_null() {
                        target.remove(key);
                    } else {
                        merge(target.entry(key.clone()).or_insert(Value::Null), value);
                    }
                }
            }
            (target, patch) => target.clone_from(patch),
        }
    }

    #[test]
    fn parses_a_service_of_a_user() {
        let patch = json!({"spec": {"ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            {"name": "m3ua", "port": 2905, "protocol": "SCTP"},
        ]}});
        let parsed = ServedService::parse(&service(&patch)).unwrap();
        assert_eq!(parsed.name.to_string(), "web/nginx");
        assert_eq!(parsed.network.to_string(), "web/macvlan1");
        assert_eq!(
            parsed.vips,
            BTreeSet::from(["172.30.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()])
        );
        let ports: Vec<_> = parsed
            .ports
            .iter()
            .map(|(port, name)| format!("{}/{} {name}", port.protocol, port.number))
            .collect();
        assert_eq!(ports, ["tcp/53 dns-tcp", "udp/53 dns", "sctp/2905 m3ua"]);
    }

    #[rstest]
    #[case::none(json!({"sessionAffinity": "None"}), None)]
    #[case::absent(json!({}), None)]
    #[case::default_time(json!({"sessionAffinity": "ClientIP"}), Some(10_800))]
    #[case::time(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}), Some(5))]
    #[case::time_without_affinity(json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}), None)]
    fn affinity_is_by_client_address(#[case] spec: Value, #[case] seconds: Option<u64>) {
        let parsed = ServedService::parse(&service(&json!({"spec": spec}))).unwrap();
        assert_eq!(parsed.affinity, seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case::local("Local", true)]
    #[case::cluster("Cluster", false)]
    fn internal_traffic_policy_is_read(#[case] policy: &str, #[case] is_local: bool) {
        let patch = json!({"spec": {"internalTrafficPolicy": policy}});
        assert_eq!(ServedService::parse(&service(&patch)).unwrap().is_local, is_local);
    }

    #[test]
    fn an_object_of_an_old_api_server_without_cluster_ips_is_read() {
        let parsed = ServedService::parse(&service(&json!({"spec": {"clusterIPs": null}}))).unwrap();
        assert_eq!(parsed.vips, BTreeSet::from(["172.30.0.10".parse().unwrap()]));
    }

    #[rstest]
    #[case::label_missing(json!({"metadata": {"labels": null}}), "does not have the label", false)]
    #[case::label_of_another_proxy(json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "cilium"}}}), "does not have the label", false)]
    #[case::annotation_missing(json!({"metadata": {"annotations": null}}), "is missing", true)]
    #[case::annotation_malformed(json!({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/service-network": "a,b"}}}), "several networks", true)]
    #[case::external_name(json!({"spec": {"type": "ExternalName", "clusterIP": null, "clusterIPs": null}}), "ExternalName", true)]
    #[case::headless(json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}), "headless", false)]
    #[case::headless_by_label(json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}), "label service.kubernetes.io/headless", false)]
    #[case::not_allocated(json!({"spec": {"clusterIP": "", "clusterIPs": null}}), "not allocated", false)]
    #[case::no_spec(json!({"spec": null}), "not allocated", false)]
    #[case::vip_is_text(json!({"spec": {"clusterIPs": ["172.30.0"]}}), "\"172.30.0\"", true)]
    #[case::vip_is_loopback(json!({"spec": {"clusterIPs": ["127.0.0.1"]}}), "\"127.0.0.1\"", true)]
    #[case::port_zero(json!({"spec": {"ports": [{"port": 0}]}}), "is not a port", true)]
    #[case::port_negative(json!({"spec": {"ports": [{"port": -80}]}}), "-80", true)]
    #[case::port_too_big(json!({"spec": {"ports": [{"port": 65536}]}}), "65536", true)]
    #[case::protocol(json!({"spec": {"ports": [{"port": 80, "protocol": "QUIC"}]}}), "QUIC", true)]
    #[case::affinity_time(json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}}), "86401 is not between", true)]
    #[case::port_name_breaks_out(json!({"spec": {"ports": [{"port": 80, "name": "a\" -j DROP\nCOMMIT"}]}}), "is not a port", true)]
    #[case::name_breaks_out(json!({"metadata": {"name": "a\nCOMMIT"}}), "does not have a valid name", true)]
    #[case::no_uid(json!({"metadata": {"uid": null}}), "does not have a valid name", true)]
    fn a_service_that_is_not_served_has_a_reason(
        #[case] patch: Value,
        #[case] says: &str,
        #[case] is_fault: bool,
    ) {
        let why = ServedService::parse(&service(&patch)).unwrap_err();
        assert!(why.to_string().contains(says), "{why}");
        assert_eq!(why.is_fault(), is_fault);
    }
}
