//! The services that DNS can name, with their addresses.
//!
//! In: the catalog. Out: names below the zone. It keeps the addresses of services that have
//! not changed, so a look costs what has changed, and a reference for each service.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::zone;
use crate::catalog::{Addresses, Catalog, Service};
use crate::model::{Target, Zone};
use crate::policy;
use crate::settings::Clients;

/// The services by their names below the zone, each with its addresses.
pub type Named = BTreeMap<String, Arc<Addresses>>;

/// What was found when it was last looked.
#[derive(Default)]
pub struct NamedServices {
    seen: BTreeMap<String, (u64, Arc<Addresses>)>,
}

/// How many services are looked at before other tasks run.
const AT_ONCE: usize = 256;

impl NamedServices {
    /// Returns the addresses of every service that DNS can name.
    pub async fn look(&mut self, catalog: &Catalog, zone: &Zone) -> Named {
        let mut seen = BTreeMap::new();
        for (at, service) in catalog.services().iter().enumerate() {
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            // A copy answers everyone, so it lacks what not everyone may ask for.
            if service.settings.clients != Clients::ALL {
                continue;
            }
            let Some(name) = zone::name_of(&service.name, zone) else { continue };
            let known = self.seen.remove(&name).filter(|(version, _)| *version == service.version);
            let known = known.or_else(|| Some((service.version, addresses(service, &name, zone)?)));
            seen.extend(known.map(|known| (name, known)));
        }
        self.seen = seen;
        self.seen.iter().map(|(name, (_, addresses))| (name.clone(), addresses.clone())).collect()
    }
}

fn addresses(service: &Service, name: &str, zone: &Zone) -> Option<Arc<Addresses>> {
    let target = Target::parse(&format!("{name}.{zone}"), zone).ok()?;
    let class = policy::class(service, &target, None);
    Some(policy::addresses(service, &class))
}
