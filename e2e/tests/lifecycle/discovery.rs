//! Discovery of the pods of a node by the proxy, with the container runtime of the node.

use crate::proxy::Proxy;
use anyhow::{Context as _, Result, ensure};
use api::names::NETWORK_STATUS_ANNOTATION;
use e2e::demo::scenario::{self, NAMESPACE};
use e2e::traffic::Traffic;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::{cluster, wait};

const PATIENCE: Duration = Duration::from_mins(2);

/// An address of the second network that whereabouts does not reach.
const PLUGGED: &str = "10.1.0.250";

/// All of it, on one node with any runtime. `installed()` comes before.
pub(crate) fn pods_are_found(node: &str) -> Result<()> {
    let found = Found::on(node)?;
    let outcome = found.check();
    found.remove()?;
    outcome
}

struct Found {
    node: String,
    vip: IpAddr,
    manifest: tempfile::NamedTempFile,
}

impl Found {
    fn on(node: &str) -> Result<Self> {
        let manifest = tempfile::NamedTempFile::new()?;
        std::fs::write(manifest.path(), read("pods.yaml")?.replace("NODE", node))?;
        let found = Self {
            node: node.to_owned(),
            vip: scenario::cluster_ip("web")?,
            manifest,
        };
        cluster::kubectl(&["apply", "-f", &found.manifest.path().display().to_string()])?;
        std::fs::write(found.static_file()?, read("static.yaml")?)?;
        Ok(found)
    }

    fn static_file(&self) -> Result<std::path::PathBuf> {
        Ok(cluster::static_pods(&self.node)?.join("static.yaml"))
    }

    fn remove(&self) -> Result<()> {
        std::fs::remove_file(self.static_file()?)?;
        let file = self.manifest.path().display().to_string();
        cluster::kubectl(&["delete", "-f", &file, "--timeout=60s", "--ignore-not-found"])?;
        let gone = || Ok(self.object("static")?.is_none());
        wait::until(PATIENCE, "the static pod to go", gone)
    }

    fn check(&self) -> Result<()> {
        for pod in ["plain", "crashing", "static"] {
            self.wait_until_served(pod)?;
        }
        let ready = ["-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=120s"];
        let waiting = format!("pod/waiting-{}", self.node);
        cluster::kubectl(&[&ready[..], &[&waiting]].concat())?;
        self.crashing_pods_stay_served()?;
        self.host_network_is_left_alone()?;
        self.a_restarted_container_changes_nothing()?;
        self.a_recreated_sandbox_is_served()?;
        self.a_plugged_interface_is_served()
    }

    fn name(&self, pod: &str) -> String {
        format!("{pod}-{}", self.node)
    }

    fn object(&self, pod: &str) -> Result<Option<Value>> {
        let text = cluster::kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            "pod",
            &self.name(pod),
            "-o",
            "json",
            "--ignore-not-found",
        ])?;
        Ok(if text.trim().is_empty() {
            None
        } else {
            Some(serde_json::from_str(&text)?)
        })
    }

    /// Its address on eth0.
    fn address(&self, pod: &str) -> Result<IpAddr> {
        let object = self.object(pod)?.context("there is no such pod")?;
        let address = object["status"]["podIP"]
            .as_str()
            .context("it has no address yet")?;
        Ok(address.parse()?)
    }

    fn inside(&self, pod: &str, script: &str) -> Result<String> {
        let netns = cluster::netns(&self.node, self.address(pod)?)?;
        cluster::node_exec(
            &self.node,
            &["nsenter", &format!("--net={netns}"), "sh", "-c", script],
        )
    }

    /// Response of a web server to a client in the pod's namespace: the client's address.
    fn answer(&self, pod: &str) -> Result<String> {
        self.inside(pod, &format!("curl -sS --fail --max-time 2 http://{}/", self.vip))
    }

    fn wait_until_served(&self, pod: &str) -> Result<()> {
        let began = Instant::now();
        wait::until(PATIENCE, &format!("pod {} to be served", self.name(pod)), || {
            Ok(self.answer(pod)?.contains("client 10.1.0."))
        })?;
        println!(
            "{}: {pod} pod is served, seen after {:.1?}",
            self.node,
            began.elapsed()
        );
        Ok(())
    }

    fn restarts(&self, pod: &str) -> Result<u64> {
        let object = self.object(pod)?.context("there is no such pod")?;
        Ok(object["status"]["containerStatuses"][0]["restartCount"]
            .as_u64()
            .unwrap_or_default())
    }

    fn crashing_pods_stay_served(&self) -> Result<()> {
        wait::until(PATIENCE, "the crashing container to have been restarted", || {
            Ok(self.restarts("crashing")? >= 2)
        })?;
        ensure!(
            self.answer("crashing")?.contains("client 10.1.0."),
            "a crashing pod is served no more"
        );
        Ok(())
    }

    fn state_of(&self, pod: &str) -> Result<Value> {
        let name = format!("{NAMESPACE}/{}", self.name(pod));
        let state = Proxy::on(&self.node)?.state()?;
        let mut pods = state["pods"].as_array().into_iter().flatten();
        Ok(pods
            .find(|pod| pod["pod"] == name.as_str())
            .cloned()
            .unwrap_or_default())
    }

    fn host_network_is_left_alone(&self) -> Result<()> {
        ensure!(
            self.state_of("host")?.is_null(),
            "a host-network pod is taken for an attached one"
        );
        let look = "nft list tables; ip route show table all; iptables-legacy-save 2>/dev/null; true";
        let state = cluster::node_exec(&self.node, &["sh", "-c", look])?;
        let ours = state.lines().find(|line| scenario::is_ours(line));
        ensure!(
            ours.is_none(),
            "{ours:?} is in the node's own namespace:\n{state}"
        );
        Ok(())
    }

    /// The container's process dies; the kubelet starts it again in the same sandbox.
    fn a_restarted_container_changes_nothing(&self) -> Result<()> {
        let before = self.state_of("plain")?;
        let object = self.object("plain")?.context("there is no plain pod")?;
        let client = scenario::attached("app=discovery,pod=plain")?
            .into_iter()
            .next()
            .context("not attached")?;
        let traffic = Traffic::start(&client, SocketAddr::new(self.vip, 80), 50)?;
        let uid = object["metadata"]["uid"].as_str().context("no UID")?;
        let kill = format!(
            "for p in /proc/[0-9]*; do grep -q {uid} $p/cgroup && grep -q sleep $p/comm && kill -9 ${{p#/proc/}}; done; true"
        );
        cluster::node_exec(&self.node, &["sh", "-c", &kill])?;
        wait::until(PATIENCE, "the container to be restarted", || {
            Ok(self.restarts("plain")? == 1)
        })?;
        let report = traffic.stop()?;
        ensure!(report.failed == 0 && report.attempts > 10, "{report}");
        ensure!(
            self.state_of("plain")?["sandbox"] == before["sandbox"],
            "the sandbox is another one"
        );
        Ok(())
    }

    /// The sandbox dies; the kubelet makes another one, with another namespace, for the same pod.
    fn a_recreated_sandbox_is_served(&self) -> Result<()> {
        let before = self.state_of("plain")?;
        let sandbox = before["sandbox"].as_str().context("the sandbox is not known")?;
        cluster::stop_sandbox(&self.node, sandbox)?;
        wait::until(PATIENCE, "another sandbox to have rules", || {
            let now = self.state_of("plain")?;
            Ok(now["uid"] == before["uid"]
                && now["sandbox"] != before["sandbox"]
                && now["progress"] == "Applied")
        })?;
        self.wait_until_served("plain")
    }

    /// An interface that comes while the pod runs, as multus-dynamic-networks-controller brings it; and goes.
    fn a_plugged_interface_is_served(&self) -> Result<()> {
        let address = self.address("plugged")?;
        let netns = cluster::netns(&self.node, address)?;
        let name = Path::new(&netns)
            .file_name()
            .and_then(|name| name.to_str())
            .context("no name")?
            .to_owned();
        let plug = format!(
            "ip link add msbplug link data0 type macvlan mode bridge && ip link set msbplug netns {name} name net1 && ip -n {name} addr add {PLUGGED}/24 dev net1 && ip -n {name} link set net1 up"
        );
        cluster::node_exec(&self.node, &["sh", "-c", &plug])?;
        let eth0 = format!(r#"{{"name":"default","interface":"eth0","ips":["{address}"],"default":true}}"#);
        let net1 = format!(r#"{{"name":"{NAMESPACE}/macvlan1","interface":"net1","ips":["{PLUGGED}"]}}"#);
        self.annotate(&format!("[{eth0},{net1}]"))?;
        wait::until(PATIENCE, "the plugged interface to be used", || {
            Ok(self.answer("plugged")?.contains(&format!("client {PLUGGED}")))
        })?;
        self.annotate(&format!("[{eth0}]"))?;
        wait::until(PATIENCE, "no managed rules to be left", || {
            let rules = self.inside("plugged", "nft list ruleset; ip route show table all")?;
            Ok(!rules.contains(&self.vip.to_string()) && !rules.contains("proto 77"))
        })
    }

    fn annotate(&self, status: &str) -> Result<()> {
        let annotation = format!("{NETWORK_STATUS_ANNOTATION}={status}");
        cluster::kubectl(&[
            "-n",
            NAMESPACE,
            "annotate",
            "--overwrite",
            "pod",
            &self.name("plugged"),
            &annotation,
        ])?;
        Ok(())
    }
}

fn read(manifest: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/discovery")
        .join(manifest);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
