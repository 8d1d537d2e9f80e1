//! Validation of bundle and catalog by: operator-framework's validators, opm, crdify, kubeconform, kustomize. Each
//! accepts ours, and rejects one that was broken for it.

#[path = "bundle/breakages.rs"]
mod breakages;
#[path = "bundle/npm_spec.rs"]
mod npm_spec;
#[path = "bundle/schemas.rs"]
mod schemas;

use anyhow::{Context as _, Result, ensure};
use olm::community::{PullRequest, TEMPLATE};
use olm::{Bundle, Catalog, PACKAGE, Platform, Source, graph, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::tools::{self, ToolDir};
use testbed::{apiserver::Apiserver, command};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An update graph with release candidates, skipped and deprecated versions, ranges and two channels.
fn upgrade_graph() -> PathBuf {
    root().join("olm/tests/testdata/upgrade")
}

fn catalog_with_upgrades() -> Result<Catalog> {
    let source = Source::read(&root())?.with_graph(&upgrade_graph())?;
    Ok(Catalog::render(&source)?)
}

fn opm_validate(catalog: &Catalog) -> Result<(bool, String)> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("catalog.yaml"), catalog.yaml())?;
    validate("opm", &["validate", &folder.path().display().to_string()])
}

fn tools() -> Result<ToolDir> {
    tools::ensure(
        &[
            &tools::VALIDATORS,
            &tools::OLM,
            &tools::KUBECONFORM,
            &tools::KUBECTL,
        ],
        &|line| eprintln!("{line}"),
    )
}

/// A program of the validators; what it printed, and whether it was content.
fn validate(program: &str, args: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(tools()?.program(&tools::VALIDATORS, program)?);
    let output = command
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let output_text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    Ok((output.status.success(), output_text))
}

/// The lines of bundle-verify: `ERROR <suite> <text>` and `WARN <suite> <text>`.
fn verify(folder: &Path) -> Result<Vec<String>> {
    let (folder, dockerfile) = (
        folder.display().to_string(),
        folder.join("bundle.Dockerfile").display().to_string(),
    );
    let (content, output_text) = validate(
        "bundle-verify",
        &["-k8s-version", "1.34", "-index-path", &dockerfile, &folder],
    )?;
    let lines: Vec<_> = output_text.lines().map(str::to_owned).collect();
    ensure!(
        content != lines.iter().any(|line| line.starts_with("ERROR")),
        "{output_text}"
    );
    Ok(lines)
}

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn a1_operator_frameworks_validators_accept_the_bundle() -> Result<()> {
    let mut lines = verify(&root().join("bundle"))?;
    // A warning of the validator for every bundle.
    lines.retain(|line| !line.contains("validator is deprecated"));
    ensure!(lines.is_empty(), "{lines:#?}");
    Ok(())
}

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn a2_each_suite_rejects_a_broken_bundle() -> Result<()> {
    let bundle = Bundle::read(&root().join("bundle"))?;
    for (what, suite, level, broken) in breakages::all(&bundle)? {
        let folder = tempfile::tempdir()?;
        broken.write(&folder.path().join("bundle"))?;
        let lines = verify(&folder.path().join("bundle"))?;
        let found = format!("{level} {suite} ");
        ensure!(
            lines.iter().any(|line| line.starts_with(&found)),
            "{suite} does not reject {what}: {lines:#?}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn b1_opm_renders_of_the_bundle_what_the_catalog_has() -> Result<()> {
    let file = std::fs::read_to_string(root().join("olm/catalog/multus-service-operator/catalog.yaml"))?;
    let catalog = Catalog::parse(&file)?;
    let csv = Bundle::read(&root().join("bundle"))?.csv()?;
    let ours = catalog
        .blobs
        .iter()
        .find(|blob| blob["name"] == csv["metadata"]["name"] && blob["schema"] == "olm.bundle");
    let ours = ours.context("the catalog lacks the bundle")?;
    let folder = root().join("bundle").display().to_string();
    let image = text(ours, "/image");
    let args = [
        "render",
        &folder,
        "-o",
        "json",
        "--migrate-level",
        "bundle-object-to-csv-metadata",
        "--alpha-image-ref-template",
        image,
    ];
    let (content, output_text) = validate("opm", &args)?;
    ensure!(content, "{output_text}");
    let theirs: Value = serde_json::from_str(&output_text)?;
    ensure!(*ours == theirs, "ours {ours:#}\nopm's {theirs:#}");
    Ok(())
}

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn b2_opm_accepts_the_catalog() -> Result<()> {
    let (content, output_text) = validate(
        "opm",
        &["validate", &root().join("olm/catalog").display().to_string()],
    )?;
    ensure!(content, "{output_text}");
    let (content, output_text) = opm_validate(&catalog_with_upgrades()?)?;
    ensure!(content, "{output_text}");
    Ok(())
}

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn b3_opm_rejects_broken_catalogs() -> Result<()> {
    let whole = catalog_with_upgrades()?;
    let without = |schema: &str, name: &str| {
        let mut catalog = whole.clone();
        catalog
            .blobs
            .retain(|blob| blob["schema"] != schema || blob["name"] != name);
        catalog
    };
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut catalog = whole.clone();
        catalog.blobs.iter_mut().for_each(edit);
        catalog
    };
    let candidate = |blob: &Value| blob["name"] == "candidate-v0";
    let broken = [
        (
            "bundle image must be set",
            without("olm.bundle", "multus-service-operator.v0.1.0-rc.2"),
        ),
        (
            "channel must contain at least one bundle",
            edited(&|blob| {
                if blob["schema"] == "olm.package" {
                    blob["defaultChannel"] = json!("nightly");
                }
            }),
        ),
        (
            "multiple channel heads",
            edited(&|blob| {
                if candidate(blob) {
                    blob["entries"][2] = json!({"name": "multus-service-operator.v0.1.0"});
                }
            }),
        ),
        (
            "invalid skiprange",
            edited(&|blob| {
                if candidate(blob) {
                    blob["entries"][2]["skipRange"] = json!("from here on");
                }
            }),
        ),
    ];
    for (words, catalog) in broken {
        let (content, output_text) = opm_validate(&catalog)?;
        ensure!(
            !content && output_text.to_lowercase().contains(words),
            "expected {words:?}: {output_text}"
        );
    }
    Ok(())
}

/// The catalog's pipeline adds the bundle to it, and renders it with this command.
#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn b5_opm_renders_the_template_of_the_pull_request() -> Result<()> {
    let source = Source::read(&root())?;
    let clone = tempfile::tempdir()?;
    PullRequest::render(&source, Platform::Openshift)?.write(&source, clone.path())?;
    let operator = clone.path().join("operators").join(PACKAGE);
    let template = operator.join("catalog-templates").join(TEMPLATE);
    let render = || {
        let file = template.display().to_string();
        validate("opm", &["alpha", "render-template", "basic", "-o", "json", &file])
    };
    let (content, output_text) = render()?;
    let package: Value = serde_json::from_str(&output_text).context(output_text)?;
    let default = graph::default_channel(&source.template);
    ensure!(content && package["defaultChannel"] == default, "{package:#}");
    ensure!(package["icon"]["mediatype"] == "image/svg+xml", "{package:#}");
    let text = std::fs::read_to_string(&template)?;
    std::fs::write(
        &template,
        text.replace("schema: olm.template.basic", "schema: olm.semver"),
    )?;
    let (content, output_text) = render()?;
    ensure!(!content, "{output_text}");
    Ok(())
}

/// OLM v1's own settings: a description may change, an enum may grow.
const CRDIFY: &str = "conversion: Ignore\nunhandledEnforcement: Error\nvalidations:\n- {name: description, enforcement: None}\n\
    - {name: enum, enforcement: Error, configuration: {additionPolicy: Allow}}\n";

fn crdify(old: &Path, new: &Path) -> Result<(bool, String)> {
    let settings = tempfile::NamedTempFile::new()?;
    std::fs::write(settings.path(), CRDIFY)?;
    let (old, new) = (
        format!("file://{}", old.display()),
        format!("file://{}", new.display()),
    );
    validate(
        "crdify",
        &["--config", &settings.path().display().to_string(), &old, &new],
    )
}

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn c1_the_crd_may_follow_every_released_one() -> Result<()> {
    let current = root().join("config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml");
    // Until a version is released, candidates that were not published stand for it.
    let folders = [root().join("olm/released"), upgrade_graph().join("released")];
    let folder = folders.iter().find(|folder| folder.exists());
    let mut released = 0;
    for release in std::fs::read_dir(folder.context("no released versions")?)? {
        let old = release?.path().join("crd.yaml");
        let (content, output_text) = crdify(&old, &current)?;
        ensure!(content, "{} cannot be updated: {output_text}", old.display());
        released += 1;
    }
    ensure!(released > 0, "nothing was released");
    Ok(())
}

type Breakage = fn(&mut Value);

#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn c2_crdify_rejects_what_would_break_stored_objects() -> Result<()> {
    let current = root().join("config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml");
    let whole: Value = serde_saphyr::from_str(&std::fs::read_to_string(&current)?)?;
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    // Each with what crdify says of it and of nothing else: what is not broken it accepts.
    let breakages: [(&str, &str, Breakage); 4] = [
        ("nothing", "", |_| {}),
        ("a field removed", "removed field", |spec| {
            if let Some(fields) = spec["properties"].as_object_mut() {
                fields.remove("logLevel");
            }
        }),
        ("a field required", "new required fields", |spec| {
            spec["required"] = json!(["logLevel"]);
        }),
        ("a value taken from an enum", "enum values removed", |spec| {
            spec["properties"]["managementState"]["enum"] = json!(["Managed"]);
        }),
    ];
    for (what, words, breakage) in breakages {
        let mut crd = whole.clone();
        breakage(crd.pointer_mut(spec).context("the CRD has no spec")?);
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), serde_saphyr::to_string(&crd)?)?;
        let (content, output_text) = crdify(&current, file.path())?;
        ensure!(
            content == words.is_empty() && output_text.contains(words),
            "{what}: {output_text}"
        );
    }
    Ok(())
}

fn kustomize(folder: &str) -> Result<Vec<Value>> {
    let kubectl = tools()?.main(&tools::KUBECTL)?;
    let yaml = command::run(
        kubectl,
        &["kustomize", &root().join(folder).display().to_string()],
    )?;
    Ok(serde_saphyr::from_multiple(&yaml)?)
}

/// The bundle's generator reads `config/` by itself; kustomize must see the same.
#[test]
#[ignore = "builds Go programs: make test-e2e"]
fn d1_the_bundle_has_what_kustomize_makes_of_config() -> Result<()> {
    let elsewhere: BTreeSet<_> = olm::bundle::ELSEWHERE.iter().map(|(kind, _)| *kind).collect();
    let bundle = Bundle::read(&root().join("bundle"))?;
    let carried: BTreeMap<_, _> = bundle
        .manifests()?
        .into_iter()
        .map(|object| (identity(&object), object))
        .collect();
    let mut compared = 0;
    for mut object in kustomize("config/manifests")? {
        let kind = text(&object, "/kind").to_owned();
        let of_the_csv = text(&object, "/metadata/name") == api::names::OPERATOR;
        if elsewhere.contains(kind.as_str())
            || of_the_csv
            || ["ClusterServiceVersion", "Configuration", "MultusServiceConfig"].contains(&kind.as_str())
        {
            continue;
        }
        // The namespace is the installer's choice.
        object["metadata"]
            .as_object_mut()
            .context("no metadata")?
            .remove("namespace");
        let name = identity(&object);
        let found = carried
            .get(&name)
            .with_context(|| format!("the bundle lacks {name}"))?;
        ensure!(
            *found == object,
            "{name}: the bundle has {found:#}, kustomize makes {object:#}"
        );
        compared += 1;
    }
    ensure!(
        compared + 1 == carried.len(),
        "{compared} of {:?} are in config/",
        carried.keys()
    );
    Ok(())
}

fn identity(object: &Value) -> String {
    format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"))
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-e2e"]
async fn d2_every_object_keeps_to_its_schema() -> Result<()> {
    let server = Apiserver::shared().await?;
    let client = server.client().await?;
    let mut crds = vec![root().join("config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml")];
    let of_olm = tools()?.dir(&tools::OLM)?.join("crds");
    crds.push(of_olm.join("operators.coreos.com_clusterserviceversions.yaml"));
    let folder = tempfile::tempdir()?;
    schemas::write(&client, &crds, folder.path()).await?;

    let mut objects = Vec::new();
    for kustomization in ["config/default", "config/openshift", "config/samples"] {
        objects.extend(kustomize(kustomization)?);
    }
    let bundle = Bundle::read(&root().join("bundle"))?;
    objects.extend(bundle.manifests()?);
    objects.extend(olm::registry_v1::objects(&bundle, "multus-service")?);
    objects.extend(olm::installer::objects(&bundle)?);
    objects.extend(xtask::release::install_objects(&root(), &bundle)?);
    let conform = |objects: &[Value]| -> Result<(bool, String)> {
        let lines: Vec<_> = objects.iter().map(Value::to_string).collect();
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), lines.join("\n---\n"))?;
        let location = format!(
            "{}/{{{{.ResourceKind}}}}-{{{{.ResourceAPIVersion}}}}.json",
            folder.path().display()
        );
        let program = tools()?.main(&tools::KUBECONFORM)?;
        let output = Command::new(program)
            .args(["-strict", "-summary", "-schema-location", &location])
            .arg(file.path())
            .output()?;
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ))
    };
    let (content, output_text) = conform(&objects)?;
    ensure!(
        content && output_text.contains("Invalid: 0, Errors: 0, Skipped: 0"),
        "{output_text}"
    );

    let deployment = objects
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .context("no Deployment")?;
    let mut unknown = deployment.clone();
    unknown["spec"]["replica"] = json!(1);
    let mut mistyped = deployment.clone();
    mistyped["spec"]["replicas"] = json!("one");
    let mut of_olm = bundle.csv()?;
    of_olm["spec"]["installMode"] = of_olm["spec"]["installModes"].take();
    for broken in [unknown, mistyped, of_olm] {
        let (content, output_text) = conform(&[broken])?;
        ensure!(!content && output_text.contains("Invalid: 1"), "{output_text}");
    }
    ensure!(objects.len() > 50);
    Ok(())
}
