//! Real xDS clients beyond balancing: bootstrap files with TLS as lookaside makes them, names in
//! every spelling, and names that cannot be right. tests/xds.rs has the cases of balancing.

#![allow(unreachable_pub, missing_docs)]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lookaside::model::Weight;

use crate::support::backend::Backend;
use crate::support::certificates::Authority;
use crate::support::client::{Calls, Channel, Driver, Options, Report};
use crate::support::etcd::Etcd;
use crate::support::language::{Language, XDS_GO, XDS_JAVA, XDS_NODE, XDS_PYTHON};
use crate::support::lookaside::{Balancer, program};
use crate::support::skip;
use crate::support::world::{SERVICE, World, metric};

/// One test with one language.
struct Scene {
    world: World,
    language: Language,
}

/// The PEM files of one authority, of a balancer, and of a client.
struct Files {
    ca: String,
    balancer: [String; 2],
    client: [String; 2],
}

impl Scene {
    fn start(language: Language) -> Option<Self> {
        if let Some(obstacle) = language.obstacle() {
            skip(&format!("xds_clients: {}", language.name), &obstacle);
            return None;
        }
        let world = World::new(Arc::new(Etcd::start()), &language);
        Some(Self { world, language })
    }

    fn files(&self) -> Files {
        let authority = Authority::new();
        let write = |name: &str, text: &str| {
            let path = self.world.directory.path().join(name);
            std::fs::write(&path, text).expect("a temporary file");
            path.to_str().expect("temporary paths are text").to_owned()
        };
        let pair = |name: &str, of: &str| {
            let (cert, key) = authority.sign(&[of]);
            [write(&format!("{name}.pem"), &cert), write(&format!("{name}.key"), &key)]
        };
        Files {
            ca: write("ca.pem", &authority.pem()),
            balancer: pair("balancer", "127.0.0.1"),
            client: pair("client", "client.internal"),
        }
    }

    /// Starts a balancer with TLS; with mutual TLS if it wants certificates.
    #[track_caller]
    fn secured(&self, files: &Files, mutual: bool) -> Balancer {
        let [cert, key] = &files.balancer;
        let mut flags = vec!["--tls-cert", cert, "--tls-key", key];
        if mutual {
            flags.extend(["--tls-client-ca", &files.ca]);
        }
        self.world.balancer(&flags)
    }

    /// Starts a client process. Java takes the authorities that it trusts from the JVM alone.
    #[track_caller]
    fn driver(&self, bootstrap: &str, files: &Files) -> Driver {
        let mut environment = vec![("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_owned())];
        if self.language == XDS_JAVA {
            let store = self.world.directory.path().join("trust.p12");
            let store = store.to_str().expect("text");
            let imports = ["-importcert", "-noprompt", "-alias", "test", "-storepass", "changeit"];
            let output = Command::new("keytool")
                .args(imports)
                .args(["-file", &files.ca, "-keystore", store])
                .output();
            let output = output.expect("keytool runs");
            assert!(output.status.success() || output.stdout.ends_with(b"already exists\n"));
            let options = format!(
                "-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit"
            );
            environment.push(("JAVA_TOOL_OPTIONS", options));
        }
        let environment: Vec<_> = environment.iter().map(|(name, text)| (*name, &**text)).collect();
        Driver::start_in(&self.language, &self.world.resolver(), &environment)
    }
}

/// Returns the file that the command prints.
fn printed(args: &[&str]) -> String {
    let output = Command::new(program()).arg("xds-bootstrap").args(args).output();
    let output = output.expect("lookaside runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("JSON is text")
}

/// Returns the file that the balancer gives.
fn given(balancer: &Balancer, query: &str) -> String {
    let (code, file) = balancer.get(&format!("/api/v1/xds/bootstrap?{query}"));
    assert_eq!(code, 200, "{file}");
    file
}

#[track_caller]
fn open<'a>(driver: &'a Driver, name: &str) -> Channel<'a> {
    driver.open(&Options::xds(name))
}

#[track_caller]
fn is_served(driver: &Driver) {
    let all = |report: &Report| report.from("one") == 4;
    open(driver, SERVICE).until("one answers", &Calls::new(4), all);
}

/// TLS to the balancer by the generated file; and without the authority, no answer is believed.
fn tls(scene: &Scene) {
    let files = scene.files();
    let balancer = scene.secured(&files, false);
    let _one = scene.world.backend("one");
    balancer.wait_listed(SERVICE, "one");
    let server = balancer.grpclb().to_string();
    is_served(&scene.driver(&printed(&["--server", &server, "--ca", &files.ca]), &files));
    is_served(
        &scene.driver(&given(&balancer, &format!("server={server}&ca={}", files.ca)), &files),
    );
    // TLS at the balancer is enough for TLS in its file; no system trusts this authority.
    let file = given(&balancer, &format!("server={server}"));
    if scene.language != XDS_JAVA {
        open(&scene.driver(&file, &files), SERVICE).is_unavailable();
    }
    assert_eq!(metric(&balancer, "lookaside_xds_streams_refused_total"), 0);
}

/// Mutual TLS by the generated file. A client without a certificate is refused.
fn mutual_tls(scene: &Scene) {
    let files = scene.files();
    let balancer = scene.secured(&files, true);
    let _one = scene.world.backend("one");
    balancer.wait_listed(SERVICE, "one");
    let server = balancer.grpclb().to_string();
    let without = scene.driver(&printed(&["--server", &server, "--ca", &files.ca]), &files);
    open(&without, SERVICE).is_unavailable();
    assert_eq!(metric(&balancer, "lookaside_xds_streams_opened_total"), 0);
    assert!(balancer.metric("lookaside_connections_failed_total") > Some(0.0));
    if scene.language == XDS_JAVA {
        return;
    }
    let [cert, key] = &files.client;
    let flags = ["--server", &server, "--ca", &files.ca, "--cert", cert, "--key", key];
    is_served(&scene.driver(&printed(&[&flags[..], &["--refresh", "10m"]].concat()), &files));
    let query = format!("server={server}&ca={}&cert={cert}&key={key}", files.ca);
    let driver = scene.driver(&given(&balancer, &query), &files);
    let client = open(&driver, SERVICE);
    client.until("one answers", &Calls::new(4), |report| report.from("one") == 4);
    let (_, shown) = balancer.get("/api/v1/clients");
    assert!(shown.contains("client.internal"), "the certificate is the client's: {shown}");
}

/// A name means the same in every spelling that the client bears.
fn spellings(scene: &Scene) {
    let balancer = scene.world.balancer(&[]);
    let mut game = Backend::start("game");
    let (prefix, etcd) = (scene.world.prefix(), scene.world.etcd().url());
    game.register_below(&prefix, &etcd, "dev/game", Weight::DEFAULT);
    balancer.wait_listed("dev/game", "game");
    let bootstrap = given(&balancer, &format!("server={}", balancer.grpclb()));
    let mut bootstrap: serde_json::Value = serde_json::from_str(&bootstrap).expect("JSON");
    let template = "xdstp://lookaside/envoy.config.listener.v3.Listener/%s";
    bootstrap["authorities"] =
        serde_json::json!({"lookaside": {"client_listener_resource_name_template": template}});
    let environment = bootstrap.to_string();
    let driver = Driver::start_xds(&scene.language, &environment);
    let zone = scene.world.zone();
    let mut targets = vec![
        "xds:///game.dev".to_owned(),
        "xds:///Game.DEV:50051".to_owned(),
        format!("xds:///game.dev.{zone}"),
        "xds://lookaside/game.dev".to_owned(),
    ];
    // grpc-java's channel panics at a name that ends in a dot, whatever the server says.
    if scene.language != XDS_JAVA {
        targets.extend(["xds:///game.dev.".to_owned(), format!("xds:///game.dev.{zone}.")]);
    }
    for target in targets {
        let client = driver.open(&Options { target: target.clone(), ..Options::xds("") });
        let report = client.call(&Calls::waiting(2));
        assert_eq!((report.from("game"), report.failed()), (2, 0), "{target}: {report:?}");
    }
    let client = driver.open(&Options::xds("game.dev."));
    let report = client.call(&Calls::new(1));
    let panics = report.errors.keys().any(|error| error.starts_with("INTERNAL"));
    assert_eq!(panics, scene.language == XDS_JAVA, "{report:?}");
}

/// A name that cannot be right fails at once, and the error mostly says why.
fn invalid_names(scene: &Scene) {
    let balancer = scene.world.balancer(&[]);
    let _one = scene.world.backend("one");
    balancer.wait_listed(SERVICE, "one");
    let bootstrap = given(&balancer, &format!("server={}", balancer.grpclb()));
    let driver = Driver::start_xds(&scene.language, &bootstrap);
    // Java's first call takes seconds on a busy machine.
    is_served(&driver);
    let client = open(&driver, "a..b");
    let began = Instant::now();
    let report = client.call(&Calls::new(1).timeout(Duration::from_secs(30)));
    // After 15 seconds clients take a name for one that does not exist; Node waits for ever.
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    let errors: Vec<_> = report.errors.keys().cloned().collect();
    assert!(errors.len() == 1 && errors[0].starts_with("UNAVAILABLE"), "{report:?}");
    // grpc-go says nothing of the reason.
    assert_eq!(errors[0].contains("holds no service"), scene.language != XDS_GO, "{report:?}");
    for kind in ["listener", "cluster", "endpoints"] {
        let name = format!("lookaside_xds_responses_refused_total{{type=\"{kind}\"}}");
        assert_eq!(metric(&balancer, &name), 0, "{}", balancer.log());
    }
}

macro_rules! tests {
    ($($language:ident = $client:expr, [$($case:ident),*];)*) => {$(
        mod $language {
            use super::*;

            $(
                #[test]
                fn $case() {
                    if let Some(scene) = Scene::start($client) {
                        super::$case(&scene);
                    }
                }
            )*
        }
    )*};
}

tests! {
    go = XDS_GO, [tls, mutual_tls, spellings, invalid_names];
    java = XDS_JAVA, [tls, mutual_tls, spellings, invalid_names];
    python = XDS_PYTHON, [tls, mutual_tls, spellings, invalid_names];
    node = XDS_NODE, [spellings, invalid_names];
}
