//! What is on the wire, what the kernel makes of packets without ports, and whether it agrees with `trace`.

use super::bed::Pod;
use super::probe::{Outcome, ask_often};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use rules::{PodRules, Port, Protocol, Verdict};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Sends an ICMP echo request, from inside the pod the caller is in. The kernel says EPERM when it is rejected on its way out.
pub(crate) fn ping(destination: Ipv4Addr) -> nix::Result<usize> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::Icmp,
    )?;
    let echo_request = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let destination = SockaddrIn::from(SocketAddrV4::new(destination, 0));
    sendto(socket.as_raw_fd(), &echo_request, &destination, MsgFlags::empty())
}

/// Lets the kernel and `trace` judge the same packets and demands that they agree: who may answer, the source, refusal.
pub(crate) fn assert_agrees(client: &Pod, rules: &PodRules, protocol: Protocol, destination: SocketAddr) {
    let port = Port {
        protocol,
        number: destination.port(),
    };
    let verdict = rules.trace(rules::Packet {
        destination: destination.ip(),
        port: Some(port),
    });
    for outcome in ask_often(client, protocol, destination, 24).into_keys() {
        let agrees = match (&verdict, &outcome) {
            (Verdict::Reject, Outcome::Refused) => true,
            (Verdict::Translate { endpoints, source }, Outcome::Answered(host, seen)) => {
                let answered_as = |endpoint: &SocketAddr| {
                    endpoint
                        .ip()
                        .to_string()
                        .ends_with(&format!("{}{host}", if endpoint.is_ipv4() { '.' } else { ':' }))
                };
                source.address == *seen && endpoints.iter().any(answered_as)
            }
            _ => false,
        };
        assert!(
            agrees,
            "{protocol} {destination}: trace says {verdict:?}, the kernel {outcome:?}"
        );
    }
}

/// A capture of everything that leaves or enters a pod by its network interfaces and names an address.
pub(crate) struct Capture {
    tcpdump: Vec<Child>,
    client: Pod,
}

impl Capture {
    pub(crate) fn start(client: &Pod, address: &str) -> Self {
        let of = |interface: &str| {
            // An ARP or NDP question for it counts as well.
            let filter = if address.contains(':') {
                format!("host {address} or icmp6")
            } else {
                format!("host {address} or (arp and host {address})")
            };
            let mut command = client.command();
            command.args([
                "tcpdump",
                "-n",
                "-l",
                "--immediate-mode",
                "-i",
                interface,
                &filter,
            ]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut capture = Self {
            tcpdump: vec![of("net1"), of("eth0")],
            client: client.clone(),
        };
        for child in &mut capture.tcpdump {
            wait_until_listening(child);
        }
        capture
    }

    /// The lines that name `address`.
    pub(crate) fn stop(mut self, address: &str) -> Vec<String> {
        // What was sent has to pass through tcpdump's pipe first: a packet of ours as the last one tells.
        self.client.run(|| std::thread::sleep(Duration::from_millis(200)));
        let mut lines = Vec::new();
        for mut child in self.tcpdump.drain(..) {
            interrupt(&child);
            let mut text = String::new();
            child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            child.wait().unwrap();
            lines.extend(
                text.lines()
                    .filter(|line| line.contains(address))
                    .map(str::to_owned),
            );
        }
        lines
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for mut child in self.tcpdump.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_until_listening(child: &mut Child) {
    let (mut said, mut byte) = (String::new(), [0]);
    let stderr = child.stderr.as_mut().unwrap();
    while !said.contains("listening on") || !said.ends_with('\n') {
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "tcpdump: {said}");
        said.push(char::from(byte[0]));
    }
}

fn interrupt(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
}
