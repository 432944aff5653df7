//! Counts the clients that were denied a service, and logs them.
//!
//! In: denials, as they occur. Out: totals, one row for each name, and at most one log line
//! a minute for each name. Clients choose the names, so there are at most [`NAMES_MAX`] rows;
//! beyond that, fresh names share a row.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Counter;
use crate::model::ClientIdentity;
use crate::warning_limit::WarningLimit;

/// The denials since the start.
#[derive(Debug, Default)]
pub struct Denials {
    /// Streams of grpclb clients that were refused or ended.
    pub grpclb: Counter,
    /// Names on streams of xDS clients.
    pub xds: Counter,
    /// Questions for the addresses of backends.
    pub dns: Counter,
    rows: Mutex<BTreeMap<String, Row>>,
}

/// How a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A `BalanceLoad` stream.
    Grpclb,
    /// A name on an xDS stream.
    Xds,
    /// A question for addresses.
    Dns,
}

/// The denials of one name.
#[derive(Debug, Clone)]
pub struct Denied {
    /// The canonical name; empty for the names that have no row.
    pub name: String,
    /// How often it was denied.
    pub times: u64,
    /// When it was denied first.
    pub first: Instant,
    /// When it was denied last.
    pub last: Instant,
    /// How the last client asked.
    pub protocol: Protocol,
    /// The address of the last client.
    pub client: IpAddr,
    /// The names in its certificate.
    pub certificate: Vec<String>,
}

#[derive(Debug)]
struct Row {
    denied: Denied,
    warnings: WarningLimit,
}

/// The most names with a row. Few services have rules that many clients break.
const NAMES_MAX: usize = 64;
/// How long a row is kept at least if there are too many.
const KEPT_FOR: Duration = Duration::from_secs(60);

impl Denials {
    /// Counts a denial of a canonical name, and logs it if a line is due.
    pub fn add(&self, protocol: Protocol, name: &str, client: &ClientIdentity, now: Instant) {
        let total = match protocol {
            Protocol::Grpclb => &self.grpclb,
            Protocol::Xds => &self.xds,
            Protocol::Dns => &self.dns,
        };
        total.increment();
        let mut rows = self.lock();
        let name = room(&mut rows, name, now);
        let row = rows.entry(name.clone()).or_insert_with(|| Row::new(name, client, now));
        row.denied.times += 1;
        (row.denied.last, row.denied.protocol) = (now, protocol);
        row.denied.client = client.addr.ip();
        row.denied.certificate = client.names().collect();
        let Some(times) = row.warnings.count(1, now) else { return };
        let Denied { name, client, certificate, .. } = row.denied.clone();
        drop(rows);
        let (certificate, protocol) = (certificate.join(" "), protocol.as_str());
        tracing::warn!(
            service = name, %client, certificate, protocol, times,
            "client denied: the service's setting `clients` does not name it"
        );
    }

    /// Returns the denials by name, the newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Denied> {
        let mut all: Vec<_> = self.lock().values().map(|row| row.denied.clone()).collect();
        all.sort_by_key(|denied| std::cmp::Reverse(denied.last));
        all
    }

    /// Returns the denials of a canonical name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Denied> {
        self.lock().get(name).map(|row| row.denied.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of the row for a name, once there is room for it.
fn room(rows: &mut BTreeMap<String, Row>, name: &str, now: Instant) -> String {
    if rows.contains_key(name) || rows.len() < NAMES_MAX {
        return name.to_owned();
    }
    let old = |row: &Row| now.saturating_duration_since(row.denied.last) >= KEPT_FOR;
    let oldest = rows.iter().filter(|(_, row)| old(row)).min_by_key(|(_, row)| row.denied.last);
    match oldest.map(|(name, _)| name.clone()) {
        Some(oldest) => {
            rows.remove(&oldest);
            name.to_owned()
        }
        None => String::new(),
    }
}

impl Row {
    fn new(name: String, client: &ClientIdentity, now: Instant) -> Self {
        let denied = Denied {
            name,
            times: 0,
            first: now,
            last: now,
            protocol: Protocol::Grpclb,
            client: client.addr.ip(),
            certificate: Vec::new(),
        };
        Self { denied, warnings: WarningLimit::default() }
    }
}

impl Protocol {
    /// Returns the name for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpclb => "grpclb",
            Self::Xds => "xds",
            Self::Dns => "dns",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_row_and_a_flood_of_names_shares_one() {
        let (denials, start) = (Denials::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let client = ClientIdentity::from("192.0.2.1:7".parse::<std::net::SocketAddr>().unwrap());
        let deny = |name: &str, second| denials.add(Protocol::Dns, name, &client, at(second));
        (0..3).for_each(|second| deny("pay", second));
        let pay = denials.of("pay").unwrap();
        assert_eq!((pay.times, pay.first, pay.last), (3, at(0), at(2)));
        assert_eq!(denials.dns.total(), 3);
        (0..1_000).for_each(|n| deny(&format!("n{n}"), 30));
        assert_eq!(denials.all().len(), NAMES_MAX + 1);
        let others = denials.of("").unwrap();
        assert_eq!(others.times, 1_000 - (NAMES_MAX as u64 - 1));
        // A minute later, a row makes room.
        deny("late", 62);
        assert!(denials.of("late").is_some() && denials.of("pay").is_none());
    }
}
