use super::super::scope::{LINGER, MAX_NETWORKS};
use super::super::slices::Item;
use super::*;
use api::ObjectName;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// A pod on networks `shop/n…`.
fn pod(uid: &str, networks: &[usize]) -> (String, Option<NodePod>) {
    let status: Vec<_> = networks
        .iter()
        .map(|n| json!({"name": format!("shop/n{n}"), "interface": format!("net{n}"), "ips": [format!("10.{n}.0.2")]}))
        .collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "shop", "uid": uid,
            "annotations": {"k8s.v1.cni.cncf.io/network-status": json!(status).to_string()}},
    }))
    .unwrap();
    (uid.to_owned(), NodePod::parse(&pod))
}

fn network(n: usize) -> Network {
    Network::from(&api::NetworkRef::parse(&format!("n{n}"), "shop").unwrap())
}

fn on(networks: &[usize]) -> Scope {
    Scope::Networks(networks.iter().copied().map(network).collect())
}

fn slice(n: usize, version: u64, on: Option<usize>) -> Item {
    Item {
        name: ObjectName {
            namespace: "shop".to_owned(),
            name: format!("s{n}"),
        },
        version,
        network: on.map(network),
        slice: None,
    }
}

/// Abbreviates the updates for the driver.
fn short(updates: &[Update]) -> Vec<String> {
    let name = |name: &ObjectName| name.name.clone();
    let each = updates.iter().map(|update| match update {
        Update::Pod(Change::Apply((uid, _))) => format!("+{uid}"),
        Update::Pod(Change::Delete(uid)) => format!("-{uid}"),
        Update::Pod(Change::Reset(all)) => {
            format!(
                "={}",
                all.iter()
                    .map(|(uid, _)| uid.as_str())
                    .collect::<Vec<_>>()
                    .join(",")
            )
        }
        Update::Slice(Change::Apply((of, _))) => format!("+{}", name(of)),
        Update::Slice(Change::Delete(of)) => format!("-{}", name(of)),
        Update::Slice(Change::Reset(all)) => {
            format!(
                "={}",
                all.iter().map(|(of, _)| name(of)).collect::<Vec<_>>().join(",")
            )
        }
        other => format!("{other:?}"),
    });
    each.collect()
}

/// Returns the state with one pod on n1 and its slice, narrowly watched.
fn narrow(now: Instant) -> Narrow {
    let mut narrow = Narrow::new(BTreeSet::new());
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: None,
            next: None,
            probe: false
        }
    );
    assert_eq!(
        short(&narrow.pod(Change::Reset(vec![pod("a", &[1])]), now)),
        ["=a"]
    );
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: None,
            next: None,
            probe: true
        },
        "first whether all have labels"
    );
    assert!(narrow.probed(false, now).is_empty());
    let next = Some((1, on(&[1])));
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: None,
            next,
            probe: true
        }
    );
    let list = Change::Reset(vec![slice(1, 5, Some(1))]);
    assert_eq!(short(&narrow.slices(1, list, 5, now)), ["=s1"]);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: Some(1),
            next: None,
            probe: true
        }
    );
    narrow
}

#[test]
fn without_an_attached_pod_no_slice_is_watched() {
    let now = Instant::now();
    let mut narrow = Narrow::new(BTreeSet::new());
    let nothing = Wanted {
        current: None,
        next: None,
        probe: false,
    };
    assert_eq!(
        short(&narrow.pod(Change::Reset(vec![pod("a", &[])]), now)),
        ["=a", "="]
    );
    assert_eq!(narrow.wanted(), nothing);
    assert_eq!(short(&narrow.pod(Change::Apply(pod("b", &[])), now)), ["+b"]);
    assert_eq!(narrow.wanted(), nothing);
    assert_eq!(narrow.due(), None);
}

#[test]
fn a_pod_on_a_new_network_widens_the_watch_and_follows_its_slices() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    assert!(
        narrow.pod(Change::Apply(pod("b", &[2])), now).is_empty(),
        "kept back"
    );
    let growing = Wanted {
        current: Some(1),
        next: Some((2, on(&[1, 2]))),
        probe: true,
    };
    assert_eq!(narrow.wanted(), growing);
    // The previous watch continues, and another pod of its network is not held back.
    assert_eq!(
        short(&narrow.slices(1, Change::Apply(slice(1, 7, Some(1))), 0, now)),
        ["+s1"]
    );
    assert_eq!(short(&narrow.pod(Change::Apply(pod("c", &[1])), now)), ["+c"]);
    let list = Change::Reset(vec![slice(1, 5, Some(1)), slice(2, 6, Some(2))]);
    assert_eq!(short(&narrow.slices(2, list, 6, now)), ["+s2", "+b"]);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: Some(2),
            next: None,
            probe: true
        }
    );
}

#[test]
fn a_pod_is_held_back_for_a_bounded_time() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    narrow.pod(Change::Apply(pod("b", &[2])), now);
    assert_eq!(narrow.due(), Some(now + PATIENCE));
    assert_eq!(short(&narrow.tick(now + PATIENCE)), ["+b"]);
    assert_eq!(narrow.due(), None);
}

#[test]
fn a_new_list_holds_back_new_pods_and_keeps_known_ones() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    let list = vec![pod("a", &[1, 2]), pod("b", &[3]), pod("c", &[1])];
    assert_eq!(short(&narrow.pod(Change::Reset(list), now)), ["=a,c"]);
    assert_eq!(narrow.wanted().next, Some((2, on(&[1, 2, 3]))));
    assert_eq!(
        short(&narrow.slices(2, Change::Reset(vec![slice(1, 5, Some(1))]), 6, now)),
        ["+b"]
    );
    assert_eq!(short(&narrow.pod(Change::Delete("b".to_owned()), now)), ["-b"]);
}

#[test]
fn the_watch_shrinks_minutes_after_the_last_pod_of_a_network() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    narrow.pod(Change::Delete("a".to_owned()), now);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: Some(1),
            next: None,
            probe: true
        }
    );
    assert_eq!(narrow.due(), Some(now + LINGER));
    assert_eq!(short(&narrow.tick(now + LINGER)), ["="]);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: None,
            next: None,
            probe: false
        }
    );
}

/// The Go original's slices, or a controller of an earlier release that takes the labels away.
#[test]
fn a_slice_without_a_label_widens_the_watch_until_minutes_after_the_last_one() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    // Its slice leaves the narrow watch.
    assert!(
        narrow
            .slices(1, Change::Delete(slice(1, 8, Some(1))), 0, now)
            .is_empty()
    );
    narrow.probed(true, now);
    let widening = Wanted {
        current: Some(1),
        next: Some((2, Scope::Everything)),
        probe: false,
    };
    assert_eq!(narrow.wanted(), widening);
    let list = Change::Reset(vec![slice(1, 8, None), slice(9, 2, None)]);
    assert_eq!(
        short(&narrow.slices(2, list, 8, now)),
        ["+s1", "+s9"],
        "without a gap"
    );
    // All have a label again.
    narrow.slices(2, Change::Apply(slice(1, 10, Some(1))), 0, now);
    narrow.slices(2, Change::Apply(slice(9, 11, Some(9))), 0, now);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: Some(2),
            next: None,
            probe: false
        }
    );
    narrow.tick(now + LINGER);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: Some(2),
            next: None,
            probe: true
        },
        "asked first"
    );
    narrow.probed(false, now + LINGER);
    assert_eq!(narrow.wanted().next, Some((3, on(&[1]))));
    let list = Change::Reset(vec![slice(1, 10, Some(1))]);
    assert_eq!(short(&narrow.slices(3, list, 12, now + LINGER)), ["-s9"]);
}

#[test]
fn the_wide_watch_stays_while_slices_without_a_label_exist() {
    let now = Instant::now();
    let mut narrow = Narrow::new(BTreeSet::new());
    narrow.pod(Change::Reset(vec![pod("a", &[1])]), now);
    narrow.probed(true, now);
    assert_eq!(
        narrow.wanted(),
        Wanted {
            current: None,
            next: Some((1, Scope::Everything)),
            probe: false
        }
    );
    narrow.slices(1, Change::Reset(vec![slice(1, 5, None)]), 5, now);
    let mut at = now;
    for _ in 0..5 {
        let due = narrow.due().unwrap();
        assert!(due >= at + LINGER, "one look in five minutes");
        at = due;
        assert!(narrow.tick(at).is_empty());
        assert_eq!(
            narrow.wanted(),
            Wanted {
                current: Some(1),
                next: None,
                probe: false
            }
        );
    }
}

#[test]
fn above_the_limit_of_networks_all_slices_are_watched() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    for n in 2..=MAX_NETWORKS {
        narrow.pod(Change::Apply(pod(&format!("p{n}"), &[n])), now);
    }
    assert!(matches!(narrow.wanted().next, Some((_, Scope::Networks(_)))));
    narrow.pod(Change::Apply(pod("last", &[MAX_NETWORKS + 1])), now);
    assert!(matches!(narrow.wanted().next, Some((_, Scope::Everything))));
}

#[test]
fn events_of_a_stopped_watch_are_dropped() {
    let now = Instant::now();
    let mut narrow = narrow(now);
    assert!(
        narrow
            .slices(7, Change::Apply(slice(2, 9, Some(1))), 0, now)
            .is_empty()
    );
    narrow.pod(Change::Apply(pod("b", &[2])), now);
    narrow.pod(Change::Apply(pod("c", &[3])), now);
    assert!(
        narrow.slices(2, Change::Reset(Vec::new()), 9, now).is_empty(),
        "it lacks n3"
    );
}
