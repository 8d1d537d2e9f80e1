//! Pod selectors of a Service: `spec.selector`, or the selector annotation in the syntax of `kubectl get -l`.
//!
//! Pure. kube-rs builds selectors but reads none from text, so the small grammar of `k8s.io/apimachinery/pkg/labels` is here:
//! comma-separated `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`, `k>1`, `k<1`.

use crate::objects::Labels;
use std::collections::{BTreeMap, BTreeSet};

/// A conjunction of requirements; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
    GreaterThan(String, i64),
    LessThan(String, i64),
}

/// Errors of the selector syntax.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelector {
    /// It would select every pod of the namespace.
    #[error("is empty and would select every pod; write for example app=nginx")]
    Empty,
    /// A requirement that is not of the grammar.
    #[error("{0:?} is no requirement; write for example app=nginx, tier in (web,cache) or !canary")]
    Requirement(String),
    /// A key that no label can have.
    #[error(
        "{0:?} is no label key; write letters, digits, -, _ and ., at most 63, with an optional DNS prefix and /"
    )]
    Key(String),
    /// A value that no label can have.
    #[error("{0:?} is no label value; write letters, digits, -, _ and ., at most 63")]
    Value(String),
}

impl Selector {
    /// The selector of `spec.selector`; none when it is empty.
    pub fn from_map(map: &BTreeMap<String, String>) -> Option<Self> {
        let equal = |(key, value): (&String, &String)| Requirement::In(key.clone(), [value.clone()].into());
        (!map.is_empty()).then(|| Self(map.iter().map(equal).collect()))
    }

    /// Reads the syntax of `kubectl get -l`.
    pub fn parse(text: &str) -> Result<Self, ParseSelector> {
        if text.trim().is_empty() {
            return Err(ParseSelector::Empty);
        }
        split_outside_parentheses(text)
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The labels that must have one of some values.
    pub fn values(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().filter_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((&**key, values)),
            _ => None,
        })
    }

    /// Returns true if an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::DoesNotExist(key) => labels.get(key).is_none(),
            Self::GreaterThan(key, bound) => number(labels, key).is_some_and(|value| value > *bound),
            Self::LessThan(key, bound) => number(labels, key).is_some_and(|value| value < *bound),
        }
    }
}

fn number(labels: &Labels, key: &str) -> Option<i64> {
    labels.get(key)?.parse().ok()
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(text: &str) -> Result<Requirement, ParseSelector> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement::DoesNotExist(label_key(key)?));
    }
    if let Some(end) = text.find(['=', '!', '<', '>', '(', ' ', '\t']) {
        let (key, rest) = text.split_at(end);
        return comparison(key, rest.trim_start())
            .ok_or_else(|| ParseSelector::Requirement(excerpt(text)))?;
    }
    label_key(text).map(Requirement::Exists)
}

/// Returns `None` if `rest` begins with no operator.
fn comparison(key: &str, rest: &str) -> Option<Result<Requirement, ParseSelector>> {
    let one = |value: &str| Ok::<_, ParseSelector>([label_value(value)?].into());
    let bound = |value: &str| {
        value
            .trim()
            .parse()
            .map_err(|_| ParseSelector::Value(excerpt(value)))
    };
    Some(
        if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            label_key(key).and_then(|key| Ok(Requirement::In(key, one(value)?)))
        } else if let Some(value) = rest.strip_prefix("!=") {
            label_key(key).and_then(|key| Ok(Requirement::NotIn(key, one(value)?)))
        } else if let Some(value) = rest.strip_prefix('>') {
            label_key(key).and_then(|key| Ok(Requirement::GreaterThan(key, bound(value)?)))
        } else if let Some(value) = rest.strip_prefix('<') {
            label_key(key).and_then(|key| Ok(Requirement::LessThan(key, bound(value)?)))
        } else if let Some(list) = rest.strip_prefix("notin") {
            let values = parenthesised(list)?;
            label_key(key).and_then(|key| Ok(Requirement::NotIn(key, values?)))
        } else {
            let values = parenthesised(rest.strip_prefix("in")?)?;
            label_key(key).and_then(|key| Ok(Requirement::In(key, values?)))
        },
    )
}

fn parenthesised(text: &str) -> Option<Result<BTreeSet<String>, ParseSelector>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inner.split(',').map(label_value).collect())
}

/// `[DNS subdomain/]name`, as `IsQualifiedName` of apimachinery checks it.
fn label_key(text: &str) -> Result<String, ParseSelector> {
    let text = text.trim();
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_is_valid = prefix.is_none_or(|prefix| {
        let is_label = |label: &str| {
            is_name(label) && !label.contains(['_', '.']) && !label.contains(char::is_uppercase)
        };
        prefix.len() <= 253 && prefix.split('.').all(is_label)
    });
    if prefix_is_valid && is_name(name) {
        Ok(text.to_owned())
    } else {
        Err(ParseSelector::Key(excerpt(text)))
    }
}

fn label_value(text: &str) -> Result<String, ParseSelector> {
    let text = text.trim();
    if text.is_empty() || is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(ParseSelector::Value(excerpt(text)))
    }
}

/// 1 to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && ends
            .iter()
            .all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()))
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// The first 100 characters: an annotation may be 256 KiB, an event message may not.
fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let map: BTreeMap<_, _> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Some(map).into()
    }

    #[rstest]
    #[case::equal("app=web", true)]
    #[case::equal_twice("app==web", true)]
    #[case::spaces(" app = web , tier=front ", true)]
    #[case::other_value("app=db", false)]
    #[case::not_equal("app!=db", true)]
    #[case::not_equal_without_the_label("missing!=x", true)]
    #[case::both_must_hold("app=web,tier=back", false)]
    #[case::one_of("app in (db, web)", true)]
    #[case::one_of_without_a_space("app in(db,web)", true)]
    #[case::none_of("app notin (db,cache)", true)]
    #[case::none_of_without_the_label("missing notin (a)", true)]
    #[case::exists("tier", true)]
    #[case::exists_not("!tier", false)]
    #[case::absent("!missing", true)]
    #[case::greater("rank>2", true)]
    #[case::not_greater("rank > 3", false)]
    #[case::less("rank<10", true)]
    #[case::no_number("app>1", false)]
    #[case::empty_value("empty=", true)]
    #[case::prefixed("example.com/team=red", true)]
    #[case::key_that_begins_like_an_operator("inner=x", true)]
    fn selects_as_kubectl_does(#[case] text: &str, #[case] want: bool) {
        let pod = labels(&[
            ("app", "web"),
            ("tier", "front"),
            ("rank", "3"),
            ("empty", ""),
            ("example.com/team", "red"),
            ("inner", "x"),
        ]);
        assert_eq!(Selector::parse(text).unwrap().matches(&pod), want);
    }

    #[rstest]
    #[case::blank("  ")]
    #[case::trailing_comma("app=web,")]
    #[case::no_key("=web")]
    #[case::two_values("app=web db")]
    #[case::open_list("app in (web")]
    #[case::list_without_parentheses("app in web")]
    #[case::bad_key("-app=web")]
    #[case::bad_prefix("Bad_/app=web")]
    #[case::bad_value("app=we/b")]
    #[case::json(r#"{"app": "web"}"#)]
    #[case::no_bound("rank>many")]
    #[case::unknown_operator("app ~ web")]
    fn a_malformed_selector_is_an_error(#[case] text: &str) {
        let message = Selector::parse(text).unwrap_err().to_string();
        assert!(message.contains("write"), "no remedy in {message:?}");
    }

    #[test]
    fn an_empty_map_selects_nothing() {
        assert_eq!(Selector::from_map(&BTreeMap::new()), None);
    }

    #[test]
    fn a_long_selector_is_truncated_in_the_message() {
        assert!(
            Selector::parse(&"(".repeat(1 << 20))
                .unwrap_err()
                .to_string()
                .len()
                < 400
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error(text in ".*") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn a_map_and_its_text_select_the_same(key in "[a-z]{1,8}", value in "[a-z0-9]{0,8}", other in "[a-z0-9]{0,8}") {
            let from_map = Selector::from_map(&[(key.clone(), value.clone())].into()).unwrap();
            let from_text = Selector::parse(&format!("{key}={value}")).unwrap();
            for pod in [labels(&[(&key, &value)]), labels(&[(&key, &other)]), labels(&[])] {
                prop_assert_eq!(from_map.matches(&pod), from_text.matches(&pod));
            }
        }
    }
}
