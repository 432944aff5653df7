//! The metrics of services that are divided into cells, or that shed calls by overload.
//!
//! In: the services, and how their clients are placed. Out: the metrics of each such service.

use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::MetricType;

use super::super::{State, cells};
use super::{Page, float};
use crate::catalog::Service;

/// Writes the metrics.
pub(super) fn write(state: &State, all: &[Arc<Service>], page: &mut Page<'_>) -> fmt::Result {
    let divided: Vec<_> = all
        .iter()
        .filter_map(|service| Some((&service.name, cells::of(state, service)?)))
        .collect();
    let help = "Cells of a service whose clients get a part of its backends: of its largest zone";
    let mut family = page.family("service_cells", help, MetricType::Gauge)?;
    for (service, cells) in &divided {
        let most = cells.groups.iter().map(|group| group.cells).max().unwrap_or(1);
        let labels = [("service", service.as_str())];
        family.encode_family(&labels)?.encode_gauge(&float(most))?;
    }
    let help = "The load of the hottest cell for its weight, as a multiple of the mean; only \
                clients of this balancer count";
    let mut family = page.family("service_cell_load_max_ratio", help, MetricType::Gauge)?;
    for (service, cells) in &divided {
        let hottest = cells.clients.iter().map(|one| one.hottest).fold(0.0, f64::max);
        family.encode_family(&[("service", service.as_str())])?.encode_gauge(&hottest)?;
    }
    let help = "The part of their calls that clients of a service drop, because they start more \
                than its backends can serve; only services whose settings ask for it";
    let mut family = page.family("service_overload_shed_ratio", help, MetricType::Gauge)?;
    for service in all.iter().filter(|service| service.settings.shed.is_on()) {
        let shed = f64::from(service.facts.overload_shed.unwrap_or(0)) / 100.0;
        family.encode_family(&[("service", service.name.as_str())])?.encode_gauge(&shed)?;
    }
    Ok(())
}
