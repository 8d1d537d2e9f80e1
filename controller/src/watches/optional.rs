//! The watch of a kind that can be done without: `ServiceCIDR`, which Kubernetes has since 1.33.
//!
//! Reads only. Where it is not there, or a role of an earlier release does not allow it, the ranges of the command line count, one
//! warning is logged, and requests are rare.

use super::guarded::Guarded;
use super::read;
use crate::index::{Change, Event};
use futures::StreamExt;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher;
use kube::{Api, Client};
use process::watch::{Freshness, Presence, is_not_served, watch_whole};
use tokio::sync::mpsc::Sender;
use tracing::warn;

pub(super) async fn follow_ranges(client: Client, changes: Sender<Change>) {
    let api: Api<Guarded<ServiceCIDR>> = Api::all(client);
    let config = watcher::Config::default();
    let mut events = watch_whole(api, config, Freshness::Cached, Presence::Optional).boxed();
    let (mut was_absent, mut was_listed) = (false, false);
    while let Some(event) = events.next().await {
        let events = match event {
            Ok(event) => {
                let event = read(event);
                // A list that is refused has begun, too.
                was_absent &= event == Event::ListStarted;
                vec![event]
            }
            Err(error) if is_not_served(&error) => {
                if std::mem::replace(&mut was_absent, true) {
                    continue;
                }
                warn!(%error, "ServiceCIDRs cannot be watched: only the ranges of --service-cidrs are refused as endpoints");
                // What was known of them stays; a plan waits for the first list only.
                let empty = vec![Event::ListStarted, Event::ListDone];
                if was_listed { Vec::new() } else { empty }
            }
            Err(error) => {
                warn!(%error, "Watch of ServiceCIDRs failed, trying again");
                Vec::new()
            }
        };
        for event in events {
            was_listed |= event == Event::ListDone;
            let change = Change::ServiceRange(event.map(|object: ServiceCIDR| object.into()));
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}
