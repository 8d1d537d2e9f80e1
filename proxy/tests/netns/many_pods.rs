//! Many pods at once for scale tests: one interface each, created by few programs.

use super::fake_node::object;
use super::testbed::{Pod, Testbed};
use api::network_status::NetworkStatus;
use k8s_openapi::api::core::v1;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A namespace and its Pod object.
pub(crate) type PodWithObject = (Pod, v1::Pod);

/// Pods with one interface each, created by few programs.
pub(crate) struct ManyPods(Vec<PodWithObject>);

impl ManyPods {
    /// `round` distinguishes names and addresses from those of other sets on the node.
    pub(crate) fn new(node: &str, round: usize, count: usize) -> Self {
        let pods: Vec<_> = (0..count).map(|n| pod(node, round, n)).collect();
        let all = |line: &dyn Fn(&Pod) -> String| pods.iter().map(|(pod, _)| line(pod)).collect::<String>();
        ip(&[], &all(&|pod| format!("netns add {}\n", pod.netns)));
        let link = |pod: &Pod| {
            let netns = &pod.netns;
            format!(
                "link add c{} type veth peer name net1 netns {netns}\n",
                suffix(netns)
            )
        };
        ip(&["-n", node], &all(&link));
        for (pod, _) in &pods {
            let addresses = pod.status[0].addresses.iter();
            let add = addresses.map(|address| {
                format!(
                    "addr add {address}/{} dev net1 nodad\n",
                    if address.is_ipv4() { 16 } else { 64 }
                )
            });
            ip(
                &["-n", &pod.netns],
                &format!("{}link set net1 up\n", add.collect::<String>()),
            );
        }
        Self(pods)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &PodWithObject> {
        self.0.iter()
    }

    /// Returns true if no pod has its link end left on the node; a leaked namespace would keep it.
    pub(crate) fn is_gone(&self, testbed: &Testbed) -> bool {
        let links = testbed
            .open_node()
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let links = links.unwrap();
        self.0
            .iter()
            .all(|(pod, _)| !links.contains(&format!("c{}:", suffix(&pod.netns))))
    }
}

impl Drop for ManyPods {
    fn drop(&mut self) {
        delete(&self.0.iter().collect::<Vec<_>>());
    }
}

/// Deletes namespaces; missing ones are ignored.
pub(crate) fn delete(pods: &[&PodWithObject]) {
    let there = pods
        .iter()
        .filter(|(pod, _)| Path::new("/run/netns").join(&pod.netns).exists());
    let lines: Vec<_> = there.map(|(pod, _)| format!("netns del {}", pod.netns)).collect();
    ip(&[], &lines.join("\n"));
}

fn suffix(netns: &str) -> &str {
    netns.rsplit_once('c').map_or(netns, |(_, suffix)| suffix)
}

fn pod(node: &str, round: usize, n: usize) -> PodWithObject {
    let address = |text: String| text.parse::<IpAddr>().unwrap();
    let pod = Pod {
        netns: format!("{node}c{round}-{n}"),
        host: 7,
        status: vec![NetworkStatus {
            network: "web/macvlan1".to_owned(),
            interface: "net1".to_owned(),
            addresses: vec![
                address(format!("10.1.{}.{}", round + 1, n + 1)),
                address(format!("fd00:1::{}:{}", round + 1, n + 1)),
            ],
        }],
    };
    let object = object(&pod);
    (pod, object)
}

fn ip(arguments: &[&str], lines: &str) {
    let mut child = Command::new("ip");
    let child = child
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{lines}");
}
