//! The token: text that a call carries to its backend as metadata `lb-token`.
//!
//! In: a service and an address. Out: `BACKEND` or `BACKEND~NONCE`. BACKEND is sixteen
//! hexadecimal digits that stand for the service and the address, the same on every
//! balancer and for ever. NONCE has no meaning. It is in one entry of a stream's first
//! list, and of its first list after a fallback. A token is printable and under 50 bytes,
//! because C-core drops longer ones and grpc-go fails every call on unprintable ones. Pure.

use std::fmt::{self, Write};

use crate::model::{BackendAddr, ServiceName};

/// The token of the entry that tells clients to drop a call.
pub(super) const DROP: &str = "drop";
/// Precedes the nonce.
const NONCE: char = '~';

/// Returns the token of one backend of one service. It must not depend on anything else:
/// grpc-go keeps a connection's first token for ever, so a token that changes would be
/// wrong at half of the clients.
#[must_use]
pub fn token(service: &ServiceName, addr: BackendAddr) -> String {
    let mut text = String::new();
    Tokens::new(service).write(addr, &mut text);
    text
}

/// The tokens of one service's backends.
pub(super) struct Tokens(Hash);

/// FNV-1a, 64 bits. Unlike the standard library's hashes it stays the same from release
/// to release.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Tokens {
    pub(super) fn new(service: &ServiceName) -> Self {
        Self(Hash::BASIS.with(service.as_str().as_bytes()).with(b"\0"))
    }

    /// Writes the token of one backend in place of the text.
    pub(super) fn write(&self, addr: BackendAddr, text: &mut String) {
        let mut hash = self.0;
        // A write to a hash or a string never fails.
        let _ = write!(hash, "{addr}");
        text.clear();
        let _ = write!(text, "{:016x}", hash.0);
    }
}

/// Returns the token with a nonce, unlike any token before it.
pub(super) fn unique(token: &str, nonce: u32) -> String {
    format!("{token}{NONCE}{nonce:08x}")
}

impl Hash {
    const BASIS: Self = Self(0xcbf2_9ce4_8422_2325);

    fn with(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        *self = self.with(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_printable_short_and_for_ever() {
        let service = ServiceName::new("hello").unwrap();
        let addr = BackendAddr::new([10, 0, 0, 1].into(), 50051).unwrap();
        assert_eq!(token(&service, addr), "84a1d0879cb3b26e");
        let unique = unique(&token(&service, addr), 0xbeef);
        assert_eq!(unique, "84a1d0879cb3b26e~0000beef");
        assert!(unique.len() < 50 && unique.bytes().all(|b| b.is_ascii_graphic()));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        let fnv1a = |bytes| Hash::BASIS.with(bytes).0;
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
