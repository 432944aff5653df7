//! Serves health and server reflection on the gRPC port, beside grpclb and xDS.
//!
//! In: readiness, and whether reflection is on. Out: routes, and a task that keeps the
//! health status equal to readiness.

use std::future::Future;

use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::balancer;
use crate::serve::MESSAGE_MAX;
use crate::xds;

/// Returns the routes, and a future that must run for as long as they are served.
pub(super) fn routes(
    mut ready: watch::Receiver<bool>,
    reflection: bool,
) -> (Routes, impl Future<Output = ()> + Send + 'static) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::new(health.max_decoding_message_size(MESSAGE_MAX));
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(balancer::DESCRIPTORS)
            .register_encoded_file_descriptor_set(xds::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    if reflection {
        // Fails only if the libraries' descriptors are wrong; reflection is then off.
        match (descriptors().build_v1(), descriptors().build_v1alpha()) {
            (Ok(v1), Ok(v1alpha)) => {
                routes = routes
                    .add_service(v1.max_decoding_message_size(MESSAGE_MAX))
                    .add_service(v1alpha.max_decoding_message_size(MESSAGE_MAX));
            }
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no server reflection"),
        }
    }
    let follow = async move {
        loop {
            let status = match *ready.borrow_and_update() {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            let xds = [xds::SERVICE, xds::ENDPOINTS_SERVICE, xds::LOAD_SERVICE];
            for service in ["", balancer::SERVICE].into_iter().chain(xds) {
                reporter.set_service_status(service, status).await;
            }
            if ready.changed().await.is_err() {
                return;
            }
        }
    };
    (routes.prepare(), follow)
}
