//! Model of the archived multus-service proxy. On every event it visits all pods in turn, ensures the chain, checks the jump, saves the nat
//! table and restores all of it. The model follows its observed behaviour (`iptables` arguments and their order), not its code. Its routes
//! and its Go runtime are left out, so the figures are a lower bound.

use crate::fixture::{ENDPOINTS, vip};
use proxy::netns::Netns;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The legacy proxy with one variant of iptables; it is published as two images.
#[derive(Clone, Copy)]
pub(crate) struct LegacyProxy {
    pub(crate) variant: &'static str,
}

impl LegacyProxy {
    /// Handles one event in one pod with `services` Services; the last Service has the first `endpoints` endpoints.
    fn sync(self, netns: &Netns, services: usize, endpoints: usize) {
        let text = restore_text(services, endpoints);
        netns
            .run(|| {
                // Both calls may fail, depending on the current rules; the legacy proxy continues in either case.
                self.run("", &["-t", "nat", "-N", "MULTUS-SERVICES"]);
                let jump = [
                    "OUTPUT",
                    "-m",
                    "comment",
                    "--comment",
                    "multus service portals",
                    "-j",
                    "MULTUS-SERVICES",
                ];
                if !self.run("", &[&["-t", "nat", "-C"][..], &jump].concat()) {
                    self.run("", &[&["-t", "nat", "-I"][..], &jump].concat());
                }
                self.run("-save", &["-t", "nat"]);
                self.restore(&text);
            })
            .unwrap();
    }

    /// Time of an event in all of `pods`: of the first event, which fills them, and of later events.
    pub(crate) fn events(self, pods: &[Netns], services: usize, events: usize) -> (Duration, Vec<Duration>) {
        let event = |n: usize| {
            let began = Instant::now();
            for netns in pods {
                self.sync(netns, services, 2 + n % 2);
            }
            began.elapsed()
        };
        (event(0), (1..=events).map(event).collect())
    }

    fn run(self, suffix: &str, arguments: &[&str]) -> bool {
        let program = format!("iptables-{}{suffix}", self.variant);
        let mut command = Command::new(program);
        let output = command
            .args(arguments)
            .env("XTABLES_LOCKFILE", "/proc/self/ns/net")
            .output();
        output.unwrap().status.success()
    }

    fn restore(self, text: &str) {
        let mut child = Command::new(format!("iptables-{}-restore", self.variant))
            .args(["--noflush", "--counters"])
            .env("XTABLES_LOCKFILE", "/proc/self/ns/net")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

/// Chains `MULTUS-SVC-` and `MULTUS-SEP-` for all Services and endpoints, and one rule per Service in `MULTUS-SERVICES`.
fn restore_text(services: usize, endpoints: usize) -> String {
    let (mut chains, mut rules) = (String::from("*nat\n:MULTUS-SERVICES - [0:0]\n"), String::new());
    for n in 0..services {
        let count = if n + 1 == services {
            endpoints
        } else {
            ENDPOINTS.len()
        };
        let _ = writeln!(chains, ":MULTUS-SVC-{n:016} - [0:0]");
        for (i, host) in ENDPOINTS.iter().take(count).enumerate() {
            let probability = 1.0 / f64::from(u32::try_from(count - i).unwrap());
            let _ = writeln!(chains, ":MULTUS-SEP-{n:014}{i:02} - [0:0]");
            let _ = writeln!(
                rules,
                "-A MULTUS-SEP-{n:014}{i:02} -p tcp -m comment --comment \"web/svc-{n}\" -m tcp -j DNAT --to-destination 10.1.0.{host}:8080\n\
                 -A MULTUS-SVC-{n:016} -m comment --comment \"web/svc-{n}\" -m statistic --mode random --probability {probability:.10} -j MULTUS-SEP-{n:014}{i:02}"
            );
        }
        let _ = writeln!(
            rules,
            "-A MULTUS-SERVICES -d {}/32 -p tcp -m comment --comment \"web/svc-{n} cluster IP\" -m tcp --dport 80 -j MULTUS-SVC-{n:016}",
            vip(n)
        );
    }
    format!("{chains}{rules}COMMIT\n")
}
