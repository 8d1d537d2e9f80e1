//! Fault injection: each write of an apply fails, once or permanently for one VIP, with each errno that it can return. All other VIPs are
//! programmed afterwards, and all of them after the next apply.
//!
//! `proxy::fault_injection` injects the failure, because no test can make the kernel return ENOMEM or ENODEV for one chosen write. Everything else is
//! real, above all the resulting kernel state.

use super::matrix::{BackendKind, for_every_backend};
use super::objects::{Service, rules};
use super::testbed::{Pod, Testbed, address};
use api::Family;
use nix::libc::{
    EAGAIN, EBUSY, EEXIST, EINVAL, ENETDOWN, ENETUNREACH, ENFILE, ENOBUFS, ENODEV, ENOENT, ENOMEM,
    EOPNOTSUPP, EPERM,
};
use proxy::backend::KnownRules;
use proxy::fault_injection;
use proxy::netns::apply::Applied;
use proxy::netns::failure::Effect;
use rules::{KernelState, PodRules};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

for_every_backend![
    single_failed_write_affects_at_most_its_own_vip,
    vip_that_cannot_be_written_affects_no_other_vip,
];

/// Initial knowledge of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ApplyMode {
    /// The current rules are known.
    Difference,
    /// The current rules are read first.
    Adoption,
    /// The current rules are damaged, and everything is written again.
    Rebuild,
}

const APPLY_MODES: [ApplyMode; 3] = [ApplyMode::Difference, ApplyMode::Adoption, ApplyMode::Rebuild];

/// Kind of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Write {
    NewRoute,
    DelRoute,
    Conntrack,
    Nftables,
    Program,
}

impl Write {
    fn of(bytes: &[u8]) -> Self {
        if bytes[0] == b'*' {
            return Self::Program;
        }
        match u16::from_ne_bytes([bytes[4], bytes[5]]) {
            // RTM_NEWROUTE, RTM_DELROUTE, NFNL_MSG_BATCH_BEGIN.
            24 => Self::NewRoute,
            25 => Self::DelRoute,
            16 => Self::Nftables,
            // NFNL_SUBSYS_CTNETLINK.
            kind if kind >> 8 == 1 => Self::Conntrack,
            kind => panic!("unexpected message of type {kind}"),
        }
    }

    /// Errnos that the write can return. ESRCH and ENODEV of a removal mean that the route is gone, which an injected fault cannot provide.
    fn errnos(self) -> &'static [i32] {
        match self {
            Self::NewRoute => &[
                ENETDOWN,
                ENODEV,
                ENETUNREACH,
                EINVAL,
                ENOMEM,
                ENOBUFS,
                EPERM,
                EAGAIN,
                EEXIST,
            ],
            Self::DelRoute => &[EPERM, ENOMEM, EINVAL, ENOBUFS],
            Self::Conntrack => &[ENOMEM, EPERM, ENOENT],
            Self::Nftables => &[
                ENOMEM, EPERM, EBUSY, EEXIST, ENOENT, EINVAL, EOPNOTSUPP, ENFILE, EAGAIN,
            ],
            // The program cannot be started; other failures are reported in the same way.
            Self::Program => &[ENOMEM],
        }
    }
}

struct Fixture {
    client: Pod,
    kind: BackendKind,
    before: PodRules,
    after: PodRules,
    _testbed: Testbed,
}

/// A Service with this VIP, on network 1 or 2.
fn service(name: &str, number: u8, network: u8, hosts: &[u8]) -> Service {
    let mut service = Service::new(name, number).ready(hosts);
    service.network = network;
    service
}

impl Fixture {
    fn new(kind: BackendKind) -> Self {
        let mut testbed = Testbed::new();
        let mut client = testbed.pod(7);
        testbed.attach(&mut client, 2, "net2", 57);
        let stays = [service("stays", 10, 1, &[2]), service("stays2", 20, 2, &[52])];
        // Shares a bucket of the iptables backend with a Service that stays.
        let mut beside = service("beside", 12, 2, &[52]);
        beside.address = Some((1, 10));
        let mut sticky = service("sticky", 14, 1, &[2, 3]);
        sticky.spec = json!({"sessionAffinity": "ClientIP"});
        let of = |more: &[Service]| rules(&client, &[&stays[..], more].concat());
        let before = of(&[service("changes", 11, 1, &[2, 4]), service("goes", 13, 1, &[2])]);
        let after = of(&[
            service("changes", 11, 1, &[6]),
            service("comes", 15, 2, &[53]),
            beside,
            sticky,
        ]);
        Self {
            client,
            kind,
            before,
            after,
            _testbed: testbed,
        }
    }

    /// Programs the initial rules, opens a flow that the change has to delete, and returns the known rules.
    fn reset(&self, mode: ApplyMode) -> KnownRules<PodRules> {
        let applied = self.client.apply(self.kind, &KnownRules::Unknown, &self.before);
        assert!(applied.is_complete() && applied.is_exact, "{applied:?}");
        let changes = service("changes", 11, 1, &[]);
        self.client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", changes.at(Family::V4, 53)).unwrap();
        });
        match mode {
            ApplyMode::Difference => return KnownRules::Exactly(applied.rules),
            ApplyMode::Adoption => {}
            ApplyMode::Rebuild => {
                self.client.sh(match self.kind {
                    BackendKind::Nftables => {
                        "nft flush chain ip multus-proxy dispatch; nft flush chain ip6 multus-proxy dispatch"
                    }
                    BackendKind::IptablesNft => "iptables-nft -t nat -D OUTPUT -j MSP-SERVICES; ip6tables-nft -t nat -D OUTPUT -j MSP-SERVICES",
                    BackendKind::IptablesLegacy => "iptables-legacy -t nat -D OUTPUT -j MSP-SERVICES; ip6tables-legacy -t nat -D OUTPUT -j MSP-SERVICES",
                });
            }
        }
        KnownRules::Unknown
    }

    /// Applies the final rules with this hook.
    fn apply(
        &self,
        held: &KnownRules<PodRules>,
        hook: impl FnMut(&[u8]) -> Option<i32> + Send + 'static,
    ) -> Applied {
        let addresses = self.client.status.iter().flat_map(|status| &status.addresses);
        let wanted = proxy::netns::apply::Wanted {
            rules: self.after.clone(),
            addresses: addresses.copied().collect(),
            foreign_routes: None,
        };
        let kind = self.kind;
        self.client
            .run(move || {
                fault_injection::with(hook, || {
                    proxy::netns::apply::apply(kind.backend().as_ref(), held, &wanted)
                })
            })
            .unwrap()
    }

    fn dump(&self) -> KernelState {
        self.client.run(|| self.kind.backend().dump()).unwrap()
    }

    /// Interface and source address by VIP.
    fn routes(&self) -> BTreeMap<IpAddr, (String, IpAddr)> {
        let listed = self
            .client
            .sh("ip route show proto 77; ip -6 route show proto 77");
        let read = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let after = |word: &str| words[words.iter().position(|other| *other == word).unwrap() + 1];
            let route = (after("dev").to_owned(), after("src").parse().unwrap());
            (words[0].parse().unwrap(), route)
        };
        listed.lines().map(read).collect()
    }

    /// Asserts that every VIP except the failed ones is programmed.
    fn assert_programmed(&self, failed: &BTreeSet<IpAddr>, what: &str) {
        let (held, wanted) = (self.dump().regardless_of_places(), self.after.kernel_state());
        let is_other = |vip: &IpAddr| !failed.contains(vip);
        let rejected = |dump: &KernelState| {
            dump.rejected
                .iter()
                .copied()
                .filter(is_other)
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(rejected(&held), rejected(&wanted), "{what}");
        let translated = |dump: &KernelState| {
            let mut translated = dump.translated.clone();
            translated.retain(|(vip, _), _| is_other(vip));
            translated
        };
        assert_eq!(translated(&held), translated(&wanted), "{what}");
        assert_eq!(held.damage, BTreeSet::new(), "{what}");
        let wanted = self.after.routes();
        let wanted = wanted
            .iter()
            .map(|(vip, source)| (*vip, (source.interface.clone(), source.address)));
        let wanted: BTreeMap<_, _> = wanted.filter(|(vip, _)| is_other(vip)).collect();
        let mut held = self.routes();
        held.retain(|vip, _| is_other(vip));
        assert_eq!(held, wanted, "{what}");
    }

    /// Asserts that the reported effects of failures match the kernel state.
    fn assert_reported(&self, applied: &Applied, what: &str) {
        let held = self.dump();
        for failure in applied.failures.iter() {
            for vip in failure.addresses.keys() {
                let is_translated = held.translated.keys().any(|(other, _)| other == vip);
                match failure.effect {
                    Effect::Rejected | Effect::Kept => {
                        assert!(held.rejected.contains(vip) && !is_translated, "{what}: {failure}");
                    }
                    Effect::Unknown => assert!(!is_translated, "{what}: {failure}"),
                    Effect::Unchanged => assert!(held.rejected.contains(vip), "{what}: {failure}"),
                    Effect::Endpoints | Effect::LeftOver => {}
                }
            }
        }
    }

    /// Asserts that the next apply programs all VIPs.
    fn assert_recovers(&self, applied: Applied, what: &str) {
        let held = if applied.is_exact {
            KnownRules::Exactly(applied.rules)
        } else {
            KnownRules::Unknown
        };
        let recovered = self.apply(&held, |_| None);
        assert!(
            recovered.is_complete() && recovered.foreign_routes.is_empty(),
            "{what}: {recovered:?}"
        );
        self.assert_programmed(&BTreeSet::new(), what);
    }
}

fn failed(applied: &Applied) -> BTreeSet<IpAddr> {
    let failed = applied
        .failures
        .iter()
        .flat_map(|failure| failure.addresses.keys());
    failed.chain(&applied.foreign_routes).copied().collect()
}

fn single_failed_write_affects_at_most_its_own_vip(kind: BackendKind) {
    let fixture = Fixture::new(kind);
    for mode in APPLY_MODES {
        // All writes, in order.
        let writes = Arc::new(Mutex::new(Vec::new()));
        let held = fixture.reset(mode);
        let seen = Arc::clone(&writes);
        let applied = fixture.apply(&held, move |bytes| {
            seen.lock().unwrap().push(Write::of(bytes));
            None
        });
        assert!(applied.is_complete(), "{applied:?}");
        fixture.assert_programmed(&BTreeSet::new(), "without a fault");
        let writes = writes.lock().unwrap().clone();
        println!("{kind:?} {mode:?}: {writes:?}");
        let kinds: BTreeSet<Write> = writes.iter().copied().collect();
        assert!(kinds.len() == 4, "one kind of write is never made: {kinds:?}");
        for (number, write) in writes.iter().enumerate() {
            // The initial knowledge does not depend on the errno.
            let few = if mode == ApplyMode::Difference {
                usize::MAX
            } else {
                1
            };
            for errno in write.errnos().iter().take(few) {
                let what = format!("{mode:?}: write {number}, {write:?}, fails with {errno}");
                let held = fixture.reset(mode);
                let count = AtomicUsize::new(0);
                let applied = fixture.apply(&held, move |_| {
                    (count.fetch_add(1, Ordering::Relaxed) == number).then_some(*errno)
                });
                let failed = failed(&applied);
                // Writes of routes are not retried; all others are retried at once.
                let is_route = matches!(write, Write::NewRoute | Write::DelRoute);
                assert_eq!(
                    failed.len(),
                    usize::from(is_route),
                    "{what}: {:?}",
                    applied.failures
                );
                assert_eq!(
                    applied.conntrack.is_some(),
                    *write == Write::Conntrack && *errno != ENOENT,
                    "{what}"
                );
                fixture.assert_programmed(&failed, &what);
                fixture.assert_reported(&applied, &what);
                fixture.assert_recovers(applied, &what);
            }
        }
    }
}

/// Fails each write that contains this address.
fn fail_writes_with(address: IpAddr) -> impl FnMut(&[u8]) -> Option<i32> + Send + 'static {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let texts = [
        format!(" {address}/"),
        format!(" {address}:"),
        format!("[{address}]:"),
    ];
    move |written| {
        let has = |part: &[u8]| written.windows(part.len()).any(|window| window == part);
        let matches = has(&bytes) || texts.iter().any(|text| has(text.as_bytes()));
        matches.then_some(EINVAL)
    }
}

impl Fixture {
    /// Asserts that only `vip` fails and that its cause is reported.
    fn assert_only_vip_fails(&self, mode: ApplyMode, vip: IpAddr, culprit: IpAddr) {
        let what = format!("{mode:?}: {vip} for {culprit}");
        let held = self.reset(mode);
        let applied = self.apply(&held, fail_writes_with(culprit));
        let failed = failed(&applied);
        assert_eq!(failed, BTreeSet::from([vip]), "{what}");
        self.assert_programmed(&failed, &what);
        self.assert_reported(&applied, &what);
        let messages: String = applied.failures.iter().map(ToString::to_string).collect();
        assert!(
            messages.contains("Invalid argument") && messages.contains(" (Service web/"),
            "{messages}"
        );
        self.assert_recovers(applied, &what);
    }
}

fn vip_that_cannot_be_written_affects_no_other_vip(kind: BackendKind) {
    let fixture = Fixture::new(kind);
    for family in Family::ALL {
        // The VIP cannot even be rejected.
        for (name, number, network) in [("comes", 15, 2), ("sticky", 14, 1)] {
            let vip = service(name, number, network, &[]).vip(family);
            for mode in [ApplyMode::Difference, ApplyMode::Adoption] {
                fixture.assert_only_vip_fails(mode, vip, vip);
            }
        }
        // The failing address is an endpoint of one VIP only: that VIP is rejected and not translated, and the others are not affected.
        for (name, number, network, host) in [("changes", 11, 1, 6), ("comes", 15, 2, 53)] {
            let vip = service(name, number, network, &[]).vip(family);
            for mode in APPLY_MODES {
                fixture.assert_only_vip_fails(mode, vip, address(network, family, host));
            }
        }
    }
}
