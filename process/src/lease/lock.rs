//! The Lease object as a lock: every write carries the version that it is based on.
//!
//! Writes: one Lease. A waiting replica counts the duration on its own clock, from the moment at which it saw the last renewal: the clocks of
//! two nodes may differ.

use super::LeaseOptions;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Time limit for a request: a renewal that hangs fails and is repeated before the Lease of the controller expires, 5 s after it was due.
const REQUEST: Duration = Duration::from_secs(2);

/// The Lease, as one replica knows it.
pub(super) struct Lock {
    leases: Api<Lease>,
    options: LeaseOptions,
    observed: Option<Observed>,
    has_read: bool,
}

/// The last state that was read or written.
struct Observed {
    spec: LeaseSpec,
    version: Option<String>,
    /// When the spec changed last, as far as this replica knows.
    since: Instant,
}

impl Lock {
    pub(super) fn new(client: Client, options: LeaseOptions) -> Self {
        Self {
            leases: Api::namespaced(client, &options.namespace),
            options,
            observed: None,
            has_read: false,
        }
    }

    /// Returns true once the Lease could be read: this process has the right to.
    pub(super) fn has_read(&self) -> bool {
        self.has_read
    }

    /// Acquires the Lease if it has no holder, this holder, or has expired. Returns false if another replica holds it.
    pub(super) async fn acquire(&mut self) -> kube::Result<bool> {
        self.read().await?;
        let Some(observed) = &self.observed else {
            return self.create().await;
        };
        if !is_available(observed, &self.options.holder, Instant::now()) {
            return Ok(false);
        }
        let transitions = observed.spec.lease_transitions.unwrap_or_default();
        let is_new = observed.spec.holder_identity.as_ref() != Some(&self.options.holder);
        self.write(&self.held(transitions.saturating_add(is_new.into())))
            .await
    }

    /// Renews the Lease. Returns false if it has no holder or another one; a Lease that was deleted is created again.
    pub(super) async fn renew(&mut self) -> kube::Result<bool> {
        while self.observed.is_some() {
            if self.write(&json!({ "renewTime": now() })).await? {
                return Ok(true);
            }
            self.read().await?;
            if self.observed.is_some() && !self.is_holder() {
                return Ok(false);
            }
        }
        if self.create().await? {
            return Ok(true);
        }
        // Its creation was slow, and this is what it created; or another replica did.
        self.read().await?;
        Ok(self.is_holder())
    }

    /// Removes the holder, so that a successor need not wait until the Lease expires.
    pub(super) async fn release(&mut self) -> kube::Result<()> {
        let free = json!({ "holderIdentity": null, "acquireTime": null, "renewTime": null, "leaseDurationSeconds": null });
        while self.is_holder() && !self.write(&free).await? {
            self.read().await?;
        }
        Ok(())
    }

    fn is_holder(&self) -> bool {
        let observed = self.observed.as_ref();
        observed.is_some_and(|observed| observed.spec.holder_identity.as_ref() == Some(&self.options.holder))
    }

    fn held(&self, transitions: i32) -> Value {
        let now = now();
        json!({
            "holderIdentity": self.options.holder, "leaseDurationSeconds": self.options.duration.as_secs(),
            "acquireTime": now, "renewTime": now, "leaseTransitions": transitions,
        })
    }

    async fn read(&mut self) -> kube::Result<()> {
        if let Some(lease) = in_time(self.leases.get_opt(&self.options.name)).await? {
            self.observe(lease);
        } else {
            // Its holder does not know yet that it was deleted: the Lease still ends when it expires.
            let (holder, now) = (&self.options.holder, Instant::now());
            self.observed
                .take_if(|observed| is_available(observed, holder, now));
        }
        self.has_read = true;
        Ok(())
    }

    /// Creates the Lease with this holder. Returns false if another replica did.
    async fn create(&mut self) -> kube::Result<bool> {
        let lease = json!({ "metadata": { "name": self.options.name }, "spec": self.held(0) });
        let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        let params = PostParams {
            field_manager: Some(self.options.holder.clone()),
            ..PostParams::default()
        };
        let created = in_time(self.leases.create(&params, &lease)).await;
        self.written(created, &[409])
    }

    /// Changes fields of the spec. Returns false if the Lease changed since it was observed, or was deleted.
    async fn write(&mut self, spec: &Value) -> kube::Result<bool> {
        let version = self
            .observed
            .as_ref()
            .and_then(|observed| observed.version.as_ref());
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "spec": spec }));
        let params = PatchParams {
            field_manager: Some(self.options.holder.clone()),
            ..PatchParams::default()
        };
        let patched = in_time(self.leases.patch(&self.options.name, &params, &patch)).await;
        self.written(patched, &[404, 409])
    }

    /// Returns false for an answer with one of `conflicts`: another client was faster.
    fn written(&mut self, result: kube::Result<Lease>, conflicts: &[u16]) -> kube::Result<bool> {
        match result {
            Ok(lease) => {
                self.observe(lease);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if conflicts.contains(&status.code) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn observe(&mut self, lease: Lease) {
        let spec = lease.spec.unwrap_or_default();
        let unchanged = self.observed.take().filter(|observed| observed.spec == spec);
        self.observed = Some(Observed {
            since: unchanged.map_or_else(Instant::now, |observed| observed.since),
            version: lease.metadata.resource_version,
            spec,
        });
    }
}

/// Returns true if `candidate` may acquire the Lease at `now`.
fn is_available(observed: &Observed, candidate: &str, now: Instant) -> bool {
    let holder = observed.spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = observed.spec.lease_duration_seconds.unwrap_or_default();
    let duration = Duration::from_secs(seconds.try_into().unwrap_or_default());
    holder.is_empty() || holder == candidate || now.duration_since(observed.since) > duration
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// Returns true if the request took longer than its limit.
pub(super) fn is_timeout(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(source) if source.is::<tokio::time::error::Elapsed>())
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let timeout = |elapsed: tokio::time::error::Elapsed| Err(kube::Error::Service(elapsed.into()));
    tokio::time::timeout(REQUEST, request)
        .await
        .unwrap_or_else(timeout)
}
