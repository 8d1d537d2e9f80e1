//! Common fixture: a client with the Services of a cluster, servers, and the client's known rules.

use super::matrix::{BackendKind, Case};
use super::objects::{Service, plan_with};
use super::testbed::{Pod, Testbed, address};
use super::traffic::{Outcome, Response, Server, hosts, probe_repeatedly, request};
use api::Family;
use proxy::backend::KnownRules;
use proxy::netns::apply::Applied;
use rules::{PodRules, Protocol, Settings};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Host number of the client.
pub(crate) const CLIENT: u8 = 7;

pub(crate) struct Fixture {
    // Dropped before the test bed: sockets keep a namespace alive.
    servers: Vec<Server>,
    pub(crate) client: Pod,
    pub(crate) testbed: Testbed,
    pub(crate) kind: BackendKind,
    pub(crate) family: Family,
    pub(crate) services: Vec<Service>,
    /// Settings of the client's node.
    pub(crate) settings: Settings,
    held: KnownRules<PodRules>,
}

impl Fixture {
    /// Creates a client, and a server on each of these hosts.
    pub(crate) fn new(case: Case, servers: &[u8]) -> Self {
        let mut testbed = Testbed::new();
        let client = testbed.pod(CLIENT);
        let mut fixture = Self {
            servers: Vec::new(),
            client,
            testbed,
            kind: case.kind,
            family: case.family,
            services: Vec::new(),
            settings: Settings::default(),
            held: KnownRules::Nothing,
        };
        for host in servers {
            let pod = fixture.testbed.pod(*host);
            fixture.serve(&pod);
        }
        fixture
    }

    /// Starts a server in a pod.
    pub(crate) fn serve(&mut self, pod: &Pod) {
        self.servers.push(Server::start(pod));
    }

    /// Programs the client for the current Services, as the proxy does after a change.
    pub(crate) fn sync(&mut self) -> Applied {
        let plan = plan_with(&self.settings, &self.client, &self.services);
        let applied = self.client.apply(self.kind, &self.held, &plan.rules);
        assert_eq!(applied.conntrack, None);
        self.held = KnownRules::Exactly(applied.rules.clone());
        applied
    }

    /// Forgets the known rules, as a restart does.
    pub(crate) fn forget_known_rules(&mut self) {
        self.held = KnownRules::Unknown;
    }

    /// Known rules of the client.
    pub(crate) fn held(&self) -> &KnownRules<PodRules> {
        &self.held
    }

    /// Returns true if a restarted proxy writes something.
    pub(crate) fn resync_writes(&mut self) -> bool {
        self.forget_known_rules();
        self.sync().written
    }

    /// Like [`Self::sync`], with exactly these Services.
    pub(crate) fn sync_to(&mut self, services: &[&Service]) -> Applied {
        self.services = services.iter().copied().cloned().collect();
        self.sync()
    }

    /// The client's address on network 1.
    pub(crate) fn source(&self) -> IpAddr {
        address(1, self.family, CLIENT)
    }

    /// The client's address on the cluster network.
    pub(crate) fn cluster_address(&self) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::from([10, 128, 0, CLIENT]),
            Family::V6 => format!("fd00:128::{CLIENT}").parse().unwrap(),
        }
    }

    /// Address of a Service port, in the family of this test.
    pub(crate) fn at(&self, service: &Service, port: u16) -> SocketAddr {
        service.at(self.family, port)
    }

    /// Sends one request and returns its outcome.
    pub(crate) fn probe(&self, protocol: Protocol, destination: SocketAddr) -> Outcome {
        let outcomes = probe_repeatedly(&self.client, protocol, destination, 1);
        outcomes.into_keys().next().unwrap()
    }

    /// Sends one request and returns the response.
    pub(crate) fn request(&self, protocol: Protocol, destination: SocketAddr) -> io::Result<Response> {
        self.client.run(|| request(protocol, destination))
    }

    /// Hosts that respond.
    pub(crate) fn hosts(&self, protocol: Protocol, destination: SocketAddr) -> Vec<u8> {
        let hosts: BTreeSet<u8> = hosts(&self.client, protocol, destination);
        hosts.into_iter().collect()
    }
}
