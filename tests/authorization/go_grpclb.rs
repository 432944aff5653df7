//! The client with a certificate in `examples/clients/go`, started as a user starts it: over
//! grpclb, the name in its certificate decides.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tonic::transport::Identity;

use super::certificates::{Authority, dns, uri};
use super::revoked::{sign, write_list};
use super::{apply, denied, json};
use crate::support::backend::Backend;
use crate::support::etcd::Etcd;
use crate::support::language::Language;
use crate::support::lookaside::Balancer;
use crate::support::signal::Signal;
use crate::support::world::{SERVICE, World, metric};
use crate::support::{eventually, skip, try_eventually};

const RULES: &str = "[service.hello]\nclients = ['spiffe://prod/web/*']\n";

/// A running client, and what it has printed. Dropping the value kills it.
struct Client {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Client {
    fn start(authority: &Authority, identity: Option<&(String, String)>, target: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join(PROGRAM));
        let trusted = authority.write("trusted", &authority.issuer().pem());
        command.args(["-interval", "20ms", "-ca", &trusted]);
        if let Some((cert, key)) = identity {
            // Each client has files of its own, because it reads them for each connection.
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            command.args(["-cert", &authority.write(&format!("{number}.pem"), cert)]);
            command.args(["-key", &authority.write(&format!("{number}.key"), key)]);
        }
        command.arg(target).env("GRPC_GO_LOG_SEVERITY_LEVEL", "warning");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let printed = Arc::<Mutex<String>>::default();
        collect(child.stdout.take().expect("it is piped"), printed.clone());
        collect(child.stderr.take().expect("it is piped"), printed.clone());
        Self { child, printed }
    }

    fn printed(&self) -> String {
        self.printed.lock().expect("no holder panics").clone()
    }

    /// Waits until the client has printed all of these words.
    #[track_caller]
    fn until(&self, words: &[&str]) {
        let found = try_eventually(|| {
            let printed = self.printed();
            words.iter().all(|words| printed.contains(words)).then_some(())
        });
        assert!(found.is_some(), "the client prints no {words:?}:\n{}", self.printed());
    }

    /// Waits until this backend answers, after all that the client has printed so far.
    #[track_caller]
    fn until_from(&self, id: &str) {
        let before = self.printed().len();
        let greeting = format!("Hello world from {id}\n");
        let found = try_eventually(|| self.printed()[before..].contains(&greeting).then_some(()));
        assert!(found.is_some(), "no answer of {id}:\n{}", self.printed());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where [`build`] puts the program.
const PROGRAM: &str = "target/clients/examples-go/with-certificates";

fn build() {
    // A program cannot be started while another test writes it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(root.join("scripts/go"))
        .args(["build", "-buildvcs=false", "-o"])
        .args([root.join(PROGRAM).as_path(), Path::new("./with-certificates")])
        .current_dir(root.join("examples/clients/go"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "go build: see above");
}

fn collect(mut output: impl Read + Send + 'static, printed: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut chunk) {
            let text = String::from_utf8_lossy(&chunk[..length]);
            printed.lock().expect("no holder panics").push_str(&text);
        }
    });
}

/// A balancer with mutual TLS, the backend that it lists, and DNS that also gives clients the
/// address of a backend that no balancer lists.
struct Scene {
    world: World,
    authority: Authority,
    balancer: Balancer,
    _dns: Balancer,
    _backends: [Backend; 2],
    target: String,
}

impl Scene {
    /// Starts the scene; `None` if the client cannot run on this machine.
    fn start(rules: &str, further: impl Fn(&Authority) -> Vec<String>) -> Option<Self> {
        let go = Language::named("go");
        if let Some(obstacle) = go.obstacle() {
            skip("authorization: go over grpclb with a certificate", &obstacle);
            return None;
        }
        build();
        let (world, authority) = (World::new(Arc::new(Etcd::start()), &go), Authority::new());
        let of = |name: &str| authority.sign([dns(name)], |_| ());
        let (cert, key) = of(&format!("grpclb.{}", world.zone()));
        authority.write("cert", &cert);
        authority.write("key", &key);
        let config = authority.write("lookaside.toml", rules);
        let own = vec!["--config".to_owned(), config];
        let flags = [authority.flags(), own, further(&authority)].concat();
        let balancer = world.balancer(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        let start = |id: &str| {
            let (cert, key) = of(&format!("{SERVICE}.{}", world.zone()));
            Backend::start_tls(id, Identity::from_pem(cert, key))
        };
        let mut backends = ["one", "fallback"].map(start);
        world.register(&mut backends[0]);
        balancer.wait_listed(SERVICE, "one");
        let dns = world.dns(balancer.grpclb());
        world.put_in_dns(&dns, &mut backends[1]);
        let target = world.falling_back_to(&dns, &backends[1]).target;
        Some(Self { world, authority, balancer, _dns: dns, _backends: backends, target })
    }

    /// Starts a client that shows this certificate.
    fn client(&self, identity: Option<&(String, String)>) -> Client {
        Client::start(&self.authority, identity, &self.target)
    }

    fn clients(&self) -> serde_json::Value {
        json(&self.balancer, "/api/v1/clients")
    }
}

#[test]
fn go_over_grpclb_is_admitted_by_its_certificate_and_falls_back_with_any_other() {
    let Some(scene) = Scene::start(RULES, |_| Vec::new()) else { return };
    let (authority, balancer) = (&scene.authority, &scene.balancer);
    // Clients that do not get through the handshake take ten seconds until they fall back.
    let foreign = Authority::new().sign([uri("spiffe://prod/web/7")], |_| ());
    let strangers = [None, Some(&foreign)].map(|identity| scene.client(identity));
    let right = authority.sign([uri("spiffe://prod/web/7")], |_| ());
    let admitted = scene.client(Some(&right));
    admitted.until_from("one");
    let rows = scene.clients();
    let row = &rows["clients"][0];
    assert_eq!((&row["protocol"], &rows["total"]), (&"grpclb".into(), &1.into()), "{rows}");
    assert_eq!(row["certificate"], serde_json::json!(["spiffe://prod/web/7"]), "{rows}");
    assert_eq!(denied(balancer, "grpclb"), 0.0);

    // The authority vouches for this one too, and its name is another. It gets a status.
    let wrong = authority.sign([uri("spiffe://prod/webmail")], |_| ());
    let other = scene.client(Some(&wrong));
    other.until(&["code = PermissionDenied desc = this client may not ask for this name"]);
    other.until_from("fallback");
    assert!(denied(balancer, "grpclb") >= 1.0);
    let rows = json(balancer, "/api/v1/denied");
    assert_eq!(rows["denied"][0]["certificate"][0], "spiffe://prod/webmail", "{rows}");
    // lookaside's own DNS gives it no address either, so its calls fail.
    let alone = Client::start(authority, Some(&wrong), &scene.world.target(balancer));
    alone.until(&["PermissionDenied", "Unavailable: "]);

    // TLS tells the others why.
    strangers[0].until(&["tls: certificate required", "Hello world from fallback"]);
    strangers[1].until(&["tls: unknown certificate authority", "Hello world from fallback"]);
    assert!(metric(balancer, "lookaside_connections_failed_total") >= 2);

    for refused in [&other, &alone, &strangers[0], &strangers[1]] {
        assert!(!refused.printed().contains("from one"), "{}", refused.printed());
    }
    assert_eq!(metric(balancer, "lookaside_streams_opened_total"), 1, "the admitted one's");
    assert!(!admitted.printed().contains("from fallback"), "{}", admitted.printed());

    // They get in, and leave the fallback, once the name counts.
    apply(scene.world.etcd(), &scene.world.zone(), &RULES.replace("web/*", "webmail"));
    for admitted in [&other, &alone] {
        admitted.until_from("one");
    }
}

/// The client goes on calling the backends that it knows, and does not fall back.
#[test]
fn go_over_grpclb_loses_its_stream_and_no_call_when_its_certificate_is_revoked() {
    let list =
        |authority: &Authority| vec!["--tls-client-crl".to_owned(), write_list(authority, &[])];
    let Some(scene) = Scene::start("version = 1", list) else { return };
    let identities =
        [7, 8].map(|number| sign(&scene.authority, &format!("spiffe://prod/{number}"), number));
    let [kept, revoked] = identities.each_ref().map(|identity| scene.client(Some(identity)));
    kept.until_from("one");
    revoked.until_from("one");
    assert_eq!(scene.clients()["total"], 2);

    write_list(&scene.authority, &[8]);
    scene.balancer.signal(Signal::HUP);
    revoked.until(&[
        "code = Unauthenticated desc = the certificate of this connection is no longer accepted",
        "tls: revoked certificate",
    ]);
    revoked.until_from("one");
    let rows = scene.clients();
    assert_eq!(rows["total"], 1, "{rows}");
    assert_eq!(rows["clients"][0]["certificate"][0], "spiffe://prod/7", "{rows}");

    write_list(&scene.authority, &[]);
    scene.balancer.signal(Signal::HUP);
    eventually("it is back", || (scene.clients()["total"] == 2).then_some(()));
    assert_eq!(metric(&scene.balancer, "lookaside_streams_opened_total"), 3);
    for client in [&kept, &revoked] {
        client.until_from("one");
        let printed = client.printed();
        let in_vain = |line: &&str| line.starts_with("Unavailable") || line.contains("fallback");
        assert_eq!(printed.lines().find(in_vain), None);
    }
}
