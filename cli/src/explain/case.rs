//! One Service with the inputs of all links.
//!
//! Pure.

use super::decision::ServiceDecision;
use crate::facts::{Cluster, Facts, node_of};
use crate::situations::Values;
use api::{NetworkRef, ObjectName};
use k8s_openapi::api::core::v1::Service;
use rules::ServedService;

/// Inputs of the links of one Service.
pub(super) struct Case<'a> {
    pub(super) facts: &'a Facts,
    pub(super) service: &'a Service,
    pub(super) decision: ServiceDecision,
    /// The Service as the proxy parses it.
    pub(super) served: Result<ServedService, rules::NotServed>,
    pub(super) network: Option<NetworkRef>,
    /// Values for the templates of the table.
    pub(super) values: Values,
}

impl<'a> Case<'a> {
    pub(super) fn new(facts: &'a Facts, service: &'a Service) -> Self {
        let network = api::service::network(service).ok();
        let values = Self::values_of(facts, service, network.as_ref());
        Self {
            facts,
            service,
            decision: ServiceDecision::new(facts, service),
            served: ServedService::parse(service),
            network,
            values,
        }
    }

    fn values_of(facts: &Facts, service: &Service, network: Option<&NetworkRef>) -> Values {
        let key = ObjectName::of(service);
        let mut values = Values::default()
            .and("service", key.to_string())
            .and("namespace", &key.namespace)
            .and("name", &key.name)
            .and("operands", Cluster::namespace(facts.cluster.config()));
        if let Some(network) = network {
            values = values
                .and("network", network.to_string())
                .and("networkNamespace", network.namespace())
                .and("networkName", network.name());
        }
        if let Some(client) = &facts.client {
            values = values
                .and("pod", client.key.to_string())
                .and("podNamespace", &client.key.namespace)
                .and("podName", &client.key.name);
        }
        values
    }

    /// Returns the node of the client.
    pub(super) fn node(&self) -> Option<&str> {
        let pod = self.facts.client.as_ref()?.pod.as_ref().ok()?.as_ref()?;
        node_of(pod)
    }
}
