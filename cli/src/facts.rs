//! What the API server tells a command: values, each known or with the reason why it is not.
//!
//! `read` and `collect` do the reading; everything else in this crate is pure. A user of one namespace may not read nodes or
//! the operator's namespace: what is rejected is named in the report and stops nothing else.

mod collect;
mod installation;
mod lack;
mod read;
mod scope;

pub use collect::{cluster, explain, for_trace};
pub use installation::{Installation, Workload, installation};
pub use lack::{Known, Lack, Read, Right};
pub use read::Reader;
pub use scope::{all_networks, all_pods, all_services, our_slices};

use api::MultusServiceConfig;
use api::names::NAMESPACE;
use controller::objects::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use std::collections::BTreeSet;

/// What is the same for every Service.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The configuration; none: there is none.
    pub config: Read<Option<MultusServiceConfig>>,
    /// The ranges of ClusterIPs.
    pub ranges: Read<Vec<ServiceCIDR>>,
    /// All nodes.
    pub nodes: Read<Vec<Node>>,
    /// The Lease by which one controller writes.
    pub lease: Read<Option<Lease>>,
    /// The controller's Deployment.
    pub controller: Read<Option<Deployment>>,
    /// The proxies' Pods.
    pub proxies: Read<Vec<Pod>>,
    /// When all this was read.
    pub now: Timestamp,
}

impl Cluster {
    /// The configuration, if there is one and it may be read.
    pub fn config(&self) -> Option<&MultusServiceConfig> {
        self.config.known().and_then(Option::as_ref)
    }

    fn lacks(&self) -> [Option<&Lack>; 6] {
        [
            self.config.lack(),
            self.ranges.lack(),
            self.nodes.lack(),
            self.lease.lack(),
            self.controller.lack(),
            self.proxies.lack(),
        ]
    }

    /// Namespace of the operands.
    pub fn namespace(config: Option<&MultusServiceConfig>) -> String {
        let related = config.and_then(|config| config.status.as_ref());
        let mut related = related.iter().flat_map(|status| &status.related_objects);
        let deployment = related.find(|object| object.resource == "deployments");
        deployment.map_or_else(|| NAMESPACE.to_owned(), |object| object.namespace.clone())
    }
}

/// The network-attachment-definitions that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Their names.
    pub found: Vec<ObjectKey>,
    /// Namespaces that were looked at; none: all.
    pub only_in: Option<Vec<String>>,
}

impl Networks {
    /// Whether a namespace was looked at.
    pub fn covers(&self, namespace: &str) -> bool {
        let only_in = self.only_in.as_ref();
        only_in.is_none_or(|listed| listed.iter().any(|one| one == namespace))
    }
}

/// What `explain` and `trace` say things about.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Everything that is not about one Service.
    pub cluster: Cluster,
    /// The Services: one for `explain`, all that may be read for `trace`.
    pub services: Read<Vec<Service>>,
    /// network-attachment-definitions.
    pub networks: Read<Networks>,
    /// The pods of the Service's namespace.
    pub pods: Read<Vec<Pod>>,
    /// EndpointSlices: of the Service, by any author; for `trace` all of ours.
    pub slices: Read<Vec<EndpointSlice>>,
    /// The pod whose view is asked for. None: no pod was named. An empty one: it does not exist.
    pub client: Option<Client>,
    /// What the proxy of the client's node wrote into its network namespace. No proxy offers it yet: this is where it will be.
    pub applied: Read<rules::KernelState>,
}

/// A pod that connects.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub key: ObjectKey,
    /// The pod; none: it does not exist.
    pub pod: Read<Option<Pod>>,
}

impl Facts {
    /// The rights that were missing, each once.
    pub fn lacks(&self) -> Vec<Lack> {
        let own = [
            self.services.lack(),
            self.networks.lack(),
            self.pods.lack(),
            self.slices.lack(),
            self.client.as_ref().and_then(|client| client.pod.lack()),
        ];
        each_once(self.cluster.lacks().into_iter().chain(own))
    }
}

/// What a report names of them: what was not asked for is no lack.
fn each_once<'a>(lacks: impl Iterator<Item = Option<&'a Lack>>) -> Vec<Lack> {
    let named = lacks
        .flatten()
        .filter(|lack| !matches!(lack, Lack::NotRead | Lack::NotOffered));
    let named: BTreeSet<Lack> = named.cloned().collect();
    named.into_iter().collect()
}
