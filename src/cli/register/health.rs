//! Asks a backend by grpc.health.v1 whether it is serving.
//!
//! In: the backend's address, and flags. Out: the moments at which it starts or stops
//! serving. A single lost answer does not count as a stop. While it waits for the backend
//! it logs why the backend is not registered.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::{info, warn};

use crate::backend_channel::tls::{self, Identity};
use crate::backend_channel::{Tls, cause};
use crate::health_check::ask::{HealthConnection, Reply};
use crate::model::{Host, HostPort};

/// Flags for a backend's health check.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HealthArgs {
    /// The service whose health counts [default: the server as a whole]
    #[arg(long, value_name = "NAME", env = "LOOKASIDE_HEALTH_SERVICE")]
    pub health_service: Option<String>,
    /// The authority that signed the backend's certificate, in PEM; turns TLS on
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_HEALTH_CA")]
    pub health_ca: Option<String>,
    /// The name in the backend's certificate [default: the host in --addr]
    #[arg(long, value_name = "NAME", env = "LOOKASIDE_HEALTH_TLS_NAME")]
    pub health_tls_name: Option<String>,
    /// The client certificate for the backend, in PEM, if the backend wants one
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_HEALTH_CERT")]
    pub health_cert: Option<String>,
    /// The client certificate's key, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_HEALTH_KEY")]
    pub health_key: Option<String>,
}

/// A backend whose health is checked.
pub(super) struct Health {
    /// The connection over which it was asked last.
    connection: Option<HealthConnection>,
    address: HostPort,
    service: Arc<str>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    unimplemented_logged: bool,
}

/// The result of one health check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HealthAnswer {
    Serving,
    /// The backend answers that it is not serving; the reason.
    NotServing(String),
    /// No answer in time; the reason.
    None(String),
}

/// The time between two checks. A backend that stops costs at most half a second of calls
/// more, and a check costs it almost nothing.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long a connection and an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The number of checks in a row without an answer after which a backend counts as not
/// serving.
const SILENT_MAX: u32 = 3;
/// The wait after which the log says that the backend is not registered yet.
const LOG_AFTER: Duration = Duration::from_secs(5);
/// The time between two such log lines.
const LOG_EVERY: Duration = Duration::from_secs(60);

impl HealthArgs {
    /// Returns the health check of `address`. Returns `None` if there are problems, which it
    /// adds to `problems`.
    pub(super) fn validate(
        &self,
        address: &HostPort,
        problems: &mut Vec<String>,
    ) -> Option<Health> {
        let before = problems.len();
        let tls = self.tls(address, problems);
        (problems.len() == before).then(|| Health {
            connection: None,
            address: address.clone(),
            service: self.health_service.clone().unwrap_or_default().into(),
            tls,
            unimplemented_logged: false,
        })
    }

    /// Adds a problem for each flag that is given without `--when-serving` (`asked`).
    pub(super) fn without_use(&self, asked: bool, problems: &mut Vec<String>) {
        let given = [
            ("--health-service", &self.health_service),
            ("--health-ca", &self.health_ca),
            ("--health-tls-name", &self.health_tls_name),
            ("--health-cert", &self.health_cert),
            ("--health-key", &self.health_key),
        ];
        for (flag, _) in given.into_iter().filter(|(_, value)| !asked && value.is_some()) {
            problems.push(format!("{flag} needs --when-serving"));
        }
    }

    fn tls(
        &self,
        address: &HostPort,
        problems: &mut Vec<String>,
    ) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        let mut read = |flag: &str, file: &Option<String>| {
            let file = file.as_ref()?;
            let text = std::fs::read(file);
            text.map_err(|error| problems.push(format!("{flag}: cannot read {file:?}: {error}")))
                .ok()
        };
        let ca = read("--health-ca", &self.health_ca);
        let identity =
            read("--health-cert", &self.health_cert).zip(read("--health-key", &self.health_key));
        if self.health_cert.is_some() != self.health_key.is_some() {
            problems.push("--health-cert and --health-key need each other".into());
        }
        for (flag, given) in
            [("--health-tls-name", &self.health_tls_name), ("--health-cert", &self.health_cert)]
        {
            if given.is_some() && self.health_ca.is_none() {
                problems.push(format!("{flag} needs --health-ca"));
            }
        }
        let host = match &address.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        };
        let name = self.health_tls_name.clone().unwrap_or(host);
        let identity = identity.as_ref();
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        let made = tls::config(Some(&ca?), identity)
            .map_err(|error| format!("--health-ca, --health-cert, --health-key: {error}"))
            .and_then(|config| {
                let name = tls::server_name(&name);
                Ok((config, name.map_err(|error| format!("--health-tls-name: {error}"))?))
            });
        made.map_err(|error| problems.push(error)).ok()
    }
}

impl Health {
    pub(super) async fn until_serving(&mut self) {
        let began = Instant::now();
        let mut log_at = began + LOG_AFTER;
        loop {
            let why = match self.ask().await {
                HealthAnswer::Serving => break,
                HealthAnswer::NotServing(why) | HealthAnswer::None(why) => why,
            };
            if Instant::now() >= log_at {
                log_at = Instant::now() + LOG_EVERY;
                let (address, service) = (&self.address, &*self.service);
                let waited = began.elapsed().as_secs();
                warn!(%address, service, why, waited, "not registered yet: waiting for the backend's grpc.health.v1 to say SERVING");
            }
            sleep(ASK_EVERY).await;
        }
        info!("the backend is serving");
    }

    pub(super) async fn until_not_serving(&mut self) {
        let mut silent = 0;
        let mut last = String::new();
        while silent < SILENT_MAX {
            match self.ask().await {
                HealthAnswer::Serving => silent = 0,
                HealthAnswer::NotServing(why) => {
                    last = why;
                    break;
                }
                HealthAnswer::None(why) => {
                    last = why;
                    silent += 1;
                }
            }
            sleep(ASK_EVERY).await;
        }
        info!(silent, why = last, "the backend is not serving");
    }

    async fn ask(&mut self) -> HealthAnswer {
        match timeout(ANSWER_WITHIN, self.reply()).await {
            Err(_) => {
                self.connection = None;
                HealthAnswer::None("it does not answer in time".to_owned())
            }
            Ok(Reply::Serving) => HealthAnswer::Serving,
            Ok(Reply::NotServing(state)) => HealthAnswer::NotServing(format!("it says {state}")),
            Ok(Reply::Nothing) => {
                if !std::mem::replace(&mut self.unimplemented_logged, true) {
                    warn!("the backend has no grpc.health.v1, so it is never registered");
                }
                HealthAnswer::NotServing("it has no grpc.health.v1".to_owned())
            }
            Ok(Reply::UnknownName) => {
                HealthAnswer::NotServing("it does not know the health of this service".to_owned())
            }
            Ok(Reply::Failed(why) | Reply::Denied(why)) => HealthAnswer::None(why),
            Ok(Reply::Lost(why)) => {
                self.connection = None;
                HealthAnswer::None(why)
            }
        }
    }

    /// Asks over the open connection, or a new one.
    async fn reply(&mut self) -> Reply {
        if let Some(connection) = &mut self.connection {
            return connection.check().await;
        }
        let address = self.address.to_string();
        let connected = TcpStream::connect(&address).await;
        let io = match connected {
            Ok(io) => io,
            Err(error) => return Reply::Lost(cause(&error)),
        };
        let tls = self.tls.clone().map(|(config, name)| Tls { config, name });
        match HealthConnection::open(io, tls, &address, self.service.clone()).await {
            Ok(connection) => self.connection.insert(connection).check().await,
            Err(why) => Reply::Lost(why),
        }
    }
}
