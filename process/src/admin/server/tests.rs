//! Small limits, real sockets. The level `apiserver` tests the limits of the three binaries.

use super::*;
use axum::routing::get;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMITS: Limits = Limits {
    connections: 8,
    header: Duration::from_millis(300),
    connection: Duration::from_secs(1),
};
/// Generous: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than the sockets of both sides hold.
const LONG: usize = 64 << 20;

fn start<T: Transport>(transport: T, limits: Limits) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/", get(|| async { "ok\n" }).post(|| async { "ok\n" }))
        .route("/long", get(|| async { vec![b'x'; LONG] }))
        .route("/never", get(|| async { std::future::pending::<()>().await }));
    tokio::spawn(serve(listener, transport, router, limits));
    address
}

async fn connect(server: SocketAddr, source: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    socket.connect(server).await.unwrap()
}

fn local(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// Reads until the server closes the connection; returns nothing where it is reset.
async fn exchange(mut stream: TcpStream, request: &[u8]) -> String {
    let mut answer = Vec::new();
    let exchanged = async {
        let _ = stream.write_all(request).await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    timeout(PATIENCE, exchanged)
        .await
        .expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn answers(server: SocketAddr, source: IpAddr) -> bool {
    exchange(
        connect(server, source).await,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await
    .starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let server = start(Plain, LIMITS);
    let twice = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = exchange(connect(server, local(1)).await, twice).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn an_unfinished_header_is_waited_for_no_longer_than_the_limit() {
    let limits = Limits {
        connection: PATIENCE,
        ..LIMITS
    };
    let server = start(Plain, limits);
    for begun in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\nX: y"] {
        let began = Instant::now();
        exchange(connect(server, local(1)).await, begun).await;
        assert!(
            (limits.header..PATIENCE / 2).contains(&began.elapsed()),
            "{begun:?}"
        );
    }
}

/// Each byte comes soon after the one before.
#[tokio::test]
async fn a_header_that_trickles_in_is_waited_for_no_longer() {
    let server = start(Plain, LIMITS);
    let mut stream = connect(server, local(1)).await;
    let trickle = async {
        while stream.write_all(b"G").await.is_ok() {
            sleep(LIMITS.header / 10).await;
        }
    };
    timeout(PATIENCE, trickle).await.expect("it is closed");
}

#[tokio::test]
async fn a_header_may_have_16_kib_and_no_more() {
    let server = start(Plain, LIMITS);
    let request = |length| {
        let padding = "x".repeat(length);
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {padding}\r\n\r\n").into_bytes()
    };
    let status = async |length| {
        let answer = exchange(connect(server, local(1)).await, &request(length)).await;
        answer.get(..12).map(str::to_owned)
    };
    assert_eq!(status(HEADER_BYTES - 1024).await.as_deref(), Some("HTTP/1.1 200"));
    // The answer is lost where the connection is reset before all was sent.
    let rejected = status(HEADER_BYTES + 1024).await;
    assert!(
        [None, Some("HTTP/1.1 431".to_owned())].contains(&rejected),
        "{rejected:?}"
    );
}

#[tokio::test]
async fn a_request_body_is_not_read() {
    let server = start(Plain, LIMITS);
    let mut stream = connect(server, local(1)).await;
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LONG}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while sent < LONG {
        match stream.write(&[0; 8 * 1024]).await {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    assert!(sent < LONG / 4, "the server took {sent} bytes");
}

#[tokio::test]
async fn a_response_that_is_not_read_or_not_sent_ends_in_time() {
    let server = start(Plain, LIMITS);
    let never = exchange(
        connect(server, local(1)).await,
        b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert_eq!(never, "");
    let mut slow = connect(server, local(1)).await;
    slow.write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(LIMITS.connection * 2).await;
    let rest = exchange(slow, b"").await;
    assert!(
        rest.starts_with("HTTP/1.1 200") && rest.len() < LONG,
        "{}",
        rest.len()
    );
}

#[tokio::test]
async fn a_new_connection_is_accepted_when_one_address_has_all() {
    let limits = Limits {
        header: PATIENCE,
        connection: PATIENCE,
        ..LIMITS
    };
    let server = start(Plain, limits);
    let mut earlier = connect(server, local(3)).await;
    let mut held = Vec::new();
    for _ in 0..10 * limits.connections {
        held.push(connect(server, local(2)).await);
    }
    assert!(answers(server, local(1)).await, "from another address");
    assert!(answers(server, local(2)).await, "from the same address");
    // One that has been waiting since before the attack is not its victim.
    earlier
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(exchange(earlier, b"").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_oldest_first() {
    let limits = Limits {
        header: PATIENCE,
        connection: PATIENCE,
        ..LIMITS
    };
    let server = start(Plain, limits);
    let mut held = Vec::new();
    for _ in 0..3 * limits.connections {
        held.push(connect(server, local(2)).await);
    }
    let kept = held.split_off(2 * limits.connections);
    for closed in held {
        assert_eq!(exchange(closed, b"").await, "");
    }
    for open in kept {
        let answer = exchange(open, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Like a TLS handshake that the client does not continue.
#[derive(Clone)]
struct Stalled;

impl Transport for Stalled {
    type Stream = TcpStream;

    async fn accept(&self, stream: TcpStream) -> io::Result<TcpStream> {
        let _stream = stream;
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_handshake_is_waited_for_no_longer_than_the_limit() {
    let server = start(Stalled, LIMITS);
    assert_eq!(exchange(connect(server, local(1)).await, b"").await, "");
}

/// Pods of a cluster have addresses of IPv4, of IPv6, or of both.
#[tokio::test]
async fn the_default_address_is_served_in_both_families() {
    let listener = bind("[::]:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/", get(|| async { "ok\n" }));
    tokio::spawn(serve(listener, Plain, router, LIMITS));
    let mut loopbacks: Vec<IpAddr> = vec![local(1)];
    let has_ipv6 = std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|text| text.contains(" lo"));
    loopbacks.extend(has_ipv6.then_some(IpAddr::from(Ipv6Addr::LOCALHOST)));
    for loopback in loopbacks {
        let stream = TcpStream::connect((loopback, port)).await.unwrap();
        let answer = exchange(stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{loopback}: {answer}");
    }
}

const FEW_DESCRIPTORS: &str = "MULTUS_SERVICE_TEST_FEW_DESCRIPTORS";

/// `accept` fails with EMFILE. In a process of its own, whose limit affects no other test.
#[test]
fn a_server_out_of_descriptors_still_answers() {
    let test = "admin::server::tests::out_of_descriptors";
    let mut child = std::process::Command::new("prlimit")
        .arg("--nofile=48")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(FEW_DESCRIPTORS, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
    let server = lines.find_map(|line| line.ok()?.rsplit_once("server: ")?.1.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answered = runtime.block_on(async {
        let server: SocketAddr = server.expect("the server says where it listens");
        let mut held = Vec::new();
        for _ in 0..400 {
            held.push(connect(server, local(2)).await);
        }
        timeout(PATIENCE, answers(server, local(1))).await
    });
    let is_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((answered.ok(), is_running), (Some(true), true));
}

#[tokio::test]
#[ignore = "started by a_server_out_of_descriptors_still_answers"]
async fn out_of_descriptors() {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        println!("server: {}", start(Plain, Limits::default()));
        sleep(PATIENCE * 2).await;
    }
}
