//! One Service with everything that the links say things about.
//!
//! Pure.

use super::decided::Decided;
use crate::facts::{Cluster, Facts};
use crate::situations::Values;
use api::NetworkRef;
use controller::objects::ObjectKey;
use k8s_openapi::api::core::v1::Service;
use rules::ServedService;

/// See above.
pub(super) struct Case<'a> {
    pub(super) facts: &'a Facts,
    pub(super) service: &'a Service,
    pub(super) decided: Decided,
    /// The Service as a proxy reads it.
    pub(super) served: Result<ServedService, rules::NotServed>,
    pub(super) network: Option<NetworkRef>,
    /// What fills the texts of the table.
    pub(super) values: Values,
}

impl<'a> Case<'a> {
    pub(super) fn new(facts: &'a Facts, service: &'a Service) -> Self {
        let network = api::service::network(service).ok();
        let values = Self::values_of(facts, service, network.as_ref());
        Self {
            facts,
            service,
            decided: Decided::new(facts, service),
            served: ServedService::parse(service),
            network,
            values,
        }
    }

    fn values_of(facts: &Facts, service: &Service, network: Option<&NetworkRef>) -> Values {
        let key = ObjectKey::of(service);
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

    /// Node of the client.
    pub(super) fn node(&self) -> Option<&str> {
        let pod = self.facts.client.as_ref()?.pod.as_ref().ok()?.as_ref()?;
        pod.spec.as_ref()?.node_name.as_deref()
    }
}
