//! An object's labels in little memory.
//!
//! Pure. A sorted array: ten thousand pods with five labels each are held at all times, and a BTreeMap costs five times as much.

use std::collections::BTreeMap;

/// Labels, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(found).map(|(_, value)| &**value)
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl From<Option<BTreeMap<String, String>>> for Labels {
    fn from(labels: Option<BTreeMap<String, String>>) -> Self {
        let sorted = labels.unwrap_or_default().into_iter();
        Self(sorted.map(|(key, value)| (key.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_found_by_its_key_alone() {
        let map = [("tier", "web"), ("app", "nginx"), ("track", "stable")];
        let labels = Labels::from(Some(map.map(|(k, v)| (k.to_owned(), v.to_owned())).into()));
        assert_eq!(labels.get("app"), Some("nginx"));
        assert_eq!(labels.get("tier"), Some("web"));
        assert_eq!(labels.get("ap"), None);
        assert_eq!(Labels::from(None).get("app"), None);
    }
}
