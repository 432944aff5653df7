//! A real Envoy that gets the backends of a cluster from lookaside (EDS), with the
//! configuration that docs/xds.md has.
//!
//! In: a balancer, backends, and Envoy in front of them. Out: a panic if calls through Envoy do
//! not go where the balancer says.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lookaside::model::Weight;
use tempfile::TempDir;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::PYTHON;
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World, metric};
use crate::support::{WAIT_MAX, eventually, skip};

/// Takes calls, and sends them to the cluster.
const LISTENER: &str = r#"  listeners:
    - name: in
      address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
      filter_chains:
        - filters:
            - name: http
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: in
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{ match: { prefix: "/" }, route: { cluster: hello } }]
                http_filters:
                  - name: router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#;
const ADMIN: &str =
    "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\n";
/// What puts the stream of endpoints on one with all other resources (ADS).
const ADS: &str = r"dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{ envoy_grpc: { cluster_name: lookaside } }]
";

/// A running Envoy. It is killed when this value is dropped.
struct Envoy {
    child: Child,
    admin: String,
    directory: TempDir,
}

/// An etcd, a balancer and a service of three backends of weights 1, 2 and 3.
struct Scene {
    world: World,
    balancer: Balancer,
    backends: [Backend; 3],
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    fn start(balancer: &Balancer, change: impl Fn(&str) -> String) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let file = |name: &str| directory.path().join(name);
        let own = format!("static_resources:\n{LISTENER}");
        let (host, port) = (balancer.grpclb().ip().to_string(), balancer.grpclb().port());
        let config = change(&recipe())
            .replace("static_resources:\n", &own)
            .replace("grpclb.lookaside.internal", &host)
            .replace("12000", &port.to_string());
        std::fs::write(file("envoy.yaml"), config + ADMIN).expect("a temporary file");
        let log = std::fs::File::create(file("log")).expect("a temporary file");
        let child = Command::new(program())
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "info", "-c"])
            .arg(file("envoy.yaml"))
            .arg("--admin-address-path")
            .arg(file("admin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Envoy starts");
        let mut envoy = Self { child, admin: String::new(), directory };
        envoy.admin = eventually("Envoy names its addresses", || {
            if let Ok(Some(status)) = envoy.child.try_wait() {
                panic!("Envoy ended: {status}\n{}", envoy.log());
            }
            let admin = std::fs::read_to_string(envoy.directory.path().join("admin")).ok()?;
            Some(admin).filter(|admin| !admin.is_empty())
        });
        envoy
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.admin);
        let request = ureq::get(url).config().proxy(None).timeout_global(Some(WAIT_MAX)).build();
        let mut response = request.call().expect("Envoy's admin port answers");
        response.body_mut().read_to_string().expect("text")
    }

    /// Opens a client that knows nothing but Envoy.
    fn client<'a>(&self, driver: &'a Driver) -> Channel<'a> {
        let address = eventually("Envoy takes calls", || {
            let listeners = self.get("/listeners");
            let address = listeners.lines().find_map(|line| line.strip_prefix("in::"))?;
            Some(address.to_owned())
        });
        driver.open(&Options { config: None, ..Options::grpclb(address) })
    }
}

impl Scene {
    /// Starts the scene; `None` if there is no Envoy for this machine.
    fn start() -> Option<Self> {
        let need = Command::new(root().join("scripts/need")).arg("envoy").status();
        if !need.is_ok_and(|status| status.success()) {
            skip("envoy", "scripts/need envoy: see above");
            return None;
        }
        let world = World::new(Arc::new(Etcd::start()), &PYTHON);
        let mut backends = ["1", "2", "3"].map(Backend::start);
        for (backend, weight) in backends.iter_mut().zip(1..) {
            world.register_with(backend, Weight(weight));
        }
        let balancer = world.balancer(&[]);
        backends.iter().for_each(|backend| balancer.wait_listed(SERVICE, backend.id()));
        Some(Self { world, balancer, backends })
    }

    fn refused(&self) -> u64 {
        metric(&self.balancer, r#"lookaside_xds_responses_refused_total{type="endpoints"}"#)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> PathBuf {
    root().join("target/tools/envoy/envoy/_bin/envoy")
}

/// Returns the configuration that docs/xds.md has.
fn recipe() -> String {
    let page = std::fs::read_to_string(root().join("docs/xds.md")).expect("the page is there");
    let mut blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.starts_with("# envoy.yaml")).expect("it is there").to_owned()
}

/// Checks that Envoy obeys weights and drains, without a failed call.
fn serves(scene: &Scene, envoy: &Envoy) {
    let Scene { world, balancer, backends: [one, two, three] } = scene;
    let driver = world.driver();
    let client = envoy.client(&driver);
    let shares = |all: [(&Backend, u64); 3]| {
        let sum: u64 = all.iter().map(|one| one.1).sum();
        // Envoy's own turns are exact, but for how they begin.
        client.until("calls are spread by weights", &Calls::new(60), |report| {
            let due = |&(one, weight): &(&Backend, u64)| {
                report.from(one.id()).abs_diff(60 * weight / sum) <= 2
            };
            report.failed() == 0 && all.iter().all(due)
        });
    };
    shares([(one, 1), (two, 2), (three, 3)]);
    client.start(&Calls::new(0).every(Duration::from_millis(2)));
    let mark = |kind: &str, of: &str, value: &str| {
        let key = format!("/lookaside/marks/{}/{kind}/{SERVICE}{of}", world.zone());
        world.etcd().ctl(&["put", &key, value]);
    };
    let drain = format!("/{}", two.addr());
    mark("drain", &drain, "{}");
    shares([(one, 1), (two, 0), (three, 3)]);
    mark("drain", &drain, r#"{"until":"2001-01-01T00:00:00Z"}"#);
    shares([(one, 1), (two, 2), (three, 3)]);
    let report = client.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
    let (_, clients) = balancer.get("/api/v1/clients");
    assert!(clients.contains(r#""user_agent":"envoy""#), "{clients}");
    assert_eq!(scene.refused(), 0, "{}\n{}", balancer.log(), envoy.log());
}

#[test]
fn envoy_gets_endpoints_by_a_stream_of_their_own() {
    let Some(scene) = Scene::start() else { return };
    serves(&scene, &Envoy::start(&scene.balancer, ToOwned::to_owned));
}

#[test]
fn envoy_gets_endpoints_by_a_stream_for_everything() {
    let Some(scene) = Scene::start() else { return };
    let ads = |config: &str| {
        let (before, rest) =
            config.split_once("          api_config_source:").expect("it is there");
        let (_, after) = rest.split_once("cluster_name: lookaside } }]\n").expect("it is there");
        format!("{before}          ads: {{}}\n{after}{ADS}")
    };
    serves(&scene, &Envoy::start(&scene.balancer, ads));
}

/// Envoy's log says what to do.
#[test]
fn envoy_is_told_that_there_are_no_deltas() {
    let Some(scene) = Scene::start() else { return };
    let delta = |config: &str| config.replace("api_type: GRPC", "api_type: DELTA_GRPC");
    let envoy = Envoy::start(&scene.balancer, delta);
    eventually("Envoy logs the refusal", || {
        let log = envoy.log().replace("%20", " ");
        log.contains("deltas are not served: use api_type GRPC").then_some(())
    });
    assert!(metric(&scene.balancer, "lookaside_xds_streams_refused_total") > 0);
}
