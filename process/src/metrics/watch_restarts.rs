//! Watches that failed and were begun again, by resource.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::LazyLock;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    resource: String,
}

static RESTARTS: LazyLock<Family<Labels, Counter>> = LazyLock::new(Family::default);

pub(super) fn register(registry: &mut Registry) {
    registry.register(
        "watch_restarts",
        "Lists and watches that failed and were begun again",
        RESTARTS.clone(),
    );
}

/// Returns the counter of a resource by the URL of its objects, such as `/apis/apps/v1/namespaces/shop/deployments`. The series exists
/// from then on, so that its first increment is visible to `rate()`.
pub(crate) fn watch_restarts(resource_url: &str) -> Counter {
    let resource = resource_url.rsplit('/').next().unwrap_or_default().to_owned();
    RESTARTS.get_or_create(&Labels { resource }).clone()
}
