//! The usual test: a client with the Services of a cluster, servers, and what the client holds so far.

use super::matrix::{Case, Kind};
use super::objects::{Service, plan_with};
use super::testbed::{Bed, Pod, address};
use super::traffic::{Answer, Outcome, Server, ask_often, hosts, question};
use proxy::apply::Applied;
use proxy::backend::Held;
use rules::{Family, PodRules, Protocol, Settings};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Host number of the client.
pub(crate) const CLIENT: u8 = 7;

pub(crate) struct Scene {
    // Dropped before the bed: sockets keep a namespace alive.
    servers: Vec<Server>,
    pub(crate) client: Pod,
    pub(crate) bed: Bed,
    pub(crate) kind: Kind,
    pub(crate) family: Family,
    pub(crate) services: Vec<Service>,
    /// Of the client's node.
    pub(crate) settings: Settings,
    held: Held<PodRules>,
}

impl Scene {
    /// A client, and a server on each of these hosts.
    pub(crate) fn new(case: Case, servers: &[u8]) -> Self {
        let mut bed = Bed::new();
        let client = bed.pod(CLIENT);
        let mut scene = Self {
            servers: Vec::new(),
            client,
            bed,
            kind: case.kind,
            family: case.family,
            services: Vec::new(),
            settings: Settings::default(),
            held: Held::Nothing,
        };
        for host in servers {
            let pod = scene.bed.pod(*host);
            scene.serve(&pod);
        }
        scene
    }

    /// Starts a server in a pod.
    pub(crate) fn serve(&mut self, pod: &Pod) {
        self.servers.push(Server::start(pod));
    }

    /// Brings the client to what the Services say, as the proxy does after a change.
    pub(crate) fn sync(&mut self) -> Applied {
        let plan = plan_with(&self.settings, &self.client, &self.services);
        let applied = self.client.apply(self.kind, &self.held, &plan.rules);
        assert_eq!(applied.conntrack, None);
        self.held = Held::Exactly(applied.rules.clone());
        applied
    }

    /// As a proxy that has just started.
    pub(crate) fn forget_what_is_held(&mut self) {
        self.held = Held::Unknown;
    }

    /// What the client is known to hold.
    pub(crate) fn held(&self) -> &Held<PodRules> {
        &self.held
    }

    /// Whether a proxy that has just started finds something to write.
    pub(crate) fn sync_again_writes(&mut self) -> bool {
        self.forget_what_is_held();
        self.sync().written
    }

    /// The same with exactly these Services.
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

    /// A port of a Service, in the family of this test.
    pub(crate) fn at(&self, service: &Service, port: u16) -> SocketAddr {
        service.at(self.family, port)
    }

    /// Asks once.
    pub(crate) fn ask(&self, protocol: Protocol, destination: SocketAddr) -> Outcome {
        let outcomes = ask_often(&self.client, protocol, destination, 1);
        outcomes.into_keys().next().unwrap()
    }

    /// Asks once, for the whole answer.
    pub(crate) fn question(&self, protocol: Protocol, destination: SocketAddr) -> io::Result<Answer> {
        self.client.run(|| question(protocol, destination))
    }

    /// Which hosts answer.
    pub(crate) fn hosts(&self, protocol: Protocol, destination: SocketAddr) -> Vec<u8> {
        let hosts: BTreeSet<u8> = hosts(&self.client, protocol, destination);
        hosts.into_iter().collect()
    }
}
