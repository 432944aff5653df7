//! Asks one backend by grpc.health.v1.
//!
//! In: a connection to the backend. Out: its replies. A [`HealthConnection`] is one
//! connection and never makes another, so a failure says something about this connection.
//! It waits without bounds: the caller sets them.

use std::error::Error;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::backend_channel::{self, Tls, cause};
use crate::catalog::HealthAnswer;

/// A connection to a backend, over which its health is asked.
#[derive(Debug, Clone)]
pub struct HealthConnection {
    client: HealthClient<Channel>,
    service: Arc<str>,
}

/// What a backend replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is serving.
    Serving,
    /// It is in another state: the name of the state.
    NotServing(&'static str),
    /// It does not know the service whose health is asked for.
    UnknownName,
    /// It has no `grpc.health.v1`.
    Nothing,
    /// It tells nobody without credentials: its text.
    Denied(String),
    /// It replies with an error: its text.
    Failed(String),
    /// The connection was lost, or HTTP/2 failed: the reason.
    Lost(String),
}

/// The states that a backend pushes.
pub struct Watch(Streaming<HealthCheckResponse>);

/// The most states that are skipped to get at the newest.
const SKIPPED_MAX: usize = 1_000;

impl Reply {
    /// Returns the state that the backend reports; `None` if it reports none.
    #[must_use]
    pub fn as_state(&self) -> Option<HealthAnswer> {
        match self {
            Self::Serving => Some(HealthAnswer::Serving),
            Self::NotServing(_) => Some(HealthAnswer::NotServing),
            Self::UnknownName => Some(HealthAnswer::UnknownName),
            Self::Nothing | Self::Denied(_) | Self::Failed(_) | Self::Lost(_) => None,
        }
    }
}

impl HealthConnection {
    /// Opens HTTP/2 on a new connection, with TLS if asked. `authority` is the name or address
    /// of the backend, and `service` the service whose health is asked for.
    ///
    /// # Errors
    /// If TLS or HTTP/2 fails.
    pub async fn open<S>(
        io: S,
        tls: Option<Tls>,
        authority: &str,
        service: Arc<str>,
    ) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let client = HealthClient::new(backend_channel::open(io, tls, authority).await?);
        Ok(Self { client, service })
    }

    /// Asks for the state.
    pub async fn check(&mut self) -> Reply {
        match self.client.check(self.request()).await {
            Ok(answer) => state(answer.get_ref()),
            Err(status) => failure(&status),
        }
    }

    /// Asks for the state and all further ones. The first state comes by [`Watch::next`].
    ///
    /// # Errors
    /// What the backend replies instead.
    pub async fn watch(&mut self) -> Result<Watch, Reply> {
        let watch = self.client.watch(self.request()).await;
        watch.map(|answer| Watch(answer.into_inner())).map_err(|status| failure(&status))
    }

    fn request(&self) -> HealthCheckRequest {
        HealthCheckRequest { service: self.service.to_string() }
    }
}

impl Watch {
    /// Waits for the next state. If several have come, returns only the newest.
    pub async fn next(&mut self) -> Reply {
        let mut newest = self.message().await;
        for _ in 0..SKIPPED_MAX {
            if newest.as_state().is_none() {
                break;
            }
            let Some(reply) = self.message().now_or_never() else { break };
            newest = reply;
        }
        newest
    }

    async fn message(&mut self) -> Reply {
        match self.0.message().await {
            Ok(Some(answer)) => state(&answer),
            Ok(None) => Reply::Lost("it ended the watch".to_owned()),
            Err(status) => failure(&status),
        }
    }
}

fn state(answer: &HealthCheckResponse) -> Reply {
    match answer.status() {
        ServingStatus::Serving => Reply::Serving,
        ServingStatus::ServiceUnknown => Reply::UnknownName,
        other => Reply::NotServing(other.as_str_name()),
    }
}

fn failure(status: &Status) -> Reply {
    match status.code() {
        Code::NotFound => Reply::UnknownName,
        Code::Unimplemented => Reply::Nothing,
        Code::Unauthenticated | Code::PermissionDenied => {
            Reply::Denied(status.message().to_owned())
        }
        _ if status.source().is_none() => Reply::Failed(status.message().to_owned()),
        _ => Reply::Lost(cause(status)),
    }
}
