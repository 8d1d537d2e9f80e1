//! Who may read what: the decision without I/O, and the questions to the API server.
//!
//! Pure.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use std::collections::BTreeMap;

/// Identity of OpenShift's Prometheus. Its scrapes do not depend on the API server.
const MONITORING_USER: &str = "system:serviceaccount:openshift-monitoring:prometheus-k8s";

/// Path of the metrics.
const METRICS_PATH: &str = "/metrics";

/// An authenticated client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct User {
    /// Name, `system:serviceaccount:NAMESPACE:NAME` for a service account.
    pub(crate) name: String,
    /// Empty for a client certificate.
    pub(crate) uid: String,
    /// Groups.
    pub(crate) groups: Vec<String>,
    /// What else an authenticator of the API server knows.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// What to do with a request of an authenticated client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Allowed without a question to the API server.
    Allow,
    /// The API server decides.
    Review,
}

/// Decides about a request. `verb` is the method in lower case.
pub(crate) fn decide(user: &User, verb: &str, path: &str) -> Decision {
    if user.name == MONITORING_USER && verb == "get" && path == METRICS_PATH {
        Decision::Allow
    } else {
        Decision::Review
    }
}

/// The question whether `user` may use `verb` on `path`.
pub(crate) fn access_review(user: &User, verb: &str, path: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some(verb.to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// Returns whether the API server allows it.
pub(crate) fn is_allowed(answer: &SubjectAccessReview) -> bool {
    let denied = |status: &k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus| {
        status.denied.unwrap_or_default()
    };
    answer
        .status
        .as_ref()
        .is_some_and(|status| status.allowed && !denied(status))
}

/// The question which user `token` belongs to.
pub(crate) fn token_review(token: &str) -> TokenReview {
    TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: None,
        },
        ..TokenReview::default()
    }
}

/// Returns the user of the token, if it is valid.
pub(crate) fn reviewed_user(answer: TokenReview) -> Option<User> {
    let status = answer.status?;
    if status.authenticated != Some(true) {
        return None;
    }
    let UserInfo {
        username,
        uid,
        groups,
        extra,
    } = status.user?;
    Some(User {
        name: username.filter(|name| !name.is_empty())?,
        uid: uid.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
        extra: extra.unwrap_or_default(),
    })
}

/// Returns the token of a header `Authorization`, if it has one.
pub(crate) fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            groups: vec!["ops".to_owned()],
            ..User::default()
        }
    }

    #[rstest]
    #[case::scrape(MONITORING_USER, "get", "/metrics", Decision::Allow)]
    #[case::another_path(MONITORING_USER, "get", "/state", Decision::Review)]
    #[case::another_verb(MONITORING_USER, "post", "/metrics", Decision::Review)]
    #[case::another_user(
        "system:serviceaccount:openshift-monitoring:prometheus-k8s2",
        "get",
        "/metrics",
        Decision::Review
    )]
    fn only_scrapes_of_the_cluster_monitoring_need_no_review(
        #[case] name: &str,
        #[case] verb: &str,
        #[case] path: &str,
        #[case] decision: Decision,
    ) {
        assert_eq!(decide(&user(name), verb, path), decision);
    }

    #[test]
    fn a_question_names_what_it_is_about() {
        let review = serde_json::to_value(access_review(&user("a"), "get", "/metrics")).unwrap();
        let attributes = json!({"path": "/metrics", "verb": "get"});
        let spec = json!({"user": "a", "groups": ["ops"], "extra": {}, "nonResourceAttributes": attributes});
        assert_eq!(review["spec"], spec);
        let review = serde_json::to_value(token_review("abc")).unwrap();
        assert_eq!(review["spec"], json!({"token": "abc"}));
    }

    #[rstest]
    #[case::allowed(json!({"allowed": true}), true)]
    #[case::not_allowed(json!({"allowed": false}), false)]
    #[case::denied(json!({"allowed": true, "denied": true}), false)]
    fn an_access_needs_an_answer_that_allows_it(#[case] status: Value, #[case] expected: bool) {
        let answer = json!({"metadata": {}, "spec": {}, "status": status});
        assert_eq!(is_allowed(&serde_json::from_value(answer).unwrap()), expected);
        assert!(!is_allowed(&SubjectAccessReview::default()));
    }

    #[rstest]
    #[case::valid(json!({"authenticated": true, "user": {"username": "a", "groups": ["ops"]}}), Some("a"))]
    #[case::invalid(json!({"authenticated": false, "user": {"username": "a"}}), None)]
    #[case::no_answer(json!({"user": {"username": "a"}}), None)]
    #[case::nameless(json!({"authenticated": true, "user": {"username": ""}}), None)]
    fn a_token_needs_an_answer_that_authenticates_it(#[case] status: Value, #[case] name: Option<&str>) {
        let answer = json!({"metadata": {}, "spec": {}, "status": status});
        let found = reviewed_user(serde_json::from_value(answer).unwrap());
        assert_eq!(found, name.map(user));
    }

    #[rstest]
    #[case("Bearer abc", Some("abc"))]
    #[case("bearer  abc ", Some("abc"))]
    #[case("Basic abc", None)]
    #[case("Bearer ", None)]
    #[case("Bearer", None)]
    #[case("", None)]
    fn a_bearer_token_is_read(#[case] header: &str, #[case] token: Option<&str>) {
        assert_eq!(bearer_token(header), token);
    }
}
