//! Options of a cluster: set once by `up`, stored with the cluster, compared by the next `up`.
//!
//! Writes: `bed.json` in the state directory.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::{Families, Node, state};
use super::runtime::Runtime;
use crate::command;

/// The decisions that a running cluster cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Choices {
    pub(super) runtimes: [Runtime; 2],
    pub(super) families: Families,
    pub(super) proxy_mode: ProxyMode,
}

/// Mode of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProxyMode {
    Nftables,
    Iptables,
}

impl ProxyMode {
    /// The word in kube-proxy's configuration.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl Choices {
    /// Detects the features of the kernel; a fallback is reported, never silent.
    pub(super) fn decide(runtimes: [Runtime; 2], say: &dyn Fn(&str)) -> Self {
        let families = if has_ipv6() {
            Families::Dual
        } else {
            say(
                "WARNING: this kernel has IPv6 switched off: the cluster is IPv4 only, dual-stack is not tested",
            );
            Families::Ipv4
        };
        let proxy_mode = match nftables_works() {
            Ok(()) => ProxyMode::Nftables,
            Err(error) => {
                say(&format!(
                    "WARNING: kube-proxy runs in iptables mode, nftables does not work here: {error:#}"
                ));
                ProxyMode::Iptables
            }
        };
        Self {
            runtimes,
            families,
            proxy_mode,
        }
    }

    /// Returns the options of the cluster in the state directory, if there is one.
    pub(super) fn load() -> Result<Option<Self>> {
        match fs::read_to_string(path()) {
            Ok(text) => {
                let choices = serde_json::from_str(&text);
                let remedy = || format!("{} is damaged: run `cluster down`", path().display());
                Ok(Some(choices.with_context(remedy)?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path().display())),
        }
    }

    pub(super) fn save(&self) -> Result<()> {
        fs::write(path(), serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path().display()))
    }

    pub(super) fn runtime(&self, node: Node) -> Runtime {
        self.runtimes[node.index()]
    }

    /// Rejects runtimes other than those the cluster was made with.
    pub(super) fn check(&self, wanted: Option<[Runtime; 2]>) -> Result<()> {
        if wanted.is_none_or(|wanted| wanted == self.runtimes) {
            return Ok(());
        }
        let [one, two] = self.runtimes;
        bail!(
            "there is a cluster with --runtime node1={one},node2={two}, and a node's runtime cannot be changed: \
             run `cluster up --fresh` with the new choice, or `cluster down` first"
        )
    }
}

fn path() -> PathBuf {
    state().join("bed.json")
}

fn has_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|text| text.trim() == "0")
}

/// Loads a few rules as kube-proxy writes them, in a network namespace of their own.
fn nftables_works() -> Result<()> {
    const RULES: &str = "table ip probe {
        map pick { type ipv4_addr . inet_proto . inet_service : verdict; }
        chain nat { type nat hook prerouting priority -100; fib daddr type local meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 80 }; }
        chain filter { type filter hook input priority 0; ct state new reject with icmp type port-unreachable; }
    }\n";
    let mut nft = Command::new("unshare");
    command::run_with_input(nft.args(["--net", "nft", "-f", "-"]).stdin(Stdio::piped()), RULES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_cluster_keeps_its_runtimes() {
        let choices = Choices {
            runtimes: [Runtime::Containerd1, Runtime::Crio],
            families: Families::Dual,
            proxy_mode: ProxyMode::Nftables,
        };
        assert!(choices.check(None).is_ok());
        assert!(choices.check(Some([Runtime::Containerd1, Runtime::Crio])).is_ok());
        let error = choices
            .check(Some([Runtime::Containerd1, Runtime::Containerd2]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("node2=crio") && error.contains("--fresh"),
            "{error}"
        );
    }

    #[test]
    fn choices_survive_a_restart() {
        let text = r#"{"runtimes":["containerd1","crio"],"families":"dual","proxyMode":"iptables"}"#;
        let choices: Choices = serde_json::from_str(text).unwrap();
        assert_eq!(choices.proxy_mode, ProxyMode::Iptables);
        assert_eq!(serde_json::to_string(&choices).unwrap(), text);
    }
}
