//! Endpoints that go unready and come back, under traffic.

use anyhow::{Result, ensure};
use e2e::demo::scenario::{self, Attached, NAMESPACE};
use e2e::traffic::Traffic;
use std::net::SocketAddr;
use std::time::Duration;
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn flip(client: &Attached) -> Result<()> {
    let vip = SocketAddr::new(scenario::cluster_ip("web")?, 80);
    let traffic = Traffic::start(client, vip, 200)?;
    let flipped = flip_all(client);
    let report = traffic.stop()?;
    flipped?;
    println!("{report}");
    ensure!(report.answers.len() > 1, "{report}");
    report.ensure_unnoticed()
}

fn flip_all(client: &Attached) -> Result<()> {
    // Not scaled: what is taken away again need not leave one server on each node, and a server that is stopped rejects connections
    // before anybody can know of it.
    let servers = scenario::servers()?;
    for server in &servers {
        follows(client, server, true)?;
    }
    for server in servers.iter().cycle().take(4 * servers.len()) {
        for ready in [false, true] {
            set_ready(server, ready)?;
            follows(client, server, ready)?;
        }
    }
    Ok(())
}

fn set_ready(server: &Attached, ready: bool) -> Result<()> {
    let program = if ready { "touch" } else { "rm" };
    cluster::kubectl(&["-n", NAMESPACE, "exec", &server.pod, "--", program, "/ready"])?;
    Ok(())
}

/// Waits until the client is sent to the server, or no more.
fn follows(client: &Attached, server: &Attached, ready: bool) -> Result<()> {
    let netns = format!("--net={}", cluster::netns(&client.node, client.cluster_address)?);
    let list = "nft list ruleset; iptables-legacy-save 2>/dev/null; true";
    let (address, pod) = (server.address.to_string(), &server.pod);
    wait::until(PATIENCE, &format!("{pod} to be an endpoint: {ready}"), || {
        let rules = cluster::node_exec(&client.node, &["nsenter", &netns, "sh", "-c", list])?;
        let mut words = rules.split(|c: char| !c.is_ascii_digit() && c != '.');
        Ok(words.any(|word| word == address) == ready)
    })
}
