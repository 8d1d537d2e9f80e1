//! Status of the node: its condition, its debug state, and log lines about Services that are not served.
//!
//! Pure, but for the log lines.

use super::Sync;
use crate::debug_state::{Condition, ServiceNotServed, State};
use crate::report::node_condition::NodeCondition;
use crate::report::pod_events;
use api::rules_applied::Reason;
use std::collections::BTreeSet;
use tracing::warn;

impl Sync {
    /// Sends one Event per impostor. The condition names them for as long as they exist, even if the queue of Events is full.
    pub(super) fn report_impostors(&mut self) {
        let now = self.index.impostors();
        if now.keys().eq(&self.impostors) {
            return;
        }
        let event_sender = &self.pods.shared().reporters.event_sender;
        for (uid, name) in now.iter().filter(|(uid, _)| !self.impostors.contains(*uid)) {
            event_sender.send_to(name, uid, pod_events::impostor(name));
        }
        self.impostors = now.keys().cloned().collect();
        self.pods.changed();
    }

    /// Updates metrics and condition after pods have changed.
    pub(super) fn report(&mut self) {
        self.pods.count();
        if let Some(condition) = self.condition() {
            self.pods.shared().reporters.reporter.report(condition);
        }
    }

    /// Returns the condition of this node. `None`: it is not known yet, or unchanged.
    fn condition(&mut self) -> Option<NodeCondition> {
        if let Some(name) = self.index.legacy_proxy() {
            return Some(NodeCondition::not_applied(
                Reason::LegacyProxyRunning,
                &format!(
                    "Pod {name} runs the archived multus-service proxy on this node and serves the same Services; no rules are written until its DaemonSet is deleted"
                ),
            ));
        }
        if !self.pods.tried_all() {
            return None;
        }
        self.pods.condition(&self.index)
    }

    pub(super) fn state(&self, ready: bool) -> State {
        let NodeCondition {
            holds,
            reason,
            message,
        } = self.pods.shared().reporters.reporter.current();
        let not_served = self.index.unserved().into_iter();
        let not_served = not_served.map(|(service, why)| (service, why.to_string()));
        let not_served = not_served.chain(self.index.without_affinity());
        State {
            backend: self.pods.shared().backend.name(),
            ready,
            zone: self.index.settings().node.zone.clone(),
            service_cidrs: self.index.settings().reserved.service_cidrs.clone(),
            condition: Condition {
                status: holds,
                reason: reason.as_str(),
                message,
            },
            pods: self.pods.state(&self.index),
            services_not_served: not_served
                .map(|(service, why)| ServiceNotServed {
                    service: service.to_string(),
                    why,
                })
                .collect(),
            invalid_addresses: self
                .index
                .invalid_addresses()
                .map(|rejected| rejected.to_string())
                .collect(),
        }
    }

    pub(super) fn log_unserved(&mut self) {
        let services = self
            .index
            .unserved()
            .into_iter()
            .map(|(name, why)| format!("Service \"{name}\" is not served: {why}"));
        let addresses = self
            .index
            .invalid_addresses()
            .map(|rejected| rejected.to_string());
        let affinity = self.index.without_affinity().map(|(_, why)| why);
        let now: BTreeSet<String> = services.chain(addresses).chain(affinity).collect();
        for new in now.difference(&self.reported) {
            warn!("{new}");
        }
        self.reported = now;
    }
}
