//! Updates of the watched sets, and their application to the index.
//!
//! Pure.

use super::{Index, NodePod};
use crate::cluster_info::{ClusterInfo, NodeInfo};
use api::ObjectName;
use ipnet::IpNet;
use process::watch::Change;
use rules::{NotServed, ServedService, Slice};

/// Change of one of the watched sets.
#[derive(Debug)]
pub enum Update {
    /// Service, or the reason why it is not served.
    Service(Change<(ObjectName, Result<ServedService, NotServed>), ObjectName>),
    /// Slice; `None` when it is ignored.
    Slice(Change<(ObjectName, Option<Slice>), ObjectName>),
    /// Pod by UID; `None` when it is ignored.
    Pod(Change<(String, Option<NodePod>), String>),
    /// Own Node.
    Node(Change<(String, Option<NodeInfo>), String>),
    /// ServiceCIDR; `None` when it cannot be decoded.
    ServiceCidr(Change<(String, Option<Vec<IpNet>>), String>),
}

/// Watched set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Services with our label.
    Services,
    /// Managed EndpointSlices.
    Slices,
    /// Pods of this node.
    Pods,
    /// Own Node.
    Nodes,
    /// ServiceCIDRs.
    ServiceCidrs,
}

impl Kind {
    /// All sets.
    pub const ALL: [Self; 5] = [
        Self::Services,
        Self::Slices,
        Self::Pods,
        Self::Nodes,
        Self::ServiceCidrs,
    ];
}

impl Update {
    /// Returns the set that this update lists completely.
    pub fn lists(&self) -> Option<Kind> {
        match self {
            Self::Service(Change::Reset(_)) => Some(Kind::Services),
            Self::Slice(Change::Reset(_)) => Some(Kind::Slices),
            Self::Pod(Change::Reset(_)) => Some(Kind::Pods),
            Self::Node(Change::Reset(_)) => Some(Kind::Nodes),
            Self::ServiceCidr(Change::Reset(_)) => Some(Kind::ServiceCidrs),
            _ => None,
        }
    }
}

impl Index {
    /// Applies an update. Those of the own Node and of Service ranges update the settings in `cluster_info`.
    pub fn update(&mut self, update: Update, cluster_info: &mut ClusterInfo) {
        let changes_settings = match update {
            Update::Service(change) => {
                match change {
                    Change::Apply((name, service)) => self.apply_service(&name, service),
                    Change::Delete(name) => self.delete_service(&name),
                    Change::Reset(services) => self.reset_services(services),
                }
                false
            }
            Update::Slice(change) => {
                match change {
                    Change::Apply((_, Some(slice))) => self.apply_slice(slice),
                    Change::Apply((name, None)) | Change::Delete(name) => self.delete_slice(&name),
                    Change::Reset(slices) => {
                        self.reset_slices(slices.into_iter().filter_map(|(_, slice)| slice).collect());
                    }
                }
                false
            }
            Update::Pod(change) => {
                match change {
                    Change::Apply((_, Some(pod))) => self.apply_pod(pod),
                    Change::Apply((uid, None)) | Change::Delete(uid) => self.delete_pod(&uid),
                    Change::Reset(pods) => {
                        self.reset_pods(pods.into_iter().filter_map(|(_, pod)| pod).collect());
                    }
                }
                false
            }
            Update::Node(change) => cluster_info.node(change),
            Update::ServiceCidr(change) => cluster_info.service_cidr(change),
        };
        if changes_settings {
            self.apply_settings(cluster_info.settings());
        }
    }
}
