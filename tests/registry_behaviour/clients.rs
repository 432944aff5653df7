//! Tests with unmodified clients in other languages, several generations of each. Most
//! make their usual calls to the embedded registry and to a real etcd, and must see the
//! same, line by line; two run against the embedded registry alone. Their sources and
//! pinned dependencies are in `tests/clients/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::registry_behaviour::difference;
use crate::registry_behaviour::embedded::Embedded;
use crate::support::etcd::Etcd;
use crate::support::skip;

/// The time for a cold build of the Go client on two busy cores. Clients bound their own
/// waits more tightly.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The Go of `scripts/need`, because the machine's own may be missing or too old.
fn run_go() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/go"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_client_works() {
    let mut download = run_go();
    download.current_dir(source("go-etcd")).args(["mod", "download"]);
    if let Err(why) = run(download).await {
        return skip("the Go client of etcd", &why);
    }
    let program = scratch().join("go-etcd");
    let mut build = run_go();
    build.current_dir(source("go-etcd")).args(["build", "-o"]).arg(&program).arg(".");
    run(build).await.expect("the Go client builds");
    let server = Embedded::start().await;
    let mut client = Command::new(program);
    client.arg(server.url());
    assert_eq!(run(client).await.expect("the Go client succeeds").trim(), "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_works() {
    let venv = match python("requirements.txt").await {
        Ok(venv) => venv,
        Err(why) => return skip("the Python client of etcd", &why),
    };
    let server = Embedded::start().await;
    let mut client = Command::new(venv);
    client.arg(source("python-etcd/client.py")).arg("127.0.0.1").arg(server.port().to_string());
    assert_eq!(run(client).await.expect("the Python client succeeds").trim(), "done");
}

/// Its balancer sends a target with a random part as `:authority`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_3_4_sees_what_it_sees_of_etcd() {
    let moved = [("go.etcd.io/etcd/client/v3", "go.etcd.io/etcd/clientv3")];
    go_sees_the_same("3.4", &moved).await;
}

/// It sends all of its endpoints, in brackets, as `:authority`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_3_5_sees_what_it_sees_of_etcd() {
    go_sees_the_same("3.5", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_3_7_sees_what_it_sees_of_etcd() {
    go_sees_the_same("", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_etcd3_0_11_sees_what_it_sees_of_etcd() {
    python_sees_the_same("etcd3-0.11.txt", "etcd3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_etcd3_0_12_sees_what_it_sees_of_etcd() {
    python_sees_the_same("etcd3-0.12.txt", "etcd3").await;
}

/// This library is the successor of etcd3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_etcd_sdk_sees_what_it_sees_of_etcd() {
    python_sees_the_same("requirements.txt", "pyetcd").await;
}

/// This client uses an older Rust client, and its locks use etcd's Lock service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_etcd_client_py_sees_what_it_sees_of_etcd() {
    let program = match python("etcd-client-py.txt").await {
        Ok(program) => program,
        Err(why) => return skip("etcd-client-py", &why),
    };
    sees_the_same(|url, _| {
        let mut client = Command::new(&program);
        client.arg(source("python-etcd/with_lock.py")).arg(url);
        client
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_sees_what_it_sees_of_etcd() {
    let home = match node().await {
        Ok(home) => home,
        Err(why) => return skip("the Node.js clients of etcd", &why),
    };
    for generation in ["etcd3-1.0", "etcd3-1.1.0", "etcd3-1.1.2"] {
        sees_the_same(|url, _| {
            let mut client = Command::new("node");
            let library = home.join("node_modules").join(generation);
            client.arg(source("node-etcd/usual.js")).arg(url).arg(library);
            client
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_sees_what_it_sees_of_etcd() {
    for generation in ["0.5.11", "0.7.7", "0.8.5"] {
        let classes = match java(generation).await {
            Ok(classes) => classes,
            Err(why) => return skip("the Java clients of etcd", &why),
        };
        sees_the_same(|url, _| {
            let mut client = Command::new("java");
            client.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", &classes, "Usual", url]);
            client
        })
        .await;
    }
}

async fn go_sees_the_same(generation: &str, paths: &[(&str, &str)]) {
    let program = match go(generation, paths).await {
        Ok(program) => program,
        Err(why) => return skip(&format!("Go's client of etcd {generation}"), &why),
    };
    sees_the_same(|url, _| {
        let mut client = Command::new(&program);
        client.arg(url);
        client
    })
    .await;
}

async fn python_sees_the_same(requirements: &str, library: &str) {
    let program = match python(requirements).await {
        Ok(program) => program,
        Err(why) => return skip(requirements, &why),
    };
    sees_the_same(|_, port| {
        let mut client = Command::new(&program);
        client.arg(source("python-etcd/usual.py")).args(["127.0.0.1", &port.to_string(), library]);
        client
    })
    .await;
}

/// Runs a client against a fresh server of each kind, and compares its output.
async fn sees_the_same(client: impl Fn(&str, u16) -> Command) {
    for last in [false, false, true] {
        let etcd = tokio::task::spawn_blocking(Etcd::start).await.expect("etcd starts");
        let embedded = Embedded::start().await;
        let theirs = run(client(&etcd.url(), etcd.port()));
        let ours = run(client(embedded.url(), embedded.port()));
        let (theirs, ours) = tokio::join!(theirs, ours);
        let lines = |printed: String| printed.lines().map(str::to_owned).collect::<Vec<_>>();
        let theirs = lines(theirs.expect("it gets on with etcd"));
        let ours = lines(ours.unwrap_or_else(|error| error));
        // On a busy machine jetcd now and then loses an answer, one of etcd's as well.
        let lost = |lines: &[String]| lines.iter().any(|line| line.contains("TimeoutException"));
        if !last && (lost(&theirs) || lost(&ours)) {
            continue;
        }
        assert_eq!(theirs.last().map(String::as_str), Some("done"), "{theirs:?}");
        assert!(theirs.len() > 10, "it sees something: {theirs:?}");
        let difference = if theirs == ours { String::new() } else { difference(&theirs, &ours) };
        assert!(difference.is_empty(), "they differ (<: etcd, >: embedded)\n{difference}");
        return;
    }
}

/// Builds a generation's program from the one source, and returns its path. `paths`
/// replaces import paths of the library where a generation has others.
async fn go(generation: &str, paths: &[(&str, &str)]) -> Result<PathBuf, String> {
    let program = scratch().join(format!("go-etcd-usual-{generation}"));
    let mut build = run_go();
    if generation.is_empty() {
        build.current_dir(source("go-etcd")).args(["build", "-o"]).arg(&program).arg("./usual");
    } else {
        let home = scratch().join(format!("go-etcd-{generation}"));
        let text = read(&source("go-etcd/usual/main.go"));
        let moved = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        write(&home.join("main.go"), &paths.iter().fold(text, moved));
        for name in ["go.mod", "go.sum"] {
            write(&home.join(name), &read(&source("go-etcd").join(generation).join(name)));
        }
        build.current_dir(&home).args(["build", "-o"]).arg(&program).arg(".");
    }
    run(build).await?;
    Ok(program)
}

/// Returns a Python interpreter with the packages of one requirements file.
async fn python(requirements: &str) -> Result<PathBuf, String> {
    let wanted = source("python-etcd").join(requirements);
    let venv = scratch().join(format!("python-{}", requirements.trim_end_matches(".txt")));
    let program = venv.join("bin/python");
    once(&venv, &read(&wanted), async {
        need("python").await?;
        let mut create = Command::new("python3");
        create.args(["-m", "venv"]).arg(&venv);
        run(create).await?;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted);
        run(install).await
    })
    .await?;
    Ok(program)
}

/// Returns the folder in which Node.js finds all generations.
async fn node() -> Result<PathBuf, String> {
    let home = scratch().join("node-etcd");
    let wanted = read(&source("node-etcd/package-lock.json"));
    once(&home, &wanted, async {
        need("node").await?;
        for name in ["package.json", "package-lock.json"] {
            write(&home.join(name), &read(&source("node-etcd").join(name)));
        }
        let mut install = Command::new("npm");
        install.current_dir(&home);
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        run(install).await
    })
    .await?;
    Ok(home)
}

/// Returns the class path of one generation.
async fn java(generation: &str) -> Result<String, String> {
    let home = scratch().join(format!("java-etcd-{generation}"));
    let (project, main) = (source("java-etcd"), source("java-etcd/src/main/java/Usual.java"));
    let (libraries, classes) = (home.join("lib"), home.join("classes"));
    let path = format!("{}:{}/*", classes.display(), libraries.display());
    let wanted = read(&project.join("pom.xml")) + &read(&main);
    once(&home, &wanted, async {
        need("java").await?;
        let mut install = Command::new("mvn");
        install.current_dir(&project).args(["-q", "-B"]);
        install.arg(format!("-Djetcd.version={generation}"));
        install.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
        install.arg(format!("-DoutputDirectory={}", libraries.display()));
        run(install).await?;
        let mut compile = Command::new("javac");
        compile.arg("-d").arg(&classes).arg("-cp").arg(format!("{}/*", libraries.display()));
        compile.arg(&main);
        run(compile).await
    })
    .await?;
    Ok(path)
}

/// Installs a language if it is missing.
async fn need(language: &str) -> Result<String, String> {
    let mut need = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/need"));
    need.arg(language);
    run(need).await
}

/// Prepares a folder, unless it has been prepared for the same contents.
async fn once(
    home: &Path,
    wanted: &str,
    prepare: impl Future<Output = Result<String, String>>,
) -> Result<(), String> {
    let stamp = home.join("prepared-for");
    // Two tests may want the same folder.
    static PREPARING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = PREPARING.lock().await;
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(home);
    prepare.await?;
    write(&stamp, wanted);
    Ok(())
}

async fn run(mut command: Command) -> Result<String, String> {
    let output = tokio::time::timeout(WAIT_MAX, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("{command:?} takes too long"))?;
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[track_caller]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn write(path: &Path, text: &str) {
    let home = path.parent().expect("a file is somewhere");
    let written = std::fs::create_dir_all(home).and_then(|()| std::fs::write(path, text));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}

/// Returns a folder that stays from run to run, so that only the first run installs.
fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}
