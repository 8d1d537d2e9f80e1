use super::*;
use crate::backend::nftables::layout::ElementData;
use rules::Protocol;
use std::time::Duration;

const PORT: Port = Port {
    protocol: Protocol::Tcp,
    number: 80,
};

fn vip() -> IpAddr {
    "172.30.0.10".parse().unwrap()
}

/// Endpoints 10.1.0.n:8080, and an affinity in seconds.
type State<'a> = Option<(&'a [u8], Option<u64>)>;

fn endpoints(hosts: &[u8]) -> Places {
    let of = |host: &u8| SocketAddr::from(([10, 1, 0, *host], 8080));
    hosts.iter().map(of).collect()
}

fn change(old: State<'_>, new: State<'_>) -> Change {
    let sets = [old, new].map(|state| state.map(|(hosts, affinity)| (endpoints(hosts), affinity)));
    let [old, new] = sets.each_ref().map(|state| {
        state.as_ref().map(|(endpoints, affinity)| Translation {
            endpoints,
            affinity: affinity.map(Duration::from_secs),
        })
    });
    Change::of([((vip(), PORT), PortChange { old, new })])
}

/// Content of tables after an edit. A missing element cannot be deleted, and an existing one cannot get another value.
fn make(tables: &mut BTreeMap<String, BTreeMap<ElementData, Option<ElementData>>>, edit: &Edit) {
    for (set, elements) in &edit.delete {
        for element in elements {
            let held = tables.get_mut(set).and_then(|set| set.remove(&element.key));
            assert!(held.is_some(), "{set} does not hold {element:?}");
        }
    }
    for (set, elements) in &edit.add {
        for element in elements {
            let held = tables
                .entry(set.clone())
                .or_default()
                .insert(element.key.clone(), element.value.clone());
            assert_eq!(held, None, "{set} holds {element:?} already");
        }
    }
    tables.retain(|_, elements| !elements.is_empty());
}

/// Each transition between states of a port: the elements match the table, and the result equals a fresh table.
#[test]
fn every_change_transforms_one_table_into_the_other() {
    let states: [State<'_>; 8] = [
        None,
        Some((&[2], None)),
        Some((&[3], None)),
        Some((&[2, 3, 4], None)),
        Some((&[1, 3, 4, 5], None)),
        Some((&[2, 3, 4], Some(60))),
        Some((&[2, 3, 4], Some(7))),
        Some((&[3], Some(60))),
    ];
    for old in states {
        for new in states {
            let (mut tables, mut fresh) = (BTreeMap::new(), BTreeMap::new());
            make(&mut tables, &change(None, old).first);
            make(&mut fresh, &change(None, new).first);
            let change = change(old, new);
            make(&mut tables, &change.first);
            // Between the two a flow finds what it looks for, by whichever set it goes.
            let slots = tables.get(ENDPOINTS).map_or(0, BTreeMap::len);
            let most = tables.keys().filter_map(|set| match Class::of_set(set) {
                Some(Class::Count(count)) => Some(count as usize),
                _ => None,
            });
            assert!(most.max().unwrap_or(0) <= slots, "{old:?} to {new:?}");
            make(&mut tables, &change.second);
            assert_eq!(tables, fresh, "{old:?} to {new:?}");
            assert_eq!(change.is_empty(), old == new);
        }
    }
}

#[test]
fn a_port_is_in_the_sets_of_its_endpoint_count_and_affinity_only() {
    let with = change(None, Some((&[2, 3], Some(60))));
    let wanted = BTreeSet::from([Class::Count(2), Class::Affinity(60)]);
    assert_eq!(with.classes, wanted);
    assert_eq!(
        with.first.add.keys().collect::<Vec<_>>(),
        ["eps", "sticky-60s", "svc-2"]
    );
    assert!(with.second.is_empty());
}

#[test]
fn one_added_or_replaced_endpoint_writes_few_elements() {
    let more = change(Some((&[2, 3], None)), Some((&[2, 3, 4], None)));
    let written: Vec<usize> = more.first.add.values().map(Vec::len).collect();
    assert_eq!((written, more.first.delete.len()), (vec![1, 1], 0));
    let another = change(Some((&[2, 3], None)), Some((&[2, 4], None)));
    assert_eq!(
        (another.first.add[ENDPOINTS].len(), another.second.is_empty()),
        (1, true)
    );
    assert!(another.classes.is_empty());
}

/// A hundred endpoints with affinity, which doubles the number of elements.
#[test]
fn one_changed_endpoint_of_many_writes_few_elements() {
    let all: Vec<u8> = (1..=100).collect();
    let held = endpoints(&all);
    let but_50 = |more: &[u8]| {
        let rest = all.iter().copied().filter(|host| *host != 50);
        held.toward(&endpoints(&rest.chain(more.iter().copied()).collect::<Vec<_>>()))
    };
    let written = |new: &Places| {
        let affinity = Some(Duration::from_mins(1));
        let [old, new] = [&held, new].map(|endpoints| Some(Translation { endpoints, affinity }));
        let change = Change::of([((vip(), PORT), PortChange { old, new })]);
        let count = |edits: &BTreeMap<String, Vec<Element>>| edits.values().map(Vec::len).sum::<usize>();
        let edits = [&change.first, &change.second];
        edits.map(|edit| (count(&edit.delete), count(&edit.add)))
    };
    assert_eq!(written(&but_50(&[200])), [(1, 2), (1, 0)], "replaced");
    assert_eq!(written(&but_50(&[])), [(1, 2), (3, 0)], "gone");
    assert_eq!(written(&but_50(&[50, 200])), [(0, 3), (1, 0)], "one more");
}

#[test]
fn clients_are_forgotten_with_their_endpoint_or_affinity() {
    let kept = |old, new| {
        let mut change = change(Some(old), new);
        change
            .forget
            .remove(&(vip(), PORT))
            .map(|forget| (forget.seconds, forget.keep.len()))
    };
    let from: (&[u8], _) = (&[2, 3], Some(60));
    assert_eq!(kept(from, Some((&[2, 3, 4], Some(60)))), None, "one more");
    assert_eq!(kept(from, Some((&[2, 4], Some(60)))), Some((60, 2)), "one went");
    assert_eq!(kept(from, Some((&[2, 3], None))), Some((60, 0)), "switched off");
    assert_eq!(
        kept(from, Some((&[2, 3], Some(7)))),
        Some((60, 0)),
        "another timeout"
    );
    assert_eq!(kept(from, None), Some((60, 0)), "the port went");
    assert_eq!(kept((&[2], None), Some((&[3], None))), None, "never had any");
}

#[test]
fn messages_respect_the_size_limit_of_attributes() {
    let ports: Vec<_> = (1..=2000)
        .map(|number| ((vip(), Port { number, ..PORT }), endpoints(&[2])))
        .collect();
    let ports = ports.iter().map(|(port, endpoints)| {
        (
            *port,
            Translation {
                endpoints,
                affinity: None,
            },
        )
    });
    let change = Change::whole(ports);
    assert_eq!(
        change.first.statements().count(),
        8,
        "2000 elements in each of two sets"
    );
}
