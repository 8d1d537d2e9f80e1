//! Another process changes nftables rules of a pod at the moment of a change: the kernel compares the generation with each transaction.
//!
//! The moment is chosen by `proxy::fault_injection`, whose hook runs before each write and here injects nothing. The other process is real.

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::BackendKind;
use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed};
use proxy::backend::nftables::{expect, expected, generation};
use proxy::backend::{self, KnownRules};
use proxy::fault_injection;
use proxy::netns::apply::{Applied, Error, Wanted, write};
use std::collections::BTreeSet;
use std::process::Command;

const OF_OTHERS: &str = "add table ip other; delete table ip other";

/// Writes a change of a Service with two endpoints to one with three, which takes two transactions, while another process writes before
/// the transaction of this number. Returns the result, and whether the generation was right in each transaction.
fn write_beside(other_before: usize) -> (Result<Applied, Error>, bool, Pod, Testbed) {
    let mut testbed = Testbed::new();
    let client = testbed.pod(7);
    let [before, after] =
        [&[2, 3][..], &[2, 3, 4]].map(|hosts| rules(&client, &[Service::new("web", 10).ready(hosts)]));
    client.apply(BackendKind::Nftables, &KnownRules::Nothing, &before);
    let addresses = client.status.iter().flat_map(|status| &status.addresses);
    let wanted = Wanted {
        rules: after,
        addresses: addresses.copied().collect(),
        foreign_routes: Some(BTreeSet::new()),
    };
    let (written, is_verified) = client.run(move || {
        expect(generation());
        let mut writes = 0;
        let other = move |_: &[u8]| {
            writes += 1;
            if writes == other_before {
                assert!(Command::new("nft").arg(OF_OTHERS).status().unwrap().success());
            }
            None
        };
        let held = KnownRules::Exactly(before);
        let written = fault_injection::with(other, || {
            write(BackendKind::Nftables.backend().as_ref(), &held, &wanted)
        });
        (written, expected().is_some() && expected() == generation())
    });
    (written, is_verified, client, testbed)
}

fn has_third_endpoint(pod: &Pod) -> bool {
    pod.sh("nft list map ip multus-proxy eps").contains("10.1.0.4")
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn change_without_another_process_knows_its_generation() {
    let (written, is_verified, client, _testbed) = write_beside(usize::MAX);
    assert!(written.unwrap().is_exact && is_verified);
    assert!(has_third_endpoint(&client));
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn another_process_before_the_first_transaction_rejects_the_change() {
    let (written, _, client, _testbed) = write_beside(1);
    assert!(
        matches!(written, Err(Error::Backend(backend::Error::Stale))),
        "{written:?}"
    );
    assert!(!has_third_endpoint(&client), "nothing is written");
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn another_process_before_the_second_transaction_makes_the_generation_unknown() {
    let (written, is_verified, client, _testbed) = write_beside(2);
    assert!(written.unwrap().written && !is_verified);
    assert!(has_third_endpoint(&client), "the change is complete");
}

/// The next poll, up to three seconds later, would repair it, too.
#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_change_repairs_what_another_process_changed_just_before() {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let client = testbed.pod(7);
    let pod = object(&client);
    runtime.set_sandbox(uid(&pod), &client.netns);
    let [first, second] =
        [("first", 10), ("second", 11)].map(|(name, number)| Service::new(name, number).ready(&[2, 3]));
    let driver = Driver::start(&runtime, BackendKind::Nftables, &[&first, &second], &[&pod]);
    until("ready", || driver.is_ready());
    for round in 0..5 {
        client.sh("nft flush set ip multus-proxy vips");
        let hosts = if round % 2 == 0 { &[2, 3, 4][..] } else { &[2, 3] };
        driver.service(&Service::new("second", 11).ready(hosts));
        let is_changed = || has_third_endpoint(&client) == (round % 2 == 0);
        until("the change is written", is_changed);
        // The transaction that wrote it is the last of the attempt but for removals.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(
            client
                .sh("nft list set ip multus-proxy vips")
                .contains("172.30.0.10"),
            "round {round}"
        );
    }
}
