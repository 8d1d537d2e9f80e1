//! A pod whose sidecar redirects all traffic of the pod, as Istio's does.
//!
//! The documented order (docs/user/services.md): flows to a managed ClusterIP are translated before an existing sidecar sees them, and traffic
//! of the sidecar itself is translated in any case.

use super::fixture::Fixture;
use super::matrix::{BackendKind, Case, for_every_backend_and_family};
use super::objects::Service;
use super::testbed::Pod;
use api::Family;
use rules::Protocol::{Tcp, Udp};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

for_every_backend_and_family![
    existing_sidecar_intercepts_everything_but_cluster_ips,
    sidecar_traffic_is_served_in_either_start_order,
    sidecar_that_inserts_itself_first_is_reordered,
];

/// User of the sidecar. Its flows are not redirected.
const SIDECAR: u32 = 1337;

/// Rules of istio-init, in one variant of iptables, with its redirect port.
fn redirect_everything(pod: &Pod, variant: &str, family: Family) {
    let iptables = match family {
        Family::V4 => format!("iptables-{variant}"),
        Family::V6 => format!("ip6tables-{variant}"),
    };
    pod.sh(&format!(
        "{iptables} -t nat -N ISTIO_REDIRECT; {iptables} -t nat -N ISTIO_OUTPUT
         {iptables} -t nat -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
         {iptables} -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT
         {iptables} -t nat -A ISTIO_OUTPUT -m owner --uid-owner {SIDECAR} -j RETURN
         {iptables} -t nat -A ISTIO_OUTPUT -j ISTIO_REDIRECT"
    ));
}

fn existing_sidecar_intercepts_everything_but_cluster_ips(case: Case) {
    for variant in ["nft", "legacy"] {
        let mut fixture = Fixture::new(case, &[2]);
        let web = Service::new("web", 10).ready(&[2]);
        redirect_everything(&fixture.client, variant, case.family);
        fixture.sync_to(&[&web]);
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15001));
        let envoy = fixture.client.run(|| TcpListener::bind(any).unwrap());
        envoy.set_nonblocking(true).unwrap();
        for _ in 0..5 {
            assert_eq!(
                fixture.probe(Tcp, fixture.at(&web, 80)).host(),
                2,
                "sidecar in {variant}"
            );
        }
        assert_eq!(fixture.probe(Udp, fixture.at(&web, 53)).host(), 2);
        assert!(envoy.accept().is_err(), "no ClusterIP flow reached the sidecar");
        let elsewhere = SocketAddr::new(super::testbed::address(1, case.family, 99), 443);
        let flow = fixture
            .client
            .run(|| std::net::TcpStream::connect_timeout(&elsewhere, Duration::from_secs(3)));
        assert!(
            flow.is_ok() && envoy.accept().is_ok(),
            "other flows reach the sidecar"
        );
    }
}

fn sidecar_traffic_is_served_in_either_start_order(case: Case) {
    for (variant, first) in [("nft", true), ("nft", false), ("legacy", true), ("legacy", false)] {
        let mut fixture = Fixture::new(case, &[2]);
        let web = Service::new("web", 10).ready(&[2]);
        if first {
            redirect_everything(&fixture.client, variant, case.family);
        }
        fixture.sync_to(&[&web]);
        if !first {
            redirect_everything(&fixture.client, variant, case.family);
        }
        let at = fixture.at(&web, 80);
        let answer = fixture.client.sh(&format!(
            "setpriv --reuid {SIDECAR} --clear-groups timeout 5 bash -c 'exec 3<>/dev/tcp/{}/{}; head -c 2 <&3'",
            at.ip(),
            at.port()
        ));
        assert_eq!(answer, "2 ", "sidecar in {variant}, installed first: {first}");
    }
}

/// The sidecar uses the same kernel interface as the backend.
fn sidecar_that_inserts_itself_first_is_reordered(case: Case) {
    let mut fixture = Fixture::new(case, &[2]);
    let web = Service::new("web", 10).ready(&[2]);
    fixture.sync_to(&[&web]);
    let (variant, iptables) = match (case.kind, case.family) {
        (BackendKind::IptablesLegacy, Family::V4) => ("legacy", "iptables-legacy"),
        (BackendKind::IptablesLegacy, Family::V6) => ("legacy", "ip6tables-legacy"),
        (_, Family::V4) => ("nft", "iptables-nft"),
        (_, Family::V6) => ("nft", "ip6tables-nft"),
    };
    redirect_everything(&fixture.client, variant, case.family);
    fixture
        .client
        .sh(&format!("{iptables} -t nat -I OUTPUT -p tcp -j ISTIO_OUTPUT"));
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15001));
    let _envoy = fixture.client.run(|| TcpListener::bind(any).unwrap());
    let client = fixture.client.clone();
    let rules = || client.sh(&format!("{iptables} -t nat -S"));
    let before = rules();
    fixture.forget_known_rules();
    fixture.sync();
    assert_eq!(fixture.probe(Tcp, fixture.at(&web, 80)).host(), 2);
    // Rules of the sidecar keep their order.
    let unmanaged = |rules: &str| -> Vec<String> {
        let lines = rules.lines().filter(|line| !line.contains("MSP-"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(unmanaged(&rules()), unmanaged(&before));
    assert!(!fixture.resync_writes(), "the repaired order is stable");
}
