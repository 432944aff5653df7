//! xDS: what the cases of the matrix with real clients of xDS share.
//!
//! In: a language. Out: a scene for one case: an etcd, a balancer and client processes with
//! targets `xds:///`.

#[path = "xds/cases.rs"]
pub mod cases;
#[path = "xds/faults.rs"]
pub mod faults;
#[path = "xds/large.rs"]
pub mod large;
#[path = "xds/load.rs"]
pub mod load;
#[path = "xds/migration.rs"]
pub mod migration;
#[path = "xds/names.rs"]
mod names;
#[path = "xds/policy.rs"]
pub mod policy;
#[path = "xds/relay.rs"]
mod relay;
#[path = "xds/relayed.rs"]
pub mod relayed;
#[path = "xds/security.rs"]
pub mod security;
#[path = "xds/settings.rs"]
pub mod settings;
#[path = "xds/steps.rs"]
pub mod steps;

use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::{Language, XDS_NODE, XDS_RUST};
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World};
use crate::support::{WAIT_MAX, free_port};
use lookaside::model::Weight;

/// One test with one language: an etcd, and a balancer whose address stays the same when it
/// is started again.
pub struct Scene {
    world: World,
    language: Language,
    address: String,
}

impl Scene {
    pub fn start(language: Language) -> Self {
        let world = World::new(Arc::new(Etcd::start()), &language);
        Self { world, language, address: format!("127.0.0.1:{}", free_port()) }
    }

    #[track_caller]
    fn balancer(&self, args: &[&str]) -> Balancer {
        self.world.balancer(&[&["--listen", &self.address], args].concat())
    }

    /// Starts a balancer, a backend that it lists, and a client process.
    #[track_caller]
    fn with_one(&self) -> (Balancer, Backend, Driver) {
        let balancer = self.balancer(&[]);
        let one = self.world.backend("one");
        balancer.wait_listed(SERVICE, "one");
        let driver = self.driver(&balancer);
        (balancer, one, driver)
    }

    /// Returns calls that wait until a backend is ready. tonic-xds has no such calls: its
    /// calls wait for an assignment, and with an unreachable backend they fail.
    fn waiting(&self, count: u64) -> Calls {
        Calls { wait_for_ready: self.waits(), ..Calls::new(count).timeout(WAIT_MAX) }
    }

    /// Returns whether the client has calls that wait until a backend is ready.
    fn waits(&self) -> bool {
        self.language != XDS_RUST
    }

    /// Starts and registers a backend of any service.
    fn backend_of(&self, service: &str, id: &str) -> Backend {
        let mut backend = Backend::start(id);
        let (prefix, etcd) = (self.world.prefix(), self.world.etcd().url());
        backend.register_below(&prefix, &etcd, service, Weight::DEFAULT);
        backend
    }

    /// Starts a client process with the bootstrap file that the balancer gives.
    #[track_caller]
    fn driver(&self, balancer: &Balancer) -> Driver {
        self.driver_by(balancer, &self.address)
    }

    /// Starts a client process that reaches the balancer at another address.
    #[track_caller]
    fn driver_by(&self, balancer: &Balancer, address: &str) -> Driver {
        self.driver_at(balancer, &format!("server={}", self.server(address)))
    }

    /// Starts a client process with a bootstrap file that states a zone.
    #[track_caller]
    fn driver_in_zone(&self, balancer: &Balancer, zone: &str) -> Driver {
        self.driver_at(balancer, &format!("server={}&zone={zone}", self.server(&self.address)))
    }

    /// Returns an address as the client wants it. tonic-xds wants a URL without TLS, and no
    /// other client takes one.
    fn server(&self, address: &str) -> String {
        let scheme = if self.language == XDS_RUST { "http://" } else { "" };
        format!("{scheme}{address}")
    }

    /// Returns how many connections each change of a list costs to each backend that stays:
    /// grpc-js-xds connects to all anew.
    fn cost_of_a_change(&self) -> usize {
        usize::from(self.language == XDS_NODE)
    }

    #[track_caller]
    fn driver_at(&self, balancer: &Balancer, query: &str) -> Driver {
        let path = format!("/api/v1/xds/bootstrap?{query}");
        let (code, bootstrap) = balancer.get(&path);
        assert_eq!(code, 200, "{bootstrap}");
        Driver::start_xds(&self.language, &bootstrap)
    }

    /// Starts a client process that knows the authority `lookaside`, with the same servers.
    #[track_caller]
    fn driver_with_authority(&self, balancer: &Balancer) -> Driver {
        let (_, bootstrap) =
            balancer.get(&format!("/api/v1/xds/bootstrap?server={}", self.address));
        let mut bootstrap: serde_json::Value = serde_json::from_str(&bootstrap).expect("JSON");
        bootstrap["authorities"] = serde_json::json!({"lookaside": {}});
        Driver::start_xds(&self.language, &bootstrap.to_string())
    }
}

#[track_caller]
fn open<'a>(driver: &'a Driver, name: &str) -> Channel<'a> {
    driver.open(&Options::xds(name))
}

/// Opens a client, and waits until it calls the backend `one`.
#[track_caller]
fn connected(driver: &Driver) -> Channel<'_> {
    let client = open(driver, SERVICE);
    cases::is_used(&cases::client_of(&client), "one");
    client
}
