//! Listeners and clusters that streams share: one of each name for all clients of a kind.
//!
//! In: names, and the settings of what they mean. Out: [`Resource`]s, encoded by the first stream
//! that asks, until the settings are others. It holds those of few names: clients of one service
//! ask at once, when they start or its settings change, and one process may have thousands of
//! names that no other has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ClientKind;
use crate::settings::ServiceSettings;

use super::resources::{Kind, Resource, for_client};

/// The newest resources.
#[derive(Default)]
pub(super) struct SharedResources(Mutex<HashMap<Arc<str>, Vec<Made>>>);

/// The newest resource of a type, for clients of a kind.
struct Made {
    kind: Kind,
    client: ClientKind,
    settings: Arc<ServiceSettings>,
    resource: Resource,
}

/// When there are so many names, all are forgotten.
const NAMES_MAX: usize = 256;

impl SharedResources {
    /// Returns the listener or the cluster of a name. The settings are those of the service,
    /// whatever clients of this kind are told of them.
    pub(super) fn get(
        &self,
        kind: Kind,
        name: &str,
        settings: &Arc<ServiceSettings>,
        client: ClientKind,
    ) -> Resource {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |made: &Made| made.kind == kind && made.client == client;
        let made = names.get(name).and_then(|all| all.iter().find(|made| is_same(made)));
        if let Some(made) = made.filter(|made| Arc::ptr_eq(&made.settings, settings)) {
            return made.resource.clone();
        }
        let resource = Resource::new(kind, name, &for_client(settings, client));
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        let all = names.entry(name.into()).or_default();
        all.retain(|made| !is_same(made));
        all.push(Made { kind, client, settings: settings.clone(), resource: resource.clone() });
        resource
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clients_of_a_kind_share_what_is_encoded_once() {
        let shared = SharedResources::default();
        let mut settings = ServiceSettings::DEFAULT;
        settings.xds.timeout = Duration::from_secs(1);
        let (old, new) = (Arc::new(ServiceSettings::DEFAULT), Arc::new(settings));
        let get = |kind, settings, client| shared.get(kind, "a", settings, client);
        for kind in [Kind::Listener, Kind::Cluster] {
            for settings in [&old, &new] {
                let [go, core] = [ClientKind::Go, ClientKind::Core].map(|client| {
                    let first = get(kind, settings, client);
                    let again = get(kind, settings, client);
                    assert_eq!(first.bytes.as_ptr(), again.bytes.as_ptr());
                    assert_eq!(first, Resource::new(kind, "a", &for_client(settings, client)));
                    first
                });
                // C-core is told a longer time.
                let same = kind == Kind::Cluster || Arc::ptr_eq(settings, &old);
                assert_eq!(go == core, same);
            }
        }
        assert_ne!(
            get(Kind::Listener, &old, ClientKind::Go).bytes,
            get(Kind::Listener, &new, ClientKind::Go).bytes
        );
    }

    #[test]
    fn few_names_are_held() {
        let (shared, settings) = (SharedResources::default(), Arc::new(ServiceSettings::DEFAULT));
        for name in 0..3 * NAMES_MAX {
            for settings in [&settings, &Arc::new(ServiceSettings::DEFAULT)] {
                shared.get(Kind::Cluster, &name.to_string(), settings, ClientKind::Node);
            }
        }
        let names = shared.0.lock().unwrap();
        assert!(names.len() <= NAMES_MAX && names.values().all(|all| all.len() == 1));
    }
}
