//! The workflows on GitHub run what a developer runs, with the least rights.

use super::root;
use serde_json::Value;
use std::collections::BTreeSet;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// (path, content) of the YAML files in a folder of `.github`.
fn files(folder: &str) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().display()));
    let is_yaml = |path: &String| matches!(path.rsplit('.').next(), Some("yaml" | "yml"));
    let yaml = paths.filter(is_yaml);
    yaml.map(|path| (path.clone(), serde_saphyr::from_str(&read(&path)).unwrap()))
        .collect()
}

/// What a step may call: targets of the Makefile, and levels of `.ci/levels`.
struct Commands {
    targets: BTreeSet<String>,
    levels: BTreeSet<String>,
}

impl Commands {
    fn read() -> Self {
        let makefile = read("Makefile");
        let phony = makefile.lines().filter_map(|line| line.strip_prefix(".PHONY: "));
        let levels = read(".ci/levels");
        let list = levels
            .split("there are: ")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        Self {
            targets: phony.map(str::to_owned).collect(),
            levels: list.split(' ').map(str::to_owned).collect(),
        }
    }

    /// The fault of a command: it is no target, and no level.
    fn fault(&self, command: &str) -> Option<String> {
        let words: Vec<_> = command.split_whitespace().collect();
        let is_setting = |word: &str| word.contains('=');
        // `sudo env NAME=VALUE... COMMAND`.
        let words = match &words[..] {
            ["sudo", "env", rest @ ..] => rest.iter().copied().skip_while(|word| is_setting(word)).collect(),
            _ => words,
        };
        let unknown = |names: &[&str], known: &BTreeSet<String>| {
            let mut names = names.iter().filter(|name| !is_setting(name));
            names
                .find(|name| !known.contains(**name))
                .map(|name| format!("{name} does not exist: {command}"))
        };
        match &words[..] {
            ["make", targets @ ..] => unknown(targets, &self.targets),
            [".ci/levels", levels @ ..] => unknown(levels, &self.levels),
            _ => Some(format!("is neither a target nor a level: {command}")),
        }
    }
}

fn is_pinned(action: &str) -> bool {
    let version = action.rsplit_once('@').map_or("", |(_, version)| version);
    let major = version.strip_prefix('v').unwrap_or_default();
    let is_commit = version.len() == 40 && version.chars().all(|digit| digit.is_ascii_hexdigit());
    action.starts_with("./")
        || is_commit
        || (!major.is_empty() && major.chars().all(|digit| digit.is_ascii_digit()))
}

fn step_faults(step: &Value, commands: &Commands) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(script) = step["run"].as_str() {
        faults.extend(script.lines().filter_map(|command| commands.fault(command)));
    }
    if let Some(action) = step["uses"].as_str() {
        if !is_pinned(action) {
            faults.push(format!("{action} has neither a major version nor a commit"));
        }
        if action.starts_with("actions/checkout@") && step["with"]["persist-credentials"] != false {
            faults
                .push("checkout leaves the token to every later step: persist-credentials: false".to_owned());
        }
    }
    faults
}

fn faults(workflow: &Value, commands: &Commands) -> Vec<String> {
    let mut faults = Vec::new();
    if workflow["permissions"] != serde_json::json!({"contents": "read"}) {
        faults.push("permissions of the workflow are not contents: read; a job may have more".to_owned());
    }
    for (name, job) in workflow["jobs"].as_object().unwrap() {
        if !job["timeout-minutes"].is_u64() {
            faults.push(format!("{name} has no timeout-minutes"));
        }
        let steps = job["steps"].as_array().into_iter().flatten();
        faults.extend(steps.flat_map(|step| step_faults(step, commands)));
    }
    faults
}

#[test]
fn workflows_run_targets_of_the_makefile_with_the_least_rights() {
    let commands = Commands::read();
    assert!(commands.targets.len() > 20, "{:?}", commands.targets);
    let workflows = files(".github/workflows");
    assert!(workflows.len() >= 3);
    for (path, workflow) in workflows {
        assert_eq!(faults(&workflow, &commands), Vec::<String>::new(), "{path}");
    }
    let setup: Value = serde_saphyr::from_str(&read(".github/actions/setup/action.yaml")).unwrap();
    for step in setup["runs"]["steps"].as_array().unwrap() {
        assert_eq!(step_faults(step, &commands), Vec::<String>::new());
    }
}

#[test]
fn ci_runs_every_level() {
    let ci = read(".github/workflows/ci.yaml");
    for level in Commands::read().levels {
        let ways = [
            format!("make {level}\n"),
            format!("make test-{level}\n"),
            format!(".ci/levels {level}\n"),
        ];
        assert!(
            ways.iter().any(|way| ci.contains(way)),
            "no job runs level {level}"
        );
    }
}

#[test]
fn a_workflow_with_a_fault_is_rejected() {
    let commands = Commands::read();
    let found = |workflow: &str| faults(&serde_saphyr::from_str(workflow).unwrap(), &commands);
    let workflow = |permissions: &str, job: &str| {
        format!(
            "permissions: {permissions}\njobs:\n  a:\n    timeout-minutes: 1\n    steps:\n      - {job}\n"
        )
    };
    let good = workflow(
        "{contents: read}",
        "run: sudo env \"HOME=/root\" make test-fast A=b",
    );
    assert_eq!(found(&good), Vec::<String>::new());
    for (workflow, words) in [
        (workflow("write-all", "run: make test"), "permissions"),
        (
            workflow("{contents: read}", "run: make absent"),
            "absent does not exist",
        ),
        (
            workflow("{contents: read}", "run: .ci/levels absent"),
            "absent does not exist",
        ),
        (
            workflow("{contents: read}", "run: cargo test"),
            "neither a target nor a level",
        ),
        (
            workflow("{contents: read}", "uses: a/b@main"),
            "neither a major version nor a commit",
        ),
        (
            workflow("{contents: read}", "uses: actions/checkout@v6"),
            "persist-credentials",
        ),
        (good.replace("    timeout-minutes: 1\n", ""), "timeout-minutes"),
    ] {
        let found = found(&workflow);
        assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
    }
}

/// GitHub ignores a template that it cannot read.
#[test]
fn forms_and_updates_can_be_read() {
    for (path, form) in files(".github/ISSUE_TEMPLATE") {
        if path.ends_with("config.yml") {
            assert!(form["contact_links"].is_array(), "{path}");
            continue;
        }
        let fields = form["body"].as_array().unwrap();
        assert!(
            form["name"].is_string() && form["description"].is_string(),
            "{path}"
        );
        let ids: BTreeSet<_> = fields.iter().map(|field| field["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), fields.len(), "{path} has an id twice");
    }
    let updates: Value = serde_saphyr::from_str(&read(".github/dependabot.yml")).unwrap();
    let ecosystems: BTreeSet<_> = updates["updates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|update| update["package-ecosystem"].as_str().unwrap())
        .collect();
    assert_eq!(ecosystems, BTreeSet::from(["cargo", "github-actions", "gomod"]));
}
