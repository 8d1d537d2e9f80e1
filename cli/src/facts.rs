//! Objects of the API server that a command needs, each with its value or the error of its read.
//!
//! Reads: by `read` and `collect`; everything else in this crate is pure. A user of one namespace may not read nodes or the operator's
//! namespace: a rejected read is reported and affects nothing else.

mod applied;
mod collect;
mod installation;
mod read;
mod read_error;
mod scope;

pub use applied::{Applied, PodRules, applied, node_of, phase_of, pod_rules};
pub use collect::{cluster, explain, for_trace};
pub use installation::{Installation, Workload, installation};
pub use read::Reader;
pub(crate) use read::right;
pub use read_error::{Known, Read, ReadError, Right};
pub use scope::{all_networks, all_pods, all_services, managed_slices};

use api::names::NAMESPACE;
use api::{MultusServiceConfig, ObjectName};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use std::collections::BTreeSet;

/// Objects that are the same for every Service.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The configuration; `None`: it does not exist.
    pub config: Read<Option<MultusServiceConfig>>,
    /// The ranges of ClusterIPs.
    pub ranges: Read<Vec<ServiceCIDR>>,
    pub nodes: Read<Vec<Node>>,
    /// The Lease of the controller.
    pub lease: Read<Option<Lease>>,
    /// The controller's Deployment.
    pub controller: Read<Option<Deployment>>,
    pub proxies: Read<Vec<Pod>>,
    /// Time of the reads.
    pub now: Timestamp,
}

impl Cluster {
    /// Returns the configuration, if it exists and was read.
    pub fn config(&self) -> Option<&MultusServiceConfig> {
        self.config.known().and_then(Option::as_ref)
    }

    fn read_errors(&self) -> [Option<&ReadError>; 6] {
        [
            self.config.read_error(),
            self.ranges.read_error(),
            self.nodes.read_error(),
            self.lease.read_error(),
            self.controller.read_error(),
            self.proxies.read_error(),
        ]
    }

    /// Returns the namespace of the operands.
    pub fn namespace(config: Option<&MultusServiceConfig>) -> String {
        let related = config.and_then(|config| config.status.as_ref());
        let mut related = related.iter().flat_map(|status| &status.related_objects);
        let deployment = related.find(|object| object.resource == "deployments");
        deployment.map_or_else(|| NAMESPACE.to_owned(), |object| object.namespace.clone())
    }
}

/// The network-attachment-definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Their names.
    pub found: Vec<ObjectName>,
    /// Namespaces that were read; `None`: all.
    pub only_in: Option<Vec<String>>,
}

impl Networks {
    /// Whether a namespace was read.
    pub fn covers(&self, namespace: &str) -> bool {
        let only_in = self.only_in.as_ref();
        only_in.is_none_or(|listed| listed.iter().any(|one| one == namespace))
    }
}

/// Inputs of `explain` and `trace`.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Objects that are not about one Service.
    pub cluster: Cluster,
    /// The Services: one for `explain`, all that may be read for `trace`.
    pub services: Read<Vec<Service>>,
    /// network-attachment-definitions.
    pub networks: Read<Networks>,
    /// The pods of the Service's namespace.
    pub pods: Read<Vec<Pod>>,
    /// EndpointSlices: of the Service, by any author; for `trace` all managed ones.
    pub slices: Read<Vec<EndpointSlice>>,
    /// The client of the request. `None`: none was named.
    pub client: Option<Client>,
    /// Rules in the client's network namespace.
    pub applied: Read<Applied>,
}

/// A client pod.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub key: ObjectName,
    /// The pod; `None`: it does not exist.
    pub pod: Read<Option<Pod>>,
}

impl Facts {
    /// Returns the failed reads, each once.
    pub fn read_errors(&self) -> Vec<ReadError> {
        let own = [
            self.services.read_error(),
            self.networks.read_error(),
            self.pods.read_error(),
            self.slices.read_error(),
            self.client.as_ref().and_then(|client| client.pod.read_error()),
        ];
        each_once(self.cluster.read_errors().into_iter().chain(own))
    }
}

/// Returns the failed reads for a report, without objects that the command does not need.
fn each_once<'a>(read_errors: impl Iterator<Item = Option<&'a ReadError>>) -> Vec<ReadError> {
    let named = read_errors
        .flatten()
        .filter(|read_error| !matches!(read_error, ReadError::NotRead | ReadError::NotAvailable(_)));
    let named: BTreeSet<ReadError> = named.cloned().collect();
    named.into_iter().collect()
}
