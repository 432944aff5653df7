//! The class of an open stream's client.
//!
//! In: a service, and a client as it is shown. Out: its class, besides its subset, as the
//! protocol of the stream computes it.

use crate::catalog::Service;
use crate::model::{Class, Target};
use crate::policy;
use crate::telemetry::ClientView;

/// Returns the class of a client that asks for a name.
pub(super) fn class_of(service: &Service, target: &Target, view: &ClientView) -> Class {
    let client = view.peer.ip();
    match &view.xds {
        None => policy::class(service, target, Some(client)),
        Some(xds) => {
            let (stated, obeys) = (xds.stated_zone.as_deref(), view.kind.obeys_weights());
            policy::class_with_zone(service, target, client, stated, obeys)
        }
    }
}
