//! `/api/v1/balancers` and the metrics of balancers: who shares etcd with this one.
//!
//! In: the balancers as this one knows them. Out: rows, and counts by state.

use std::fmt;
use std::sync::Arc;

use axum::extract::State as Shared;
use prometheus_client::metrics::MetricType;

use super::api::Json;
use super::metrics::Page;
use super::{State, json};
use crate::replica::known::{Announced, Replicas, Row};
use crate::replica::record;

pub(super) async fn balancers(Shared(state): Shared<Arc<State>>) -> Json<json::Balancers> {
    Json(shown(&state.replicas.borrow()))
}

fn shown(replicas: &Replicas) -> json::Balancers {
    let (announced, reason) = match &replicas.announced {
        Announced::Yes => (true, None),
        Announced::Off(reason) => (false, Some((*reason).to_owned())),
        Announced::Failing(reason) => (false, Some(reason.clone())),
    };
    json::Balancers {
        announced,
        reason,
        current: replicas.current,
        balancers: replicas.rows.iter().map(row).collect(),
        rejected: replicas
            .rejected
            .iter()
            .map(|(key, reason)| json::RejectedBalancer {
                key: key.to_string(),
                reason: reason.clone(),
            })
            .collect(),
    }
}

fn row(row: &Row) -> json::Balancer {
    json::Balancer {
        own: row.own,
        address: row.address.as_ref().map(ToString::to_string),
        host_only: row.host_only,
        state: row.state.as_str().to_owned(),
        zone: row.zone.clone(),
        version: row.version.clone(),
        streams: row.streams,
        revision: row.revision,
    }
}

/// Writes the metrics.
pub(super) fn write(replicas: &Replicas, page: &mut Page<'_>) -> fmt::Result {
    let help = "Balancers of the DNS zone that are known, this one included, by state: \
                /api/v1/balancers lists them";
    let mut family = page.family("balancers", help, MetricType::Gauge)?;
    for state in record::State::ALL {
        let count = replicas.rows.iter().filter(|row| row.state == state).count() as u64;
        family.encode_family(&[("state", state.as_str())])?.encode_gauge(&(count as f64))?;
    }
    let help = "Whether this balancer's record is in etcd, so that the others name it; 0 also \
                where it is not to be announced";
    let announced = f64::from(u8::from(replicas.announced == Announced::Yes));
    page.gauge("balancer_announced", help, announced)?;
    let help = "Whether a balancer that is to be announced is not: /api/v1/balancers says why";
    let failing = matches!(replicas.announced, Announced::Failing(_));
    page.gauge("balancer_announcement_failing", help, f64::from(u8::from(failing)))?;
    let help = "Keys below the balancers' prefix that announce no balancer: /api/v1/balancers \
                lists them";
    page.gauge("balancers_rejected", help, replicas.rejected.len() as f64)
}
