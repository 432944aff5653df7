//! Flags about clients' certificates, connections, and the audit log.
//!
//! In: text from flags and environment. Out: values, or the problems with them.

use std::time::Duration;

/// Flags about clients' certificates, the age of connections, and the audit log.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AccessArgs {
    /// The lists of revoked client certificates (CRL), in PEM; each authority that signs client
    /// certificates needs one
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_TLS_CLIENT_CRL")]
    pub tls_client_crl: Option<String>,
    /// The age at which a gRPC client's connection is ended, a tenth more or less, so that its
    /// certificate is looked at again; 0s: never before its certificate ends
    // Off by default: without certificates a new connection has the identity of the old one, and
    // each end costs every client a connection.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        env = "LOOKASIDE_MAX_CONNECTION_AGE"
    )]
    pub max_connection_age: String,
    /// A file to which each change by an operator or by settings is appended, as a line of JSON;
    /// opened again on SIGHUP
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_AUDIT_LOG")]
    pub audit_log: Option<String>,
}

/// The shortest age. Each end makes a client connect and shake hands again.
const AGE_MIN: Duration = Duration::from_secs(1);

impl AccessArgs {
    /// Returns the age at which connections end; `None`: never.
    pub(super) fn connection_age(&self, problems: &mut Vec<String>) -> Option<Duration> {
        let text = &self.max_connection_age;
        match humantime::parse_duration(text) {
            Ok(age) if age.is_zero() => None,
            Ok(age) if age >= AGE_MIN => Some(age),
            _ => {
                problems.push(format!(
                    "--max-connection-age: {text:?} is no duration of 1s or more, such as 1h, and \
                     not 0s"
                ));
                None
            }
        }
    }
}

/// Returns the most connections of one network; 0: no limit.
pub(super) fn connections_per_peer(text: &str, problems: &mut Vec<String>) -> Option<u64> {
    let number = text.parse().ok();
    if number.is_none() {
        problems.push(format!(
            "--connections-per-peer: {text:?} is no number, such as 1000, or 0 for any"
        ));
    }
    number
}
