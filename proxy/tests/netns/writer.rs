//! What the driver does in a pod: apply, and clean up.

use super::bed::Pod;
use api::network_status::NetworkStatus;
use proxy::apply::{Applied, Error, Wanted, apply, remove};
use proxy::backend::iptables::{Iptables, Variant};
use proxy::backend::{Backend, Held};
use rules::PodRules;

impl Pod {
    /// What Multus would write.
    pub(crate) fn status(&self) -> Vec<NetworkStatus> {
        let status = |network: &str, interface: &str, addresses: &[String]| NetworkStatus {
            network: network.to_owned(),
            interface: interface.to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        vec![
            status("cbr0", "eth0", &[format!("10.128.0.{}", self.host)]),
            status(
                "web/macvlan1",
                "net1",
                &[format!("10.1.0.{}", self.host), format!("fd00:1::{}", self.host)],
            ),
        ]
    }

    pub(crate) fn apply(&self, backend: Iptables, held: &Held<PodRules>, rules: &PodRules) -> Applied {
        self.try_apply(backend, held, rules).unwrap()
    }

    pub(crate) fn try_apply(
        &self,
        backend: Iptables,
        held: &Held<PodRules>,
        rules: &PodRules,
    ) -> Result<Applied, Error> {
        let addresses = self
            .status()
            .into_iter()
            .flat_map(|status| status.addresses)
            .collect();
        let wanted = Wanted {
            rules: rules.clone(),
            addresses,
        };
        self.run(|| apply(&backend, held, &wanted))
    }

    /// What the `cleanup` subcommand does in each pod.
    pub(crate) fn clean(&self) {
        let backends = Variant::ALL.map(Iptables::new);
        self.run(|| remove(&backends.each_ref().map(|backend| backend as &dyn Backend)))
            .unwrap();
    }
}
