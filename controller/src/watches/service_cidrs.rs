//! The ranges of ClusterIPs.
//!
//! Reads only. Where they cannot be read, those of the command line count.

use super::read;
use crate::index::Change;
use futures::StreamExt;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use process::watch::{Guarded, watch_optional};
use tokio::sync::mpsc::Sender;

pub(super) async fn follow_service_cidrs(client: Client, changes: Sender<Change>) {
    let api: Api<Guarded<ServiceCIDR>> = Api::all(client);
    let without = "only addresses in --service-cidrs are rejected as endpoints";
    let mut events = watch_optional(api, Config::default(), without).boxed();
    while let Some(event) = events.next().await {
        let event = read(event).map(|object: ServiceCIDR| object.into());
        if changes.send(Change::ServiceCidr(event)).await.is_err() {
            return;
        }
    }
}
