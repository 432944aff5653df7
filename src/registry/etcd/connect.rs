//! Connects to etcd: endpoints, user and certificates.
//!
//! In: the operator's configuration. Out: clients of one endpoint each, so that the
//! caller decides when to try the next one. etcd-client's own balancing is not used,
//! because it keeps choosing endpoints that accept connections and then do not answer.
//! Each client uses the password and the certificates that the files hold at that
//! moment. Every wait has a bound, and no password is ever shown.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tonic::transport::Endpoint;

use super::endpoint::{masked, url};
use super::tls::Tls;
use crate::reload::Reloading;

/// Where etcd is and how to log in. Valid by construction.
#[derive(Clone)]
pub struct Connect {
    endpoints: Vec<String>,
    credentials: Credentials,
    dial: Option<Dial>,
}

/// How lookaside identifies itself to etcd, and which certificates of etcd it trusts.
#[derive(Clone, Default)]
pub struct Credentials {
    /// User name and password.
    pub user: Option<(String, Reloading<String>)>,
    /// Certificates. `None`: the system's certificate authorities are trusted.
    pub tls: Option<Reloading<Tls>>,
}

/// Makes connections to etcd in another way than by TCP, such as in a simulation.
pub type Dial = Arc<dyn Fn(Uri) -> BoxFuture<'static, io::Result<Dialed>> + Send + Sync>;
/// A connection made by a [`Dial`].
pub type Dialed = Box<dyn Duplex>;

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why etcd cannot be reached with this configuration, whatever its state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No endpoint is given.
    #[error("no etcd endpoint is given: expected URL[,URL…]")]
    NoEndpoint,
    /// The text is not `http://host:port`, `https://host:port` or `host:port`.
    #[error("{endpoint:?} is no etcd endpoint: {reason}")]
    Endpoint {
        /// The endpoint, as given.
        endpoint: String,
        /// The problem and the remedy.
        reason: &'static str,
    },
    /// Certificates that cannot be used.
    #[error("the certificates for etcd cannot be used: {0}")]
    Tls(String),
    /// `https` without a certificate authority.
    #[error(
        "https needs certificate authorities, and this system has none ({0}): install the \
         package ca-certificates, or name the authority's file with --etcd-ca"
    )]
    NoRoots(String),
}

/// Why a request to etcd failed, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EtcdError(pub String);

/// How long connecting may take. A member on another continent answers in a fraction of
/// it; a dead member must not delay the next attempt for long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the kernel and HTTP/2 check a silent connection: load balancers on the way
/// drop silent connections. etcd and its proxies refuse checks more often than every
/// five seconds.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long one small request may take. etcd elects a leader in about a second.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer that is accepted. etcd's own limit for a request is 1.5 MiB, but
/// a page of an answer holds many values.
pub(super) const MESSAGE_MAX: usize = 64 << 20;

/// etcd's error for credentials while its authentication is off.
const AUTH_OFF: &str = "authentication is not enabled";

impl Connect {
    /// Takes endpoints as the operator wrote them, and credentials that never change.
    /// If certificates are given, a bare `host:port` means `https`.
    ///
    /// # Errors
    /// All problems, not only the first.
    pub fn new(
        endpoints: &[&str],
        user: Option<(String, String)>,
        tls: Option<&Tls>,
    ) -> Result<Self, Vec<ConnectError>> {
        let user = user.map(|(name, password)| (name, Reloading::fixed(password)));
        let wrong = tls.and_then(|tls| tls.check().err());
        let tls = tls.map(|tls| Reloading::fixed(tls.clone()));
        let connect = Self::with(endpoints, Credentials { user, tls });
        match (connect, wrong) {
            (Err(mut errors), Some(wrong)) => {
                errors.push(wrong);
                Err(errors)
            }
            (Ok(_), Some(wrong)) => Err(vec![wrong]),
            (connect, None) => connect,
        }
    }

    /// Takes endpoints as the operator wrote them, and credentials that were checked
    /// before and may change. If certificates are given, a bare `host:port` means
    /// `https`.
    ///
    /// # Errors
    /// All problems, not only the first.
    pub fn with(endpoints: &[&str], credentials: Credentials) -> Result<Self, Vec<ConnectError>> {
        let mut errors = Vec::new();
        let mut urls = Vec::new();
        // A password may contain a comma, and is then split into two pieces.
        let secret = endpoints.iter().any(|text| text.contains('@'));
        let tls = credentials.tls.is_some();
        for text in endpoints.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            match url(text, tls) {
                Ok(url) if !secret => urls.push(url),
                Ok(_) => {}
                Err(reason) => {
                    let endpoint = if secret { masked(text) } else { text.to_owned() };
                    errors.push(ConnectError::Endpoint { endpoint, reason });
                }
            }
        }
        if urls.is_empty() && errors.is_empty() {
            errors.push(ConnectError::NoEndpoint);
        }
        let connect = Self { endpoints: urls, credentials, dial: None };
        if errors.is_empty() { Ok(connect) } else { Err(errors) }
    }

    /// Checks that there is a certificate authority if an endpoint uses `https`.
    ///
    /// # Errors
    /// If neither a file nor the system names an authority.
    pub fn check_roots(&self) -> Result<(), ConnectError> {
        let https = |endpoint: &String| endpoint.starts_with("https://");
        let tls = self.tls();
        if !tls.ca.is_empty() || !self.endpoints.iter().any(https) {
            return Ok(());
        }
        tls.check().map_err(|error| match error {
            ConnectError::Tls(reason) => ConnectError::NoRoots(reason),
            other => other,
        })
    }

    /// Returns this configuration with connections made by `dial`.
    #[must_use]
    pub fn with_dial(self, dial: Dial) -> Self {
        Self { dial: Some(dial), ..self }
    }

    /// Returns the number of endpoints, which is at least 1.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Returns the endpoint for an attempt. Attempts take the endpoints in turn.
    #[must_use]
    pub fn endpoint(&self, attempt: usize) -> &str {
        &self.endpoints[attempt % self.endpoints.len()]
    }

    /// Returns a client of one endpoint, logged in if a user is given. Without a user,
    /// it may not have connected yet.
    ///
    /// # Errors
    /// If the endpoint does not answer, or refuses the user.
    pub async fn client(&self, attempt: usize) -> Result<Client, EtcdError> {
        Ok(self.client_and_credentials(attempt).await?.0)
    }

    /// Returns the answer of the first endpoint that answers. Each is asked once.
    ///
    /// # Errors
    /// If none answers: the last endpoint and its error.
    pub(super) async fn first_answer<T, F: Future<Output = Result<T, EtcdError>>>(
        &self,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, EtcdError> {
        let mut attempt = 0;
        loop {
            let answer = async { ask(self.client(attempt).await?).await };
            match answer.await {
                Err(EtcdError(reason)) if attempt + 1 >= self.endpoints() => {
                    let endpoint = self.endpoint(attempt);
                    return Err(EtcdError(format!("{endpoint}: {reason}")));
                }
                Err(_) => attempt += 1,
                answer => return answer,
            }
        }
    }

    /// Returns a client, and the version of the credentials that it was made with.
    pub(super) async fn client_and_credentials(
        &self,
        attempt: usize,
    ) -> Result<(Client, u64), EtcdError> {
        let newest = self.newest_credentials().await;
        // A member without a leader must fail at once instead of waiting for one.
        let options = ConnectOptions::new().with_require_leader(true);
        let channel = self.channel(attempt).map_err(etcd_client::Error::from)?;
        let connect = async |options| {
            let channel = Channel::Tonic(channel.clone());
            let client = bounded(CALL_TIMEOUT, Client::from_channel(channel, Some(options)));
            Ok((client.await?, newest))
        };
        let Some((user, password)) = &self.credentials.user else { return connect(options).await };
        let with_user =
            options.clone().with_user(user, password.value()).with_auto_token_refresh(true);
        match connect(with_user).await {
            // Operators roll credentials out before they switch authentication on.
            Err(EtcdError(reason)) if reason.contains(AUTH_OFF) => connect(options).await,
            answer => answer,
        }
    }

    /// Reads the files of the credentials again. Returns how often they have changed.
    pub(super) async fn newest_credentials(&self) -> u64 {
        let Credentials { user, tls } = &self.credentials;
        let mut version = 0;
        if let Some((_, password)) = user {
            password.refresh().await;
            version += password.version();
        }
        if let Some(tls) = tls {
            tls.refresh().await;
            version += tls.version();
        }
        version
    }

    /// Returns the credentials, which may be read from files.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn tls(&self) -> Tls {
        self.credentials.tls.as_ref().map(Reloading::value).unwrap_or_default()
    }

    /// Returns a channel that connects when it is first used.
    fn channel(
        &self,
        attempt: usize,
    ) -> Result<tonic::transport::Channel, tonic::transport::Error> {
        let url = self.endpoint(attempt);
        let mut endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .tcp_keepalive(Some(KEEPALIVE));
        if url.starts_with("https://") {
            endpoint = endpoint.tls_config(self.tls().options())?;
        }
        let Some(dial) = self.dial.clone() else { return Ok(endpoint.connect_lazy()) };
        let dial = tower::service_fn(move |uri| {
            let dialing = dial(uri);
            async { dialing.await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(dial))
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("endpoints", &self.endpoints)
            .field("user", &self.credentials.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.credentials.tls.is_some())
            .finish()
    }
}

/// Makes a call to etcd and waits for it no longer than `limit`.
///
/// # Errors
/// The error of etcd or of the connection, or that there was no answer in time.
pub async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, EtcdError> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(EtcdError::from(error)),
        Err(_) => Err(EtcdError(format!("no answer in {limit:?}"))),
    }
}

impl From<etcd_client::Error> for EtcdError {
    /// Adds the sources of a transport error, which hold the real cause: "transport
    /// error" does not help, "connection refused" does.
    fn from(error: etcd_client::Error) -> Self {
        let (mut text, mut source) = match &error {
            etcd_client::Error::GRpcStatus(status) => {
                (status.message().to_owned(), status.source())
            }
            etcd_client::Error::TransportError(error) => (error.to_string(), error.source()),
            other => (other.to_string(), None),
        };
        while let Some(cause) = source {
            let more = cause.to_string();
            if more != "transport error" && !text.contains(&more) {
                text = if text.is_empty() { more } else { format!("{text}: {more}") };
            }
            source = cause.source();
        }
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = Connect::new(&[text], None, None);
        let found = found.map(|connect| connect.endpoint(7).to_owned());
        let found = found.map_err(|errors| errors[0].to_string());
        let expected = match expected {
            Ok(url) => Ok(url.to_owned()),
            Err(reason) => Err(format!("{text:?} is no etcd endpoint: {reason}")),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn endpoints_are_read_or_refused_with_the_remedy() {
        check("127.0.0.1:2379", Ok("http://127.0.0.1:2379"));
        check(" http://etcd:1/ ", Ok("http://etcd:1"));
        check("[::1]:2379", Ok("http://[::1]:2379"));
        check("etcd", Err("it has no port from 1 to 65535; etcd's is 2379"));
        check("http://etcd", Err("it has no port from 1 to 65535; etcd's is 2379"));
        check("etcd:0", Err("it has no port from 1 to 65535; etcd's is 2379"));
        check("ftp://etcd:1", Err("expected http://host:port or https://host:port"));
        check("http://a b:1", Err("expected http://host:port or https://host:port"));
        check("http://:1", Err("it names no host"));
        check("http://etcd:1/v3", Err("nothing may follow the port"));
        check("https://etcd:1", Ok("https://etcd:1"));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let tls = Tls { ca: b"nonsense".to_vec(), identity: None };
        let errors = Connect::new(&["http://etcd:1", "etcd"], None, Some(&tls)).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert_eq!(Connect::new(&[" "], None, None).unwrap_err(), [ConnectError::NoEndpoint]);
    }

    #[test]
    fn a_password_within_an_endpoint_is_not_shown() {
        for (text, shown) in [
            ("http://root:secret@etcd:1", r#""http://***@etcd:1""#),
            ("root:secret@etcd:1", r#""***@etcd:1""#),
            ("http://root:se@cret@etcd", r#""http://***@etcd""#),
            ("http://root:secret,secret@etcd:1", r#""http://***""#),
            ("ftp://root:secret@etcd:1/secret", ""),
        ] {
            let endpoints: Vec<&str> = text.split(',').collect();
            let errors = Connect::new(&endpoints, None, None).unwrap_err();
            let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert!(!all.join("").replace("etcd:1/secret", "").contains("cret"), "{all:?}");
            assert!(all[0].starts_with(shown), "{all:?}");
            assert!(!format!("{errors:?}").contains("root"), "{errors:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let user = Some(("root".to_owned(), "secret".to_owned()));
        let connect = Connect::new(&["etcd:1", "etcd:2"], user, None).unwrap();
        assert!(!format!("{connect:?}").contains("secret"));
        assert_eq!([connect.endpoint(1), connect.endpoint(2)], ["http://etcd:2", "http://etcd:1"]);
    }
}
