//! `spec.monitoring` with all defaults applied.
//!
//! Pure. The schema bounds labels and their values; keys of a map it cannot constrain.

use super::FieldError;
use api::config::{MonitoringSpec, MonitoringState};
use std::collections::BTreeMap;

/// Objects of prometheus-operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monitoring {
    /// Labels that are added to them.
    pub labels: BTreeMap<String, String>,
    /// True for the Prometheus of OpenShift's platform.
    pub is_openshift: bool,
}

/// Applies the defaults; `None` when no object is wanted.
pub(super) fn complete(spec: MonitoringSpec, is_openshift: bool) -> Result<Option<Monitoring>, FieldError> {
    let MonitoringSpec {
        management_state,
        labels,
    } = spec;
    let labels = labels.unwrap_or_default();
    if let Some(key) = labels.keys().find(|key| !is_label_key(key)) {
        return Err(FieldError::NoLabelKey(key.clone()));
    }
    let is_managed = management_state.unwrap_or_default() == MonitoringState::Managed;
    Ok(is_managed.then_some(Monitoring { labels, is_openshift }))
}

/// Kubernetes' rules for keys of labels: `name`, or `prefix/name` with a DNS subdomain.
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let in_prefix = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let is_subdomain =
        |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|part| is_word(part, in_prefix));
    prefix.is_none_or(is_subdomain) && name.len() <= 63 && is_word(name, in_name)
}

/// Begins and ends with a letter or digit.
fn is_word(text: &str, is_allowed: impl Fn(char) -> bool) -> bool {
    let ends = [text.chars().next(), text.chars().last()];
    let is_end = |letter: &Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    ends.iter().all(is_end) && text.chars().all(is_allowed)
}
