//! promtool accepts the alerts and the dashboard of `config/monitoring`, and the tests of the alerts hold; each alert has a test that
//! fails without it.

use anyhow::{Context as _, Result, ensure};
use olm::{items, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::tools::{self, PROMETHEUS};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/monitoring")
}

/// `spec` of the PrometheusRule, which is a rule file of Prometheus.
fn rules() -> Result<Value> {
    let object = std::fs::read_to_string(folder().join("prometheus-rule.yaml"))?;
    let mut object: Value = serde_saphyr::from_str(&object)?;
    Ok(object["spec"].take())
}

/// Runs promtool beside the rules and their tests; its output, and whether it was content.
fn promtool(rules: &Value, args: &[&str]) -> Result<(bool, String)> {
    let program =
        tools::ensure(&[&PROMETHEUS], &|line| eprintln!("{line}"))?.program(&PROMETHEUS, "promtool")?;
    let scratch = tempfile::tempdir()?;
    std::fs::write(scratch.path().join("rules.yaml"), serde_saphyr::to_string(rules)?)?;
    for name in tests()? {
        std::fs::copy(folder().join("tests").join(&name), scratch.path().join(&name))?;
    }
    let output = Command::new(program)
        .args(args)
        .current_dir(scratch.path())
        .output()
        .context("cannot run promtool")?;
    let output_text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    Ok((output.status.success(), output_text))
}

fn tests() -> Result<Vec<String>> {
    let files = std::fs::read_dir(folder().join("tests"))?;
    let mut names: Vec<_> = files
        .map(|file| Ok(file?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn run_tests(rules: &Value) -> Result<(bool, String)> {
    let names = tests()?;
    let args: Vec<_> = ["test", "rules"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    promtool(rules, &args)
}

#[test]
#[ignore = "level e2e: builds promtool once"]
fn promtool_accepts_the_alerts() -> Result<()> {
    let check = ["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"];
    let (content, output) = promtool(&rules()?, &check)?;
    ensure!(content, "{output}");
    let mut broken = rules()?;
    broken["groups"][0]["rules"][0]["expr"] = "max by (node (up)".into();
    let (content, output) = promtool(&broken, &check)?;
    ensure!(!content && output.contains("parse"), "{output}");
    Ok(())
}

#[test]
#[ignore = "level e2e: builds promtool once"]
fn alerts_are_silent_in_a_healthy_hour_fire_on_their_faults_and_resolve() -> Result<()> {
    let (content, output) = run_tests(&rules()?)?;
    ensure!(content, "{output}");
    Ok(())
}

/// An alert that never fires, and one that always does.
#[test]
#[ignore = "level e2e: builds promtool once"]
fn every_alert_is_tested_in_both_directions() -> Result<()> {
    let rules = rules()?;
    for (group, rule) in positions(&rules) {
        let original = &rules["groups"][group]["rules"][rule];
        let never = format!("({}) and vector(1) > 2", text(original, "/expr"));
        for expression in [never.as_str(), "vector(1)"] {
            let mut broken = rules.clone();
            broken["groups"][group]["rules"][rule]["expr"] = expression.into();
            let (content, output) = run_tests(&broken)?;
            ensure!(
                !content,
                "{} is not tested: {expression}\n{output}",
                text(original, "/alert")
            );
        }
    }
    Ok(())
}

/// Each query as the expression of a recording rule, which promtool parses.
#[test]
#[ignore = "level e2e: builds promtool once"]
fn promtool_accepts_every_query_of_the_dashboard() -> Result<()> {
    let panels = olm::dashboard::rows().into_iter().flat_map(|row| row.panels);
    let queries: Vec<_> = panels
        .flat_map(|panel| panel.queries)
        .map(|(query, _)| query)
        .collect();
    ensure!(queries.len() > 20, "{queries:?}");
    let check = |queries: &[&str]| {
        let record =
            |(index, query): (usize, &&str)| json!({ "record": format!("query_{index}"), "expr": query });
        let recorded: Vec<_> = queries.iter().enumerate().map(record).collect();
        promtool(
            &json!({ "groups": [{ "name": "dashboard", "rules": recorded }] }),
            &["check", "rules", "rules.yaml"],
        )
    };
    let (content, output) = check(&queries)?;
    ensure!(
        content && output.contains(&format!("{} rules found", queries.len())),
        "{output}"
    );
    let (content, output) = check(&["sum by (le (up)"])?;
    ensure!(!content && output.contains("parse"), "{output}");
    Ok(())
}

fn positions(rules: &Value) -> Vec<(usize, usize)> {
    let groups = items(rules, "/groups").enumerate();
    groups
        .flat_map(|(group, value)| (0..items(value, "/rules").count()).map(move |rule| (group, rule)))
        .collect()
}
