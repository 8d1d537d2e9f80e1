//! The program itself: arguments, formats, colours, exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bed::{Scene, shared};

/// The program with the rights of an administrator, in a namespace.
pub(crate) struct Program {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
}

impl Program {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-multus_service"));
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["-n", &self.namespace])
            .args(arguments)
            .env_remove("NO_COLOR");
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    fn text(&self, arguments: &[&str], code: i32) -> Result<String> {
        let output = self.run(arguments)?;
        let text = String::from_utf8(output.stdout)?;
        let error = String::from_utf8_lossy(&output.stderr);
        println!("$ kubectl multus-service {}\n{text}{error}", arguments.join(" "));
        anyhow::ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {}\n{text}\n{error}",
            output.status
        );
        Ok(text)
    }
}

async fn program(prefix: &str) -> Result<(Scene, Program)> {
    let scene = Scene::new(prefix).await?;
    scene.pod("web-1", &["10.1.0.2"]).await?;
    scene.service(json!({})).await?;
    scene.client_on("node-1", &["10.1.0.9"]).await?;
    scene.is_well(Some(&scene.key("client"))).await?;
    let program = Program {
        kubeconfig: shared().await?.kubeconfig(),
        namespace: scene.namespace.clone(),
    };
    Ok((scene, program))
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn explain_prints_text_json_and_yaml_and_ends_with_a_code() -> Result<()> {
    let (scene, program) = program("explain").await?;
    let good = program.text(&["explain", "service/web", "--from", "pod/client"], 0)?;
    assert!(good.contains("✓ rules") && !good.contains('\u{1b}'), "{good}");
    let coloured = program.text(&["explain", "web", "--color", "always"], 0)?;
    assert!(coloured.contains('\u{1b}'), "{coloured}");
    // As on a terminal, and NO_COLOR is honoured there.
    let forced = |no_color: &str| {
        let mut command = program.command(&["explain", "web"]);
        command
            .env("CLICOLOR_FORCE", "1")
            .env("NO_COLOR", no_color)
            .output()
    };
    assert!(forced("")?.stdout.contains(&0x1b) && !forced("1")?.stdout.contains(&0x1b));
    let json: Value = serde_json::from_str(&program.text(&["explain", "web", "-o", "json"], 0)?)?;
    assert_eq!(json["verdict"], "good", "{json}");
    let missing = program.text(&["explain", "service/stranger", "-o", "yaml"], 1)?;
    let missing: Value = serde_saphyr::from_str(&missing)?;
    assert_eq!(missing["cause"], "ServiceNotFound");
    assert_eq!(missing["service"], format!("{}/stranger", scene.namespace));
    program.text(&["explain", "pod/web"], 2)?;
    program.text(&["explain"], 2)?;
    program.text(&["explain", "web", "--as", "stranger"], 2)?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn trace_prints_the_route_and_the_endpoints() -> Result<()> {
    let (scene, program) = program("trace").await?;
    let text = program.text(&["trace", "pod/client", "web:http"], 0)?;
    for part in [
        "translated",
        "dev net1 src 10.1.0.9 proto 77",
        "10.1.0.2:8080",
        "1/1",
        &format!("{}/web-1", scene.namespace),
        "is not available",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let rejected: Value =
        serde_json::from_str(&program.text(&["trace", "client", "service/web:81", "-o", "json"], 1)?)?;
    assert_eq!(rejected["flows"][0]["fate"], "rejected", "{rejected}");
    program.text(&["trace", "client", "web"], 2)?;
    program.text(&["trace", "client", "web:80", "--as", "stranger"], 2)?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
async fn status_and_check_name_what_is_wrong() -> Result<()> {
    let (scene, program) = program("status").await?;
    let text = program.text(&["status"], 1)?;
    assert!(text.starts_with("✗ node node-2: NoSupportedBackend"), "{text}");
    assert!(
        text.contains("controller-1 leads") && text.contains("ATTACHED PODS"),
        "{text}"
    );
    let status: Value = serde_json::from_str(&program.text(&["status", "-o", "json"], 1)?)?;
    let networks = status["networks"].as_array().context("no networks")?;
    let own = networks
        .iter()
        .find(|one| one["network"] == format!("{}/testnet1", scene.namespace));
    let own = own.context("the network is missing")?;
    assert_eq!(
        (&own["services"], &own["clients"], &own["exists"]),
        (&json!(1), &json!(2), &json!(true))
    );

    let text = program.text(&["check"], 1)?;
    for part in [
        "✓ Kubernetes is v1.",
        "containerd://2.1.0, kernel 6.1.0",
        "✗ Deployment multus-service/multus-service-operator does not exist",
        "admission policies are missing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What is asked for does not come: it ends with the time that is given.
    let waited = program.run(&["check", "--wait=3s"])?;
    assert_eq!(waited.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&waited.stderr).contains("waiting: "));
    // For another user the missing rights are named, and the rest is reported all the same.
    let text = program.text(&["check", "--as", "stranger"], 0)?;
    assert!(
        text.contains("kubectl auth can-i list nodes -A") && text.contains("✓ Kubernetes is v1."),
        "{text}"
    );
    Ok(())
}
