//! Requests of the controller, from the API server's audit log.

use anyhow::Result;
use testbed::apiserver::Apiserver;
use testbed::audit::{Request, service_account};

/// Every finished request of the controller, in the order of their ends.
pub(crate) fn requests(server: &Apiserver) -> Result<Vec<Request>> {
    let controller = service_account("multus-service", "multus-service-controller");
    let mut requests = server.audit_log().requests()?;
    requests.retain(|request| request.user == controller);
    Ok(requests)
}

/// Its requests about EndpointSlices of a namespace.
pub(crate) fn slice_requests(server: &Apiserver, namespace: &str) -> Result<Vec<Request>> {
    let mut requests = requests(server)?;
    requests.retain(|request| request.resource == "endpointslices" && request.namespace == namespace);
    Ok(requests)
}

/// Creates, updates and deletes of slices in a namespace that succeeded.
pub(crate) fn slice_writes(server: &Apiserver, namespace: &str) -> Result<(usize, usize, usize)> {
    let requests = slice_requests(server, namespace)?;
    let succeeded = |verb: &str| requests.iter().filter(|r| r.verb == verb && r.code < 300).count();
    Ok((succeeded("create"), succeeded("update"), succeeded("delete")))
}

/// Writes beside the renewal of the Lease.
pub(crate) fn own_writes(requests: &[Request]) -> Vec<&Request> {
    requests
        .iter()
        .filter(|request| request.is_write() && request.resource != "leases")
        .collect()
}
