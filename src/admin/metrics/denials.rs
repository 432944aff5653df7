//! The metric of clients that were denied a service.
//!
//! In: totals by protocol. Out: one metric family. Names are no labels, because clients choose
//! them.

use std::fmt;

use prometheus_client::metrics::MetricType;

use crate::telemetry::Denials;

use super::{Page, counter};

pub(super) fn write(all: &Denials, page: &mut Page<'_>) -> fmt::Result {
    let help = "Times a client was denied a service, by protocol: /api/v1/denied lists them";
    let mut family = page.family("clients_denied", help, MetricType::Counter)?;
    for (protocol, total) in [("grpclb", &all.grpclb), ("xds", &all.xds), ("dns", &all.dns)] {
        counter(&mut family.encode_family(&[("protocol", protocol)])?, total.total())?;
    }
    Ok(())
}
