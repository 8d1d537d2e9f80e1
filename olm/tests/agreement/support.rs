//! SUPPORT.md and SECURITY.md state what the files state.

use super::{committed, root, source};
use olm::{Project, text};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The first two numbers of a version, such as `v1.34.4`.
fn minor(version: &str) -> String {
    let numbers = version.trim_start_matches('v').split('.').take(2);
    numbers.collect::<Vec<_>>().join(".")
}

/// The minor version of a module that a tool of the test bed is built from.
fn pinned(tool: &str, module: &str) -> String {
    let file = read(&format!("testbed/tools/{tool}/go.mod"));
    let required = file
        .lines()
        .find_map(|line| line.trim().strip_prefix(module)?.strip_prefix(" v"));
    minor(required.unwrap_or_else(|| panic!("{tool} does not require {module}")))
}

/// (oldest, newest tested) of a row.
fn row<'a>(page: &'a str, part: &str) -> (&'a str, &'a str) {
    let rest = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {part} |")));
    let mut cells = rest
        .unwrap_or_else(|| panic!("no row {part}"))
        .split('|')
        .map(str::trim);
    (cells.next().unwrap(), cells.next().unwrap())
}

#[test]
fn supported_versions_are_those_of_bundle_and_test_bed() {
    let page = read("SUPPORT.md");
    let oldest = minor(text(&source().base, "/spec/minKubeVersion"));
    let newest = pinned("kube", "k8s.io/kubernetes");
    assert_eq!(row(&page, "Kubernetes"), (&*oldest, &*newest));
    let openshift = committed().annotations().unwrap()["com.redhat.openshift.versions"].clone();
    assert_eq!(row(&page, "OpenShift").0, minor(openshift.as_str().unwrap()));
    for (part, tool, module) in [
        ("containerd", "containerd2", "github.com/containerd/containerd/v2"),
        ("CRI-O", "crio", "github.com/cri-o/cri-o"),
        ("Multus", "multus", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4"),
        ("Helm", "helm", "helm.sh/helm/v4"),
    ] {
        assert_eq!(row(&page, part).1, pinned(tool, module), "{part}");
    }
    let requirements = [
        format!("Kubernetes {oldest}"),
        format!("OpenShift {}", row(&page, "OpenShift").0),
    ];
    for path in ["README.md", "docs/admin/install.md"] {
        let file = read(path);
        assert!(
            requirements.iter().all(|words| file.contains(words)),
            "{path} lacks {requirements:?}"
        );
    }
}

#[test]
fn reports_go_to_the_address_of_the_project() {
    let project = Project::read(&root()).unwrap();
    for path in ["SECURITY.md", "CODE_OF_CONDUCT.md"] {
        assert!(
            read(path).contains(&project.email),
            "{path} lacks {}",
            project.email
        );
    }
    let security = format!("{}/security/", project.repository);
    for path in ["SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"] {
        assert!(read(path).contains(&security), "{path} lacks {security}");
    }
}
