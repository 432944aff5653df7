//! Asks a backend by grpc.health.v1 whether it is serving.
//!
//! In: its address. Out: the moment it starts or stops. Plain text only. One
//! lost answer is no reason to take a backend away from its clients.

use std::time::Duration;

use tokio::time::sleep;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{info, warn};

use crate::model::HostPort;

/// A backend to be asked.
pub(super) struct Health {
    client: Option<HealthClient<Channel>>,
    told_unimplemented: bool,
}

/// What one question brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Serving,
    NotServing,
    /// Nobody there, or too busy.
    None,
}

/// A backend is one among many: half a second of calls is what a late answer
/// costs, and the question costs it nothing.
const ASK_EVERY: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// So many questions in a row without an answer mean that it is gone.
const SILENT_MAX: u32 = 3;

impl Health {
    pub(super) fn of(address: &HostPort) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok();
        let channel = endpoint.map(|endpoint| {
            endpoint.connect_timeout(ANSWER_WITHIN).timeout(ANSWER_WITHIN).connect_lazy()
        });
        Self { client: channel.map(HealthClient::new), told_unimplemented: false }
    }

    pub(super) async fn until_serving(&mut self) {
        while self.ask().await != Answer::Serving {
            sleep(ASK_EVERY).await;
        }
        info!("the backend is serving");
    }

    pub(super) async fn until_not_serving(&mut self) {
        let mut silent = 0;
        while silent < SILENT_MAX {
            match self.ask().await {
                Answer::Serving => silent = 0,
                Answer::NotServing => break,
                Answer::None => silent += 1,
            }
            sleep(ASK_EVERY).await;
        }
        info!(silent, "the backend is not serving");
    }

    async fn ask(&mut self) -> Answer {
        let Some(client) = &mut self.client else { return Answer::None };
        // The empty name means the whole server (health.proto).
        match client.check(HealthCheckRequest { service: String::new() }).await {
            Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Answer::Serving,
            Ok(_) => Answer::NotServing,
            Err(status) if status.code() == Code::Unimplemented => {
                if !std::mem::replace(&mut self.told_unimplemented, true) {
                    warn!("the backend has no grpc.health.v1, so it is never registered");
                }
                Answer::NotServing
            }
            Err(status) if status.code() == Code::NotFound => Answer::NotServing,
            Err(_) => Answer::None,
        }
    }
}
