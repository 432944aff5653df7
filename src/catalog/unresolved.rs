//! Backends whose registered host names do not resolve.
//!
//! In: host names, how they resolve and which keys registered them. Out: one
//! [`Unresolved`] with the reason for each backend that is not listed, or is listed with
//! addresses that may be old.

use std::sync::Arc;

use crate::model::ServiceName;
use crate::registry::{Key, Registration, Remark};

use super::host_names::UnresolvedName;

/// A backend whose host name does not resolve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unresolved {
    /// The service that it registered for.
    pub service: ServiceName,
    /// The key that registers it.
    pub key: Key,
    /// The backend's id.
    pub id: Arc<str>,
    /// The host name as registered, in lower case.
    pub host: String,
    /// Why it does not resolve.
    pub error: String,
    /// How many addresses of the last good answer are still listed. If 0, the backend is
    /// not listed.
    pub kept: usize,
}

/// The most backends that are shown: people read only the first.
pub(super) const SHOWN_MAX: usize = 10_000;

impl Unresolved {
    pub(super) fn new(
        service: &ServiceName,
        key: &Key,
        one: &Registration,
        name: &UnresolvedName<'_>,
    ) -> Self {
        Self {
            service: service.clone(),
            key: key.clone(),
            id: one.id.clone(),
            host: name.host.to_owned(),
            error: name.error.clone(),
            kept: name.kept,
        }
    }

    /// Returns it as a remark on the key.
    #[must_use]
    pub fn remark(&self) -> Remark {
        let Self { host, error, .. } = self;
        let instead = match self.kept {
            0 => "it is not listed".to_owned(),
            kept => format!("its last addresses ({kept}) are listed"),
        };
        Remark(format!("the host name {host} does not resolve ({error}): {instead}").into())
    }
}

/// Logs names that stop resolving, and when all resolve again. It logs one line for the
/// first name and one each time the number has doubled, so that a DNS outage does not log
/// a line for each name.
pub(super) fn log(before: &[Unresolved], now: &[Unresolved], logged: &mut usize) {
    if now.is_empty() {
        if !before.is_empty() {
            tracing::info!("all host names resolve again");
        }
        *logged = 0;
        return;
    }
    if now.len() < (*logged * 2).max(1) {
        return;
    }
    *logged = now.len();
    let new = now.iter().find(|one| before.binary_search(one).is_err());
    let Some(Unresolved { service, key, host, error, kept, .. }) = new.or(now.first()) else {
        return;
    };
    let unresolved = now.len();
    tracing::warn!(%service, %key, host, error, kept, unresolved, "host name does not resolve");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_no_line_for_each_name() {
        let one = |number: usize| Unresolved {
            service: ServiceName::new("s").unwrap(),
            key: Key::new(format!("/s/{number:04}").as_bytes()),
            id: "i".into(),
            host: format!("h{number}"),
            error: "no such host".to_owned(),
            kept: 0,
        };
        let all: Vec<_> = (0..1_000).map(one).collect();
        let (mut logged, mut lines) = (0, 0);
        for count in 1..=all.len() {
            let before = logged;
            log(&all[..count - 1], &all[..count], &mut logged);
            lines += usize::from(logged != before);
        }
        assert!(lines <= 11, "{lines}");
        log(&all, &[], &mut logged);
        assert_eq!(logged, 0);
        let said = all[0].remark().to_string();
        assert_eq!(said, "the host name h0 does not resolve (no such host): it is not listed");
    }
}
