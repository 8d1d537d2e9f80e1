//! One apiserver and one controller for the whole test binary; a namespace per test.

mod controller;
mod objects;
mod scene;

pub(crate) use objects::{config, define_networks, merge, node, operands, proxy};
pub(crate) use scene::{Scene, status};

use std::time::Duration;

use anyhow::Result;
use api::names;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use testbed::apiserver::Apiserver;
use testbed::wait;
use tokio::sync::OnceCell;

/// A limit that a busy machine does not meet.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The common server: networks, a configuration, nodes with proxies, a controller that leads.
pub(crate) async fn shared() -> Result<&'static Apiserver> {
    static PREPARED: OnceCell<&'static Apiserver> = OnceCell::const_new();
    PREPARED
        .get_or_try_init(async || {
            let server = Apiserver::shared().await?;
            let client = server.client().await?;
            define_networks(&client).await?;
            operands(&client).await?;
            config(&client, json!({})).await?;
            for name in ["node-1", "node-2", "node-3", "node-4", "node-5"] {
                node(&client, name).await?;
            }
            proxy(
                &client,
                "node-1",
                "True",
                ("True", "Applied", "Rules are applied in 1 pod (backend nftables)"),
            )
            .await?;
            proxy(
                &client,
                "node-2",
                "True",
                (
                    "False",
                    "NoSupportedBackend",
                    "the kernel has neither nf_tables nor ip_tables",
                ),
            )
            .await?;
            proxy(
                &client,
                "node-4",
                "False",
                ("True", "Applied", "Rules are applied in 1 pod (backend nftables)"),
            )
            .await?;
            proxy(
                &client,
                "node-5",
                "True",
                (
                    "False",
                    "PartiallyApplied",
                    "Rules are applied in 1 pod (backend nftables); 1 degraded: pod shop/other: interface net1 is down",
                ),
            )
            .await?;
            controller::start(server.kubeconfig())?;
            let leases: Api<Lease> = Api::namespaced(client, names::NAMESPACE);
            wait::eventually(SOON, "a controller to lead", async || {
                let lease = leases.get_opt(names::CONTROLLER).await?;
                Ok(lease.and_then(|lease| lease.spec?.holder_identity))
            })
            .await?;
            Ok(server)
        })
        .await
        .copied()
}
