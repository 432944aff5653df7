//! Any key and value in any format: read or rejected, never a panic, and never
//! an address that a client must not see.

use lookaside::model::Host;
use lookaside::registry::record::{NAMED, Prefix};

/// The first byte chooses the format, the second how long the key is.
pub fn check(data: &[u8]) {
    let [format, length, rest @ ..] = data else { return };
    let (_, format) = NAMED[usize::from(*format) % NAMED.len()].clone();
    let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
    let prefix = Prefix { path: "/p/".to_owned(), format };
    let key = [b"/p/", key].concat();
    let Ok(reading) = prefix.decode(&key, value) else { return };
    for registration in reading.registrations {
        assert_ne!(registration.address.port(), 0);
        if let Host::Ip(ip) = registration.address.host {
            assert!(!ip.is_unspecified() && !ip.is_multicast());
        }
        assert!(!registration.service.as_str().is_empty());
    }
}
