use super::*;
use crate::connectivity::server::serve;
use std::net::Ipv4Addr;

fn servers(names: &[(&str, usize)]) -> BTreeMap<String, usize> {
    names
        .iter()
        .map(|(name, times)| ((*name).to_owned(), *times))
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn balance_takes_every_server_by_each_protocol() {
    let (both, one) = (servers(&[("a", 20), ("b", 20)]), servers(&[("a", 40)]));
    assert_eq!(balance(&names(&["a", "b"]), Some(&both), Some(&both)), Ok(()));
    assert_eq!(
        balance(&names(&["a", "b"]), Some(&both), Some(&one)),
        Err("UDP requests by server: a 40".to_owned())
    );
    assert_eq!(
        balance(&names(&["a", "b"]), Some(&both), None),
        Ok(()),
        "UDP fails by its own check"
    );
    assert!(balance(&names(&["a", "b"]), None, None).is_err());
}

/// A free port: one that was free a moment ago.
async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_server_answers_both_protocols_and_echoes() {
    let port = free_port().await;
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let server = tokio::spawn(async move { serve("web-1", port).await });
    let (end, own) = (Instant::now() + Duration::from_secs(10), names(&["web-1"]));
    let over_tcp = requests(end, &own, || tcp(to)).await.unwrap();
    assert_eq!(over_tcp, servers(&[("web-1", REQUESTS)]));
    let over_udp = requests(end, &own, || udp(to)).await.unwrap();
    assert_eq!(over_udp, servers(&[("web-1", REQUESTS)]));
    assert_eq!(payloads(&own, to).await, Ok(()));
    assert_eq!(
        payloads(&names(&["web-1", "web-2"]), to).await,
        Err("no payload reached web-2".to_owned())
    );
    assert_eq!(rejected(to).await, Err("the connection is accepted".to_owned()));
    server.abort();
}

/// What answers may be anything on the tested network; its text is not shown.
#[tokio::test]
async fn an_unknown_server_is_no_answer() {
    let stranger = async || Ok("\u{1b}[2Jstranger".to_owned());
    let error = requests(Instant::now(), &names(&["web-1"]), stranger)
        .await
        .unwrap_err();
    assert!(
        error.contains("no server of this test") && !error.contains("stranger"),
        "{error}"
    );
}

/// A server that drops each second connection.
#[tokio::test]
async fn failed_requests_are_counted() {
    let asked = std::cell::Cell::new(0);
    let every_second = async || {
        asked.set(asked.get() + 1);
        match asked.get() % 2 {
            1 => Ok("web-1".to_owned()),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    assert_eq!(
        requests(Instant::now(), &names(&["web-1"]), every_second).await,
        Err("3 of 6 requests failed: connection reset".to_owned())
    );
}

/// One lost answer of all is reported, too.
#[tokio::test]
async fn one_failed_request_fails_the_check() {
    let asked = std::cell::Cell::new(0);
    let last = async || {
        asked.set(asked.get() + 1);
        match asked.get() {
            REQUESTS => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok("web-1".to_owned()),
        }
    };
    assert_eq!(
        requests(Instant::now(), &names(&["web-1"]), last).await,
        Err("1 of 40 requests failed: timed out".to_owned())
    );
}

#[tokio::test]
async fn a_closed_port_is_rejected_and_answers_nothing() {
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port().await);
    assert_eq!(rejections(Instant::now(), to).await, Ok(()));
    let own = names(&["web-1"]);
    assert!(requests(Instant::now(), &own, || tcp(to)).await.is_err());
    assert!(requests(Instant::now(), &own, || udp(to)).await.is_err());
}

/// The time of all checks is bounded, and each is reported although none passes.
#[tokio::test]
async fn a_network_without_answers_is_reported_check_by_check() {
    // TEST-NET-1: packets to it leave by the default route and are lost, or are rejected where there is none.
    let nowhere: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    let plan = Plan {
        vips: vec![nowhere],
        empty_vips: vec![nowhere],
        servers: vec!["web-1".to_owned()],
        name: "web.invalid".to_owned(),
        headless_name: "headless.invalid".to_owned(),
        endpoints: vec![nowhere],
        patience: 1,
    };
    let mut results = Vec::new();
    let began = Instant::now();
    run(&plan, |result| results.push(result)).await;
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    let failed = results.iter().filter(|result| result.problem.is_some());
    let checks: BTreeSet<Check> = failed.map(|result| result.check).collect();
    for check in [Check::Tcp, Check::Udp, Check::Balance, Check::Payload, Check::Dns] {
        assert!(checks.contains(&check), "{check}: {results:?}");
    }
}

#[tokio::test]
async fn a_name_must_have_every_address() {
    let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
    assert_eq!(resolves("127.0.0.1", &[loopback], true).await, Ok(()));
    let other: IpAddr = Ipv4Addr::new(10, 96, 0, 1).into();
    assert_eq!(
        resolves("127.0.0.1", &[loopback, other], false).await,
        Err("it resolves to 127.0.0.1, not to 10.96.0.1, 127.0.0.1".to_owned())
    );
    assert_eq!(resolves("127.0.0.1", &[], false).await, Ok(()));
    assert!(
        resolves("127.0.0.1", &[], true).await.is_err(),
        "an address too many"
    );
}
