//! Status of networks with their Services and clients.
//!
//! Pure.

use crate::explain::attachments;
use crate::facts::{Installation, Known as _};
use api::{NetworkRef, ObjectName};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkLine {
    /// namespace/name.
    pub network: String,
    /// Whether its network-attachment-definition exists; `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// Number of Services.
    pub services: usize,
    /// Number of attached pods.
    pub clients: usize,
}

/// Returns the networks that Services name, sorted by name.
pub(super) fn networks(facts: &Installation) -> Vec<NetworkLine> {
    let mut services: BTreeMap<NetworkRef, usize> = BTreeMap::new();
    for service in facts.services.iter().flatten() {
        if let Ok(network) = api::service::network(service) {
            *services.entry(network).or_default() += 1;
        }
    }
    let attached: Vec<_> = facts
        .pods
        .iter()
        .flatten()
        .filter_map(|pod| attachments(pod).ok())
        .collect();
    let line = |(network, services): (NetworkRef, usize)| {
        let on = |statuses: &&Vec<_>| api::network_status::on(statuses, &network).next().is_some();
        NetworkLine {
            exists: exists(facts, &network),
            clients: attached.iter().filter(on).count(),
            network: network.to_string(),
            services,
        }
    };
    services.into_iter().map(line).collect()
}

fn exists(facts: &Installation, network: &NetworkRef) -> Option<bool> {
    let known = facts.networks.known()?;
    let key = ObjectName::new(network.namespace(), network.name());
    known
        .covers(network.namespace())
        .then(|| known.found.contains(&key))
}
