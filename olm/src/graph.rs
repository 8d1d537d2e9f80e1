//! The update graph of a file-based catalog, as OLM v0 evaluates it.
//!
//! Pure. OLM v0 updates an installed version to one that `replaces` it, names it in `skips` or covers it with `skipRange`; of
//! several it takes the one nearest to the head of the channel. The fields of a ClusterServiceVersion are ignored.

use crate::{items, text};
use semver::Version;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// A channel: entries in the order of the file.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The channel's name.
    pub name: String,
    /// Its versions.
    pub entries: Vec<Entry>,
}

/// A version in a channel.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Name of the ClusterServiceVersion.
    pub name: String,
    /// The replaced version.
    #[serde(default)]
    pub replaces: Option<String>,
    /// Skipped versions.
    #[serde(default)]
    pub skips: Vec<String>,
    /// A range of versions that are updated to this one: comparisons joined by blanks, such as `>=0.1.0 <0.2.0`.
    #[serde(default)]
    pub skip_range: Option<String>,
}

/// An invalid channel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// The channel does not have exactly one entry that no other replaces or skips.
    #[error("channel {channel} must have exactly one head, found {heads:?}")]
    Heads {
        /// The channel.
        channel: String,
        /// Entries that no other replaces or skips.
        heads: Vec<String>,
    },
    /// An update path does not reach the head.
    #[error("channel {channel}: updates of {from} end at {end}, not at the head")]
    Stranded {
        /// The channel.
        channel: String,
        /// The first version of the path.
        from: String,
        /// The last version of the path.
        end: String,
    },
    /// An update leads to a skipped version.
    #[error("channel {channel}: {from} is updated to {to}, which is skipped")]
    ToSkipped {
        /// The channel.
        channel: String,
        /// The installed version.
        from: String,
        /// The skipped version.
        to: String,
    },
    /// An invalid range.
    #[error("invalid skipRange {0:?}: specify comparisons such as \">=0.1.0 <0.2.0\"")]
    Range(String),
}

/// The channels among a catalog's blobs.
pub fn channels(blobs: &[Value]) -> Vec<Channel> {
    blobs
        .iter()
        .filter(|blob| text(blob, "/schema") == "olm.channel")
        .filter_map(|blob| serde_json::from_value(blob.clone()).ok())
        .collect()
}

/// The default channel of a catalog's package.
pub fn default_channel(blobs: &[Value]) -> &str {
    blobs
        .iter()
        .map(|blob| text(blob, "/defaultChannel"))
        .find(|name| !name.is_empty())
        .unwrap_or_default()
}

/// Names of the bundles that a catalog's blobs contain or refer to.
pub fn bundles(blobs: &[Value]) -> BTreeSet<&str> {
    blobs
        .iter()
        .filter(|blob| text(blob, "/schema") == "olm.bundle")
        .map(|blob| text(blob, "/name"))
        .collect()
}

/// Names that deprecations refer to.
pub fn deprecated(blobs: &[Value]) -> Vec<&str> {
    blobs
        .iter()
        .filter(|blob| text(blob, "/schema") == "olm.deprecations")
        .flat_map(|blob| items(blob, "/entries"))
        .map(|entry| text(entry, "/reference/name"))
        .collect()
}

impl Channel {
    /// A channel of versions that were candidates before.
    pub fn is_stable(&self) -> bool {
        self.name.starts_with("stable-")
    }

    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The version of new installations.
    pub fn head(&self) -> Result<&Entry, Fault> {
        let passed: BTreeSet<&str> = self
            .entries
            .iter()
            .flat_map(|entry| entry.replaces.iter().chain(&entry.skips))
            .map(String::as_str)
            .collect();
        let heads: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| !passed.contains(entry.name.as_str()))
            .collect();
        match heads[..] {
            [head] => Ok(head),
            _ => Err(Fault::Heads {
                channel: self.name.clone(),
                heads: heads.iter().map(|entry| entry.name.clone()).collect(),
            }),
        }
    }

    /// The chain of `replaces` from the head down.
    fn chain(&self) -> Result<Vec<&Entry>, Fault> {
        let mut chain = vec![self.head()?];
        while let Some(before) = chain
            .last()
            .and_then(|entry| self.entry(entry.replaces.as_deref()?))
            .filter(|before| !chain.contains(before))
        {
            chain.push(before);
        }
        Ok(chain)
    }

    /// The next version after an installed one, which may have left the channel.
    pub fn next(&self, installed: &str) -> Result<Option<&Entry>, Fault> {
        for entry in self.chain()? {
            if entry.name != installed && entry.comes_after(installed)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Every version on the update path of an installed one.
    pub fn walk(&self, installed: &str) -> Result<Vec<&Entry>, Fault> {
        let mut path: Vec<&Entry> = Vec::new();
        let mut at = installed;
        while let Some(next) = self.next(at)? {
            if path.contains(&next) {
                break;
            }
            path.push(next);
            at = &next.name;
        }
        Ok(path)
    }

    /// Checks the update path of every version, skipped ones included.
    pub fn simulate(&self) -> Result<(), Fault> {
        let head = self.head()?;
        // Also versions on no path.
        for range in self
            .entries
            .iter()
            .filter_map(|entry| entry.skip_range.as_deref())
        {
            covers(range, &Version::new(0, 0, 0))?;
        }
        let named = self
            .entries
            .iter()
            .flat_map(|entry| entry.replaces.iter().chain(&entry.skips).chain([&entry.name]));
        let skipped: BTreeSet<_> = self.entries.iter().flat_map(|entry| &entry.skips).collect();
        for from in named.collect::<BTreeSet<_>>() {
            let path = self.walk(from)?;
            let mut before = from.as_str();
            for entry in &path {
                if skipped.contains(&entry.name) {
                    return Err(Fault::ToSkipped {
                        channel: self.name.clone(),
                        from: before.to_owned(),
                        to: entry.name.clone(),
                    });
                }
                before = &entry.name;
            }
            if before != head.name {
                return Err(Fault::Stranded {
                    channel: self.name.clone(),
                    from: from.clone(),
                    end: before.to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Entry {
    fn comes_after(&self, installed: &str) -> Result<bool, Fault> {
        if self.replaces.as_deref() == Some(installed)
            || self.skips.iter().any(|skipped| skipped == installed)
        {
            return Ok(true);
        }
        match (&self.skip_range, version(installed)) {
            (Some(range), Some(version)) => covers(range, &version),
            _ => Ok(false),
        }
    }
}

/// Parses the version in a ClusterServiceVersion's name.
fn version(name: &str) -> Option<Version> {
    Version::parse(name.split_once(".v")?.1).ok()
}

/// True when a range covers a version. Prereleases count like others (the `semver` crate's ranges exclude them, OLM's do not).
fn covers(range: &str, version: &Version) -> Result<bool, Fault> {
    let fault = || Fault::Range(range.to_owned());
    let mut covered = true;
    for comparison in range.split_whitespace() {
        let digits = comparison.find(|c: char| c.is_ascii_digit()).ok_or_else(fault)?;
        let (operator, bound) = comparison.split_at(digits);
        let order = version.cmp_precedence(&Version::parse(bound).map_err(|_| fault())?);
        covered &= match operator {
            ">=" => order.is_ge(),
            ">" => order.is_gt(),
            "<=" => order.is_le(),
            "<" => order.is_lt(),
            "=" | "==" | "" => order.is_eq(),
            "!=" | "!" => order.is_ne(),
            _ => return Err(fault()),
        };
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn channel(entries: &Value) -> Channel {
        serde_json::from_value(json!({"name": "stable", "entries": entries})).unwrap()
    }

    fn names<'a>(path: &[&'a Entry]) -> Vec<&'a str> {
        path.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn withdrawn_version_is_skipped_and_updated() {
        let channel = channel(&json!([
            {"name": "p.v0.1.0"},
            {"name": "p.v0.2.0", "replaces": "p.v0.1.0"},
            {"name": "p.v0.2.1", "replaces": "p.v0.1.0", "skips": ["p.v0.2.0"]},
            {"name": "p.v0.3.0", "replaces": "p.v0.2.1"},
        ]));
        assert_eq!(
            names(&channel.walk("p.v0.1.0").unwrap()),
            ["p.v0.2.1", "p.v0.3.0"]
        );
        assert_eq!(
            names(&channel.walk("p.v0.2.0").unwrap()),
            ["p.v0.2.1", "p.v0.3.0"]
        );
        assert_eq!(channel.simulate(), Ok(()));
    }

    #[test]
    fn skip_range_updates_to_the_head_at_once() {
        let channel = channel(&json!([
            {"name": "p.v0.1.0"},
            {"name": "p.v0.2.0", "replaces": "p.v0.1.0"},
            {"name": "p.v0.3.0", "replaces": "p.v0.2.0", "skipRange": ">=0.1.0-rc.1 <0.3.0"},
        ]));
        for from in ["p.v0.1.0-rc.1", "p.v0.1.0", "p.v0.1.7", "p.v0.2.0"] {
            assert_eq!(names(&channel.walk(from).unwrap()), ["p.v0.3.0"], "{from}");
        }
        assert_eq!(names(&channel.walk("p.v0.0.9").unwrap()), [""; 0]);
    }

    #[rstest]
    #[case::two_heads(json!([{"name": "p.v1.0.0"}, {"name": "p.v2.0.0"}]),
        Fault::Heads { channel: "stable".into(), heads: vec!["p.v1.0.0".into(), "p.v2.0.0".into()] })]
    #[case::a_circle(json!([{"name": "p.v1.0.0", "replaces": "p.v2.0.0"}, {"name": "p.v2.0.0", "replaces": "p.v1.0.0"}]),
        Fault::Heads { channel: "stable".into(), heads: vec![] })]
    #[case::a_hole(json!([{"name": "p.v1.0.0"}, {"name": "p.v2.0.0", "replaces": "p.v1.5.0"}, {"name": "p.v3.0.0", "replaces": "p.v2.0.0", "skips": ["p.v1.0.0"]},
        {"name": "p.v1.5.0", "replaces": "p.v1.4.0", "skips": []}, {"name": "p.v4.0.0", "replaces": "p.v3.0.0", "skips": ["p.v3.0.0"]}]),
        Fault::ToSkipped { channel: "stable".into(), from: "p.v1.0.0".into(), to: "p.v3.0.0".into() })]
    #[case::no_range(json!([{"name": "p.v1.0.0"}, {"name": "p.v2.0.0", "replaces": "p.v1.0.0", "skipRange": "~1"}]), Fault::Range("~1".into()))]
    fn invalid_update_graph_is_reported(#[case] entries: Value, #[case] fault: Fault) {
        assert_eq!(channel(&entries).simulate(), Err(fault));
    }
}
