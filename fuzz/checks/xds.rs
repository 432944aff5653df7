//! Any bytes from a client to the gRPC port, which asks for xDS.

use lookaside::xds::PATH;

use crate::{client, grpc};

/// Without credit, the server sends one window of responses, however many names it is asked
/// for.
const ANSWER_MAX: usize = 4_096 + 65_535;

/// What `data` says is what [`client::check`] makes of it.
pub fn check(data: &[u8]) {
    client::check(data, PATH, ANSWER_MAX, grpc::serve);
}
