//! A gRPC channel to one backend, over one connection.
//!
//! In: a connection, and TLS if the backend has it. Out: a channel that never makes another
//! connection, so a failure says something about this one. It waits without bounds: the
//! caller sets them.

use std::error::Error;
use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

pub mod tls;

/// TLS for one connection.
pub struct Tls {
    /// The client's configuration.
    pub config: Arc<ClientConfig>,
    /// The name that the certificate must have.
    pub name: ServerName<'static>,
}

/// Opens HTTP/2 on a new connection, with TLS if asked. `authority` is the name or address
/// of the backend.
///
/// # Errors
/// If TLS or HTTP/2 fails.
pub async fn open<S>(io: S, tls: Option<Tls>, authority: &str) -> Result<Channel, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match tls {
        None => open_as(io, "http", authority).await,
        Some(Tls { config, name }) => {
            let connected = TlsConnector::from(config).connect(name, io).await;
            open_as(connected.map_err(|error| cause(&error))?, "https", authority).await
        }
    }
}

async fn open_as<S>(io: S, scheme: &str, authority: &str) -> Result<Channel, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let uri = |scheme: &str| format!("{scheme}://{authority}");
    let origin = uri(scheme).parse().map_err(|error| format!("{authority:?}: {error}"))?;
    // tonic must not add TLS of its own, so only the origin has the scheme.
    let endpoint = Endpoint::from_shared(uri("http")).map_err(|error| cause(&error))?;
    let mut io = Some(TokioIo::new(io));
    let connect = service_fn(move |_| {
        let io = io.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { io }
    });
    let channel = endpoint.origin(origin).connect_with_connector(connect).await;
    channel.map_err(|error| cause(&error))
}

/// Returns the innermost error: the outer ones are about the transport.
pub fn cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
