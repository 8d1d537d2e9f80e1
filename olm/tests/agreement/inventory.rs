//! docs/developer/tests.md and the tests of all crates agree.

use super::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A table of the page: the folders of its heading, and its rows.
#[derive(Debug, Default)]
struct Section {
    heading: String,
    folders: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

/// The texts between backquotes.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn sections(page: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut in_body = false;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            sections.push(Section {
                heading: heading.to_owned(),
                folders: code(heading),
                ..Section::default()
            });
        }
        let cells = line.strip_prefix('|').filter(|_| in_body);
        if let (Some(section), Some((behaviour, tests))) =
            (sections.last_mut(), cells.and_then(|row| row.split_once('|')))
        {
            section.rows.push((behaviour.trim().to_owned(), code(tests)));
        }
        in_body = line.starts_with("|---") || in_body && line.starts_with('|');
    }
    sections
}

/// Names of all tests below a folder.
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

/// Functions with a test attribute, and those that a macro of proxy/tests/netns turns into tests.
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

fn tests_of(folders: &[String]) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in folders
        .iter()
        .flat_map(|folder| ["src", "tests"].map(|part| root().join(folder).join(part)))
    {
        if folder.is_dir() {
            tests_in(&folder, &mut tests);
        }
    }
    tests
}

/// Faults of a section: names that are no test of its folders, behaviours without a test, and those that occur twice.
fn faults(section: &Section, tests: &BTreeSet<String>) -> Vec<String> {
    let mut rows = BTreeMap::new();
    let mut faults = Vec::new();
    for (behaviour, names) in &section.rows {
        if names.is_empty() {
            faults.push(format!("{behaviour:?} has no test"));
        }
        if rows.insert(behaviour, names).is_some() {
            faults.push(format!("{behaviour:?} occurs twice"));
        }
        let unknown = names.iter().filter(|name| !tests.contains(*name));
        faults
            .extend(unknown.map(|name| format!("{behaviour:?}: {name} is no test of {:?}", section.folders)));
    }
    faults
}

#[test]
fn every_behaviour_has_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/developer/tests.md")).unwrap();
    let sections = sections(&page);
    // A page that cannot be parsed proves nothing. The bounds are those of the former pages.
    for (component, rows) in [
        ("sig-network", 20),
        ("Controller", 50),
        ("Proxy", 60),
        ("Operator", 20),
    ] {
        let of_component = sections
            .iter()
            .filter(|section| section.heading.starts_with(component));
        let found = of_component.map(|section| section.rows.len()).sum::<usize>();
        assert!(found > rows, "{component} has {found} behaviours");
    }
    let faults: Vec<_> = sections
        .iter()
        .flat_map(|section| faults(section, &tests_of(&section.folders)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_behaviour_without_an_existing_test_is_a_fault() {
    let page = "## Proxy (`proxy`)\n\n| behaviour | tests |\n|---|---|\n| a | `x` `y` |\n| b | |\n| a | `x` |\n\nText.\n";
    let [section] = &sections(page)[..] else {
        panic!("one section");
    };
    assert_eq!(
        (&*section.folders, section.rows.len()),
        (&["proxy".to_owned()][..], 3)
    );
    let mut tests = BTreeSet::new();
    collect(
        "#[test]\nfn x() {}\nfn y() {}\nfor_every_backend![\n    z,\n];\n",
        &mut tests,
    );
    assert_eq!(
        tests.iter().filter(|name| !name.is_empty()).collect::<Vec<_>>(),
        ["x", "z"]
    );
    assert_eq!(
        faults(section, &tests),
        [
            "\"a\": y is no test of [\"proxy\"]",
            "\"b\" has no test",
            "\"a\" occurs twice"
        ]
    );
}
