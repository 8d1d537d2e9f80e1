//! The endpoints of a Service without any selector: those of the slices that its author wrote, checked as those of pods are.
//!
//! Pure. The author's properties of an endpoint are kept: its conditions, host name, node, zone and hints. The right to write slices in
//! the Service's namespace is the right to direct its clients, as in Kubernetes.

use super::Target;
use super::address::check;
use super::endpoint::EndpointKey;
use super::family::families;
use super::hints::Hints;
use super::ports::{Group, Groups, PortGroup, missing, port_title};
use crate::manual::{MAX_ENDPOINTS, MAX_ENDPOINTS_OF_SERVICE, ManualSlice};
use crate::service_status::problem::{Problem, Reason, first_few};
use api::{Family, ObjectName};
use k8s_openapi::api::core::v1::{ObjectReference, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Endpoints copied from slices.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// The endpoints of each family of the Service.
    pub desired: BTreeMap<Family, Groups>,
    /// The hints that the author wrote.
    pub hints: Hints,
    /// Problems of what was ignored.
    pub problems: Vec<Problem>,
}

/// What is ignored: a reason, and the object it was seen on.
#[derive(Debug, Default)]
struct Ignored {
    /// By what the slice is.
    slices: Vec<(String, String)>,
    /// By what the address is.
    addresses: Vec<(String, String)>,
}

/// Copies the slices, in the order of their names: of two endpoints with one address and equal ports the first counts.
pub(super) fn copied(target: &Target<'_>, written: &[Arc<ManualSlice>]) -> Copied {
    let mut copied = Copied::default();
    for family in families(target.service) {
        copied.desired.insert(family, Groups::new());
    }
    let mut left = Ignored::default();
    for written in written.iter().filter(|written| !written.is_orphaned()) {
        copy_slice(target, written, &mut copied, &mut left);
    }
    copied.problems.extend(left.problems(target));
    let missing = missing(target.service, &copied.desired);
    let missing: Vec<_> = missing.map(|port| port_not_found(target, port)).collect();
    copied.problems.extend(missing);
    copied
}

fn copy_slice(target: &Target<'_>, written: &ManualSlice, copied: &mut Copied, left: &mut Ignored) {
    let slice = &written.slice;
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let mut leave = |why: String| left.slices.push((why, format!("EndpointSlice {name}")));
    if written.left_out > 0 {
        leave(format!(
            "of one Service at most {MAX_ENDPOINTS_OF_SERVICE} endpoints are taken, and of all without selector {MAX_ENDPOINTS}"
        ));
    }
    let Some(family) = Family::parse(&slice.address_type) else {
        return leave(format!(
            "addressType {} is no address family",
            slice.address_type.chars().take(32).collect::<String>()
        ));
    };
    let Some(groups) = copied.desired.get_mut(&family) else {
        return leave(format!(
            "addressType {} is none of the Service's spec.ipFamilies",
            family.as_str()
        ));
    };
    if slice
        .endpoints
        .iter()
        .any(|endpoint| endpoint.addresses.len() > 1)
    {
        leave("of an endpoint's addresses only the first is taken, as kube-proxy does".to_owned());
    }
    let ports = ports(slice.ports.as_deref().unwrap_or_default());
    let key = PortGroup::of(&ports);
    let group = groups.entry(key.clone()).or_insert_with(|| Group {
        ports,
        ..Group::default()
    });
    let mut taken: BTreeSet<String> = group
        .endpoints
        .values()
        .flat_map(|endpoint| endpoint.addresses.iter().cloned())
        .collect();
    for endpoint in &slice.endpoints {
        match address(target, family, endpoint) {
            Err((address, why)) => {
                let seen = format!("{address} of EndpointSlice {name} ({why})");
                left.addresses.push((why, seen));
            }
            Ok(address) if taken.insert(address.clone()) => {
                let endpoint = copy_endpoint(target, endpoint, address);
                let endpoint_key = EndpointKey::of(&endpoint);
                if let Some(hints) = endpoint.hints.clone() {
                    copied.hints.insert((key.clone(), endpoint_key.clone()), hints);
                }
                group.endpoints.insert(endpoint_key, endpoint);
            }
            Ok(_) => {}
        }
    }
}

/// A port without a number means all ports, which no port of a Service can mean.
fn ports(written: &[EndpointPort]) -> Vec<EndpointPort> {
    let numbered = written.iter().filter(|port| port.port.is_some());
    let with_name = numbered.map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        ..port.clone()
    });
    with_name.collect()
}

/// The address of an endpoint, as it is written in a slice; or its text and what is wrong with it.
fn address(target: &Target<'_>, family: Family, endpoint: &Endpoint) -> Result<String, (String, String)> {
    let text = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
    let reject = |why: String| (text.chars().take(64).collect(), why);
    let address: IpAddr = text
        .parse()
        .map_err(|_| reject("it is not an IP address".to_owned()))?;
    if Family::of(address) != family {
        return Err(reject(format!("it is no {} address", family.as_str())));
    }
    check(address, target.nodes, &target.settings.service_cidrs).map_err(|why| reject(why.to_string()))?;
    Ok(address.to_string())
}

/// "A nil value should be interpreted as true" for ready; serving "should defer to the ready condition" (API reference).
fn copy_endpoint(target: &Target<'_>, endpoint: &Endpoint, address: String) -> Endpoint {
    let written = endpoint.conditions.clone().unwrap_or_default();
    let ready = written.ready.unwrap_or(true);
    let own_namespace = target.service.metadata.namespace.as_deref();
    let is_own = |target: &&ObjectReference| target.namespace.as_deref() == own_namespace;
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(written.serving.unwrap_or(ready)),
            terminating: Some(written.terminating.unwrap_or(false)),
        }),
        hostname: endpoint.hostname.clone(),
        node_name: endpoint.node_name.clone(),
        // A Service must not reference an object of another namespace.
        target_ref: endpoint.target_ref.as_ref().filter(is_own).cloned(),
        zone: endpoint.zone.clone(),
        hints: endpoint.hints.clone(),
        deprecated_topology: None,
    }
}

impl Ignored {
    fn problems(self, target: &Target<'_>) -> Vec<Problem> {
        let network = target.network;
        let service = ObjectName::of(target.service);
        let rejected = |reasons: String| {
            format!(
                "addresses in EndpointSlices of Service {service} that cannot be endpoints on network {network} are ignored ({reasons}); correct the EndpointSlices, or the Endpoints that are mirrored into them"
            )
        };
        let ignored = |reasons: String| {
            format!(
                "some endpoints in EndpointSlices of Service {service} are ignored ({reasons}); correct the EndpointSlices"
            )
        };
        [
            problem(Reason::InvalidEndpointAddress, self.addresses, rejected),
            problem(Reason::EndpointsIgnored, self.slices, ignored),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// One problem for all that was left for one kind of reason.
fn problem(
    reason: Reason,
    ignored: Vec<(String, String)>,
    text: impl FnOnce(String) -> String,
) -> Option<Problem> {
    let reasons: BTreeSet<_> = ignored.iter().map(|(why, _)| why.clone()).collect();
    let text = (!ignored.is_empty()).then(|| text(first_few(reasons)))?;
    Some(Problem::new(reason, text).seen_on(ignored.into_iter().map(|(_, seen)| seen)))
}

fn port_not_found(target: &Target<'_>, port: &ServicePort) -> Problem {
    Problem::new(
        Reason::TargetPortNotFound,
        format!(
            "no EndpointSlice of Service {} has {}, so its clients are rejected; EndpointSlices name their ports as the Service does",
            ObjectName::of(target.service),
            port_title(port),
        ),
    )
}

#[cfg(test)]
mod tests;
