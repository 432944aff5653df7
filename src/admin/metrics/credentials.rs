//! The metrics of certificates, keys, passwords and tokens: of the files that they are read
//! from, and of requests that they keep out.
//!
//! In: what is known of each. Out: the metrics of their ends, changes and faults, and of
//! refused requests.

use std::fmt;

use prometheus_client::metrics::MetricType;

use super::{Page, counter, flag};
use crate::telemetry::Counters;

/// Writes the metrics.
pub(super) fn write(counters: &Counters, page: &mut Page<'_>) -> fmt::Result {
    let all = &counters.credentials.all();
    let help = "When the first certificate of a file expires, in seconds since 1970";
    let mut family = page.family("certificate_expiry_seconds", help, MetricType::Gauge)?;
    for (used_for, end) in all.iter().flat_map(|one| &one.expiries) {
        family.encode_family(&[("use", *used_for)])?.encode_gauge(end)?;
    }
    let help = "Whether changed files cannot be used and former ones are: the log says why";
    let mut family = page.family("credentials_broken", help, MetricType::Gauge)?;
    for one in all {
        family.encode_family(&[("use", one.used_for)])?.encode_gauge(&flag(one.broken))?;
    }
    let help = "Times files were read again because they changed";
    let mut family = page.family("credential_reloads", help, MetricType::Counter)?;
    for one in all {
        counter(&mut family.encode_family(&[("use", one.used_for)])?, one.reloads)?;
    }
    let help = "Times changed files could not be used";
    let mut family = page.family("credential_failures", help, MetricType::Counter)?;
    for one in all {
        counter(&mut family.encode_family(&[("use", one.used_for)])?, one.failures)?;
    }
    let help = "Requests to the admin address that were refused for want of a token";
    let mut family = page.family("admin_refused", help, MetricType::Counter)?;
    let refused = &counters.admin_refused;
    for (reason, count) in [
        ("no_token", &refused.no_token),
        ("unknown_token", &refused.unknown_token),
        ("not_operator", &refused.not_operator),
    ] {
        counter(&mut family.encode_family(&[("reason", reason)])?, count.total())?;
    }
    Ok(())
}
