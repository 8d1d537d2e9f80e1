//! What becomes of real packets: servers that say who they are and whom they see, clients that ask, and a capture of the wire.

use super::bed::Pod;
use rules::{PodRules, Port, Protocol, Verdict};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Refusal is at once; anything slower is a timeout of somebody.
const AT_ONCE: Duration = Duration::from_millis(500);

/// TCP 8080 and UDP 5353, both families. Each answer is `HOST PEER-ADDRESS`.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(pod: &Pod) -> Self {
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = pod.run(|| {
            (
                TcpListener::bind(any(8080)).unwrap(),
                UdpSocket::bind(any(5353)).unwrap(),
            )
        });
        let stop = Arc::new(AtomicBool::new(false));
        let host = pod.host;
        let threads = vec![
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || serve_tcp(&tcp, host, &stop)
            }),
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || serve_udp(&udp, host, &stop)
            }),
        ];
        Self { stop, threads }
    }
}

/// Sockets keep a namespace alive: they must be closed before the bed goes.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, host: u8, stop: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, peer)) => {
                // In one write, hence one segment.
                let _ = stream.write_all(format!("{host} {}", peer.ip().to_canonical()).as_bytes());
                stream.set_nonblocking(true).unwrap();
                open.push(stream);
            }
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
        open.retain_mut(echo);
    }
}

/// Sends back what came; says whether the flow is still open.
fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(n) => stream.write_all(&buffer[..n]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn serve_udp(socket: &UdpSocket, host: u8, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{host} {}", peer.ip().to_canonical()).as_bytes(), peer);
        }
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The host that answered, and the address it saw.
    Answered(u8, IpAddr),
    /// Refused at once.
    Refused,
    /// Anything else: a leak or a timeout.
    Lost(String),
}

/// Asks a VIP once, from inside the pod the caller is in.
pub(crate) fn ask(protocol: Protocol, destination: SocketAddr) -> Outcome {
    let began = Instant::now();
    let answer = match protocol {
        Protocol::Tcp => ask_tcp(destination),
        Protocol::Udp => ask_udp(destination),
        Protocol::Sctp => panic!("no SCTP sockets here"),
    };
    match answer {
        Ok(answer) => {
            let mut words = answer.split_whitespace();
            let (host, seen) = (
                words.next().unwrap().parse().unwrap(),
                words.next().unwrap().parse().unwrap(),
            );
            Outcome::Answered(host, seen)
        }
        // EPERM: how the kernel tells a sender of UDP that the packet was rejected on its way out.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied
            ) && began.elapsed() < AT_ONCE =>
        {
            Outcome::Refused
        }
        Err(error) => Outcome::Lost(format!("{error} after {:?}", began.elapsed())),
    }
}

fn ask_tcp(destination: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&destination, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 64];
    let n = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

fn ask_udp(destination: SocketAddr) -> std::io::Result<String> {
    let any: IpAddr = if destination.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Only a connected socket is told of an ICMP error.
    socket.connect(destination)?;
    ask_again(&socket, destination)
}

/// One more question on an open UDP socket.
pub(crate) fn ask_again(socket: &UdpSocket, destination: SocketAddr) -> std::io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"who", destination)?;
    let mut buffer = [0; 64];
    let (n, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, destination, "an answer comes from whom was asked");
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// Asks `times` times and counts how it ended.
pub(crate) fn ask_often(
    client: &Pod,
    protocol: Protocol,
    destination: SocketAddr,
    times: u32,
) -> BTreeMap<Outcome, u32> {
    client.run(|| {
        let mut outcomes = BTreeMap::new();
        for _ in 0..times {
            *outcomes.entry(ask(protocol, destination)).or_default() += 1;
        }
        outcomes
    })
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
