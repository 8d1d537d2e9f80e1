//! A node: its machine, its kubelet and kube-proxy, and the files they read.
//!
//! Writes ([`prepare`]): the node's folder in the state directory.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layout::{self, Families, Machine, Node, pki};
use super::machine::{Part, Plan};
use super::options::Choices;
use super::runtime::ConfigFile;
use super::{cgroup, cni};
use crate::control_plane;
use crate::tools::{self, ToolDir};

/// The node as a machine.
pub(super) fn plan(node: Node, choices: &Choices, tools: &ToolDir) -> Result<Plan> {
    let runtime = choices.runtime(node);
    let etc = node.dir().join("etc");
    let kubelet = [
        tools.main(&tools::KUBELET)?.display().to_string(),
        format!("--config={}", etc.join("kubelet.yaml").display()),
        format!(
            "--kubeconfig={}",
            pki().join(format!("{node}.kubeconfig")).display()
        ),
        format!("--hostname-override={node}"),
        format!(
            "--node-ip={}",
            choices.families.join(",", &node.address(), &node.address_v6())
        ),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ];
    let kube_proxy = [
        tools.main(&tools::KUBE_PROXY)?.display().to_string(),
        format!("--config={}", etc.join("kube-proxy.yaml").display()),
    ];
    let part = |name, command: Vec<String>, ready| Part { name, command, ready };
    Ok(Plan {
        machine: Machine::Node(node),
        sysctls: sysctls(choices.families),
        path: runtime.path(tools)?.into_iter().collect(),
        parts: vec![
            part(
                runtime.part(),
                runtime.command(tools, &etc)?,
                Some(vec![
                    "test".to_owned(),
                    "-S".to_owned(),
                    runtime.socket().to_owned(),
                ]),
            ),
            part("kubelet", kubelet.into(), None),
            part("kube-proxy", kube_proxy.into(), None),
        ],
    })
}

/// Folder of static pods of a node's kubelet, as the node sees it and this machine.
pub fn static_pods(node: &str) -> Result<PathBuf> {
    let node = Node::named(node).with_context(|| format!("there is no node {node:?}"))?;
    Ok(static_pods_of(node))
}

fn static_pods_of(node: Node) -> PathBuf {
    node.dir().join("static-pods")
}

/// Writes what the node's programs read, and says whether anything changed.
pub(super) fn prepare(node: Node, choices: &Choices, tools: &ToolDir) -> Result<bool> {
    let dir = node.dir();
    let etc = dir.join("etc");
    fs::create_dir_all(static_pods_of(node))?;
    let mut changed = false;
    for ConfigFile {
        name,
        content,
        executable,
    } in choices.runtime(node).config(tools, &etc)?
    {
        changed |= update(&etc.join(name), &content)?;
        fs::set_permissions(
            etc.join(name),
            fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }),
        )?;
    }
    changed |= update(&etc.join("kubelet.yaml"), &kubelet_config(node, choices))?;
    changed |= update(&etc.join("kube-proxy.yaml"), &kube_proxy_config(node, choices))?;
    // Pods with dnsPolicy Default, CoreDNS itself among them, have no resolver: there is none to reach.
    changed |= update(&etc.join("resolv.conf"), "")?;
    let multus =
        fs::read_to_string(pki().join("multus.kubeconfig")).context("cannot read multus.kubeconfig")?;
    for (name, content) in cni::files(node, choices.families, &multus) {
        changed |= update(&dir.join("cni-conf").join(name), &content)?;
    }
    for tool in [&tools::CNI, &tools::MULTUS, &tools::WHEREABOUTS] {
        link_programs(tools.dir(tool)?, &dir.join("cni-bin"))?;
    }
    Ok(changed)
}

/// Writes a file unless its content is equal: kube-proxy exits on every write of its configuration.
fn update(path: &Path, content: &str) -> Result<bool> {
    if fs::read_to_string(path).is_ok_and(|current| current == content) {
        return Ok(false);
    }
    fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

fn link_programs(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let program = entry?.path();
        let link = to.join(program.file_name().context("a program has a name")?);
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(&program, &link)?;
    }
    Ok(())
}

fn sysctls(families: Families) -> Vec<(String, &'static str)> {
    let mut names = vec!["ipv4/ip_forward", "bridge/bridge-nf-call-iptables"];
    if families == Families::Dual {
        names.extend(["ipv6/conf/all/forwarding", "bridge/bridge-nf-call-ip6tables"]);
    }
    names.into_iter().map(|name| (name.to_owned(), "1")).collect()
}

fn kubelet_config(node: Node, choices: &Choices) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {ca}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix://{socket}
# The machine may have no systemd; and pods belong below the cluster's cgroup, where `cluster down` finds them.
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failCgroupV1: false
failSwapOn: false
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: {resolv}
staticPodPath: {static_pods}
fileCheckFrequency: 5s
volumePluginDir: /var/lib/kubelet/volume-plugins
evictionHard: {{memory.available: 100Mi, nodefs.available: "1%", imagefs.available: "1%"}}
# There is no registry: an image that is collected is gone.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
"#,
        ca = pki().join("ca.crt").display(),
        certificate = pki().join(format!("{node}.crt")).display(),
        key = pki().join(format!("{node}.key")).display(),
        socket = choices.runtime(node).socket(),
        cgroup = cgroup::pods_root(Machine::Node(node)),
        dns = layout::DNS,
        static_pods = static_pods_of(node).display(),
        resolv = node.dir().join("etc/resolv.conf").display(),
    )
}

fn kube_proxy_config(node: Node, choices: &Choices) -> String {
    format!(
        r"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
hostnameOverride: {node}
clusterCIDR: {pods}
clientConnection: {{kubeconfig: {kubeconfig}}}
# These settings belong to the machine, not to a network namespace.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        mode = choices.proxy_mode.as_str(),
        pods = choices
            .families
            .join(",", layout::POD_NETWORK, layout::POD_NETWORK_V6),
        kubeconfig = pki().join("kube-proxy.kubeconfig").display(),
    )
}

/// The Service ranges of the cluster.
pub(super) fn service_cidrs(families: Families) -> &'static str {
    match families {
        Families::Ipv4 => control_plane::SERVICE_CIDR_V4,
        Families::Dual => control_plane::SERVICE_CIDRS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::options::ProxyMode;
    use crate::cluster::runtime::Runtime;
    use serde_json::Value;

    #[test]
    fn the_configurations_are_yaml_that_says_what_was_chosen() {
        let choices = Choices {
            runtimes: [Runtime::Containerd2, Runtime::Crio],
            families: Families::Dual,
            proxy_mode: ProxyMode::Iptables,
        };
        let kubelet: Value = serde_saphyr::from_str(&kubelet_config(Node::ALL[1], &choices)).unwrap();
        assert_eq!(kubelet["containerRuntimeEndpoint"], "unix:///run/crio/crio.sock");
        assert_eq!(kubelet["cgroupRoot"], "/multus-service-bed/node2");
        let proxy: Value = serde_saphyr::from_str(&kube_proxy_config(Node::ALL[1], &choices)).unwrap();
        assert_eq!(proxy["mode"], "iptables");
        assert_eq!(proxy["clusterCIDR"], "10.128.0.0/14,fd00:128::/48");
    }
}
