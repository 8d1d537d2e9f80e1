//! Application of watch updates to the index.
//!
//! Pure.

use super::Index;
use crate::cluster_info::ClusterInfo;
use crate::watch::{Change, Update};

impl Index {
    /// Applies an update. Those of the own Node and of Service ranges update the settings in `cluster_info`.
    pub fn update(&mut self, update: Update, cluster_info: &mut ClusterInfo) {
        let changes_settings = match update {
            Update::Service(change) => {
                match change {
                    Change::Apply((name, service)) => self.apply_service(&name, service),
                    Change::Delete((name, _)) => self.delete_service(&name),
                    Change::Reset(services) => self.reset_services(services),
                }
                false
            }
            Update::Slice(change) => {
                match change {
                    Change::Apply((_, Some(slice))) => self.apply_slice(slice),
                    Change::Apply((name, None)) | Change::Delete((name, _)) => self.delete_slice(&name),
                    Change::Reset(slices) => {
                        self.reset_slices(slices.into_iter().filter_map(|(_, slice)| slice).collect());
                    }
                }
                false
            }
            Update::Pod(change) => {
                match change {
                    Change::Apply((_, Some(pod))) => self.apply_pod(pod),
                    Change::Apply((uid, None)) | Change::Delete((uid, _)) => self.delete_pod(&uid),
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
