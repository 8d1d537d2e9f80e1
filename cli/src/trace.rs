//! Traces a packet of a pod: route, source address, verdict, endpoints.
//!
//! Pure. Planned by `rules` from the API's objects, as the proxy does. When the rules in force are known (`Facts::applied`), differences
//! from the plan are reported.

mod destination;
mod flow;

pub use destination::{Destination, Host, ParseDestination, PortName};

use crate::differences::Compared;
use crate::explain::attachments;
use crate::facts::{Facts, Known as _, ReadError, node_of};
use crate::settings::of_proxy;
use api::ObjectName;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde::Serialize;

/// Possible endpoint of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Address and port.
    pub address: String,
    /// Its pod, as namespace/name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// One in `one_in` flows goes there.
    pub one_in: usize,
}

/// Verdict on the first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// Translated to an endpoint.
    Translated,
    /// Rejected at once, in the pod.
    Rejected,
    /// No rule matches it.
    Passed,
    /// Not known from the API.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Destination address, port and protocol.
    pub destination: String,
    /// Service of the ClusterIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Verdict.
    pub fate: Fate,
    /// Reason, unless it is translated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its route, in the format of `ip route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Source address that the endpoint receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Target>,
    /// Session affinity timeout in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u64>,
    /// Differences between the applied state of the node and the plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// Whether this is the intended result.
    pub is_well: bool,
}

/// Trace of a packet.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The client.
    pub pod: ObjectName,
    pub node: Option<String>,
    /// One flow per ClusterIP of the destination.
    pub flows: Vec<Flow>,
    /// Reason why there are no flows.
    pub problem: Option<String>,
    /// Error of the read of the client.
    pub no_access: bool,
    /// Whether the flows were compared with the rules in force, or the reason why not.
    pub applied: String,
    /// Failed reads.
    pub read_errors: Vec<ReadError>,
}

impl Trace {
    /// Whether the rules in force differ from the plan.
    pub fn differs(&self) -> bool {
        self.flows.iter().any(|flow| !flow.differences.is_empty())
    }

    /// Whether every flow has the intended result.
    pub fn is_well(&self) -> bool {
        self.problem.is_none() && self.flows.iter().all(|flow| flow.is_well)
    }
}

/// Traces a packet.
pub fn trace(facts: &Facts, pod: &ObjectName, destination: &Destination) -> Trace {
    let mut answer = Trace {
        pod: pod.clone(),
        node: None,
        flows: Vec::new(),
        problem: None,
        no_access: false,
        applied: match &facts.applied {
            Ok(applied) => format!(
                "planned from the API's objects and compared with the rules in force, read by {}",
                applied.proxy
            ),
            Err(read_error) => {
                format!(
                    "planned from the API's objects, as the proxy does; the applied state of the node is not available: {read_error}"
                )
            }
        },
        read_errors: facts.read_errors(),
    };
    match flows(facts, pod, destination) {
        Ok((node, flows)) => {
            answer.node = node;
            answer.flows = flows;
        }
        Err(problem) => {
            let read = facts.client.as_ref().map(|client| &client.pod);
            answer.no_access =
                matches!(read, Some(Err(_))) || facts.services.is_err() || facts.slices.is_err();
            answer.problem = Some(problem);
        }
    }
    answer
}

fn flows(
    facts: &Facts,
    key: &ObjectName,
    destination: &Destination,
) -> Result<(Option<String>, Vec<Flow>), String> {
    let read = &facts.client.as_ref().ok_or("no pod is named")?.pod;
    let pod = read.as_ref().map_err(ToString::to_string)?;
    let pod = pod.as_ref().ok_or_else(|| format!("pod {key} does not exist"))?;
    let services = facts.services.as_ref().map_err(ToString::to_string)?;
    let slices = facts.slices.as_ref().map_err(ToString::to_string)?;
    let node = node_of(pod).map(str::to_owned);
    let settings = of_proxy(&facts.cluster, node.as_deref().unwrap_or_default());
    let attached = attachments(pod).map_err(|error| error.to_string())?;
    let plan = rules::plan(&settings, services, slices, &key.namespace, &attached);
    let applied = facts.applied.known();
    let compared = applied.map(|applied| Compared::new(&plan.rules, &applied.rules));
    let compared = compared.transpose().map_err(|error| error.to_string())?;
    let case = flow::Case {
        pod: key,
        attached: &attached,
        is_on_host_network: is_on_host_network(pod),
        plan: &plan,
        services,
        slices,
        compared,
    };
    let packets = destination.packets(services, &key.namespace)?;
    Ok((
        node,
        packets
            .into_iter()
            .map(|packet| flow::flow(&case, packet))
            .collect(),
    ))
}

fn is_on_host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true))
}

/// Returns the Service of a ClusterIP.
fn with_address(services: &[Service], address: std::net::IpAddr) -> Option<&Service> {
    services.iter().find(|service| {
        let ips = service
            .spec
            .iter()
            .flat_map(|spec| spec.cluster_ips.iter().flatten());
        ips.into_iter().any(|ip| ip.parse() == Ok(address))
    })
}

#[cfg(test)]
pub(crate) mod tests;
