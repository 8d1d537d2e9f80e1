//! Recipes of tools: module, build flags, and the cache key derived from them.
//!
//! Pure but for reading `testbed/tools/`. Invariant: every input that changes a program's content changes its key.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// One cached folder of programs, all from one Go module.
#[derive(Debug)]
pub struct Tool {
    /// The tool's name, and the first part of its folder's.
    pub name: &'static str,
    /// The folder under `testbed/tools` with the `go.mod` that pins it.
    pub(super) module: &'static str,
    /// (file, Go package) of every program.
    pub(super) programs: &'static [(&'static str, &'static str)],
    pub(super) ldflags: &'static str,
    pub(super) tags: &'static str,
    pub(super) cgo: bool,
    /// A C program in the same tool's sources.
    pub(super) c_program: Option<CProgram>,
}

/// A C program inside a Go module: CRI-O's `pinns`.
#[derive(Debug)]
pub(super) struct CProgram {
    pub(super) file: &'static str,
    pub(super) module: &'static str,
    pub(super) sources: &'static [&'static str],
    pub(super) flags: &'static [&'static str],
}

const PLAIN: Tool = Tool {
    name: "",
    module: "",
    programs: &[],
    ldflags: "-s -w",
    tags: "",
    cgo: false,
    c_program: None,
};

/// Without these the API says v0.0.0, and everything that compares versions (kubectl, OLM's minKubeVersion) misbehaves.
const KUBE_LDFLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34 \
    -X k8s.io/component-base/version.gitTreeState=clean";

const KUBE: Tool = Tool {
    module: "kube",
    ldflags: KUBE_LDFLAGS,
    ..PLAIN
};

/// etcd.
pub const ETCD: Tool = Tool {
    name: "etcd",
    module: "etcd",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    ..PLAIN
};
/// kube-apiserver.
pub const KUBE_APISERVER: Tool = Tool {
    name: "kube-apiserver",
    programs: &[("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")],
    ..KUBE
};
/// kubectl.
pub const KUBECTL: Tool = Tool {
    name: "kubectl",
    programs: &[("kubectl", "k8s.io/kubernetes/cmd/kubectl")],
    ..KUBE
};
/// kube-controller-manager.
pub const KUBE_CONTROLLER_MANAGER: Tool = Tool {
    name: "kube-controller-manager",
    programs: &[(
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    )],
    ..KUBE
};
/// kube-scheduler.
pub const KUBE_SCHEDULER: Tool = Tool {
    name: "kube-scheduler",
    programs: &[("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler")],
    ..KUBE
};
/// kubelet.
pub const KUBELET: Tool = Tool {
    name: "kubelet",
    programs: &[("kubelet", "k8s.io/kubernetes/cmd/kubelet")],
    ..KUBE
};
/// kube-proxy.
pub const KUBE_PROXY: Tool = Tool {
    name: "kube-proxy",
    programs: &[("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy")],
    ..KUBE
};
/// The reference CNI plugins.
pub const CNI: Tool = Tool {
    name: "cni",
    module: "cni",
    programs: &[
        (
            "bridge",
            "github.com/containernetworking/plugins/plugins/main/bridge",
        ),
        (
            "macvlan",
            "github.com/containernetworking/plugins/plugins/main/macvlan",
        ),
        (
            "loopback",
            "github.com/containernetworking/plugins/plugins/main/loopback",
        ),
        ("ptp", "github.com/containernetworking/plugins/plugins/main/ptp"),
        (
            "host-device",
            "github.com/containernetworking/plugins/plugins/main/host-device",
        ),
        (
            "host-local",
            "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ),
        (
            "static",
            "github.com/containernetworking/plugins/plugins/ipam/static",
        ),
        (
            "portmap",
            "github.com/containernetworking/plugins/plugins/meta/portmap",
        ),
        (
            "tuning",
            "github.com/containernetworking/plugins/plugins/meta/tuning",
        ),
        ("sbr", "github.com/containernetworking/plugins/plugins/meta/sbr"),
    ],
    ..PLAIN
};
/// Multus, the thin plugin.
pub const MULTUS: Tool = Tool {
    name: "multus",
    module: "multus",
    programs: &[("multus", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus")],
    ..PLAIN
};
/// whereabouts: cluster-wide address management for secondary networks.
pub const WHEREABOUTS: Tool = Tool {
    name: "whereabouts",
    module: "whereabouts",
    programs: &[("whereabouts", "github.com/k8snetworkplumbingwg/whereabouts/cmd")],
    ..PLAIN
};
/// CoreDNS with the plugins a cluster needs (`testbed/tools/coredns/main.go`).
pub const COREDNS: Tool = Tool {
    name: "coredns",
    module: "coredns",
    programs: &[("coredns", ".")],
    ..PLAIN
};
/// CRI-O, the runtime of OpenShift, and its `pinns`.
pub const CRIO: Tool = Tool {
    name: "crio",
    module: "crio",
    programs: &[("crio", "github.com/cri-o/cri-o/cmd/crio")],
    tags: "seccomp containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper containers_image_ostree_stub",
    cgo: true,
    c_program: Some(CProgram {
        file: "pinns",
        module: "github.com/cri-o/cri-o",
        sources: &["pinns/src/pinns.c", "pinns/src/sysctl.c"],
        flags: &["-O2", "-std=c99", "-static"],
    }),
    ..PLAIN
};
/// containerd 2 with its shim and `ctr`. (containerd 1.6 is a Debian package.)
pub const CONTAINERD2: Tool = Tool {
    name: "containerd2",
    module: "containerd2",
    programs: &[
        ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        (
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.2.9",
    ..PLAIN
};

const OLM_MODULE: Tool = Tool {
    module: "olm",
    tags: "json1 exclude_graphdriver_btrfs exclude_graphdriver_devicemapper containers_image_openpgp",
    // opm has SQLite in it, and with one setting for all, all share their packages.
    cgo: true,
    ..PLAIN
};

/// Operator Lifecycle Manager v0: `olm` and `catalog`.
pub const OLM: Tool = Tool {
    name: "olm",
    programs: &[
        (
            "olm",
            "github.com/operator-framework/operator-lifecycle-manager/cmd/olm",
        ),
        (
            "catalog",
            "github.com/operator-framework/operator-lifecycle-manager/cmd/catalog",
        ),
    ],
    ..OLM_MODULE
};
/// Programs that validate and serve bundles and catalogs: `opm`, `crdify`, and operator-framework/api's validators
/// (`testbed/tools/olm/main.go`).
pub const VALIDATORS: Tool = Tool {
    name: "validators",
    programs: &[
        ("bundle-verify", "."),
        ("opm", "github.com/operator-framework/operator-registry/cmd/opm"),
        ("crdify", "sigs.k8s.io/crdify"),
    ],
    ..OLM_MODULE
};
/// No program: what OpenShift adds to the API, as far as the operator reads it.
pub const OPENSHIFT: Tool = Tool {
    name: "openshift",
    ..OLM_MODULE
};
/// kubeconform: objects against schemas.
pub const KUBECONFORM: Tool = Tool {
    name: "kubeconform",
    module: "kubeconform",
    programs: &[("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform")],
    ..PLAIN
};

/// krew, which installs kubectl plugins, and the check of its index.
pub const KREW: Tool = Tool {
    name: "krew",
    module: "krew",
    programs: &[
        ("krew", "sigs.k8s.io/krew/cmd/krew"),
        (
            "validate-krew-manifest",
            "sigs.k8s.io/krew/cmd/validate-krew-manifest",
        ),
    ],
    ..PLAIN
};

/// Helm, for the chart. No part of the cluster, and not in [`ALL`]: its build takes minutes.
pub const HELM: Tool = Tool {
    name: "helm",
    module: "helm",
    programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    ..PLAIN
};

/// Prometheus and promtool. Of its service discoveries only those of files and of Kubernetes: the others are clients of clouds.
pub const PROMETHEUS: Tool = Tool {
    name: "prometheus",
    module: "prometheus",
    programs: &[
        ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
        ("promtool", "github.com/prometheus/prometheus/cmd/promtool"),
    ],
    tags: "remove_all_sd enable_kubernetes_sd",
    ..PLAIN
};

/// The OpenTelemetry Collector with the OTLP receiver and the file exporter (`testbed/tools/otelcol/main.go`).
pub const OTELCOL: Tool = Tool {
    name: "otelcol",
    module: "otelcol",
    programs: &[("otelcol", ".")],
    ..PLAIN
};

/// Every tool, in the order that builds fastest: kube's programs share most of their packages.
pub const ALL: [&Tool; 20] = [
    &ETCD,
    &KUBE_APISERVER,
    &KUBECTL,
    &KUBE_CONTROLLER_MANAGER,
    &KUBE_SCHEDULER,
    &KUBELET,
    &KUBE_PROXY,
    &CNI,
    &MULTUS,
    &WHEREABOUTS,
    &COREDNS,
    &CRIO,
    &CONTAINERD2,
    &VALIDATORS,
    &OLM,
    &KUBECONFORM,
    &KREW,
    &PROMETHEUS,
    &OTELCOL,
    &OPENSHIFT,
];

impl Tool {
    /// The folder with the tool's `go.mod`.
    pub(super) fn source(&self) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tools")).join(self.module)
    }

    /// (module, path) of files and folders in a module's sources that are kept beside the programs, under their own names.
    pub(super) fn files(&self) -> &'static [(&'static str, &'static str)] {
        match self.name {
            "olm" => &[
                ("github.com/operator-framework/api", "crds"),
                (
                    "github.com/operator-framework/operator-lifecycle-manager",
                    "deploy/chart/templates/0000_50_olm_09-aggregated.clusterrole.yaml",
                ),
            ],
            "openshift" => &[
                (
                    "github.com/openshift/api",
                    "config/v1/zz_generated.crd-manifests/0000_10_config-operator_01_infrastructures-Default.crd.yaml",
                ),
                (
                    "github.com/openshift/api",
                    "config/v1/zz_generated.crd-manifests/0000_10_config-operator_01_networks.crd.yaml",
                ),
                (
                    "github.com/openshift/api",
                    "console/v1/zz_generated.crd-manifests/00_consolequickstarts.crd.yaml",
                ),
                (
                    "github.com/openshift/api",
                    "console/v1/zz_generated.crd-manifests/00_consoleyamlsamples.crd.yaml",
                ),
            ],
            _ => &[],
        }
    }

    /// The first 12 hex digits of a hash over the pinned modules, our own sources and this recipe.
    pub(super) fn key(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum", "main.go"] {
            let path = self.source().join(file);
            match std::fs::read(&path) {
                Ok(content) => hash.update(&content),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && file == "main.go" => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
        }
        hash.update(format!("{self:?} {}", std::env::consts::ARCH));
        for (module, path) in self.files() {
            hash.update(format!(" {module} {path}"));
        }
        Ok(hex(&hash.finalize()[..6]))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_tool_has_pinned_sources_and_a_key_of_its_own() {
        let keys: BTreeSet<_> = ALL.iter().map(|tool| tool.key().unwrap()).collect();
        assert_eq!(keys.len(), ALL.len());
        assert!(keys.iter().all(|key| key.len() == 12), "{keys:?}");
    }

    #[test]
    fn a_changed_recipe_changes_the_key() {
        let other = Tool {
            tags: "other",
            ..ETCD
        };
        assert_ne!(other.key().unwrap(), ETCD.key().unwrap());
    }
}
