//! Which addresses an answer has, and in which order. Pure.
//!
//! In: addresses, and where rotation begins. Out: records of one family.

use std::net::IpAddr;

use hickory_proto::rr::{RData, RecordType};

use crate::catalog::Addresses;

/// The most addresses in an answer. Of a larger set, each question gets another window.
/// 128 addresses still fit into one to three TCP segments.
pub(super) const ADDRESSES_MAX: usize = 128;

/// Returns the records of one family, in the order of the balancers.
pub(super) fn addresses(all: &[IpAddr], kind: RecordType) -> Vec<RData> {
    let data = all.iter().filter_map(|ip| match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A((*ip).into())),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA((*ip).into())),
        _ => None,
    });
    data.take(ADDRESSES_MAX).collect()
}

/// Returns at most `most` addresses of one family, rotated.
pub(super) fn window(all: &Addresses, kind: RecordType, seed: usize, most: usize) -> Vec<RData> {
    if kind == RecordType::A {
        rotated(&all.v4, seed).take(most).map(|&ip| RData::A(ip.into())).collect()
    } else {
        rotated(&all.v6, seed).take(most).map(|&ip| RData::AAAA(ip.into())).collect()
    }
}

fn rotated<T>(all: &[T], seed: usize) -> impl Iterator<Item = &T> {
    let (front, back) = all.split_at(seed % all.len().max(1));
    back.iter().chain(front)
}
