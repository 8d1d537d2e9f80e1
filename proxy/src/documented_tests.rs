//! Checks docs/developer/proxy-tests.md: every test that it names exists.

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/developer/proxy-tests.md");
const FOLDERS: [&str; 6] = [
    "src",
    "tests",
    "../api/src",
    "../rules/src",
    "../process/src",
    "../e2e/tests",
];

/// Names of all functions with a test attribute, and of those that a macro makes tests of.
fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            collect(&std::fs::read_to_string(&path).unwrap(), found);
        }
    }
}

fn collect(source: &str, found: &mut BTreeSet<String>) {
    let (mut is_test, mut in_macro) = (false, false);
    for line in source.lines().map(str::trim) {
        let list = line
            .strip_prefix("for_every_backend![")
            .or_else(|| line.strip_prefix("for_every_backend_and_family!["));
        in_macro |= list.is_some();
        if in_macro {
            let names = list.unwrap_or(line).trim_end_matches("];").split(',');
            found.extend(names.map(|name| name.trim().to_owned()));
            in_macro = !line.ends_with("];");
        }
        is_test |= ["#[test]", "#[rstest]"].contains(&line) || line.starts_with("#[tokio::test");
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = function.and_then(|rest| rest.split(['(', '<']).next()) {
            if is_test {
                found.insert(name.to_owned());
            }
            is_test = false;
        }
    }
}

/// Rows of the page's tables: the first cell, and the names in the others.
fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
    let cells = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    cells
        .map(|(first, rest)| (first, rest.split('`').skip(1).step_by(2).collect()))
        .filter(|(first, _): &(&str, Vec<&str>)| *first != "claim")
        .collect()
}

#[test]
fn every_documented_test_exists() {
    let mut tests = BTreeSet::new();
    for folder in FOLDERS {
        tests_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut tests);
    }
    let rows = rows();
    assert!(rows.len() > 25, "the page's tables cannot be read");
    for (row, names) in rows {
        assert!(!names.is_empty(), "row {row:?} names no test");
        for name in names {
            assert!(tests.contains(name), "row {row:?} names {name}, which is no test");
        }
    }
}
