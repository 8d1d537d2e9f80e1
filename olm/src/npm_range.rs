//! Version ranges as the community catalogs' pipelines read them.
//!
//! Pure. The pipelines evaluate `olm.skipRange` with `NpmSpec` of the Python package `semantic-version`, OLM with other rules. They differ
//! for release candidates: to the pipelines `>=0.1.0-rc.1 <0.1.0` contains 0.1.0. `xtask/tests/bundle.rs` compares this module with the
//! package.

use semver::{Prerelease, Version};
use std::cmp::Ordering;

/// A comparison with a version.
struct Bound {
    operator: Operator,
    version: Version,
    /// Release candidates of other versions than the bound's are outside.
    is_strict: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// True when the range contains the version; `None` when the range is not made of comparisons with whole versions, joined by blanks or
/// `||`.
pub fn contains(range: &str, version: &Version) -> Option<bool> {
    let mut contained = false;
    for alternative in range.split("||") {
        let bounds = alternative
            .split_whitespace()
            .map(Bound::parse)
            .collect::<Option<Vec<_>>>()?;
        contained |= !bounds.is_empty() && matches(bounds, version);
    }
    Some(contained)
}

/// Bounds with a release candidate form a range of their own, in which the other bounds do not count: it ends with the patch version
/// of a lower bound, and begins with the minor version of an upper one. Without their release candidate they count as the others.
fn matches(bounds: Vec<Bound>, version: &Version) -> bool {
    let (mut candidates, mut releases) = (Vec::new(), Vec::new());
    for bound in bounds {
        if bound.version.pre.is_empty() {
            releases.push(bound);
            continue;
        }
        candidates.extend(bound.other_end());
        releases.push(Bound {
            version: core(&bound.version),
            ..bound
        });
        candidates.push(bound);
    }
    let all = |bounds: &[Bound]| bounds.iter().all(|bound| bound.contains(version));
    (!candidates.is_empty() && all(&candidates)) || all(&releases)
}

impl Bound {
    fn parse(comparison: &str) -> Option<Self> {
        let (operator, version) = comparison.split_at(comparison.find(|c: char| c.is_ascii_digit())?);
        let operator = match operator {
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            "" | "=" => Operator::Equal,
            ">=" => Operator::GreaterOrEqual,
            ">" => Operator::Greater,
            _ => return None,
        };
        Some(Self {
            operator,
            version: Version::parse(version).ok()?,
            is_strict: true,
        })
    }

    fn other_end(&self) -> Option<Self> {
        let mut version = core(&self.version);
        let operator = match self.operator {
            Operator::Less | Operator::LessOrEqual => {
                version.patch = 0;
                Operator::GreaterOrEqual
            }
            Operator::Greater | Operator::GreaterOrEqual => {
                version.patch += 1;
                Operator::Less
            }
            Operator::Equal => return None,
        };
        Some(Self {
            operator,
            version,
            is_strict: false,
        })
    }

    fn contains(&self, version: &Version) -> bool {
        if self.is_strict && !version.pre.is_empty() && core(version) != core(&self.version) {
            return false;
        }
        let order = version.cmp_precedence(&self.version);
        match self.operator {
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order.is_le(),
            Operator::Equal => order == Ordering::Equal,
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Greater => order == Ordering::Greater,
        }
    }
}

/// The version without its release candidate.
fn core(version: &Version) -> Version {
    Version {
        pre: Prerelease::EMPTY,
        ..Version::new(version.major, version.minor, version.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    // What `NpmSpec` of semantic-version 2.10.0 answers.
    #[rstest]
    #[case::ends_with_its_end(">=0.1.0-rc.1 <0.1.0", &["0.1.0-rc.1", "0.1.0-rc.2", "0.1.0"])]
    #[case::no_candidate_in_bounds(">=0.1.0 <0.2.0", &["0.1.0", "0.1.1"])]
    #[case::candidate_of_the_bound("<0.2.0", &["0.1.0", "0.1.1", "0.2.0-rc.1"])]
    #[case::candidate_below(">=0.1.0-rc.1 <0.2.0", &["0.1.0-rc.1", "0.1.0-rc.2", "0.1.0", "0.1.1"])]
    #[case::alternatives("0.1.0 || 0.2.0", &["0.1.0", "0.2.0"])]
    fn ranges_are_read_as_by_npmspec(#[case] range: &str, #[case] expected: &[&str]) {
        let versions = [
            "0.1.0-rc.1",
            "0.1.0-rc.2",
            "0.1.0",
            "0.1.1",
            "0.2.0-rc.1",
            "0.2.0",
        ];
        let found = versions.map(|text| (text, contains(range, &Version::parse(text).unwrap()).unwrap()));
        let found: Vec<_> = found
            .iter()
            .filter(|(_, is_in)| *is_in)
            .map(|(text, _)| *text)
            .collect();
        assert_eq!(found, expected, "{range}");
    }

    #[test]
    fn other_syntax_is_not_evaluated() {
        for range in ["~0.1", "^0.1.0", "0.1.x", "1.0.0 - 2.0.0", ">= 0.1.0"] {
            assert_eq!(contains(range, &Version::new(0, 1, 0)), None, "{range}");
        }
    }
}
