//! Tests of `lookaside serve` as an operator meets it: start, stop, error messages,
//! and good and bad keys of a real etcd.

#[path = "serve/credentials.rs"]
mod credentials;
#[path = "serve/ending.rs"]
mod ending;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::client::{Calls, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::PYTHON;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::{WAIT_MAX, eventually, free_port};

fn lookaside(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lookaside"))
        .args(args)
        .env_remove("LOOKASIDE_ETCD")
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn metric(balancer: &Balancer, name: &str) -> f64 {
    balancer.metric(name).unwrap_or_else(|| panic!("no {name}"))
}

// ---- starting

#[test]
fn all_problems_are_reported_at_once_with_exit_code_64() {
    let wrong = [
        "serve",
        "--listen=x",
        "--admin-listen=x",
        "--dns-listen=x",
        "--registry-listen=x",
        "--etcd=ftp://x",
        "--etcd-user=me",
        "--etcd-ca=/nowhere",
        "--prefix=/=",
        "--domain=.",
        "--advertise=x",
        "--when-empty=x",
        "--report-interval=x",
        "--tls-cert=/nowhere",
    ];
    let output = lookaside(&wrong);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{errors}");
    for flag in wrong[1..].iter().map(|flag| flag.split('=').next().unwrap()) {
        assert!(errors.contains(flag), "nothing said of {flag}:\n{errors}");
    }
    assert_eq!(lookaside(&["serve", "--no-such-flag"]).status.code(), Some(64));
    assert_eq!(lookaside(&["serve", "--log-format=xml"]).status.code(), Some(64));
    assert_eq!(lookaside(&["serve", "--config=/nowhere"]).status.code(), Some(64));
    assert_eq!(lookaside(&["nonsense"]).status.code(), Some(64));
    assert_eq!(lookaside(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_named_with_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = lookaside(&["serve", "--listen=127.0.0.1:0", "--admin-listen", &addr]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&addr) && errors.contains("admin"), "{errors}");
}

#[test]
fn a_file_and_the_environment_say_what_flags_could() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    std::fs::write(&file, "domain = 'file.zone'\nprefix = ['/a', '/b=plain']\n").unwrap();
    let balancer = Balancer::start(&["--config", file.to_str().unwrap()]);
    balancer.wait_ready();
    let registry = balancer.registry().to_string();
    etcdctl(&registry, &["put", "/b/hello/1", "10.0.0.1:1"]);
    eventually("the service", || {
        let (_, services) = balancer.get("/api/v1/services");
        services.contains("hello.file.zone").then_some(())
    });
}

fn etcdctl(endpoint: &str, args: &[&str]) {
    let status = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint])
        .args(args)
        .stdout(Stdio::null())
        .status()
        .expect("etcdctl runs");
    assert!(status.success(), "etcdctl {args:?}");
}

#[test]
fn until_the_registry_is_read_nobody_is_told_anything() {
    let mut etcd = Etcd::start();
    let url = etcd.url();
    let one = Backend::registered("one", &url, "hello");
    etcd.kill();
    let balancer = Balancer::start(&["--etcd", &url]);
    let (status, missing) = balancer.get("/readyz");
    assert_eq!((status, missing.contains("registry")), (503, true), "{missing}");
    assert_eq!(balancer.get("/livez").0, 200);
    eventually("what is served is said", || {
        let log = balancer.log();
        assert!(!log.contains("serving what was last read"), "nothing was: {log}");
        log.contains("nothing has been read yet").then_some(())
    });
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    let waiting = client.begin(&Calls::waiting(1).timeout(WAIT_MAX));
    eventually("the client is refused", || {
        (metric(&balancer, "lookaside_streams_refused_total") > 0.0).then_some(())
    });
    assert_eq!(metric(&balancer, "lookaside_lists_sent_total"), 0.0);
    etcd.restart();
    balancer.wait_ready();
    assert_eq!(waiting.wait().from("one"), 1);
    one.stop();
}

#[test]
fn a_problem_of_the_file_hides_no_other() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    std::fs::write(&file, "lisen = 'x'\nlog = 'nonsense='\nguard = 101\nprefix = 7.5\n").unwrap();
    let path = file.to_str().unwrap();
    let output = lookaside(&["serve", "--config", path, "--dns-listen=:53", "--log-format=text"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{errors}");
    for problem in [
        format!("error: {path}:1:1: \"lisen\" is no setting"),
        format!("error: {path}:2:1: --log: \"nonsense=\""),
        format!("error: {path}:3:1: --guard: \"101\""),
        format!("error: {path}:4:1: prefix is float"),
        "error: --dns-listen: \":53\" is no IP:PORT, such as 0.0.0.0:53".to_owned(),
    ] {
        assert!(errors.contains(&problem), "{problem}\n{errors}");
    }
    assert_eq!(errors.lines().count(), 5, "{errors}");
    // A variable wins over the file, and an error in its value names the variable.
    let output = Command::new(env!("CARGO_BIN_EXE_lookaside"))
        .args(["check", "--config", path, "--domain=x", "--log=off"])
        .env("LOOKASIDE_GUARD", "102")
        .env("LOOKASIDE_PREFIX", "/x,/")
        .env("LOOKASIDE_DOMAIN", "..")
        .env_remove("LOOKASIDE_ETCD")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    for problem in [
        format!("error: {path}:1:1: \"lisen\" is no setting"),
        "error: LOOKASIDE_GUARD: --guard: \"102\"".to_owned(),
        "error: LOOKASIDE_PREFIX: --prefix: ".to_owned(),
    ] {
        assert!(errors.contains(&problem), "{problem}\n{errors}");
    }
    assert_eq!((output.status.code(), errors.lines().count()), (Some(64), 3), "{errors}");
    for filter in ["nonsense=", "inof"] {
        let output = lookaside(&["services", "--log", filter]);
        assert_eq!(output.status.code(), Some(64), "{filter}");
    }
    // A filter for a module that does not exist is named, and hides no other line.
    for filter in ["nonsense=debug", "error,lookaside::dsn=debug"] {
        let output = lookaside(&["services", "--admin", "127.0.0.1:1", "--log", filter]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("--log names a module that writes no line"), "{filter}: {said}");
    }
}

#[test]
fn what_is_no_data_goes_to_standard_error() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lookaside.toml");
    std::fs::write(&file, "log = 'debug'\n").unwrap();
    let balancer = Balancer::start(&["--config", file.to_str().unwrap()]);
    balancer.wait_ready();
    eventually("the file's log level", || balancer.log().contains("DEBUG").then_some(()));
    let admin = format!("http://{}", balancer.admin());
    for (command, says) in
        [("clients", "no client is connected"), ("services", "no service has a backend yet")]
    {
        let output = lookaside(&[command, "--admin", &admin]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b""[..]));
        assert!(String::from_utf8_lossy(&output.stderr).contains(says));
        let json = lookaside(&[command, "--admin", &admin, "--json"]);
        assert!(serde_json::from_slice::<serde_json::Value>(&json.stdout).is_ok());
    }
    // The usage does not demand an option that the environment sets.
    let usage = Command::new(env!("CARGO_BIN_EXE_lookaside"))
        .args(["services", "--no-such-flag"])
        .env("LOOKASIDE_ADMIN", &admin)
        .output()
        .unwrap();
    let usage = String::from_utf8_lossy(&usage.stderr).into_owned();
    assert!(usage.contains("Usage: lookaside services [OPTIONS]\n"), "{usage}");
    let help = lookaside(&["serve", "--help"]);
    let help =
        String::from_utf8_lossy(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("0s: it leaves the lists at once [env"), "{help}");
}

#[test]
fn keys_forge_no_line_of_the_log_and_do_not_flood_it() {
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--log", "debug"]);
    balancer.wait_ready();
    let forged = "2026-11-26T00:00:00Z ERROR lookaside: all is lost";
    etcd.ctl(&["put", "--", &format!("/etcd3_naming/hello/x\n{forged}\u{9b}31m"), "no address"]);
    for number in 0..30 {
        etcd.ctl(&["put", "--", &format!("/etcd3_naming/hello/bad-{number}"), "no address"]);
    }
    eventually("all are read", || {
        (metric(&balancer, "lookaside_registry_rejected_keys") == 31.0).then_some(())
    });
    let log = balancer.log();
    assert!(log.contains(&format!("x\\u{{a}}{forged}\\u{{9b}}31m")), "{log}");
    assert!(!log.lines().any(|line| line.starts_with(forged)), "{log}");
    assert_eq!(log.matches("keys rejected").count(), 1, "{log}");
}

// ---- stopping

#[test]
fn a_signal_ends_it_in_order_though_clients_are_connected() {
    let mut balancer = Balancer::start(&[]);
    balancer.wait_ready();
    let registry = format!("http://{}", balancer.registry());
    let one = Backend::registered("one", &registry, "hello");
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    assert_eq!(client.call(&Calls::waiting(3)).from("one"), 3);
    let mut silent = TcpStream::connect(balancer.grpclb()).unwrap();
    let began = Instant::now();
    assert_eq!(balancer.terminate().code(), Some(0), "{}", balancer.log());
    assert!(began.elapsed() < WAIT_MAX);
    silent.set_read_timeout(Some(WAIT_MAX)).unwrap();
    assert!(matches!(silent.read(&mut [0; 64]), Ok(_) | Err(_)));
    // Clients go on without the balancer.
    assert_eq!(client.call(&Calls::new(10)).from("one"), 10);
    drop(one);
}

#[test]
fn a_second_signal_aborts() {
    let mut balancer = Balancer::start(&[]);
    balancer.wait_ready();
    // This connection holds the drain up: it speaks HTTP/2 and never answers.
    let mut stalled = TcpStream::connect(balancer.grpclb()).unwrap();
    stalled.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    eventually("it is served", || {
        (metric(&balancer, "lookaside_connections_total") == 1.0).then_some(())
    });
    balancer.signal(Signal::INT);
    eventually("it drains", || balancer.log().contains("draining").then_some(()));
    balancer.signal(Signal::INT);
    let code = balancer.wait().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
}

// ---- what keys become

#[test]
fn bad_keys_are_shown_with_their_reasons_and_cost_their_neighbours_nothing() {
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    balancer.wait_ready();
    let good = [
        ("/etcd3_naming/hello/plain", "10.0.0.1:50051"),
        ("/etcd3_naming/hello/v6", "[2001:db8::1]:50051"),
        ("/etcd3_naming/hello/qsf", r#"{"addr":"10.0.0.3:50051","metadata":null}"#),
        ("/etcd3_naming/hello/naming", r#"{"Op":0,"Addr":"10.0.0.4:50051","Metadata":null}"#),
        ("/etcd3_naming/hello/7", r#"{"Addr":"10.0.0.5:50051","Metadata":"7"}"#),
    ];
    let megabyte = "x".repeat(1_000_000);
    let bad = [
        ("/etcd3_naming/hello/port-0", "10.0.0.1:0"),
        ("/etcd3_naming/hello/port-65536", "10.0.0.1:65536"),
        ("/etcd3_naming/hello/port-500053", r#"{"addr":"127.0.0.1:500053","metadata":null}"#),
        ("/etcd3_naming/hello/no-host", ":50051"),
        ("/etcd3_naming/hello/bare-v6", "2001:db8::1"),
        ("/etcd3_naming/hello/cut", r#"{"Addr":"10.0.0"#),
        ("/etcd3_naming/hello/other", r#"{"host":"10.0.0.1"}"#),
        ("/etcd3_naming//empty", "10.0.0.1:1"),
        ("/etcd3_naming/hello/unspecified", "0.0.0.0:50051"),
    ];
    for (key, value) in good.iter().chain(&bad) {
        etcd.ctl(&["put", "--", key, value]);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &megabyte).unwrap();
    let put = format!(
        "etcdctl --endpoints=127.0.0.1:{} put /etcd3_naming/hello/megabyte < {}; \
         printf '\\377\\376' | etcdctl --endpoints=127.0.0.1:{} put /etcd3_naming/hello/not-text",
        etcd.port(),
        file.path().display(),
        etcd.port()
    );
    let status = Command::new("sh").env("ETCDCTL_API", "3").args(["-c", &put]).status().unwrap();
    assert!(status.success());
    // A key of a neighbouring prefix is not read.
    etcd.ctl(&["put", "/etcd3_naming2/other/1", "10.0.0.9:1"]);
    eventually("all are told of", || {
        let (_, rejected) = balancer.get("/api/v1/rejected");
        rejected.contains("\"total\":11").then_some(())
    });
    let (_, rejected) = balancer.get("/api/v1/rejected");
    for (key, _) in bad {
        assert!(rejected.contains(key), "{key}: {rejected}");
    }
    assert!(rejected.len() < 10_000, "a megabyte is not repeated");
    let (_, service) = balancer.get("/api/v1/services/hello");
    for ip in ["10.0.0.1", "[2001:db8::1]", "10.0.0.3", "10.0.0.4", "10.0.0.5"] {
        assert!(service.contains(&format!("{ip}:50051")), "{ip}: {service}");
    }
    let (_, services) = balancer.get("/api/v1/services");
    assert!(!services.contains("other"), "{services}");
    assert_eq!(metric(&balancer, "lookaside_registry_rejected_keys"), 11.0);
}

#[test]
fn a_registrant_that_writes_again_under_a_new_lease_causes_no_push() {
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    balancer.wait_ready();
    let one = Backend::start("one");
    let value = one.addr().to_string();
    let write = || {
        let lease = etcd.ctl(&["lease", "grant", "60"]);
        let lease = lease.split(' ').nth(1).unwrap();
        etcd.ctl(&["put", "--lease", lease, "/etcd3_naming/hello/one", &value]);
    };
    write();
    let driver = Driver::start(&PYTHON);
    let client = driver.open(&Options::grpclb(balancer.target("hello")));
    assert_eq!(client.call(&Calls::waiting(1)).from("one"), 1);
    let sent = metric(&balancer, "lookaside_lists_sent_total");
    let revision = metric(&balancer, "lookaside_registry_revision");
    (0..10).for_each(|_| write());
    eventually("all is heard", || {
        (metric(&balancer, "lookaside_registry_revision") >= revision + 10.0).then_some(())
    });
    assert_eq!(metric(&balancer, "lookaside_lists_sent_total"), sent);
}

#[test]
fn host_names_are_resolved() {
    let etcd = Etcd::start();
    let balancer = Balancer::start(&["--etcd", &etcd.url()]);
    balancer.wait_ready();
    etcd.ctl(&["put", "/etcd3_naming/hello/one", "localhost:50051"]);
    eventually("localhost is known", || {
        let (_, service) = balancer.get("/api/v1/services/hello");
        service.contains("127.0.0.1:50051").then_some(())
    });
    // A host name that does not resolve is shown with its key, and harms no other key.
    let key = "/etcd3_naming/hello/two";
    etcd.ctl(&["put", key, "nonexistent-host.invalid:8080"]);
    eventually("the other is told", || {
        let (_, rejected) = balancer.get("/api/v1/rejected");
        let told = rejected.contains(key)
            && rejected.contains("the host name nonexistent-host.invalid does not resolve");
        told.then_some(())
    });
    assert_eq!(metric(&balancer, "lookaside_registry_unresolved_backends"), 1.0);
    assert!(balancer.get("/api/v1/services/hello").1.contains("127.0.0.1:50051"));
    etcd.ctl(&["del", key]);
    eventually("and no more once it is gone", || {
        (metric(&balancer, "lookaside_registry_unresolved_backends") == 0.0).then_some(())
    });
}

// ---- the port

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let balancer = Balancer::start(&[]);
    let mut silent = TcpStream::connect(balancer.grpclb()).unwrap();
    let mut garbage = TcpStream::connect(balancer.grpclb()).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    for stream in [&mut silent, &mut garbage] {
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_ok() || rest.len() < 100, "{ended:?}");
    }
    eventually("both are counted", || {
        (metric(&balancer, "lookaside_connections_failed_total") == 2.0).then_some(())
    });
}

#[test]
fn health_and_reflection_are_served_beside_the_balancer() {
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("http://{}", balancer.grpclb());
    runtime.block_on(async {
        let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        for service in ["", "grpc.lb.v1.LoadBalancer"] {
            let service = service.to_owned();
            let request = tonic_health::pb::HealthCheckRequest { service };
            let status = health.check(request).await.unwrap().into_inner().status;
            assert_eq!(
                status,
                tonic_health::pb::health_check_response::ServingStatus::Serving as i32
            );
        }
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        let request = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(channel);
        let stream = tokio_stream::once(request);
        let mut answers = reflection.server_reflection_info(stream).await.unwrap().into_inner();
        let answer = format!("{:?}", answers.message().await.unwrap());
        assert!(answer.contains("grpc.lb.v1.LoadBalancer"), "{answer}");
        assert!(!answer.contains("helloworld"), "{answer}");
    });
}

#[test]
fn reflection_can_be_turned_off() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let balancer = Balancer::start(&["--reflection=off"]);
    balancer.wait_ready();
    let url = format!("http://{}", balancer.grpclb());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
        let mut reflection = ServerReflectionClient::new(channel);
        let stream = tokio_stream::once(ServerReflectionRequest::default());
        let refused = reflection.server_reflection_info(stream).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
    });
}

#[test]
fn tls_is_spoken_and_clients_are_asked_for_theirs() {
    let dir = tempfile::TempDir::new().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["balancer.test".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert_file, key_file) = (write("cert", cert.pem()), write("key", key.serialize_pem()));
    let flags = ["--tls-cert", &cert_file, "--tls-key", &key_file];
    let check = |balancer: &Balancer, identity: bool| {
        let tls = tonic::transport::ClientTlsConfig::new()
            .ca_certificate(tonic::transport::Certificate::from_pem(cert.pem()))
            .domain_name("balancer.test");
        let tls = if identity {
            tls.identity(tonic::transport::Identity::from_pem(cert.pem(), key.serialize_pem()))
        } else {
            tls
        };
        let url = format!("https://{}", balancer.grpclb());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let endpoint = tonic::transport::Channel::from_shared(url).unwrap();
            let channel = endpoint.tls_config(tls).unwrap().connect().await.ok()?;
            let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
            health.check(tonic_health::pb::HealthCheckRequest::default()).await.ok()
        })
    };
    let balancer = Balancer::start(&flags);
    assert!(check(&balancer, false).is_some());
    let mutual = [&flags[..], &["--tls-client-ca", &cert_file]].concat();
    let balancer = Balancer::start(&mutual);
    assert!(check(&balancer, false).is_none());
    assert!(check(&balancer, true).is_some());
    // Certificate and key in each other's place are refused at the start.
    let output = lookaside(&["serve", "--tls-cert", &key_file, "--tls-key", &cert_file]);
    assert_eq!(output.status.code(), Some(64));
}

// ---- the rest of the program

#[test]
fn the_demo_ends_by_itself_and_the_example_server_registers() {
    let demo = Command::new(env!("CARGO_BIN_EXE_lookaside"))
        .args(["demo", "--seconds", "3"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{said}");
    for word in
        ["listening grpclb=", "dns=", "registry=", "backend-2 stops", "backend-2 starts again"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn addresses_are_what_was_asked_for() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let balancer = Balancer::start(&["--listen", &listen]);
    assert_eq!(balancer.grpclb().port(), port);
    assert_eq!(balancer.grpclb().ip().to_string(), "127.0.0.1");
    assert!(TcpStream::connect_timeout(&balancer.admin(), Duration::from_secs(5)).is_ok());
}

#[test]
fn clients_never_take_the_last_descriptor() {
    let program = env!("CARGO_BIN_EXE_lookaside");
    let run = format!(
        "ulimit -n 120; exec {program} serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --registry-listen 127.0.0.1:0"
    );
    let mut child = Command::new("sh")
        .args(["-c", &run])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let address = |name: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap();
        word.parse::<std::net::SocketAddr>().unwrap()
    };
    let clients: Vec<_> =
        (0..200).map(|_| TcpStream::connect(address("grpclb=")).unwrap()).collect();
    // Descriptors are left for the admin server and for clients of the registry.
    let url = format!("http://{}/metrics", address("admin="));
    eventually("connections are refused, and metrics are shown", || {
        let text = ureq::get(&url).call().ok()?.body_mut().read_to_string().ok()?;
        text.lines()
            .any(|line| {
                line.strip_prefix("lookaside_connections_refused_total ").is_some_and(|n| n != "0")
            })
            .then_some(())
    });
    etcdctl(&address("registry=").to_string(), &["put", "a", "b"]);
    drop(clients);
    child.kill().unwrap();
    child.wait().unwrap();
}
