//! The claims of the demo. Each function proves one and fails when it does not hold.
//!
//! Proofs about traffic look at what the servers and the wire saw, never at what our own programs say of themselves.

use super::Narrator;
use super::scenario::{NAMESPACE, client, cluster_ip, servers};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use testbed::{cluster, wait};

/// Requests of one look at the load balancing. All reaching one of two servers by chance: 2 in 2^40.
const REQUESTS: usize = 40;
/// Longest a change may take to show; far above what is expected, so that a slow machine does not fail.
const PATIENCE: Duration = Duration::from_mins(1);

/// The slices of our controller hold the pods' addresses on macvlan1, and nothing else.
pub fn slices_hold_second_network_addresses(narrator: &Narrator) -> Result<()> {
    let want: BTreeSet<IpAddr> = servers()?.iter().map(|pod| pod.address).collect();
    wait::until(PATIENCE, "the slices of web hold the net1 addresses", || {
        Ok(ready_endpoints("web")? == want)
    })?;
    narrator.kubectl(&["-n", NAMESPACE, "get", "endpointslices", "-l", &ours("web")])?;
    narrator
        .proved("the Service's EndpointSlice holds the addresses that the pods have on net1, and no other");
    Ok(())
}

/// `curl` by ClusterIP and by name reaches both pods, and they see the client's net1 address.
pub fn both_servers_answer_over_net1(narrator: &Narrator) -> Result<()> {
    let client = client()?;
    let servers: BTreeSet<String> = servers()?.into_iter().map(|pod| pod.pod).collect();
    let (vip, name) = (cluster_ip("web")?, format!("web.{NAMESPACE}.svc.cluster.local"));
    wait::until(PATIENCE, "the ClusterIP answers", || {
        Ok(Answers::curl(&vip.to_string())?.servers() == servers)
    })?;
    narrator
        .say("What the proxy put into the client's network namespace begins with a route to the ClusterIP:");
    narrator.kubectl(&[
        "-n", NAMESPACE, "exec", "client", "--", "ip", "route", "show", "proto", "77",
    ])?;
    narrator.say(&format!("\n{REQUESTS} requests by ClusterIP, then as many by name. Each server returns its name and the client's address:"));
    for target in [vip.to_string(), name] {
        let answers = Answers::curl_narrated(narrator, &target)?;
        ensure!(
            answers.servers() == servers,
            "{target} is answered by {:?}, not by {servers:?}",
            answers.servers()
        );
        ensure!(
            answers.total() == REQUESTS,
            "of {REQUESTS} requests to {target} only {} were answered",
            answers.total()
        );
        let seen = answers.clients();
        ensure!(
            seen == BTreeSet::from([client.address]),
            "the servers see {seen:?}, not {}",
            client.address
        );
    }
    narrator.proved(&format!(
        "ClusterIP and DNS name reach both pods, and both see the client's net1 address {} (on eth0 it has {})",
        client.address, client.cluster_address
    ));
    Ok(())
}

/// Each web server is a client too, one on each node: it reaches the other and, by the ClusterIP, itself.
pub fn servers_are_clients_too() -> Result<()> {
    let (pods, vip) = (servers()?, cluster_ip("web")?.to_string());
    let all: BTreeSet<_> = pods.iter().map(|pod| pod.pod.clone()).collect();
    for pod in &pods {
        let what = format!("{} on {} reaches both servers", pod.pod, pod.node);
        wait::until(PATIENCE, &what, || {
            Ok(Answers::curl_from(&pod.pod, &vip)?.servers() == all)
        })?;
        let answers = Answers::curl_from(&pod.pod, &vip)?;
        ensure!(
            answers.total() == REQUESTS,
            "of {REQUESTS} requests of {} only {} were answered",
            pod.pod,
            answers.total()
        );
        ensure!(
            answers.clients() == BTreeSet::from([pod.address]),
            "{} is seen as {:?}",
            pod.pod,
            answers.clients()
        );
    }
    Ok(())
}

/// A capture on all interfaces of the client: every packet is on net1, none on eth0.
pub fn no_packet_takes_eth0(narrator: &Narrator) -> Result<()> {
    let vip = cluster_ip("web")?;
    let mut hosts = vec![format!("host {vip}")];
    hosts.extend(servers()?.iter().map(|pod| format!("host {}", pod.address)));
    let filter = hosts.join(" or ");
    let script = format!(
        r#"tcpdump -Z root -Unni any -w /tmp/all.pcap "{filter}" 2>/tmp/tcpdump.log &
until grep -q listening /tmp/tcpdump.log; do sleep 0.1; done
for i in 1 2 3 4 5; do curl -s -o /dev/null --max-time 2 http://{vip}/; done
sleep 1; kill $!; wait
tcpdump -qtnnr /tmp/all.pcap 2>/dev/null | head -n 4
echo "packets per interface:"
tcpdump -qtnnr /tmp/all.pcap 2>/dev/null | cut -d" " -f1 | sort | uniq -c"#
    );
    let printed = narrator.kubectl(&[
        "-n", NAMESPACE, "exec", "client", "--", "timeout", "60", "sh", "-c", &script,
    ])?;
    let counted = printed
        .split_once("packets per interface:")
        .context("the capture printed no counts")?
        .1;
    let interfaces: Vec<_> = counted
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    ensure!(
        !interfaces.is_empty(),
        "the capture saw nothing, so it proves nothing:\n{printed}"
    );
    ensure!(
        interfaces == ["net1"],
        "packets of the Service took {interfaces:?}:\n{printed}"
    );
    narrator.proved("every packet to or from the ClusterIP or an endpoint was on net1, not one on eth0");
    Ok(())
}

/// An unready pod gets no new connections; restarted, it gets them again.
pub fn readiness_is_followed(narrator: &Narrator) -> Result<()> {
    let pods = servers()?;
    let [unready, other] = &pods[..] else {
        bail!("there are {} web servers instead of two", pods.len())
    };
    let vip = cluster_ip("web")?.to_string();
    narrator.say(&format!(
        "{} loses the file that its readiness probe asks for:",
        unready.pod
    ));
    narrator.kubectl(&["-n", NAMESPACE, "exec", &unready.pod, "--", "rm", "/ready"])?;
    wait::until(PATIENCE, "the slice follows readiness", || {
        Ok(ready_endpoints("web")? == BTreeSet::from([other.address]))
    })?;
    let only = BTreeSet::from([other.pod.clone()]);
    wait::until(PATIENCE, "the rules follow the slice", || {
        Ok(Answers::curl(&vip)?.servers() == only)
    })?;
    narrator.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", "app=web"])?;
    let answers = Answers::curl_narrated(narrator, &vip)?;
    ensure!(
        answers.servers() == only && answers.total() == REQUESTS,
        "an unready pod still answers: {answers:?}"
    );
    narrator.proved(&format!(
        "{} is not ready and gets no connection, and no request failed",
        unready.pod
    ));

    narrator.say("\nNow its web server is stopped, so that the kubelet restarts the container:");
    narrator.kubectl(&["-n", NAMESPACE, "exec", &unready.pod, "--", "nginx", "-s", "stop"])?;
    let both: BTreeSet<_> = pods.iter().map(|pod| pod.pod.clone()).collect();
    wait::until(Duration::from_mins(3), "the restarted pod answers", || {
        Ok(Answers::curl(&vip)?.servers() == both)
    })?;
    narrator.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", "app=web"])?;
    let answers = Answers::curl_narrated(narrator, &vip)?;
    ensure!(
        answers.servers() == both && answers.total() == REQUESTS,
        "not both pods answer: {answers:?}"
    );
    narrator.proved(&format!(
        "{} was restarted and gets connections again",
        unready.pod
    ));
    Ok(())
}

/// A Service without the label works unchanged, over eth0, and has no managed slice.
pub fn an_ordinary_service_is_untouched(narrator: &Narrator) -> Result<()> {
    let (client, vip) = (client()?, cluster_ip("web-ordinary")?.to_string());
    let found = slices("web-ordinary")?;
    ensure!(
        found.is_empty(),
        "our controller wrote slices for a Service that is not ours: {found:?}"
    );
    wait::until(PATIENCE, "the ordinary Service answers", || {
        Ok(Answers::curl(&vip)?.total() == REQUESTS)
    })?;
    let all = format!("{}=web-ordinary", api::names::SERVICE_NAME_LABEL);
    narrator.kubectl(&["-n", NAMESPACE, "get", "endpointslices", "-l", &all])?;
    let answers = Answers::curl_narrated(narrator, &vip)?;
    ensure!(
        answers.total() == REQUESTS,
        "of {REQUESTS} requests only {} were answered",
        answers.total()
    );
    let over_net1 = answers.clients().contains(&client.address);
    ensure!(
        !over_net1,
        "requests to the ordinary Service went over net1: {answers:?}"
    );
    narrator.proved(
        "the ordinary Service has no managed EndpointSlice and is served by kube-proxy over eth0, as before",
    );
    Ok(())
}

/// Number of responses by server and client.
#[derive(Debug, Default)]
struct Answers(BTreeMap<(String, IpAddr), usize>);

impl Answers {
    fn curl(target: &str) -> Result<Self> {
        Self::curl_from("client", target)
    }

    fn curl_from(pod: &str, target: &str) -> Result<Self> {
        Self::read(&cluster::kubectl(&Self::command(pod, &Self::script(target)))?)
    }

    fn curl_narrated(narrator: &Narrator, target: &str) -> Result<Self> {
        Self::read(&narrator.kubectl(&Self::command("client", &Self::script(target)))?)
    }

    fn script(target: &str) -> String {
        format!("for i in $(seq {REQUESTS}); do curl -s --max-time 2 http://{target}/; done | sort | uniq -c")
    }

    fn command<'a>(pod: &'a str, script: &'a str) -> [&'a str; 8] {
        ["-n", NAMESPACE, "exec", pod, "--", "sh", "-c", script]
    }

    /// Reads lines of `uniq -c`: count, then what nginx answered.
    fn read(printed: &str) -> Result<Self> {
        let mut answers = Self::default();
        for line in printed.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let [count, "server", server, "client", client] = words[..] else {
                continue;
            };
            let key = (server.trim_end_matches(',').to_owned(), client.parse()?);
            answers
                .0
                .insert(key, count.parse().context("uniq -c printed no count")?);
        }
        Ok(answers)
    }

    fn servers(&self) -> BTreeSet<String> {
        self.0.keys().map(|(server, _)| server.clone()).collect()
    }

    fn clients(&self) -> BTreeSet<IpAddr> {
        self.0.keys().map(|(_, client)| *client).collect()
    }

    fn total(&self) -> usize {
        self.0.values().sum()
    }
}

/// The selector of the EndpointSlices of a Service that our controller wrote.
fn ours(service: &str) -> String {
    format!(
        "{}={service},{}={}",
        api::names::SERVICE_NAME_LABEL,
        api::names::MANAGED_BY_LABEL,
        api::names::MANAGED_BY
    )
}

fn slices(service: &str) -> Result<Vec<Value>> {
    let listed = cluster::kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "endpointslices",
        "-l",
        &ours(service),
        "-o",
        "json",
    ])?;
    let listed: Value = serde_json::from_str(&listed)?;
    Ok(listed["items"].as_array().cloned().unwrap_or_default())
}

fn ready_endpoints(service: &str) -> Result<BTreeSet<IpAddr>> {
    let slices = slices(service)?;
    let endpoints = slices
        .iter()
        .filter_map(|slice| slice["endpoints"].as_array())
        .flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == Value::Bool(true));
    let addresses = ready
        .filter_map(|endpoint| endpoint["addresses"].as_array())
        .flatten();
    addresses
        .map(|address| Ok(address.as_str().unwrap_or_default().parse()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_per_server_and_client() {
        let answers =
            Answers::read("     19 server web-a, client 10.1.0.3\n     21 server web-b, client 10.1.0.3\n")
                .unwrap();
        assert_eq!(answers.total(), 40);
        assert_eq!(
            answers.servers(),
            BTreeSet::from(["web-a".to_owned(), "web-b".to_owned()])
        );
        assert_eq!(answers.clients(), BTreeSet::from(["10.1.0.3".parse().unwrap()]));
    }
}
