//! Command line of the proxy.

use crate::netns::host_network::HostInterface;
use crate::report::node_condition::OwnPod;
use api::address::ReservedAddresses;
use api::names::PROXY_METRICS_PORT;
use api::{NamespaceIsolation, ObjectName};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use process::ProcessArgs;
use process::traces::TraceArgs;
use rules::{Node, Settings};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Serves Kubernetes Services on secondary networks to the pods of one node.
///
/// Watches Services labelled service.kubernetes.io/service-proxy-name=multus-proxy and the EndpointSlices that the controller
/// writes for them, and programs routes and NAT rules in the network namespace of each pod of this node that Multus attached to one
/// of their networks. Rules stay in place when the proxy stops, and traffic continues; "cleanup" removes them.
///
/// Requires root with CAP_NET_ADMIN and CAP_SYS_ADMIN, the socket of the container runtime, and the directory of network namespaces.
#[derive(Parser, Debug)]
#[command(name = "multus-service-proxy", version)]
pub struct Args {
    /// Name of the Node whose pods are served
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Address of that Node, on which metrics are served [default: 127.0.0.1]
    #[arg(long, env = "NODE_IP", value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,

    /// Port of that address on which metrics are served
    #[arg(long, value_name = "PORT", default_value_t = PROXY_METRICS_PORT, value_parser = clap::value_parser!(u16).range(1..), global = true)]
    pub metrics_port: u16,

    /// Namespace of the Pod of this process, which carries the condition multusservice.cni.cncf.io/RulesApplied
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", requires = "pod_name")]
    pub pod_namespace: Option<String>,

    /// Name of the Pod of this process; without it the condition is only logged
    #[arg(long, env = "POD_NAME", value_name = "NAME", requires = "pod_namespace")]
    pub pod_name: Option<String>,

    /// Socket of the container runtime [default: the first of CRI-O's and containerd's standard sockets that responds]
    #[arg(long, value_name = "PATH", global = true)]
    pub container_runtime_endpoint: Option<String>,

    /// Backend that writes rules into the kernel
    #[arg(long, value_enum, ignore_case = true, default_value_t, value_name = "BACKEND")]
    pub backend: BackendChoice,

    /// Namespaces whose networks any Service may use, like Multus' globalNamespaces
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "default",
        value_name = "NAME,..."
    )]
    pub global_namespaces: Vec<String>,

    /// Restrict Services to networks of their own namespace and of the global namespaces
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub network_namespace_isolation: bool,

    /// ClusterIP ranges of the cluster, which cannot contain endpoints [default: those of its ServiceCIDR objects]
    #[arg(long, value_delimiter = ',', value_name = "CIDR,...")]
    pub service_cidrs: Vec<IpNet>,

    /// Namespaces in which a DaemonSet's pod that runs the archived multus-service proxy stops this proxy on its node; tenants must not be
    /// able to create pods in them; in other namespaces such a pod is reported and ignored
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "kube-system",
        value_name = "NAME,..."
    )]
    pub legacy_proxy_namespaces: Vec<String>,

    /// Network, as NAMESPACE/NAME, whose Services are served to the node and its host-network pods through this interface of the node; may
    /// be repeated
    #[arg(long = "host-network", value_name = "NETWORK=INTERFACE")]
    pub host_networks: Vec<HostInterface>,

    /// Command to run instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Arguments of traces
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Arguments of all binaries of this project
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl Args {
    /// Returns the address on which metrics are served: the node's own, because the port is not for other interfaces of the node.
    pub fn metrics_address(&self) -> SocketAddr {
        let address = self.node_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        SocketAddr::new(address, self.metrics_port)
    }

    /// Returns the namespaces in which the archived multus-service proxy is recognized.
    pub fn legacy_namespaces(&self) -> BTreeSet<String> {
        let names = self.legacy_proxy_namespaces.iter();
        names.filter(|name| !name.is_empty()).cloned().collect()
    }

    /// Returns the Pod of this process, if it runs in one.
    pub fn own_pod(&self) -> Option<OwnPod> {
        Some(OwnPod {
            namespace: self.pod_namespace.clone()?,
            name: self.pod_name.clone()?,
        })
    }

    /// Returns the settings of rules for the pods of this node.
    pub fn settings(&self, node_name: &str) -> Settings {
        Settings {
            node: Node {
                name: node_name.to_owned(),
                zone: None,
            },
            isolation: if self.network_namespace_isolation {
                NamespaceIsolation::isolated(&self.global_namespaces)
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

/// Selection of the backend.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The first that the node supports: NFTables, then IPTables
    #[default]
    #[value(name = "Auto")]
    Auto,
    /// nftables through netlink: a change takes microseconds, and the cost of a new flow does not depend on the number of Services
    #[value(name = "NFTables")]
    NfTables,
    /// The iptables programs, in the nft or the legacy variant, whichever the node supports
    #[value(name = "IPTables")]
    IpTables,
}

/// Commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Print the rules and routes in the network namespace of a pod of this node, as the kernel has them, in JSON
    Rules {
        /// The pod
        #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod)]
        pod: ObjectName,
        /// UID of the pod
        #[arg(long, value_name = "UID")]
        uid: String,
    },
    /// Remove all routes and rules of this proxy from all pods of this node and from the node, then exit
    Cleanup {
        /// Do not exit: become Ready once the node is clean, and wait for SIGTERM
        #[arg(long)]
        wait: bool,
    },
}

fn pod(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err(format!("{text:?} is not the name of a pod; write NAMESPACE/NAME")),
    }
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
    fn networks_and_ranges_have_the_syntax_of_the_controller() {
        let settings = |args: &[&str]| {
            Args::try_parse_from([&["proxy"], args].concat())
                .unwrap()
                .settings("node-a")
        };
        let isolated = |names: &[&str]| NamespaceIsolation::isolated(names.iter().copied());
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
    fn backends_have_the_names_of_the_configuration() {
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
    fn metrics_are_served_on_the_address_of_the_node_at_the_chosen_port() {
        let address = |args: &[&str]| {
            let args = Args::try_parse_from([&["proxy", "--node-ip"], args].concat());
            args.map(|args| args.metrics_address().to_string()).ok()
        };
        assert_eq!(address(&["192.0.2.1"]).as_deref(), Some("192.0.2.1:9125"));
        assert_eq!(
            address(&["2001:db8::1", "--metrics-port=9300"]).as_deref(),
            Some("[2001:db8::1]:9300")
        );
        assert_eq!(
            address(&["192.0.2.1", "cleanup", "--wait", "--metrics-port=9300"]).as_deref(),
            Some("192.0.2.1:9300")
        );
        for port in ["0", "65536", "x"] {
            assert_eq!(address(&["192.0.2.1", "--metrics-port", port]), None, "{port}");
        }
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
