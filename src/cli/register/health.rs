//! Asks a backend by grpc.health.v1 whether it is serving.
//!
//! In: the backend's address, and flags. Out: the moments at which it starts or stops
//! serving. A single lost answer does not count as a stop. While it waits for the backend
//! it logs why the backend is not registered.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{info, warn};

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
    client: HealthClient<Channel>,
    address: HostPort,
    service: String,
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
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"));
        let endpoint = endpoint.and_then(|endpoint| match tls {
            Some(tls) => endpoint.tls_config(tls),
            None => Ok(endpoint),
        });
        match endpoint {
            _ if problems.len() > before => None,
            Ok(endpoint) => {
                let endpoint = endpoint.connect_timeout(ANSWER_WITHIN).timeout(ANSWER_WITHIN);
                Some(Health {
                    client: HealthClient::new(endpoint.connect_lazy()),
                    address: address.clone(),
                    service: self.health_service.clone().unwrap_or_default(),
                    unimplemented_logged: false,
                })
            }
            Err(error) => {
                problems.push(format!("--when-serving: cannot ask {address}: {error}"));
                None
            }
        }
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

    fn tls(&self, address: &HostPort, problems: &mut Vec<String>) -> Option<ClientTlsConfig> {
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
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca?)).domain_name(name);
        Some(match identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        })
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
                let (address, service) = (&self.address, &self.service);
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
        let request = HealthCheckRequest { service: self.service.clone() };
        match self.client.check(request).await {
            Ok(answer) => match answer.get_ref().status() {
                ServingStatus::Serving => HealthAnswer::Serving,
                status => HealthAnswer::NotServing(format!("it says {}", status.as_str_name())),
            },
            Err(status) if status.code() == Code::Unimplemented => {
                if !std::mem::replace(&mut self.unimplemented_logged, true) {
                    warn!("the backend has no grpc.health.v1, so it is never registered");
                }
                HealthAnswer::NotServing("it has no grpc.health.v1".to_owned())
            }
            Err(status) if status.code() == Code::NotFound => {
                HealthAnswer::NotServing("it does not know the health of this service".to_owned())
            }
            Err(status) => HealthAnswer::None(cause(&status)),
        }
    }
}

/// Returns the innermost error: the outer ones are about the transport.
fn cause(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    match std::error::Error::source(status) {
        Some(_) => error.to_string(),
        None => status.message().to_owned(),
    }
}
