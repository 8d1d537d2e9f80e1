//! The facts of `status` and `check`: the installation and all Services.

use super::{Cluster, Known as _, Networks, Read, ReadError, Reader, all_networks, all_pods, all_services};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};

/// A Deployment or DaemonSet, the fields of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Deployment or DaemonSet.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// Images of its containers.
    pub images: Vec<String>,
    /// Programs of its containers.
    pub commands: Vec<String>,
    /// Number of desired pods.
    pub desired: i32,
    /// Number of ready pods.
    pub ready: i32,
}

/// Inputs of `status` and `check`.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Version of the API server, such as `v1.33.1`.
    pub version: Read<String>,
    /// Objects that are the same for every Service.
    pub cluster: Cluster,
    /// network-attachment-definitions.
    pub networks: Read<Networks>,
    /// Services with the label.
    pub services: Read<Vec<Service>>,
    /// All pods that may be read: the clients.
    pub pods: Read<Vec<Pod>>,
    /// Names of the admission policies.
    pub policies: Read<Vec<String>>,
    /// Deployments and DaemonSets.
    pub workloads: Read<Vec<Workload>>,
    /// Permissions that were missing, so that only some namespaces were read.
    pub rejected: Vec<ReadError>,
}

/// Reads the facts; without permission for the whole cluster, those in `namespace`.
pub async fn installation(reader: &Reader, namespace: &str) -> Installation {
    let own = [namespace.to_owned()];
    let version = async {
        let right = super::Right {
            verb: "get",
            resource: "/version".to_owned(),
            namespace: None,
        };
        let client = reader.client();
        let found = reader.bounded(right, Box::pin(client.apiserver_version())).await;
        found.map(|info| info.git_version)
    };
    let policies = async {
        let found = reader.list_all::<ValidatingAdmissionPolicy>("").await?;
        Ok(found
            .into_iter()
            .filter_map(|policy| policy.metadata.name)
            .collect())
    };
    let (version, cluster, networks, (services, no_services), (pods, no_pods), policies, workloads) = futures::join!(
        version,
        super::cluster(reader),
        all_networks(reader, &own),
        all_services(reader, &own),
        all_pods(reader, &own),
        policies,
        workloads(reader),
    );
    let rejected = [no_services, no_pods]
        .into_iter()
        .flatten()
        .map(ReadError::Forbidden)
        .collect();
    Installation {
        version,
        cluster,
        networks,
        services,
        pods,
        policies,
        workloads,
        rejected,
    }
}

async fn workloads(reader: &Reader) -> Read<Vec<Workload>> {
    let (deployments, daemon_sets) = futures::join!(
        reader.list_all::<Deployment>(""),
        reader.list_all::<DaemonSet>(""),
    );
    let deployments = deployments?.into_iter().map(|deployment| {
        let spec = deployment.spec.unwrap_or_default();
        let status = deployment.status.unwrap_or_default();
        Workload {
            kind: "Deployment",
            namespace: deployment.metadata.namespace.unwrap_or_default(),
            name: deployment.metadata.name.unwrap_or_default(),
            desired: spec.replicas.unwrap_or(1),
            ready: status.ready_replicas.unwrap_or(0),
            ..Workload::of(spec.template.spec)
        }
    });
    let daemon_sets = daemon_sets?.into_iter().map(|daemon_set| {
        let status = daemon_set.status.unwrap_or_default();
        Workload {
            kind: "DaemonSet",
            namespace: daemon_set.metadata.namespace.unwrap_or_default(),
            name: daemon_set.metadata.name.unwrap_or_default(),
            desired: status.desired_number_scheduled,
            ready: status.number_ready,
            ..Workload::of(daemon_set.spec.and_then(|spec| spec.template.spec))
        }
    });
    Ok(deployments.chain(daemon_sets).collect())
}

impl Workload {
    fn of(pod: Option<PodSpec>) -> Self {
        let containers = pod.map(|pod| pod.containers).unwrap_or_default();
        Self {
            images: containers.iter().filter_map(|one| one.image.clone()).collect(),
            commands: containers
                .iter()
                .filter_map(|one| one.command.as_ref()?.first().cloned())
                .collect(),
            ..Self::default()
        }
    }

    /// Returns kind, namespace and name.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Installation {
    /// Returns the failed reads, each once.
    pub fn read_errors(&self) -> Vec<ReadError> {
        let own = [
            self.version.read_error(),
            self.networks.read_error(),
            self.services.read_error(),
            self.pods.read_error(),
            self.policies.read_error(),
            self.workloads.read_error(),
        ];
        let own = own.into_iter().chain(self.rejected.iter().map(Some));
        super::each_once(self.cluster.read_errors().into_iter().chain(own))
    }
}
