use super::*;
use crate::connectivity::server::serve;
use std::net::Ipv4Addr;

fn servers(names: &[(&str, usize)]) -> BTreeMap<String, usize> {
    names
        .iter()
        .map(|(name, times)| ((*name).to_owned(), *times))
        .collect()
}

#[test]
fn balance_takes_every_server_by_each_protocol() {
    let (both, one) = (servers(&[("a", 20), ("b", 20)]), servers(&[("a", 40)]));
    assert_eq!(balance(Some(&both), Some(&both)), Ok(()));
    assert_eq!(
        balance(Some(&both), Some(&one)),
        Err("UDP requests by server: a 40".to_owned())
    );
    assert_eq!(balance(Some(&both), None), Ok(()), "UDP fails by its own check");
    assert!(balance(None, None).is_err());
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
    let patience = Duration::from_secs(10);
    let over_tcp = requests(patience, || tcp(to)).await.unwrap();
    assert_eq!(over_tcp, servers(&[("web-1", REQUESTS)]));
    let over_udp = requests(patience, || udp(to)).await.unwrap();
    assert_eq!(over_udp, servers(&[("web-1", REQUESTS)]));
    assert_eq!(payload(to).await, Ok(()));
    assert_eq!(rejected(to).await, Err("the connection is accepted".to_owned()));
    server.abort();
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
        requests(Duration::ZERO, every_second).await,
        Err("20 of 40 requests failed: connection reset".to_owned())
    );
}

#[tokio::test]
async fn a_closed_port_is_rejected_and_answers_nothing() {
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port().await);
    assert_eq!(rejected(to).await, Ok(()));
    assert!(requests(Duration::ZERO, || tcp(to)).await.is_err());
    assert!(requests(Duration::ZERO, || udp(to)).await.is_err());
}

#[tokio::test]
async fn a_name_must_have_every_address() {
    let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
    assert_eq!(resolves("127.0.0.1", &[loopback]).await, Ok(()));
    let other: IpAddr = Ipv4Addr::new(10, 96, 0, 1).into();
    assert_eq!(
        resolves("127.0.0.1", &[loopback, other]).await,
        Err("it resolves to 127.0.0.1, not to 10.96.0.1, 127.0.0.1".to_owned())
    );
}
