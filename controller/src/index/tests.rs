//! Tests: the label index selects the same pods as a scan of all pods.

use super::*;
use crate::objects::PodObject;
use proptest::prelude::*;
use serde_json::json;

const SELECTORS: [&str; 7] = [
    "app=a",
    "app=a,tier=x",
    "app in (a,b)",
    "app in (a,b),tier notin (x)",
    "tier",
    "!tier",
    "app=none",
];

fn pod(namespace: &str, number: u8, app: Option<&str>, tier: Option<&str>) -> Pod {
    let labels: serde_json::Map<_, _> = [("app", app), ("tier", tier)]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))))
        .collect();
    let object =
        json!({"metadata": {"namespace": namespace, "name": format!("pod-{number}"), "labels": labels}});
    serde_json::from_value::<PodObject>(object).unwrap().into()
}

fn event() -> impl Strategy<Value = Event<Pod>> {
    let app = prop::sample::select(vec![None, Some("a"), Some("b")]);
    let tier = prop::sample::select(vec![None, Some("x"), Some("y")]);
    let namespace = prop::sample::select(vec!["one", "two"]);
    (namespace, 0_u8..6, app, tier, any::<bool>()).prop_map(|(namespace, number, app, tier, gone)| {
        let pod = pod(namespace, number, app, tier);
        if gone {
            return Event::Deleted(Box::new(metadata(&pod.key())));
        }
        Event::Applied(pod)
    })
}

proptest! {
    #[test]
    fn the_label_index_selects_the_same_pods_as_a_scan(events in prop::collection::vec(event(), 0..60)) {
        let mut index = Index::default();
        for event in events {
            index.update(Change::Pod(event));
        }
        for text in SELECTORS {
            let selector = Selector::parse(text).unwrap();
            for namespace in ["one", "two"] {
                let all = index.pods.in_namespace(namespace);
                let want: Vec<_> = all.filter(|pod| selector.matches(&pod.labels)).cloned().collect();
                prop_assert_eq!(index.selected(namespace, &selector), want, "{}", text);
            }
        }
    }
}

/// After an outage all pods are listed again, and most are unchanged.
#[test]
fn a_new_list_of_equal_pods_enqueues_nothing() {
    let mut index = Index::default();
    let all = || (0..6).map(|number| pod("one", number, Some("a"), None));
    for pod in all() {
        index.update(Change::Pod(Event::Applied(pod)));
    }
    let selector = Selector::parse("app=a").unwrap();
    let before = index.selected("one", &selector);
    index.update(Change::Pod(Event::ListStarted));
    for pod in all() {
        index.update(Change::Pod(Event::Listed(pod)));
    }
    index.update(Change::Pod(Event::ListDone));
    let after = index.selected("one", &selector);
    assert_eq!(after.len(), 6);
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(one, other)| Arc::ptr_eq(one, other))
    );
}
