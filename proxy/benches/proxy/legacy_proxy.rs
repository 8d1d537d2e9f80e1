//! A model of what the archived Go original does on every event, for every pod, one after the other: ensure the chain, check the
//! jump, save the nat table, restore all of it. Written from its behaviour (`iptables` arguments and their order), not from its code;
//! its routes, and its Go, are left out, so it is a lower bound.

use crate::fixture::{ENDPOINTS, vip};
use proxy::netns::Netns;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The programs it uses: it comes as two images.
#[derive(Clone, Copy)]
pub(crate) struct LegacyProxy {
    pub(crate) variant: &'static str,
}

impl LegacyProxy {
    /// One event in one pod with `services` Services; the last one's endpoints are the first `endpoints`.
    fn sync(self, netns: &Netns, services: usize, endpoints: usize) {
        let text = restore_text(services, endpoints);
        netns
            .run(|| {
                // Both fail or succeed by what is there; either way the original goes on.
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

    /// How long an event takes in all of `pods`: the first, which fills them, and others.
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

/// Chains `MULTUS-SVC-` and `MULTUS-SEP-`, as many as Services and endpoints, and one rule per Service in `MULTUS-SERVICES`.
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
