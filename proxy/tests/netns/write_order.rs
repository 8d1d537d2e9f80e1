//! Order of writes of rules and routes: no packet to a ClusterIP may leave untranslated.

use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed};
use proxy::backend::nftables::Nftables;
use proxy::backend::{Backend, Error, KnownRules};
use proxy::netns::apply::{Applied, Wanted, apply};
use rules::{Delta, KernelState, PodRules};
use std::process::Command;
use std::sync::Mutex;

/// nftables, recording whether a route to the ClusterIP existed at the start of each step.
#[derive(Default)]
struct RecordingBackend(Mutex<Vec<(&'static str, bool)>>);

impl RecordingBackend {
    fn record(&self, step: &'static str) {
        let listed = Command::new("ip")
            .args(["route", "show", "proto", "77"])
            .output()
            .unwrap();
        let routed = String::from_utf8(listed.stdout).unwrap().contains("172.30.0.10");
        self.0.lock().unwrap().push((step, routed));
    }

    fn steps(&self) -> Vec<(&'static str, bool)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Backend for RecordingBackend {
    fn name(&self) -> &'static str {
        Nftables.name()
    }

    fn is_present(&self) -> Result<bool, Error> {
        Nftables.is_present()
    }

    fn dump(&self) -> Result<KernelState, Error> {
        Nftables.dump()
    }

    fn reject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.record("reject");
        Nftables.reject(delta)
    }

    fn translate(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.record("translate");
        Nftables.translate(delta)
    }

    fn unreject(&self, delta: &Delta<'_>) -> Result<(), Error> {
        self.record("unreject");
        Nftables.unreject(delta)
    }

    fn remove_translation(&self) -> Result<(), Error> {
        self.record("remove translation");
        Nftables.remove_translation()
    }

    fn remove_rejection(&self) -> Result<(), Error> {
        self.record("remove rejection");
        Nftables.remove_rejection()
    }
}

fn write(pod: &Pod, backend: &RecordingBackend, held: &KnownRules<PodRules>, rules: &PodRules) -> Applied {
    let addresses = pod.status.iter().flat_map(|status| &status.addresses);
    let wanted = Wanted {
        rules: rules.clone(),
        addresses: addresses.copied().collect(),
        foreign_routes: None,
    };
    pod.run(|| apply(backend, held, &wanted)).unwrap()
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn vip_is_rejected_before_it_is_routed_and_until_its_route_is_removed() {
    let mut testbed = Testbed::new();
    let pod = testbed.pod(7);
    let backend = RecordingBackend::default();
    let wanted = rules(&pod, &[Service::new("web", 10).ready(&[2])]);
    let held = KnownRules::Exactly(write(&pod, &backend, &KnownRules::Nothing, &wanted).rules);
    assert_eq!(backend.steps(), [("reject", false), ("translate", true)]);
    write(&pod, &backend, &held, &PodRules::default());
    assert_eq!(backend.steps(), [("translate", true), ("unreject", false)]);
    // As after a restart with damaged rules.
    write(&pod, &backend, &KnownRules::Unknown, &wanted);
    pod.sh("nft flush chain ip multus-proxy dispatch; ip route flush proto 77");
    backend.steps();
    write(&pod, &backend, &KnownRules::Unknown, &wanted);
    assert_eq!(backend.steps(), [("reject", false), ("translate", true)]);
    pod.run(|| proxy::netns::apply::remove(&[&backend])).unwrap();
    assert_eq!(
        backend.steps(),
        [("remove translation", true), ("remove rejection", false)]
    );
}
