//! Names, addresses and paths of the cluster: the one place that knows them.
//!
//! Pure. Everything the cluster leaves on the machine carries one of these names, so that `down` recognises its own
//! without having been there when it was made:
//!
//! | what | name |
//! |---|---|
//! | files and mounts | below [`state`] |
//! | network link of the machine | [`HOST_LINK`]; all others are inside our namespaces |
//! | cgroups | `multus-service-bed`, in every hierarchy |
//! | processes | in those cgroups |
//! | lock | the abstract unix socket `multus-service-bed` |

use std::fmt;
use std::path::{Path, PathBuf};

/// The cgroup, the lock, and the last part of the state directory.
pub const NAME: &str = "multus-service-bed";
/// The machine's end of the link into the cluster.
pub const HOST_LINK: &str = "msb-host";

/// The network of the nodes, and what the machine sees of the cluster.
pub const NODE_NETWORK: &str = "192.168.213.0/24";
/// [`NODE_NETWORK`] for IPv6.
pub const NODE_NETWORK_V6: &str = "fd00:213::/64";
/// Addresses of the control plane.
pub const CONTROL: &str = "192.168.213.1";
/// [`CONTROL`] for IPv6.
pub const CONTROL_V6: &str = "fd00:213::1";
/// The machine itself, on [`HOST_LINK`].
pub const HOST: &str = "192.168.213.254";
/// [`HOST`] for IPv6.
pub const HOST_V6: &str = "fd00:213::fe";
/// The apiserver's port.
pub const APISERVER_PORT: u16 = 6443;
/// All pods' addresses on the default network.
pub const POD_NETWORK: &str = "10.128.0.0/14";
/// [`POD_NETWORK`] for IPv6.
pub const POD_NETWORK_V6: &str = "fd00:128::/48";
/// The address of the Service `kube-system/kube-dns`.
pub const DNS: &str = "172.30.0.10";
/// The interface of each node on the data network: the `master` of a macvlan network attachment.
pub const DATA_LINK: &str = "data0";

/// The directory with everything the cluster writes.
pub fn state() -> &'static Path {
    Path::new("/var/lib/multus-service-bed")
}

/// The folder with certificates and kubeconfig files.
pub fn pki() -> PathBuf {
    state().join("pki")
}

/// The admin's kubeconfig file.
pub fn kubeconfig() -> PathBuf {
    pki().join("admin.kubeconfig")
}

/// The folder with a machine's logs.
pub fn logs(machine: Machine) -> PathBuf {
    state().join("logs").join(machine.name())
}

/// The apiserver's URL.
pub fn apiserver() -> String {
    format!("https://{CONTROL}:{APISERVER_PORT}")
}

/// Address families of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// IPv4 alone, on a kernel without IPv6.
    Ipv4,
    /// Both.
    Dual,
}

impl Families {
    /// `v4`, with `v6` after `separator` when there is IPv6.
    pub fn join(self, separator: &str, v4: &str, v6: &str) -> String {
        match self {
            Self::Ipv4 => v4.to_owned(),
            Self::Dual => format!("{v4}{separator}{v6}"),
        }
    }
}

/// A network namespace with the processes in it: what would be a computer elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// etcd and the control plane; also the switch between the nodes.
    Control,
    /// A node.
    Node(Node),
}

impl Machine {
    /// All, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::Control, Self::Node(Node::ALL[0]), Self::Node(Node::ALL[1])];

    /// `control`, `node1`, `node2`.
    pub fn name(self) -> String {
        match self {
            Self::Control => "control".to_owned(),
            Self::Node(node) => node.to_string(),
        }
    }

    /// The file its network namespace is mounted on.
    pub fn netns(self) -> PathBuf {
        state().join("netns").join(self.name())
    }
}

/// A node, by number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(u8);

impl Node {
    /// Both.
    pub const ALL: [Self; 2] = [Self(1), Self(2)];

    /// The node called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|node| node.to_string() == name)
    }

    /// 0 or 1, for arrays of one value per node.
    pub fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    /// Its address on the node network.
    pub fn address(self) -> String {
        format!("192.168.213.1{}", self.0)
    }

    /// [`Self::address`] for IPv6.
    pub fn address_v6(self) -> String {
        format!("fd00:213::1{}", self.0)
    }

    /// The addresses of its pods on the default network.
    pub fn pods(self) -> String {
        format!("10.128.{}.0/24", self.0)
    }

    /// [`Self::pods`] for IPv6.
    pub fn pods_v6(self) -> String {
        format!("fd00:128:0:{}::/64", self.0)
    }

    /// The other node.
    #[must_use]
    pub fn other(self) -> Self {
        Self(3 - self.0)
    }

    /// Its folder: configuration, disk of its runtime, CNI files.
    pub fn dir(self) -> PathBuf {
        state().join("nodes").join(self.to_string())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    #[test]
    fn every_address_is_in_its_network() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for node in Node::ALL {
            assert!(net(NODE_NETWORK).contains(&node.address().parse::<std::net::IpAddr>().unwrap()));
            assert!(net(NODE_NETWORK_V6).contains(&node.address_v6().parse::<std::net::IpAddr>().unwrap()));
            assert!(net(POD_NETWORK).contains(&net(&node.pods())));
            assert!(net(POD_NETWORK_V6).contains(&net(&node.pods_v6())));
            assert_eq!(Node::named(&node.to_string()), Some(node));
            assert_ne!(node.other().pods(), node.pods());
        }
        for (v4, v6) in [(CONTROL, CONTROL_V6), (HOST, HOST_V6)] {
            assert!(net(NODE_NETWORK).contains(&v4.parse::<std::net::IpAddr>().unwrap()));
            assert!(net(NODE_NETWORK_V6).contains(&v6.parse::<std::net::IpAddr>().unwrap()));
        }
    }
}
