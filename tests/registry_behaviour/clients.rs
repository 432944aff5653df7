//! Unmodified clients in other languages against the embedded server. What
//! they are made of is pinned beside them, in `tests/clients/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::embedded::Embedded;

/// A cold build of the Go client on two busy cores; clients bound their own
/// waits more tightly.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_client_works() {
    let mut download = Command::new("go");
    download.current_dir(source("go-etcd")).args(["mod", "download"]);
    if prepared("the Go client of etcd", run(download).await) {
        let program = scratch().join("go-etcd");
        let mut build = Command::new("go");
        build.current_dir(source("go-etcd")).args(["build", "-o"]).arg(&program).arg(".");
        run(build).await.expect("the Go client builds");
        let server = Embedded::start().await;
        let mut client = Command::new(program);
        client.arg(server.url());
        assert_eq!(run(client).await.expect("the Go client succeeds").trim(), "done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_works() {
    let venv = scratch().join("python-etcd");
    if prepared("the Python client of etcd", install(&venv).await) {
        let server = Embedded::start().await;
        let mut client = Command::new(venv.join("bin/python"));
        client.arg(source("python-etcd/client.py")).arg("127.0.0.1").arg(server.port().to_string());
        assert_eq!(run(client).await.expect("the Python client succeeds").trim(), "done");
    }
}

async fn install(venv: &Path) -> Result<String, String> {
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(venv);
    run(create).await?;
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]);
    install.arg(source("python-etcd/requirements.txt"));
    run(install).await
}

/// Without network a developer goes on without this client; CI does not.
fn prepared(what: &str, outcome: Result<String, String>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(why) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
            panic!("{what} cannot be installed: {why}")
        }
        Err(why) => {
            eprintln!("SKIPPED: {what} cannot be installed: {why}");
            false
        }
    }
}

async fn run(mut command: Command) -> Result<String, String> {
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("{command:?} takes too long"))?;
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}

/// Kept from run to run, so that only the first one installs.
fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
