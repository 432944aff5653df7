//! How etcd is reached: endpoints, user and certificates, checked once.
//!
//! In: what the operator gave. Out: clients of one endpoint each, so that whoever
//! calls decides when to go to the next one: etcd-client's own balancing, which
//! is therefore left out, keeps picking endpoints that accept connections and
//! then say nothing. Never waits
//! without a bound, never shows a password.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Channel, Client, ConnectOptions, Identity, TlsOptions};
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tonic::transport::Endpoint;

/// Where etcd is and how it lets us in. Right by construction.
#[derive(Clone)]
pub struct Connect {
    endpoints: Vec<String>,
    user: Option<(String, String)>,
    tls: Option<TlsOptions>,
    dial: Option<Dial>,
}

/// Makes connections to etcd in another way than by TCP from here.
pub type Dial = Arc<dyn Fn(Uri) -> BoxFuture<'static, io::Result<Dialed>> + Send + Sync>;
/// A connection, however it was made.
pub type Dialed = Box<dyn Duplex>;

/// What bytes can be read from and written to.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Certificates in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Those that may have signed etcd's.
    pub ca: Vec<u8>,
    /// Ours and its key, where etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why etcd cannot be reached that way, whatever its state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// None at all.
    #[error("no etcd endpoint is given: expected URL[,URL…]")]
    NoEndpoint,
    /// Not `http://host:port`, `https://host:port` or `host:port`.
    #[error("{endpoint:?} is no etcd endpoint: {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong, and the remedy.
        reason: &'static str,
    },
    /// Certificates that cannot be read.
    #[error("the certificates for etcd cannot be used: {0}")]
    Tls(String),
}

/// Why etcd did not do as asked, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// How long a connection may take. A member on another continent answers in a
/// fraction of it; a dead one must not hold up the way to the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Of the kernel's own probes, for connections on which nobody asks anything.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long one small request may take. etcd elects a leader in about a second.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// etcd's own limit for a request is 1.5 MiB, but it answers with pages of them.
pub(super) const MESSAGE_MAX: usize = 64 << 20;

/// What etcd says to credentials when it asks nobody for any.
const AUTH_OFF: &str = "authentication is not enabled";

impl Connect {
    /// With endpoints as the operator wrote them. Where TLS is given, a bare
    /// `host:port` means `https`.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn new(
        endpoints: &[&str],
        user: Option<(String, String)>,
        tls: Option<&Tls>,
    ) -> Result<Self, Vec<ConnectError>> {
        let mut errors = Vec::new();
        let mut urls = Vec::new();
        for text in endpoints.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            match url(text, tls.is_some()) {
                Ok(url) => urls.push(url),
                Err(reason) => {
                    errors.push(ConnectError::Endpoint { endpoint: text.to_owned(), reason });
                }
            }
        }
        if urls.is_empty() && errors.is_empty() {
            errors.push(ConnectError::NoEndpoint);
        }
        let tls = tls.map(options).transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let connect = Self { endpoints: urls, user, tls, dial: None };
        if errors.is_empty() { Ok(connect) } else { Err(errors) }
    }

    /// The same, with connections made by `dial`.
    #[must_use]
    pub fn by(self, dial: Dial) -> Self {
        Self { dial: Some(dial), ..self }
    }

    /// How many endpoints there are; one at least.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// The endpoint that an attempt goes to: each in turn.
    #[must_use]
    pub fn endpoint(&self, attempt: usize) -> &str {
        &self.endpoints[attempt % self.endpoints.len()]
    }

    /// A client of that endpoint alone, logged in where a user is given. With no
    /// user it need not have connected yet.
    ///
    /// # Errors
    /// When the endpoint does not answer, or refuses the user.
    pub async fn client(&self, attempt: usize) -> Result<Client, Trouble> {
        // A member cut off from its leader shall say so instead of waiting for it.
        let options = ConnectOptions::new().with_require_leader(true);
        let channel = self.channel(attempt).map_err(etcd_client::Error::from)?;
        let connect = |options| {
            let channel = Channel::Tonic(channel.clone());
            bounded(CALL_TIMEOUT, Client::from_channel(channel, Some(options)))
        };
        let Some((user, password)) = &self.user else { return connect(options).await };
        let with_user = options.clone().with_user(user, password).with_auto_token_refresh(true);
        match connect(with_user).await {
            // Credentials are rolled out before they are switched on.
            Err(Trouble(reason)) if reason.contains(AUTH_OFF) => connect(options).await,
            answer => answer,
        }
    }

    /// Connects when it is first used.
    fn channel(
        &self,
        attempt: usize,
    ) -> Result<tonic::transport::Channel, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(self.endpoint(attempt).to_owned())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Some(KEEPALIVE));
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone())?;
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
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// Asks etcd for something and waits no longer than that.
///
/// # Errors
/// What etcd or the way there says, or that there was no answer in time.
pub async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Trouble> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::from(error)),
        Err(_) => Err(Trouble(format!("no answer in {limit:?}"))),
    }
}

impl From<etcd_client::Error> for Trouble {
    /// The transport hides what really happened behind its sources: "transport
    /// error" helps nobody, "connection refused" does.
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

fn url(text: &str, tls: bool) -> Result<String, &'static str> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false if tls => format!("https://{text}"),
        false => format!("http://{text}"),
    };
    let uri: Uri = whole.parse().map_err(|_| "expected http://host:port or https://host:port")?;
    match (uri.scheme_str(), tls) {
        (Some("http"), false) | (Some("https"), true) => {}
        (Some("http"), true) => return Err("certificates are given, so it must be https"),
        (Some("https"), false) => return Err("https needs the certificate authority's file"),
        _ => return Err("expected http://host:port or https://host:port"),
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("user and password are options of their own");
    }
    if authority.host().is_empty() {
        return Err("it names no host");
    }
    // 80 and 443 would be the defaults of http: nobody's etcd is there.
    if authority.port_u16().is_none_or(|port| port == 0) {
        return Err("it has no port from 1 to 65535; etcd's is 2379");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("nothing may follow the port");
    }
    Ok(whole.trim_end_matches('/').to_owned())
}

fn options(tls: &Tls) -> Result<TlsOptions, ConnectError> {
    let has = |pem: &[u8], label: &str| String::from_utf8_lossy(pem).contains(label);
    if !has(&tls.ca, "BEGIN CERTIFICATE") {
        return Err(ConnectError::Tls("the authority's file holds no certificate in PEM".into()));
    }
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(certificate, key));
    }
    // Reads the certificates now, so that a bad one is an error at the start.
    Endpoint::from_static("https://etcd:2379")
        .tls_config(options.clone())
        .map_err(|error| ConnectError::Tls(Trouble::from(etcd_client::Error::from(error)).0))?;
    Ok(options)
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
        check("http://root:secret@etcd:1", Err("user and password are options of their own"));
        check("http://etcd:1/v3", Err("nothing may follow the port"));
        check("https://etcd:1", Err("https needs the certificate authority's file"));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let tls = Tls { ca: b"nonsense".to_vec(), identity: None };
        let errors = Connect::new(&["http://etcd:1", "etcd"], None, Some(&tls)).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert_eq!(Connect::new(&[" "], None, None).unwrap_err(), [ConnectError::NoEndpoint]);
    }

    #[test]
    fn a_password_is_not_shown() {
        let user = Some(("root".to_owned(), "secret".to_owned()));
        let connect = Connect::new(&["etcd:1", "etcd:2"], user, None).unwrap();
        assert!(!format!("{connect:?}").contains("secret"));
        assert_eq!([connect.endpoint(1), connect.endpoint(2)], ["http://etcd:2", "http://etcd:1"]);
    }
}
