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

use crate::support::client::{Channel, Driver, Options};
use crate::support::etcd::Etcd;
use crate::support::language::{Language, XDS_CPP, XDS_GO, XDS_JAVA, XDS_NODE, XDS_PYTHON};
use crate::support::lookaside::Balancer;
use crate::support::world::World;
use crate::support::{free_port, skip};

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

    /// Starts a client process with the bootstrap file that the balancer gives.
    #[track_caller]
    fn driver(&self, balancer: &Balancer) -> Driver {
        self.driver_at(balancer, &format!("server={}", self.address))
    }

    /// Starts a client process with a bootstrap file that states a zone.
    #[track_caller]
    fn driver_in_zone(&self, balancer: &Balancer, zone: &str) -> Driver {
        self.driver_at(balancer, &format!("server={}&zone={zone}", self.address))
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

#[test]
fn thousands_of_targets_on_one_stream() {
    if let Some(scene) = Scene::start(XDS_NODE) {
        cases::thousands_of_targets(&scene);
    }
}

clients! {
    cpp = XDS_CPP;
    go = XDS_GO;
    java = XDS_JAVA;
    node = XDS_NODE;
    python = XDS_PYTHON;
}
