//! Any bytes as a DNS query: an answer of bounded size, or silence, never a
//! panic.

use std::sync::Arc;

use lookaside::catalog::Known;
use lookaside::dns::answer::{Carrier, Reply, UDP_MAX, World, answer};
use lookaside::model::{HostPort, Zone};
use lookaside::settings::ServiceSettings;

/// Panics at what must not be.
pub fn check(query: &[u8]) {
    let (Ok(zone), Ok(own)) = (Zone::new("lookaside.internal"), HostPort::parse("10.0.0.1:12000"))
    else {
        return;
    };
    let own = [own];
    let absent = Known::Absent(Arc::new(ServiceSettings::DEFAULT));
    let lookup = |_: &_| absent.clone();
    let world = World {
        zone: &zone,
        balancers: Some(&own),
        lookup: &lookup,
        afford: &|work| work <= query.len(),
        seed: query.len(),
    };
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        match answer(query, carrier, &world) {
            Reply::Answer(bytes) | Reply::Rejection(bytes) => {
                assert!(carrier == Carrier::Tcp || bytes.len() <= usize::from(UDP_MAX));
            }
            Reply::Silence => {}
        }
    }
}
