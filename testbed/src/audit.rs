//! Audit log of the apiserver, parsed.
//!
//! Writes: nothing. Works for the two-node cluster ([`crate::cluster::audit_log`]) and a lone apiserver
//! ([`crate::apiserver::Apiserver::audit_log`]). A request is in the log when its answer has been sent; a watch is in it
//! once when it starts and once when it ends.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let log = testbed::cluster::audit_log().from_now()?;
//! // ... a minute without changes ...
//! let controller = testbed::audit::service_account("multus-service", "multus-service-controller");
//! assert_eq!(log.requests()?.iter().filter(|r| r.is_write() && r.user == controller && r.resource != "leases").count(), 0);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::log_file;

/// The log, from some moment on.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
    from: usize,
}

/// One answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// User of the request; for an impersonated request, the impersonated user.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural, with its subresource: `pods/status`.
    pub resource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Empty for a list, and for a create by `generateName`.
    pub name: String,
    /// HTTP status.
    pub code: u16,
}

/// The user name of a service account.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl Log {
    /// Returns the entries since the apiserver started.
    pub fn whole(path: PathBuf) -> Self {
        Self { path, from: 0 }
    }

    /// Returns the same log from now on. A line that is half written now began before.
    pub fn from_now(self) -> Result<Self> {
        let from = log_file::complete_lines(&self.path, 0)?.len();
        Ok(Self { from, ..self })
    }

    /// The requests answered since, in the order of their answers.
    pub fn requests(&self) -> Result<Vec<Request>> {
        self.parsed(|event| Ok(request(serde_json::from_str(event)?)))
    }

    /// The same as `audit.k8s.io/v1` Events, for what [`Request`] lacks: times, the URI, the client.
    pub fn events(&self) -> Result<Vec<Value>> {
        self.parsed(|event| Ok(serde_json::from_str(event)?))
    }

    fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
        let text = log_file::complete_lines(&self.path, self.from)?;
        let lines = text.lines();
        lines
            .map(|line| parse(line).with_context(|| format!("not an audit event: {line}")))
            .collect()
    }

    /// Returns the number of writes by each user since then.
    pub fn writes_per_user(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for request in self.requests()?.into_iter().filter(Request::is_write) {
            *counts.entry(request.user).or_default() += 1;
        }
        Ok(counts)
    }
}

impl Request {
    /// True for a request that changes an object, also when it was rejected.
    pub fn is_write(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch")
    }

    /// True for a request that an authorizer or an admission policy rejected.
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }
}

/// The fields of `audit.k8s.io/v1` Event that we read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

fn request(event: Event) -> Request {
    let object = event.object_ref;
    let resource = match &*object.subresource {
        "" => object.resource,
        subresource => format!("{}/{subresource}", object.resource),
    };
    Request {
        user: event.impersonated_user.unwrap_or(event.user).username,
        verb: event.verb,
        group: object.api_group,
        resource,
        namespace: object.namespace,
        name: object.name,
        code: event.response_status.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const BEFORE: &str =
        r#"{"kind":"Event","verb":"get","user":{"username":"admin"},"requestURI":"/readyz"}"#;
    const PATCH: &str = r#"{"verb":"patch","user":{"username":"admin"},"impersonatedUser":{"username":"alice"},
        "objectRef":{"resource":"pods","namespace":"a","name":"b","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":403}}"#;

    #[test]
    fn only_complete_lines_of_later_are_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{BEFORE}").unwrap();
        let log = Log::whole(file.path().to_owned()).from_now().unwrap();
        assert_eq!(log.requests().unwrap(), []);
        write!(file, "{}\n{}", PATCH.replace('\n', ""), &BEFORE[..20]).unwrap();

        let requests = log.requests().unwrap();

        let want = Request {
            user: "alice".to_owned(),
            verb: "patch".to_owned(),
            group: String::new(),
            resource: "pods/status".to_owned(),
            namespace: "a".to_owned(),
            name: "b".to_owned(),
            code: 403,
        };
        assert_eq!(requests, [want]);
        assert!(requests[0].is_write() && requests[0].is_forbidden());
        assert_eq!(
            log.writes_per_user().unwrap(),
            BTreeMap::from([("alice".to_owned(), 1)])
        );
        let whole = Log::whole(file.path().to_owned());
        assert_eq!(whole.requests().unwrap().len(), 2);
        assert_eq!(whole.events().unwrap().len(), 2);
    }

    #[test]
    fn a_log_that_shrank_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{BEFORE}").unwrap();
        let log = Log::whole(file.path().to_owned()).from_now().unwrap();
        file.as_file().set_len(0).unwrap();
        assert!(log.requests().unwrap_err().to_string().contains("rotated"));
    }
}
