//! The command line.

use crate::netns::host_network::HostNetwork;
use crate::report::node_condition::OwnPod;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use process::ProcessArgs;
use rules::{NamespaceIsolation, Node, ReservedAddresses, Settings};
use std::collections::BTreeSet;

/// Makes Services answer on secondary networks, for the pods of one node.
///
/// Watches Services labelled service.kubernetes.io/service-proxy-name=multus-proxy and the EndpointSlices that the controller
/// writes for them, and puts routes and NAT rules into the network namespace of each pod of this node that Multus attached to one
/// of their networks. Stopping it leaves the rules in place and traffic goes on; "cleanup" takes them away.
///
/// Needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN, the socket of the container runtime, and the directory of network namespaces.
#[derive(Parser, Debug)]
#[command(name = "multus-service-proxy", version)]
pub struct Args {
    /// Name of the Node object whose pods are served
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Namespace of the Pod this runs in, on which the condition multusservice.cni.cncf.io/RulesApplied is kept
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", requires = "pod_name")]
    pub pod_namespace: Option<String>,

    /// Name of that Pod; without it the condition is only logged
    #[arg(long, env = "POD_NAME", value_name = "NAME", requires = "pod_namespace")]
    pub pod_name: Option<String>,

    /// Socket of the container runtime [default: the first that answers of CRI-O's and containerd's usual ones]
    #[arg(long, value_name = "PATH", global = true)]
    pub container_runtime_endpoint: Option<String>,

    /// How rules are written into the kernel
    #[arg(long, value_enum, ignore_case = true, default_value_t, value_name = "BACKEND")]
    pub backend: BackendChoice,

    /// Namespaces whose networks any Service may name, as Multus' globalNamespaces
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "default",
        value_name = "NAME,..."
    )]
    pub global_namespaces: Vec<String>,

    /// Whether a Service may name only networks of its own namespace and of the global namespaces
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub network_namespace_isolation: bool,

    /// The cluster's ClusterIP ranges, in which no endpoint can be [default: those of its ServiceCIDR objects]
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    pub service_cidrs: Vec<IpNet>,

    /// Namespaces, which tenants must not be able to write into, where a DaemonSet's pod that runs the archived multus-proxy stops this
    /// proxy on its node; elsewhere such a pod is reported and ignored
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "kube-system",
        value_name = "NAME,..."
    )]
    pub legacy_proxy_namespaces: Vec<String>,

    /// A network, as NAMESPACE/NAME, whose Services are served to the node and its host-network pods by this interface of the node; may be
    /// repeated
    #[arg(long = "host-network", value_name = "NETWORK=INTERFACE")]
    pub host_networks: Vec<HostNetwork>,

    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What all binaries of this project have
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl Args {
    /// Where the archived multus-proxy is believed to run.
    pub fn legacy_namespaces(&self) -> BTreeSet<String> {
        let names = self.legacy_proxy_namespaces.iter();
        names.filter(|name| !name.is_empty()).cloned().collect()
    }

    /// The Pod this runs in, if it does.
    pub fn own_pod(&self) -> Option<OwnPod> {
        Some(OwnPod {
            namespace: self.pod_namespace.clone()?,
            name: self.pod_name.clone()?,
        })
    }

    /// What rules depend on beside objects, for the pods of this node.
    pub fn settings(&self, node_name: &str) -> Settings {
        let names = self.global_namespaces.iter().filter(|name| !name.is_empty());
        let isolated = NamespaceIsolation::Isolated {
            global_namespaces: names.cloned().collect(),
        };
        Settings {
            node: Node {
                name: node_name.to_owned(),
                zone: None,
            },
            isolation: if self.network_namespace_isolation {
                isolated
            } else {
                NamespaceIsolation::Open
            },
            reserved: ReservedAddresses {
                service_cidrs: self.service_cidrs.clone(),
                ..ReservedAddresses::default()
            },
            ..Settings::default()
        }
    }
}

/// Ways of writing rules.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The best that works on this node: NFTables, else IPTables
    #[default]
    #[value(name = "Auto")]
    Auto,
    /// nftables, by netlink in this process: a change costs microseconds, a new flow the same with any number of Services
    #[value(name = "NFTables")]
    NfTables,
    /// The iptables programs, nft or legacy variant by what works
    #[value(name = "IPTables")]
    IpTables,
}

/// Things to do instead of serving.
#[derive(Subcommand, Clone, Copy, Debug)]
pub enum Command {
    /// Remove every route and rule of ours from all pods of this node, then exit
    Cleanup {
        /// Do not exit: be Ready once the node is clean, until asked to stop
        #[arg(long)]
        wait: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn networks_and_ranges_are_spelled_as_for_the_controller() {
        let settings = |args: &[&str]| {
            Args::try_parse_from([&["proxy"], args].concat())
                .unwrap()
                .settings("node-a")
        };
        let isolated = |names: &[&str]| NamespaceIsolation::Isolated {
            global_namespaces: names.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(settings(&[]).isolation, isolated(&["default"]));
        assert_eq!(settings(&["--global-namespaces="]).isolation, isolated(&[]));
        let shared = settings(&["--global-namespaces=default,openshift-multus"]);
        assert_eq!(shared.isolation, isolated(&["default", "openshift-multus"]));
        let open = settings(&[
            "--network-namespace-isolation=false",
            "--service-cidrs=172.30.0.0/16,fd00::/112",
        ]);
        assert_eq!(
            (open.isolation, open.reserved.service_cidrs.len()),
            (NamespaceIsolation::Open, 2)
        );
        assert_eq!(open.node.name, "node-a");
    }

    #[test]
    fn backends_are_spelled_as_in_the_configuration() {
        let parse = |backend| {
            Args::try_parse_from(["proxy", "--backend", backend])
                .map(|args| args.backend)
                .ok()
        };
        assert_eq!(parse("Auto"), Some(BackendChoice::Auto));
        assert_eq!(parse("IPTables"), Some(BackendChoice::IpTables));
        assert_eq!(parse("NFTables"), Some(BackendChoice::NfTables));
        assert_eq!(parse("iptables"), Some(BackendChoice::IpTables));
        assert_eq!(parse("ipvs"), None);
    }

    #[test]
    fn cleanup_takes_the_runtime_socket_too() {
        let args = Args::try_parse_from([
            "proxy",
            "cleanup",
            "--wait",
            "--container-runtime-endpoint",
            "/run/x.sock",
        ])
        .unwrap();
        assert!(matches!(args.command, Some(Command::Cleanup { wait: true })));
        assert_eq!(args.container_runtime_endpoint.as_deref(), Some("/run/x.sock"));
    }
}
