//! Verb of a request, as the API server names it (`RequestInfo`).
//!
//! Pure.

use axum::http::{Method, Uri};

/// Returns get, list, watch, create, update, patch, delete or deletecollection; `get` for a path that is no object, such as `/version`.
pub(super) fn of(method: &Method, uri: &Uri) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_collection(uri.path()) => "deletecollection",
        Method::DELETE => "delete",
        _ if !is_collection(uri.path()) => "get",
        _ if is_watch(uri.query().unwrap_or_default()) => "watch",
        _ => "list",
    }
}

fn is_watch(query: &str) -> bool {
    query
        .split('&')
        .any(|parameter| matches!(parameter, "watch=true" | "watch=1" | "watch"))
}

/// Whether a path is that of all objects of a resource, in a namespace or in all.
fn is_collection(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let in_version = match parts.next() {
        Some("api") => parts.next().is_some(),
        Some("apis") => parts.nth(1).is_some(),
        _ => false,
    };
    let mut rest = parts.clone();
    if rest.next() == Some("namespaces") {
        // `namespaces` and `namespaces/NAME` are a resource and an object; what follows is in the namespace.
        if parts.clone().count() > 2 {
            parts.nth(1);
        }
    }
    in_version && parts.count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("GET", "/version", "get")]
    #[case("GET", "/api", "get")]
    #[case("GET", "/api/v1", "get")]
    #[case("GET", "/apis/apps/v1", "get")]
    #[case("GET", "/api/v1/pods?&limit=500", "list")]
    #[case("GET", "/api/v1/namespaces/shop/pods", "list")]
    #[case("GET", "/api/v1/namespaces/shop/pods?&watch=true&resourceVersion=7", "watch")]
    #[case("GET", "/api/v1/nodes?watch=false", "list")]
    #[case("GET", "/api/v1/namespaces", "list")]
    #[case("GET", "/api/v1/namespaces/shop", "get")]
    #[case("GET", "/apis/discovery.k8s.io/v1/endpointslices", "list")]
    #[case("GET", "/apis/apps/v1/namespaces/shop/deployments/web", "get")]
    #[case("GET", "/apis/apps/v1/namespaces/shop/deployments/web/status", "get")]
    #[case("POST", "/api/v1/namespaces/shop/events", "create")]
    #[case("PUT", "/apis/coordination.k8s.io/v1/namespaces/shop/leases/l", "update")]
    #[case("PATCH", "/api/v1/namespaces/shop/services/s/status", "patch")]
    #[case("DELETE", "/api/v1/namespaces/shop/pods/p", "delete")]
    #[case("DELETE", "/api/v1/namespaces/shop/pods", "deletecollection")]
    fn verb_is_that_of_the_api_server(#[case] method: Method, #[case] uri: Uri, #[case] want: &str) {
        assert_eq!(of(&method, &uri), want);
    }
}
