//! xDS: real clients of several languages with targets `xds:///`, the real program and a
//! real etcd. Each case runs with each language.

#![allow(unreachable_pub, missing_docs)]

#[path = "xds/cases.rs"]
mod cases;
#[path = "xds/faults.rs"]
mod faults;
#[path = "xds/migration.rs"]
mod migration;
#[path = "xds/policy.rs"]
mod policy;
#[path = "xds/settings.rs"]
mod settings;

use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::client::{Calls, Channel, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::{
    Language, XDS_CPP, XDS_GO, XDS_JAVA, XDS_NODE, XDS_PYTHON, XDS_RUST,
};
use crate::support::lookaside::Balancer;
use crate::support::world::{SERVICE, World};
use crate::support::{WAIT_MAX, free_port, skip};

/// One test with one language: an etcd, and a balancer whose address stays the same when it
/// is started again.
struct Scene {
    world: World,
    language: Language,
    address: String,
}

impl Scene {
    /// Starts the scene; `None` if the client cannot run on this machine.
    fn start(language: Language) -> Option<Self> {
        if let Some(obstacle) = language.obstacle() {
            skip(&format!("xds: {}", language.name), &obstacle);
            return None;
        }
        let world = World::new(Arc::new(Etcd::start()), &language);
        Some(Self { world, language, address: format!("127.0.0.1:{}", free_port()) })
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

    /// Starts a client process with the bootstrap file that the balancer gives.
    #[track_caller]
    fn driver(&self, balancer: &Balancer) -> Driver {
        self.driver_at(balancer, &format!("server={}", self.server()))
    }

    /// Starts a client process with a bootstrap file that states a zone.
    #[track_caller]
    fn driver_in_zone(&self, balancer: &Balancer, zone: &str) -> Driver {
        self.driver_at(balancer, &format!("server={}&zone={zone}", self.server()))
    }

    /// Returns the balancer's address as the client wants it. tonic-xds wants a URL without
    /// TLS, and no other client takes one.
    fn server(&self) -> String {
        let scheme = if self.language == XDS_RUST { "http://" } else { "" };
        format!("{scheme}{}", self.address)
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

/// Makes the tests of one language.
macro_rules! tests {
    ($client:expr; $($module:ident::$case:ident,)*) => {$(
        #[test]
        fn $case() {
            if let Some(scene) = Scene::start($client) {
                $module::$case(&scene);
            }
        }
    )*};
}

/// Makes a module with all cases for each language.
macro_rules! clients {
    ($($language:ident = $client:expr;)*) => {$(
        mod $language {
            use super::*;

            tests! { $client;
                cases::weights,
                cases::a_backend_comes_and_goes,
                cases::client_first,
                cases::going_empty_and_returning,
                cases::when_empty_drop,
                cases::unknown_names_fail_at_once,
                cases::drained_by_a_mark,
                cases::shed_by_a_mark,
                cases::denied_and_admitted,
                cases::names_have_all_spellings,
                cases::names_with_an_authority,
                cases::idle_and_back,
                cases::many_targets,
                policy::zones,
                policy::splits,
                settings::reports,
                settings::retries,
                settings::timeouts,
                settings::circuits,
                settings::outliers,
                settings::hashes,
                settings::client_weights,
                faults::etcd_is_away,
                faults::the_balancer_restarts,
                faults::the_balancer_comes_later,
            }
        }
    )*};
}

/// tonic-xds has no weights, no drops of a part, no authorities, idleness and reports, and
/// obeys none of the settings but retries: the other cases mean nothing for it.
mod rust {
    use super::*;

    tests! { XDS_RUST;
        cases::weights,
        cases::a_backend_comes_and_goes,
        cases::client_first,
        cases::going_empty_and_returning,
        cases::when_empty_drop,
        cases::unknown_names_fail_at_once,
        cases::drained_by_a_mark,
        cases::shed_by_a_mark,
        cases::denied_and_admitted,
        cases::names_have_all_spellings,
        cases::many_targets,
        policy::zones,
        policy::splits_by_client,
        settings::retries,
        settings::not_obeyed,
        faults::etcd_is_away,
        faults::the_balancer_restarts,
        faults::the_balancer_comes_later,
    }
}

clients! {
    cpp = XDS_CPP;
    go = XDS_GO;
    java = XDS_JAVA;
    node = XDS_NODE;
    python = XDS_PYTHON;
}
