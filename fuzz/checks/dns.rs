//! Any bytes as a DNS query: an answer of bounded size, or silence, never a
//! panic.

use std::sync::Arc;

use lookaside::catalog::Known;
use lookaside::dns::answer::{Facts, Reply, Transport, UDP_MAX, answer};
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
    let facts = Facts {
        zone: &zone,
        balancers: Some(&own),
        asker: [192, 0, 2, 1].into(),
        denied: &|_| {},
        lookup: &lookup,
        may_visit: &|work| work <= query.len(),
        serial: 1,
        seed: query.len(),
    };
    for transport in [Transport::Udp, Transport::Tcp] {
        match answer(query, transport, &facts) {
            Reply::Answer(bytes) | Reply::Rejection(bytes) => {
                assert!(transport == Transport::Tcp || bytes.len() <= usize::from(UDP_MAX));
            }
            Reply::Silence => {}
        }
    }
}
