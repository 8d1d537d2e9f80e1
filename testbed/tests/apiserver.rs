//! The lone apiserver keeps its promises: who is who, what is audited, and nothing is left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, ListParams};
use testbed::apiserver::{Apiserver, Options};
use testbed::{audit, command, wait};

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn rbac_decides_by_the_user_that_asks() -> anyhow::Result<()> {
    let server = Apiserver::shared().await?;
    let namespace = server.namespace("rbac").await?;
    let list = async |client| {
        Api::<ConfigMap>::namespaced(client, &namespace)
            .list(&ListParams::default())
            .await
    };
    assert!(list(server.client().await?).await.is_ok());
    assert!(
        list(server.client_as("alice", &["system:masters"]).await?)
            .await
            .is_ok()
    );
    for rejected in [
        server.client_as("alice", &["devs"]).await?,
        server.service_account_client(&namespace, "bob").await?,
    ] {
        let error = list(rejected).await.unwrap_err();
        assert!(error.to_string().contains("forbidden"), "{error}");
    }
    let bob = audit::service_account(&namespace, "bob");
    assert!(
        server
            .audit_log()
            .requests()?
            .iter()
            .any(|request| request.user == bob)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn a_dropped_server_leaves_nothing() -> anyhow::Result<()> {
    let server = Apiserver::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    let client = server.client().await?;
    let namespace = server.namespace("gone").await?;
    // Only a controller-manager makes this account, so it is really running.
    wait::eventually(
        Duration::from_secs(30),
        "the default service account",
        async || {
            Ok(Api::<ServiceAccount>::namespaced(client.clone(), &namespace)
                .get_opt("default")
                .await?)
        },
    )
    .await?;
    let folder = server.folder().to_owned();
    assert!(!processes_naming(&folder)?.is_empty());
    drop(server);
    assert_eq!(processes_naming(&folder)?, Vec::<String>::new());
    assert!(!folder.exists());
    assert!(
        Api::<Namespace>::all(client)
            .list(&ListParams::default())
            .await
            .is_err()
    );
    Ok(())
}

/// Runs itself in a second process as the victim, kills that, and looks for what it left.
#[test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
fn a_killed_test_leaves_nothing() -> anyhow::Result<()> {
    const NOTE: &str = "KILLED_TEST_NOTE";
    if let Some(note) = std::env::var_os(NOTE) {
        return be_the_victim(Path::new(&note));
    }
    let note = tempfile::NamedTempFile::new()?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "a_killed_test_leaves_nothing",
            "--ignored",
            "--nocapture",
        ])
        .env(NOTE, note.path())
        .spawn()?;
    let folder = wait::value(Duration::from_secs(90), "the victim's server to be ready", || {
        let text = std::fs::read_to_string(note.path())?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    })?;
    assert!(!processes_naming(&folder)?.is_empty());
    victim.kill()?;
    victim.wait()?;
    wait::until(Duration::from_secs(10), "processes and folder to go", || {
        Ok(processes_naming(&folder)?.is_empty() && !folder.exists())
    })
}

#[tokio::main(flavor = "current_thread")]
async fn be_the_victim(note: &Path) -> anyhow::Result<()> {
    let server = Apiserver::shared().await?;
    std::fs::write(note, server.folder().display().to_string())?;
    std::future::pending().await
}

fn processes_naming(folder: &Path) -> anyhow::Result<Vec<String>> {
    let all = command::run("ps", &["-eo", "pid,args"])?;
    let folder = folder.display().to_string();
    Ok(all
        .lines()
        .filter(|line| line.contains(&folder))
        .map(str::to_owned)
        .collect())
}
