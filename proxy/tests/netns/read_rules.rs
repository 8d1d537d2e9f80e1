//! What `multus-service-proxy rules` prints is what the kernel has.

use super::fake_node::FakeRuntime;
use super::fixture::Fixture;
use super::matrix::{Case, for_every_backend_and_family};
use super::objects::Service;
use super::testbed::Pod;
use api::ObjectName;
use proxy::read_rules::read_rules;
use rules::AppliedRules;
use rules::Protocol::{Tcp, Udp};

for_every_backend_and_family![
    rules_that_are_read_are_those_that_were_written,
    a_namespace_without_rules_has_none,
];

fn read(pod: &Pod) -> AppliedRules {
    let runtime = FakeRuntime::new();
    runtime.set_sandbox("uid-client", &pod.netns);
    let name = ObjectName::new("shop", "client");
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    own.block_on(read_rules(&*runtime, "uid-client", &name)).unwrap()
}

fn rules_that_are_read_are_those_that_were_written(case: Case) {
    let mut fixture = Fixture::new(case, &[2, 3]);
    let ports = [(Tcp, 80, 8080), (Udp, 53, 5353)];
    let web = Service::new("web", 10).ready(&[2, 3]).ports(&ports);
    let none = Service::new("none", 11).ready(&[]).ports(&ports);
    let written = fixture.sync_to(&[&web, &none]).rules;
    let read = read(&fixture.client);
    assert_eq!(read.backends, [case.kind.backend().name()]);
    let state = read.kernel_state().unwrap().regardless_of_places();
    assert_eq!(state, written.kernel_state().regardless_of_places());
    let vips: Vec<_> = state.rejected.into_iter().collect();
    let routes: Vec<_> = read.routes.iter().map(|route| route.cluster_ip).collect();
    assert_eq!(routes, vips);
    for route in read.routes {
        assert_eq!(route.interface, "net1");
        assert!(
            route.source == Some(fixture.source())
                || route.cluster_ip.is_ipv4() != fixture.source().is_ipv4(),
            "{route:?}"
        );
    }
}

fn a_namespace_without_rules_has_none(case: Case) {
    let fixture = Fixture::new(case, &[]);
    assert_eq!(read(&fixture.client), AppliedRules::default());
}
