//! The specification with all defaults applied.
//!
//! Pure. A remaining `Option` that is `None` keeps the value of the manifest.

use super::monitoring::{self, Monitoring};
use super::{FieldError, ReleaseImages};
use crate::gather::Observed;
use crate::platform::openshift::OpenShift;
use crate::service_ranges::{self, ServiceRanges};
use api::config::{
    Backend, ControllerSpec, ImagePullPolicy, LogLevel, MultusServiceConfigSpec, NetworkNamespaceIsolation,
    NetworkPolicyMode, ProxySpec, ProxyUpdateStrategy, Resources, ServiceValidation, TracingSpec,
};
use k8s_openapi::api::core::v1::{Affinity, Toleration};
use std::collections::{BTreeMap, BTreeSet};

/// A configuration with all defaults applied.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedConfig {
    /// Container image of the controller.
    pub controller_image: String,
    /// Container image of the proxy.
    pub proxy_image: String,
    /// Fields of the configuration that override an image.
    pub overridden: Vec<&'static str>,
    pub pull_policy: ImagePullPolicy,
    /// Names of the pull secrets.
    pub pull_secrets: Vec<String>,
    /// Log level of controller and proxy.
    pub log_level: LogLevel,
    /// Networks that a Service may reference.
    pub networks: Networks,
    /// Source of the Service CIDRs.
    pub service_ranges: ServiceRanges,
    /// True when a NetworkPolicy is desired.
    pub network_policy: bool,
    /// What the API server does with invalid Services.
    pub service_validation: ServiceValidation,
    /// Objects of prometheus-operator; without them when omitted.
    pub monitoring: Option<Monitoring>,
    /// Traces of changes; without them when omitted.
    pub tracing: Option<Tracing>,
    /// Replicas of the controller.
    pub replicas: i32,
    /// Scheduling and resources of the controller.
    pub controller: PodSettings,
    /// Scheduling and resources of the proxy.
    pub proxy: PodSettings,
    /// Backend of the proxy.
    pub backend: Backend,
    /// Socket of the container runtime; detected by the proxy when omitted.
    pub runtime: Option<RuntimeSocket>,
    /// Port of the proxy's metrics; the manifest's when omitted.
    pub metrics_port: Option<u16>,
    /// Networks that the proxy serves to the nodes themselves, sorted.
    pub host_networks: BTreeMap<String, String>,
    /// Namespaces of the archived multus-service proxy; the proxy's default when omitted.
    pub legacy_namespaces: Option<BTreeSet<String>>,
    /// Update strategy of the proxy DaemonSet.
    pub update_strategy: ProxyUpdateStrategy,
}

/// Traces of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// URL of the OTLP receiver.
    pub endpoint: String,
    /// Traces to sample per million.
    pub sampling_rate_per_million: i32,
    /// Name and key of the ConfigMap with the certificate authorities.
    pub ca: Option<(String, String)>,
}

impl From<&TracingSpec> for Tracing {
    fn from(spec: &TracingSpec) -> Self {
        let key = |key: &Option<String>| key.clone().unwrap_or_else(|| "ca.crt".to_owned());
        Self {
            endpoint: spec.endpoint.clone(),
            sampling_rate_per_million: spec.sampling_rate_per_million.unwrap_or(1_000_000),
            ca: spec.ca.as_ref().map(|ca| (ca.name.clone(), key(&ca.key))),
        }
    }
}

/// Networks that a Service may reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// True when a Service is confined to networks of its own namespace and of global ones.
    pub isolated: bool,
    /// The global namespaces, sorted.
    pub global_namespaces: BTreeSet<String>,
}

/// Scheduling and resources of an operand's pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSettings {
    /// Labels that a node must have, in addition to the manifest's.
    pub node_selector: BTreeMap<String, String>,
    /// Replaces the manifest's.
    pub tolerations: Option<Vec<Toleration>>,
    /// Replaces the manifest's.
    pub affinity: Option<Affinity>,
    /// Replaces the manifest's.
    pub priority_class_name: Option<String>,
    /// Merged into the manifest's.
    pub resources: Resources,
}

/// A socket of a container runtime on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSocket {
    /// Its directory, `/run/NAME`.
    pub folder: String,
    pub path: String,
}

impl RuntimeSocket {
    /// Parses `unix:///var/run/crio/crio.sock` and shorter forms; `/var/run` is `/run` on every node.
    fn parse(endpoint: &str) -> Option<Self> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        let path = path.strip_prefix("/var").unwrap_or(path);
        let (folder, _) = path.rsplit_once('/')?;
        Some(Self {
            folder: folder.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Applies the defaults.
pub(super) fn complete(
    observed: &Observed,
    images: &ReleaseImages,
) -> Result<ValidatedConfig, Vec<FieldError>> {
    let MultusServiceConfigSpec {
        management_state: _,
        log_level,
        operator_log_level: _,
        image_pull_policy,
        image_pull_secrets,
        global_namespaces,
        network_namespace_isolation,
        service_validation,
        service_cidrs,
        network_policy,
        monitoring,
        tracing,
        controller,
        proxy,
    } = &observed.config.spec;
    let openshift = observed.openshift.as_ref();
    let service_ranges = ranges(
        service_cidrs.as_deref().unwrap_or_default(),
        &observed.service_ranges,
    )?;
    let monitoring = monitoring::complete(monitoring.clone().unwrap_or_default(), openshift.is_some())
        .map_err(|error| vec![error])?;
    let controller = controller.clone().unwrap_or_default();
    let proxy = proxy.clone().unwrap_or_default();
    let (controller_image, proxy_image) = both(
        image(
            controller.image.as_ref(),
            images.controller.as_ref(),
            "spec.controller.image",
            "RELATED_IMAGE_CONTROLLER",
        ),
        image(
            proxy.image.as_ref(),
            images.proxy.as_ref(),
            "spec.proxy.image",
            "RELATED_IMAGE_PROXY",
        ),
    )?;
    Ok(ValidatedConfig {
        controller_image,
        proxy_image,
        overridden: overridden(&controller, &proxy),
        pull_policy: image_pull_policy.unwrap_or_default(),
        pull_secrets: image_pull_secrets
            .iter()
            .map(|secret| secret.name.clone())
            .collect(),
        log_level: log_level.unwrap_or_default(),
        networks: Networks {
            isolated: network_namespace_isolation.unwrap_or_default() == NetworkNamespaceIsolation::Enabled,
            global_namespaces: global_namespaces
                .clone()
                .map_or_else(|| OpenShift::global_namespaces(openshift), BTreeSet::from_iter),
        },
        service_ranges,
        service_validation: service_validation.unwrap_or_default(),
        network_policy: network_policy
            .as_ref()
            .and_then(|policy| policy.mode)
            .unwrap_or_default()
            == NetworkPolicyMode::Enabled,
        monitoring,
        tracing: tracing.as_ref().map(Tracing::from),
        replicas: controller
            .replicas
            .unwrap_or_else(|| OpenShift::replicas(openshift)),
        controller: PodSettings {
            node_selector: controller.node_selector.unwrap_or_default(),
            tolerations: controller.tolerations,
            affinity: controller.affinity,
            priority_class_name: controller.priority_class_name,
            resources: controller.resources.unwrap_or_default(),
        },
        backend: proxy.backend.unwrap_or_default(),
        runtime: proxy
            .container_runtime_endpoint
            .as_deref()
            .and_then(RuntimeSocket::parse),
        metrics_port: proxy.metrics_port,
        host_networks: proxy
            .host_networks
            .into_iter()
            .flatten()
            .map(|mapped| (mapped.network, mapped.interface))
            .collect(),
        legacy_namespaces: proxy.legacy_proxy_namespaces.map(BTreeSet::from_iter),
        update_strategy: proxy.update_strategy.unwrap_or_default(),
        proxy: PodSettings {
            node_selector: proxy.node_selector.unwrap_or_default(),
            tolerations: proxy.tolerations,
            affinity: proxy.affinity,
            priority_class_name: proxy.priority_class_name,
            resources: proxy.resources.unwrap_or_default(),
        },
    })
}

/// Fields that replace an image of the release.
fn overridden(controller: &ControllerSpec, proxy: &ProxySpec) -> Vec<&'static str> {
    let images = [
        ("spec.controller.image", &controller.image),
        ("spec.proxy.image", &proxy.image),
    ];
    let set = images.into_iter().filter(|(_, image)| image.is_some());
    set.map(|(field, _)| field).collect()
}

/// Prefers the Service CIDRs of the cluster to those of the configuration. The latter are validated in any case: an upgrade of the
/// cluster must not hide an error.
fn ranges(named: &[String], found: &ServiceRanges) -> Result<ServiceRanges, Vec<FieldError>> {
    let parsed =
        |range: &String| service_ranges::parse(range).ok_or_else(|| FieldError::NoRange(range.clone()));
    let named: BTreeSet<_> = named
        .iter()
        .map(parsed)
        .collect::<Result<_, _>>()
        .map_err(|error| vec![error])?;
    Ok(match found {
        ServiceRanges::Unknown if !named.is_empty() => ServiceRanges::Given(named),
        found => found.clone(),
    })
}

/// Returns both values, or every error.
fn both<T>(a: Result<T, FieldError>, b: Result<T, FieldError>) -> Result<(T, T), Vec<FieldError>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err([a.err(), b.err()].into_iter().flatten().collect()),
    }
}

fn image(
    chosen: Option<&String>,
    release: Option<&String>,
    field: &'static str,
    variable: &'static str,
) -> Result<String, FieldError> {
    // The environment variable can be set and empty.
    chosen
        .or(release)
        .filter(|image| !image.is_empty())
        .cloned()
        .ok_or(FieldError::MissingImage { field, variable })
}
