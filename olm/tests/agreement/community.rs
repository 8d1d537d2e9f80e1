//! Pull requests to the community catalogs; every check of their pipeline can fail.

use super::checks::community::{self as checks, Submitted};
use super::{first, released, source, with_upgrades};
use olm::community::{Error, PullRequest, TEMPLATE, promoted};
use olm::graph::{self, Channel, Entry};
use olm::{PACKAGE, Platform, Source, csv_name, items, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn yaml(content: &str) -> Value {
    serde_saphyr::from_str(content).unwrap()
}

fn with_reviewer(mut source: Source) -> Source {
    source.project.reviewers = vec!["octocat".to_owned()];
    source
}

/// The package in the branch of the pull request with the source's release.
fn submitted(source: &Source) -> Submitted {
    let request = PullRequest::render(source, Platform::Openshift).unwrap();
    let kept = source.released.iter().map(|blob| text(blob, "/name").to_owned());
    Submitted {
        ci: yaml(&request.first["ci.yaml"]),
        release_config: yaml(&request.version.files["release-config.yaml"]),
        channels: graph::channels(&source.template),
        versions: kept.chain([csv_name(&source.release.version)]).collect(),
    }
}

/// The reviewers are the maintainer's to name: `make release` checks them.
#[test]
fn committed_pull_request_lacks_only_reviewers() {
    let mut findings = checks::run(&submitted(&source()));
    findings.retain(|finding| finding.message != "reviewers is empty: name a GitHub account");
    assert!(findings.is_empty(), "{findings:#?}");
    let findings = checks::run(&submitted(&with_reviewer(source())));
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn every_check_fails_on_a_broken_pull_request() {
    let whole = submitted(&with_reviewer(first()));
    let broken = |edit: &dyn Fn(&mut Submitted)| {
        let mut submitted = whole.clone();
        edit(&mut submitted);
        submitted
    };
    let ci = |pointer: &str, value: Value| {
        broken(&|submitted| *submitted.ci.pointer_mut(pointer).unwrap() = value.clone())
    };
    let placement = |pointer: &str, value: Value| {
        broken(&|submitted| *submitted.release_config.pointer_mut(pointer).unwrap() = value.clone())
    };
    let rule = |edit: &dyn Fn(&mut Entry)| broken(&|submitted| edit(&mut submitted.channels[0].entries[0]));
    let (schema, release) = (
        "check_schema_operator_ci_config",
        "check_validate_schema_bundle_release_config",
    );
    let mapping = "/fbc/catalog_mapping/0";
    let breakages = [
        (schema, ci("/reviewers", json!([]))),
        (schema, ci("/reviewers/0", json!("<account>"))),
        (schema, ci("/fbc/version_promotion_strategy", json!("sometimes"))),
        (schema, ci(&format!("{mapping}/type"), json!("olm.composite"))),
        (
            schema,
            broken(&|submitted| submitted.ci["fbc"]["templates"] = json!([])),
        ),
        (
            "check_catalog_usage_ci_config",
            ci(&format!("{mapping}/catalog_names/1"), json!("v4.17")),
        ),
        (
            "check_catalog_usage_ci_config",
            ci(&format!("{mapping}/catalog_names"), json!([])),
        ),
        ("check_using_fbc", ci("/fbc/enabled", json!(false))),
        (release, placement("/catalog_templates", json!([]))),
        (release, placement("/catalog_templates/0/channels", json!([]))),
        (
            release,
            broken(&|submitted| submitted.release_config["template"] = json!(TEMPLATE)),
        ),
        (
            "check_bundle_release_config",
            placement("/catalog_templates/0/template_name", json!("other.yaml")),
        ),
        ("check_bundle_release_config", ci("/fbc/enabled", json!(false))),
        (
            "check_replaces_exists",
            rule(&|entry| entry.replaces = Some(format!("{PACKAGE}.v0.1.0-rc.2"))),
        ),
        (
            "check_upgrade_graph_loop",
            rule(&|entry| entry.skip_range = Some(">=0.1.0-rc.1 <0.1.0".to_owned())),
        ),
    ];
    for (check, submitted) in &breakages {
        let findings = checks::run(submitted);
        assert!(
            findings.iter().any(|finding| finding.check == *check),
            "{check} finds nothing: {findings:?}\n{submitted:#?}"
        );
    }
    let covered: BTreeSet<_> = breakages.iter().map(|(check, _)| *check).collect();
    assert_eq!(covered, checks::names());
}

/// The graph with release candidates is what the pipeline rejected.
#[test]
fn range_of_release_candidates_is_a_loop_to_the_pipeline() {
    let findings = checks::run(&submitted(&with_reviewer(with_upgrades())));
    let looping: Vec<_> = findings
        .iter()
        .map(|finding| (finding.check, finding.message.as_str()))
        .collect();
    let name = csv_name(&first().release.version);
    let expected = format!("stable-v0: updates in a loop: {name} -> {name}");
    assert!(
        looping.contains(&("check_upgrade_graph_loop", &expected)),
        "{looping:?}"
    );
}

#[test]
fn pull_request_has_the_files_of_the_catalog() {
    let source = with_reviewer(first());
    let request = PullRequest::render(&source, Platform::Openshift).unwrap();
    let first: Vec<_> = request.first.keys().collect();
    assert_eq!(first, ["catalog-templates/basic.yaml", "ci.yaml"]);
    assert!(request.version.files.contains_key("release-config.yaml"));
    assert!(!request.version.files.contains_key("bundle.Dockerfile"));

    let clone = tempfile::tempdir().unwrap();
    let operator = clone.path().join("operators").join(PACKAGE);
    std::fs::create_dir_all(&operator).unwrap();
    std::fs::write(operator.join("ci.yaml"), "theirs").unwrap();
    request.write(&source, clone.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(operator.join(name)).unwrap();
    assert_eq!(read("ci.yaml"), "theirs", "the pipeline adds catalogs to it");
    assert_eq!(
        read("0.1.0/release-config.yaml"),
        request.version.files["release-config.yaml"]
    );
    assert_eq!(
        read("catalog-templates/basic.yaml"),
        request.first["catalog-templates/basic.yaml"]
    );
}

/// What the pipeline makes of template and release-config.yaml: it appends channels, entries and the bundle's image.
fn after_the_pipeline(source: &Source, mut template: Value) -> Value {
    let request = PullRequest::render(source, Platform::Openshift).unwrap();
    let config = yaml(&request.version.files["release-config.yaml"]);
    let entries = template["entries"].as_array_mut().unwrap();
    for placement in items(&config, "/catalog_templates") {
        let mut entry = placement.clone();
        let fields = entry.as_object_mut().unwrap();
        fields.retain(|name, _| ["replaces", "skips", "skipRange"].contains(&name.as_str()));
        entry["name"] = json!(csv_name(&source.release.version));
        for channel in items(placement, "/channels") {
            if !entries.iter().any(|blob| blob["name"] == *channel) {
                entries.push(
                    json!({"schema": "olm.channel", "name": channel, "package": PACKAGE, "entries": []}),
                );
            }
            let blob = entries.iter_mut().find(|blob| blob["name"] == *channel).unwrap();
            blob["entries"].as_array_mut().unwrap().push(entry.clone());
        }
    }
    entries
        .push(json!({"schema": "olm.bundle", "image": format!("registry/bundle@sha256:{}", entries.len())}));
    template
}

fn channels(template: &Value) -> Vec<Channel> {
    graph::channels(template["entries"].as_array().unwrap())
}

#[test]
fn pipeline_makes_our_channels_of_the_release() {
    let request = PullRequest::render(&first(), Platform::Openshift).unwrap();
    let template = yaml(&request.first["catalog-templates/basic.yaml"]);
    let made = after_the_pipeline(&first(), template);
    assert_eq!(channels(&made), graph::channels(&first().template));
    assert!(made["entries"][0]["icon"]["base64data"].is_string());

    // A later version joins several channels, with other edges in each.
    let upgrades = with_upgrades();
    let mut before = json!({"entries": upgrades.template});
    let name = csv_name(&upgrades.release.version);
    for blob in before["entries"].as_array_mut().unwrap() {
        if let Some(entries) = blob["entries"].as_array_mut() {
            entries.retain(|entry| entry["name"] != name);
        }
    }
    let made = after_the_pipeline(&upgrades, before);
    assert_eq!(channels(&made), graph::channels(&upgrades.template));
}

#[test]
fn promotion_adds_the_stable_channel_to_the_catalogs_template() {
    let request = PullRequest::render(&first(), Platform::Openshift).unwrap();
    let theirs = after_the_pipeline(&first(), yaml(&request.first["catalog-templates/basic.yaml"]));
    let mut source = first();
    let stable = json!({"schema": "olm.channel", "package": PACKAGE, "name": "stable-v0", "entries": [
        {"name": csv_name(&source.release.version)},
        {"name": format!("{PACKAGE}.v0.2.0"), "replaces": csv_name(&source.release.version)},
    ]});
    source.template.push(stable);
    source.template[0]["defaultChannel"] = json!("stable-v0");
    let made = yaml(&promoted(&theirs, &source).unwrap());
    assert_eq!(made["schema"], "olm.template.basic");
    let blobs = made["entries"].as_array().unwrap();
    assert_eq!(graph::default_channel(blobs), "stable-v0");
    let names: Vec<_> = channels(&made)
        .iter()
        .flat_map(|channel| channel.entries.iter().map(|entry| entry.name.clone()))
        .collect();
    // 0.2.0 is not released there yet.
    assert_eq!(names, vec![csv_name(&source.release.version); 2]);
    assert_eq!(
        blobs.last(),
        theirs["entries"].as_array().unwrap().last(),
        "its bundle stays"
    );

    source.template.retain(|blob| blob["name"] != "candidate-v0");
    source.template[1]["entries"] = json!([{"name": format!("{PACKAGE}.v0.2.0")}]);
    assert!(matches!(promoted(&theirs, &source), Err(Error::Unknown { .. })));
    let empty = json!({"entries": []});
    assert!(matches!(promoted(&empty, &source), Err(Error::NoDefault { .. })));
}

#[test]
fn operatorhub_io_gets_a_version_when_it_is_stable() {
    let error = PullRequest::render(&first(), Platform::Kubernetes).unwrap_err();
    assert!(matches!(error, Error::NotStable { .. }), "{error}");
    let request = PullRequest::render(&with_reviewer(with_upgrades()), Platform::Kubernetes).unwrap();
    let ci = yaml(&request.first["ci.yaml"]);
    assert_eq!(
        ci,
        json!({"reviewers": ["octocat"], "updateGraph": "replaces-mode"})
    );
    assert!(!request.version.files.contains_key("release-config.yaml"));
}

/// The oldest catalog is the oldest OpenShift of the bundle, and none is left out.
#[test]
fn ci_yaml_maps_every_openshift_of_the_bundle() {
    let annotations = released().annotations().unwrap();
    let ci = source().ci().unwrap();
    let catalogs = &ci.fbc.unwrap().catalog_mapping[0].catalog_names;
    assert_eq!(
        Some(catalogs[0].as_str()),
        annotations["com.redhat.openshift.versions"].as_str()
    );
    let minor = |name: &String| name.strip_prefix("v4.").unwrap().parse::<u32>().unwrap();
    let minors: Vec<_> = catalogs.iter().map(minor).collect();
    assert!(
        minors.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{catalogs:?}"
    );
}
