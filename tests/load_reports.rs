//! Tests of shares by the load that backends report, with the ORCA servers of grpc-go and
//! grpc-java.
//!
//! In: settings and backends in etcd. Out: shares, as the balancer shows them and as clients
//! call.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::{JAVA, Language, PYTHON};
use crate::support::lookaside::Balancer;
use crate::support::world::World;
use crate::support::{eventually, skip};

const SETTINGS: &str = r#"
[service."*"]
load = { kind = "orca", interval = "1s" }
"#;

/// A backend that reports its load, and serves nothing else.
struct Reporter {
    child: Child,
    address: String,
}

impl Reporter {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the backend starts");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut address).expect("it prints text");
        let reporter = Self { child, address: address.trim().to_owned() };
        let is_address = reporter.address.parse::<std::net::SocketAddr>().is_ok();
        assert!(is_address, "the backend does not start, and says {address:?}");
        reporter
    }

    /// Starts a backend with grpc-go's ORCA server, which reports at once and then every 30
    /// seconds, whatever it is asked.
    fn go(utilisation: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = root.join("target/clients/go-orca");
        let built = Command::new(root.join("scripts/go"))
            .args(["build", "-buildvcs=false", "-o"])
            .args([program.as_path(), Path::new(".")])
            .current_dir(root.join("tests/clients/go-orca"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "go build: see above");
        let mut command = Command::new(program);
        command.args(["-calls", "100", "-utilization", utilisation]);
        Self::start(command)
    }

    /// Starts a backend with grpc-java's ORCA server, which reports every second.
    fn java(utilisation: &str) -> Self {
        Self::java_at("100", utilisation)
    }

    /// Starts such a backend that reports so many calls per second.
    fn java_at(calls: &str, utilisation: &str) -> Self {
        let mut command = Command::new("java");
        command.arg("-jar").arg(Self::java_jar()).args([calls, utilisation]);
        Self::start(command)
    }

    /// Builds the backend in Java, quickly when nothing changed, and returns the program.
    fn java_jar() -> PathBuf {
        // Maven writes the file in several steps. A program that another test starts
        // meanwhile finds no class in it.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let project = root.join("tests/clients/java-orca");
        let jar = project.join("target/orca-backend.jar");
        let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
        let sources = ["pom.xml", "src/main/java/OrcaBackend.java"];
        let newest = sources.iter().filter_map(|source| changed(&project.join(source))).max();
        if changed(&jar).is_none() || changed(&jar) < newest {
            let need = Command::new(root.join("scripts/need")).arg("java").status();
            assert!(need.is_ok_and(|status| status.success()), "scripts/need: see above");
            let mut maven = Command::new("mvn");
            maven.args(["--quiet", "--batch-mode", "package"]).current_dir(&project);
            assert!(maven.status().is_ok_and(|status| status.success()), "mvn: see above");
        }
        jar
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the share of each backend of a service, by its id.
fn shares(balancer: &Balancer, service: &str) -> Vec<f64> {
    let (status, text) = balancer.get(&format!("/api/v1/services/{service}"));
    assert_eq!(status, 200, "{text}");
    let detail: Value = serde_json::from_str(&text).expect("JSON");
    let endpoints = detail["endpoints"].as_array().expect("endpoints");
    endpoints.iter().map(|one| one["share"].as_f64().expect("a share")).collect()
}

#[test]
fn backends_that_report_a_high_load_get_fewer_calls() {
    // One after the other, because they are built first.
    let java = ["0.9", "0.45"].map(Reporter::java);
    let go = ["0.9", "0.45"].map(Reporter::go);
    let etcd = Etcd::start();
    for (service, backends) in [("java", &java), ("go", &go)] {
        for (id, backend) in backends.iter().enumerate() {
            etcd.ctl(&["put", &format!("/etcd3_naming/{service}/{id}"), &backend.address]);
        }
    }
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "version = 1\n").expect("it is written");
    let path = config.path().to_str().expect("UTF-8");
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--config", path]);
    balancer.wait_ready();
    for service in ["java", "go"] {
        assert_eq!(shares(&balancer, service), [0.5, 0.5], "nobody is asked");
    }
    std::fs::write(config.path(), SETTINGS).expect("it is written");
    for service in ["java", "go"] {
        eventually("the loaded backend gets a third", || {
            let shares = shares(&balancer, service);
            let near = (shares[0] - 1.0 / 3.0).abs() < 0.02 && (shares[1] - 2.0 / 3.0).abs() < 0.02;
            near.then_some(())
        });
        let (_, explained) = balancer.get(&format!("/api/v1/explain?service={service}&backend=0"));
        assert!(explained.contains("by the load that it reports, it gets 6"), "{explained}");
    }
    assert_eq!(balancer.metric("lookaside_endpoints_load_adjusted"), Some(4.0));
    assert!(balancer.metric("lookaside_backend_reports_total") > Some(10.0));
    // Without the setting, all is as registered again.
    std::fs::write(config.path(), "version = 1\n").expect("it is written");
    eventually("shares are even", || (shares(&balancer, "java") == [0.5, 0.5]).then_some(()));
}

/// Clients of Go and Java call backends with the ORCA servers of Go and Java. These refuse
/// calls with their address.
#[test]
fn clients_call_backends_with_a_high_load_less() {
    let java = ["0.9", "0.45"].map(Reporter::java);
    let go = ["0.9", "0.45"].map(Reporter::go);
    let etcd = Arc::new(Etcd::start());
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), SETTINGS).expect("it is written");
    let path = config.path().to_str().expect("UTF-8");
    for language in [Language::named("go"), JAVA] {
        if let Some(obstacle) = language.obstacle() {
            skip("load_reports: clients", &obstacle);
            continue;
        }
        let world = World::new(etcd.clone(), &language);
        for (service, backends) in [("java", &java), ("go", &go)] {
            for (id, backend) in backends.iter().enumerate() {
                let key = format!("{}{service}/{id}", world.prefix());
                world.etcd().ctl(&["put", &key, &backend.address]);
            }
        }
        let balancer = world.balancer(&["--config", path]);
        let driver = world.driver();
        for (service, backends) in [("java", &java), ("go", &go)] {
            let name = format!("{service}.{}", world.zone());
            let client = driver.open(&Options::grpclb(world.target_of(&balancer, &name)));
            client.until("the loaded backend gets a third", &Calls::new(300), |report| {
                let [loaded, other] = [0, 1].map(|id: usize| {
                    let end = format!("from {}", backends[id].address);
                    let from = report.errors.iter().filter(|one| one.0.ends_with(&end));
                    from.map(|one| *one.1).sum::<u64>()
                });
                loaded + other == 300 && (92..=108).contains(&loaded)
            });
        }
    }
}

#[test]
fn backends_without_reports_keep_their_shares() {
    let etcd = Etcd::start();
    // One takes connections and is silent, one refuses them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address").to_string();
    for (id, address) in [silent.as_str(), "127.0.0.1:1"].into_iter().enumerate() {
        etcd.ctl(&["put", &format!("/etcd3_naming/hello/{id}"), address]);
    }
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), SETTINGS).expect("it is written");
    let path = config.path().to_str().expect("UTF-8");
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--config", path]);
    balancer.wait_ready();
    eventually("they are asked", || {
        balancer
            .metric("lookaside_backend_report_failures_total")
            .filter(|failures| *failures > 1.0)
    });
    assert_eq!(shares(&balancer, "hello"), [0.5, 0.5]);
    // The one that refuses connections shows; the other one has a few seconds.
    eventually("it is counted", || {
        balancer.metric("lookaside_endpoints_load_silent").filter(|silent| *silent > 0.0)
    });
    let row = balancer.get("/api/v1/services").1;
    assert!(row.contains(r#""load_silent":"#) && !row.contains(r#""load_silent":0"#), "{row}");
    assert!(balancer.log().contains("backends do not report their load"), "{}", balancer.log());
}

/// The backend says that it is full with two calls a second. The client starts more, and is
/// told to drop the excess.
#[test]
fn clients_drop_the_calls_that_full_backends_cannot_serve() {
    let backend = Reporter::java_at("2", "1.0");
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/etcd3_naming/hello/0", &backend.address]);
    let config = tempfile::NamedTempFile::new().expect("a file");
    let shed = format!("{SETTINGS}shed = {{ mode = \"overload\", most = 60 }}\n");
    std::fs::write(config.path(), &shed).expect("it is written");
    let path = config.path().to_str().expect("UTF-8");
    let url = etcd.url();
    let flags = ["--etcd", &url, "--config", path, "--report-interval", "1s"];
    let balancer = Balancer::start(&flags);
    balancer.wait_ready();
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    client.start(&Calls::new(1).every(Duration::from_millis(50)));
    let part = r#"lookaside_service_overload_shed_ratio{service="hello"}"#;
    eventually("as much is shed as the setting allows", || {
        (balancer.metric(part) == Some(0.6)).then_some(())
    });
    eventually("the client drops calls", || {
        let dropped = r#"lookaside_client_calls_dropped_total{service="hello"}"#;
        balancer.metric(dropped).filter(|dropped| *dropped > 5.0)
    });
    let row = balancer.get("/api/v1/services").1;
    assert!(
        row.contains(r#""state":"shedding""#) && row.contains(r#""overload_shed":60"#),
        "{row}"
    );
    let (_, explained) = balancer.get("/api/v1/explain?service=hello");
    assert!(explained.contains(r#""overload_shed":60"#), "{explained}");
    let line = "clients start more calls than the backends can serve";
    assert!(balancer.log().contains(line), "{}", balancer.log());
    // The client stops, so nothing is over the capacity.
    client.stop();
    eventually("nothing is shed", || (balancer.metric(part) == Some(0.0)).then_some(()));
    assert!(balancer.log().contains("overload is over"), "{}", balancer.log());
}
