//! containerd's configuration, of both lines.
//!
//! Pure.

use super::ConfigFile;
use super::limits::Missing;
use crate::images::PAUSE;

/// The configuration's file name.
pub(super) const FILE: &str = "containerd.toml";

/// Configuration format 2, containerd 1.6.
pub(super) fn version_1(missing: Missing) -> ConfigFile {
    let restrict = missing.oom_score;
    file(format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # A profile would be loaded into the machine's kernel, and stay.
  disable_apparmor = true
  restrict_oom_score_adj = {restrict}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#
    ))
}

/// Configuration format 3, containerd 2.
pub(super) fn version_2(missing: Missing) -> ConfigFile {
    let restrict = missing.oom_score;
    file(format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  # A profile would be loaded into the machine's kernel, and stay.
  disable_apparmor = true
  restrict_oom_score_adj = {restrict}
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
"#
    ))
}

fn file(content: String) -> ConfigFile {
    ConfigFile {
        name: FILE,
        content,
        executable: false,
    }
}
