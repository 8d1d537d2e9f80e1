//! Compatibility with the archived multus-service proxy: its reader restated, fed with the bytes that it would get.
//!
//! It watches slices with both labels, takes the Service's name from a third, one server port a slice port, and of each endpoint the
//! first address only. It ignores readiness and families.

use super::fixture::{Fixture, pod};
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, PROXY_NAME, PROXY_NAME_LABEL, SERVICE_NAME_LABEL};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// `namespace/service:port/protocol` to `address:port`.
type Targets = BTreeMap<String, BTreeSet<String>>;

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn label<'a>(slice: &'a Value, key: &str) -> &'a str {
    slice["metadata"]["labels"][key].as_str().unwrap_or_default()
}

fn is_watched(slice: &Value) -> bool {
    label(slice, PROXY_NAME_LABEL) == PROXY_NAME && label(slice, MANAGED_BY_LABEL) == MANAGED_BY
}

fn list<'a>(slice: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    slice[field].as_array().into_iter().flatten()
}

fn read(slices: &[EndpointSlice]) -> Targets {
    let mut targets = Targets::new();
    for slice in slices {
        let slice = serde_json::to_value(slice).unwrap();
        if !is_watched(&slice) {
            continue;
        }
        let service = format!(
            "{}/{}",
            text(&slice, "/metadata/namespace"),
            label(&slice, SERVICE_NAME_LABEL)
        );
        for port in list(&slice, "ports") {
            // The archived proxy dereferences all three: it crashes on a slice without one of them.
            let (name, protocol, number) = (&port["name"], &port["protocol"], &port["port"]);
            let key = format!(
                "{service}:{}/{}",
                name.as_str().unwrap(),
                protocol.as_str().unwrap()
            );
            let to = list(&slice, "endpoints").map(|endpoint| {
                let first = endpoint["addresses"][0].as_str().unwrap();
                format!("{first}:{}", number.as_i64().unwrap())
            });
            targets.entry(key).or_default().extend(to);
        }
    }
    targets
}

fn of(expected: &[(&str, &[&str])]) -> Targets {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    expected
        .iter()
        .map(|(key, to)| ((*key).to_owned(), owned(to)))
        .collect()
}

#[test]
fn the_legacy_proxy_reads_planned_slices() {
    let mut fixture = Fixture::new();
    let ports = json!([
        {"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"},
        {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": 5353, "protocol": "TCP"},
    ]);
    fixture.spec(|spec| spec.ports = Some(serde_json::from_value(ports).unwrap()));
    // One port name with two numbers: two slices, which the reader must merge.
    fixture.pods([
        pod(1).named_port("http", "TCP", 8080),
        pod(2)
            .named_port("http", "TCP", 8081)
            .on("shop/testnet1", &["10.1.1.2", "10.1.9.9"]),
        pod(3)
            .named_port("http", "TCP", 8080)
            .on("shop/other", &["10.9.9.9"]),
    ]);
    fixture.sync();
    let slices: Vec<_> = fixture.slices.iter().map(|slice| (**slice).clone()).collect();
    let dns: &[&str] = &["10.1.1.1:5353", "10.1.1.2:5353"];
    let want = of(&[
        ("shop/web:web/TCP", &["10.1.1.1:8080", "10.1.1.2:8081"]),
        ("shop/web:dns/UDP", dns),
        ("shop/web:dns-tcp/TCP", dns),
    ]);
    assert_eq!(read(&slices), want);
}

/// A Service with one port need not name it; the archived proxy's key is then the Service alone.
#[test]
fn the_legacy_proxy_reads_a_port_without_a_name() {
    let mut fixture = Fixture::new();
    fixture.spec(|spec| spec.ports.as_mut().unwrap()[0].name = None);
    fixture.pods([pod(1)]).sync();
    let slices: Vec<_> = fixture.slices.iter().map(|slice| (**slice).clone()).collect();
    assert_eq!(read(&slices), of(&[("shop/web:/TCP", &["10.1.1.1:80"])]));
}

/// A placeholder has no ports, so there is nothing to send anywhere.
#[test]
fn the_legacy_proxy_reads_nothing_from_a_placeholder() {
    let mut fixture = Fixture::new();
    fixture.sync();
    assert_eq!(fixture.slices.len(), 1);
    assert_eq!(read(&[(*fixture.slices[0]).clone()]), Targets::new());
}
