//! Objects written straight into etcd, a hundred in one transaction: a cluster of 150,000 pods in about a minute.
//!
//! Writes: etcd, without admission and validation. Only for objects that the API server would store as they are: with
//! `apiVersion`, `kind`, `metadata.uid` and `metadata.creationTimestamp`. It reads JSON from etcd beside its own protobuf.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::Apiserver;

/// Operations in one transaction; etcd rejects more than 128.
const BATCH: usize = 100;
/// Transactions at once.
const PARALLEL: usize = 4;

impl Apiserver {
    /// Stores objects under their keys (`/registry/pods/NAMESPACE/NAME`), many in a transaction, before clients watch them: objects of one
    /// transaction share a resource version, and a watch that resumes there misses some.
    pub async fn store(&self, objects: impl IntoIterator<Item = (String, Value)>) -> Result<()> {
        self.store_in_batches(objects, BATCH).await
    }

    /// [`Self::store`] with a resource version for each object, as requests would give it: clients may watch meanwhile.
    pub async fn store_watched(&self, objects: impl IntoIterator<Item = (String, Value)>) -> Result<()> {
        self.store_in_batches(objects, 1).await
    }

    async fn store_in_batches(
        &self,
        objects: impl IntoIterator<Item = (String, Value)>,
        batch: usize,
    ) -> Result<()> {
        let mut flags = self.start.1.iter();
        let url = flags.find_map(|flag| flag.strip_prefix("--etcd-servers="));
        let etcd = Client::try_from(Config::new(url.context("no etcd")?.parse()?))?;
        let batches = objects.into_iter().collect::<Vec<_>>();
        let puts = batches.chunks(batch).map(transaction);
        stream::iter(puts)
            .map(|body| {
                let etcd = etcd.clone();
                async move {
                    let request = http::Request::post("/v3/kv/txn").body(serde_json::to_vec(&body)?)?;
                    let answer: Value = etcd.request(request).await?;
                    anyhow::ensure!(
                        answer["succeeded"] == true,
                        "etcd rejected a transaction: {answer}"
                    );
                    Ok(())
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }
}

fn transaction(objects: &[(String, Value)]) -> Value {
    let puts = objects.iter().map(|(key, object)| {
        json!({"requestPut": {"key": BASE64_STANDARD.encode(key), "value": BASE64_STANDARD.encode(object.to_string())}})
    });
    json!({"success": puts.collect::<Vec<_>>()})
}
