//! Any bytes from a client to the gRPC port, which reports its calls by xDS (LRS).

use lookaside::xds::LOAD_PATH;

use crate::{client, grpc};

/// The server answers with one interval.
const ANSWER_MAX: usize = 4_096;

/// What `data` says is what [`client::check`] makes of it.
pub fn check(data: &[u8]) {
    client::check(data, LOAD_PATH, ANSWER_MAX, grpc::serve);
}
