//! One backend takes over from another without a gap, and the choice between them.

use super::bed::{Bed, Pod};
use super::cluster::{Service, rules};
use super::probe::{Outcome, ask};
use super::server::Server;
use proxy::apply::{Wanted, apply};
use proxy::args::BackendChoice;
use proxy::backend::choice::{choose, taking_over};
use proxy::backend::iptables::{Iptables, Variant};
use proxy::backend::nftables::Nftables;
use proxy::backend::{Backend, Held};
use rules::{Family, PodRules, Protocol};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn auto_chooses_nftables_and_each_choice_what_it_says() {
    for (choice, name) in [
        (BackendChoice::Auto, "nftables"),
        (BackendChoice::NfTables, "nftables"),
        (BackendChoice::IpTables, "iptables-nft"),
    ] {
        assert_eq!(choose(choice).unwrap().name(), name);
    }
}

#[test]
#[ignore = "needs root and network namespaces: make test-netns"]
fn a_backend_takes_over_from_another_without_a_failed_connection() {
    let mut bed = Bed::new();
    let client = bed.pod(7);
    let _servers = [2, 3].map(|host| Server::start(&bed.pod(host)));
    let service = Service::new("web", 10).ready(&[2, 3]);
    let rules = rules(&client, std::slice::from_ref(&service));
    let at = service.at(Family::V4, 80);
    let backends: [Arc<dyn Backend>; 3] = [
        Arc::new(Nftables),
        Arc::new(Iptables::new(Variant::Nft)),
        Arc::new(Iptables::new(Variant::Legacy)),
    ];
    let write = |backend: &Arc<dyn Backend>, held| {
        let backend = taking_over(Arc::clone(backend));
        client
            .run(|| apply(backend.as_ref(), &held, &everything(&client, &rules)))
            .unwrap();
    };
    write(&backends[0], Held::Nothing);
    let stop = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            client.run(|| {
                let mut outcomes: BTreeMap<Outcome, u32> = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    *outcomes.entry(ask(Protocol::Tcp, at)).or_default() += 1;
                }
                outcomes
            })
        });
        // From each to each other.
        for next in [1, 0, 2, 1, 2, 0] {
            write(&backends[next], Held::Unknown);
            let left: Vec<_> = backends
                .iter()
                .map(|backend| client.run(|| backend.is_present()).unwrap())
                .collect();
            assert!(left[next], "{next}");
            // Legacy tables cannot be removed, only emptied.
            let rules = client.state();
            let (theirs, ours) = (rules.contains("MSP-"), rules.contains("table ip multus-proxy"));
            assert_eq!((theirs, ours), (next != 0, next == 0), "{next}: {rules}");
        }
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(
        outcomes
            .keys()
            .all(|outcome| matches!(outcome, Outcome::Answered { .. })),
        "{outcomes:?}"
    );
}

fn everything(client: &Pod, rules: &PodRules) -> Wanted {
    let addresses = client.status.iter().flat_map(|status| &status.addresses);
    Wanted {
        rules: rules.clone(),
        addresses: addresses.copied().collect(),
        foreign_routes: None,
    }
}
