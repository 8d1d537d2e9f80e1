//! CRI-O's configuration.
//!
//! Pure.

use std::path::Path;

use super::ConfigFile;
use super::limits::Missing;
use crate::images::PAUSE;

/// The configuration's file name.
pub(super) const FILE: &str = "crio.conf";

const RUNC: &str = "/usr/sbin/runc";
const WRAPPED_RUNC: &str = "runc-limited";
const POLICY: &str = "policy.json";
/// Storage of images and containers; also how a node's storage is named to skopeo.
const STORAGE: &str = "/var/lib/containers/storage";
const RUN_STORAGE: &str = "/run/containers/storage";
const DRIVER: &str = "overlay";

/// The configuration, the image policy and, where something is missing, a runc that does without it.
pub(super) fn config(pinns: &Path, etc: &Path, missing: Missing) -> Vec<ConfigFile> {
    let fields = missing.fields();
    let runc = if fields.is_empty() {
        RUNC.to_owned()
    } else {
        etc.join(WRAPPED_RUNC).display().to_string()
    };
    let content = format!(
        r#"[crio]
root = "{STORAGE}"
runroot = "{RUN_STORAGE}"
storage_driver = "{DRIVER}"
log_dir = "/var/log/crio/pods"
version_file = "/run/crio/version"
version_file_persist = "/var/lib/crio/version"
# A node that was killed keeps its images.
clean_shutdown_file = ""
[crio.api]
listen = "/run/crio/crio.sock"
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{pinns}"
namespaces_dir = "/var/run"
container_exits_dir = "/run/crio/exits"
container_attach_socket_dir = "/run/crio/attach"
hooks_dir = []
# The default profile would be loaded into the machine's kernel, and stay.
apparmor_profile = "unconfined"
default_runtime = "runc"
[crio.runtime.runtimes.runc]
runtime_path = "{runc}"
runtime_root = "/run/runc"
monitor_path = "/usr/bin/conmon"
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["/opt/cni/bin"]
[crio.image]
signature_policy = "{policy}"
pause_image = "{PAUSE}"
[crio.nri]
enable_nri = false
[crio.metrics]
enable_metrics = false
"#,
        pinns = pinns.display(),
        policy = etc.join(POLICY).display(),
    );
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.to_owned();
    let mut files = vec![
        ConfigFile {
            name: FILE,
            content,
            executable: false,
        },
        ConfigFile {
            name: POLICY,
            content: policy,
            executable: false,
        },
    ];
    if !fields.is_empty() {
        let content = include_str!("runc-limited.sh").replace("@DROP@", &fields.join(", "));
        files.push(ConfigFile {
            name: WRAPPED_RUNC,
            content,
            executable: true,
        });
    }
    files
}

/// The command that copies an archive into the node's storage.
pub(super) fn load(archive: &str, name: &str) -> Vec<String> {
    let source = format!("docker-archive:{archive}:{name}");
    let target = format!("containers-storage:[{DRIVER}@{STORAGE}+{RUN_STORAGE}]{name}");
    ["skopeo", "copy", "--insecure-policy", "--quiet", &source, &target]
        .map(str::to_owned)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(missing: Missing) -> Vec<ConfigFile> {
        config(Path::new("/tools/pinns"), Path::new("/etc/node"), missing)
    }

    #[test]
    fn a_machine_with_all_capabilities_runs_plain_runc() {
        let files = files(Missing::default());
        assert!(files[0].content.contains("runtime_path = \"/usr/sbin/runc\""));
        assert!(files.iter().all(|file| !file.executable));
    }

    #[test]
    fn elsewhere_runc_is_wrapped_and_the_missing_is_dropped() {
        let files = files(Missing {
            oom_score: true,
            hugetlb: false,
        });
        assert!(
            files[0]
                .content
                .contains("runtime_path = \"/etc/node/runc-limited\"")
        );
        let wrapper = files.iter().find(|file| file.executable).unwrap();
        assert!(
            wrapper.content.contains("jq 'del(.process.oomScoreAdj)'"),
            "{}",
            wrapper.content
        );
    }
}
