//! HTTP client of the admin API.
//!
//! In: paths below the admin address, which is reached by TCP, with or without TLS, or at a
//! Unix socket. Out: the API's JSON, as text and as types, or an error with its remedy.
//! The token is never printed.

use std::io::{self, ErrorKind};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::admin::{Tokens, json};
use crate::model::text;
use address::Address;

pub use output::{age, clean, encode, print, print_json, say, table};

mod address;
mod output;
mod unix;

/// Flags of every subcommand that asks a running balancer. (It is not called `Args` as in
/// the subcommands, because clap needs distinct names of flattened structs.)
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// The balancer's admin address (`serve --admin-listen`): http://HOST:PORT, https://HOST:PORT
    /// or unix:/PATH
    // The URL may contain a password, which the help must not show.
    #[arg(
        long,
        value_name = "URL",
        env = "LOOKASIDE_ADMIN",
        default_value = DEFAULT,
        hide_env_values = true
    )]
    pub admin: String,
    /// How the balancer and this program know each other.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Flags by which the balancer and this program know each other.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArgs {
    /// The certificate authority that signed the admin address's certificate, in PEM [default: the
    /// system's]
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ADMIN_CA")]
    pub admin_ca: Option<String>,
    /// A file whose first line is a token that the balancer knows
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<String>,
}

/// A client of one admin address.
pub struct AdminClient {
    agent: ureq::Agent,
    address: Address,
    /// The value of the header that has the token.
    authorization: Option<String>,
}

/// A successful answer.
#[derive(Debug)]
pub struct Fetched<T> {
    /// The JSON as received.
    pub text: String,
    /// The decoded value.
    pub value: T,
}

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// `--admin` is not a usable address.
    #[error(
        "--admin {0:?} is not an admin address: expected http://HOST:PORT, https://HOST:PORT or \
         unix:/PATH, such as {DEFAULT}"
    )]
    Address(String),
    /// A file that a flag names cannot be used.
    #[error("{0}")]
    File(String),
    /// The address does not answer.
    #[error("cannot ask {base}: {cause}; is `lookaside serve` running? --admin names its address")]
    Unreachable {
        /// The address.
        base: String,
        /// The reason.
        cause: String,
    },
    /// The balancer refuses the request.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason as the balancer words it.
        error: String,
    },
    /// The answer is not one of lookaside's admin API.
    #[error(
        "{base} answers ({status}), but not as lookaside's admin address does: is --admin right?"
    )]
    Foreign {
        /// The address.
        base: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer cannot be written to standard output.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

const DEFAULT: &str = "http://127.0.0.1:12001";
/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 512 << 20;
/// sysexits(3): the command was used wrongly.
const USAGE: u8 = 64;
const BAD_REQUEST: u16 = 400;

impl AdminClient {
    /// Returns a client of the address in `--admin`.
    ///
    /// # Errors
    /// Returns an error if the address or a file cannot be used.
    pub fn new(args: &AdminArgs) -> Result<Self, AdminError> {
        let TrustArgs { admin_ca, admin_token_file } = &args.trust;
        let Some(address) = Address::parse(&args.admin) else {
            return Err(AdminError::Address(text::without_password(&args.admin)));
        };
        let token = admin_token_file.as_deref().map(token).transpose()?;
        if token.is_some() && address.shows_tokens() {
            say(&format!(
                "warning: {address} has no TLS, so the token can be read on the way: write \
                 https://…"
            ));
        }
        let agent = address.agent(admin_ca.as_deref()).map_err(AdminError::File)?;
        Ok(Self { agent, address, authorization: token.map(|token| format!("Bearer {token}")) })
    }

    /// Sends a GET request for a path, which begins with `/`.
    ///
    /// # Errors
    /// Returns an error if there is no answer or the balancer refuses.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Fetched<T>, AdminError> {
        self.read(self.authorized(self.agent.get(self.address.url(path))).call())
    }

    /// Sends an empty POST request for a path, which begins with `/`.
    ///
    /// # Errors
    /// Returns an error if there is no answer or the balancer refuses.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<Fetched<T>, AdminError> {
        self.read(self.authorized(self.agent.post(self.address.url(path))).send_empty())
    }

    /// Sends a POST request with a body for a path, which begins with `/`.
    ///
    /// # Errors
    /// Returns an error if there is no answer or the balancer refuses.
    pub fn post_with_body<T: DeserializeOwned>(
        &self,
        path: &str,
        text: &str,
    ) -> Result<Fetched<T>, AdminError> {
        self.read(self.authorized(self.agent.post(self.address.url(path))).send(text))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(
        &self,
        response: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Fetched<T>, AdminError> {
        let unreachable = |error: ureq::Error| AdminError::Unreachable {
            base: self.address.to_string(),
            cause: match error {
                ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    "connection refused".to_owned()
                }
                // What answers is no HTTP.
                ureq::Error::Protocol(error) if self.address.is_plain() => {
                    clean(&format!("{error}; if it speaks TLS, write https://…"))
                }
                error => clean(&error.to_string()),
            },
        };
        let response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(ANSWER_MAX).read_to_string();
        let foreign = || AdminError::Foreign { base: self.address.to_string(), status };
        let text = match body {
            Ok(text) => text,
            Err(ureq::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                return Err(foreign());
            }
            Err(error) => return Err(unreachable(error)),
        };
        if status == 200 {
            let value = serde_json::from_str(&text).map_err(|_| foreign())?;
            return Ok(Fetched { text, value });
        }
        let json::Failure { error } = serde_json::from_str(&text).map_err(|_| foreign())?;
        Err(AdminError::Refused { status, error: clean(&error) })
    }
}

impl AdminError {
    /// Returns 64 for a wrong address or request, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) | Self::File(_) | Self::Refused { status: BAD_REQUEST, .. } => USAGE,
            _ => 1,
        }
    }
}

/// Returns the first token of a file.
fn token(file: &str) -> Result<String, AdminError> {
    const FLAG: &str = "--admin-token-file";
    let cannot = |error| AdminError::File(format!("{FLAG}: cannot read {file:?}: {error}"));
    let content = std::fs::read(file).map_err(cannot)?;
    let tokens = Tokens::parse(FLAG, Path::new(file), &content);
    let tokens = tokens.map_err(|problems| AdminError::File(problems.join(", ")))?;
    Ok(tokens.first().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(admin: &str) -> AdminError {
        let admin = admin.to_owned();
        let args = AdminArgs { admin, trust: TrustArgs::default(), json: false };
        let client = match AdminClient::new(&args) {
            Ok(client) => client,
            Err(error) => return error,
        };
        client.get::<json::Services>("/api/v1/services").unwrap_err()
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_usage_errors() {
        for bad in [
            "",
            "http://",
            "ftp://a:1",
            "127.0.0.1",
            "http://a b:1",
            "http://a:99999",
            "https://a",
            "unix:",
            "unix:here",
        ] {
            let error = error(bad);
            assert!(matches!(error, AdminError::Address(_)), "{bad}: {error}");
            assert_eq!(error.exit_code(), 64);
        }
        let secret = error("http://me:secret@127.0.0.1").to_string();
        assert!(secret.contains("http://***@127.0.0.1"), "{secret}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path.to_str().unwrap().to_owned())
        };
        let nowhere = Some("/nowhere".to_owned());
        for (admin_ca, admin_token_file, flag) in [
            (nowhere.clone(), None, "--admin-ca: cannot read \"/nowhere\""),
            (write("ca", "hunter2"), None, "--admin-ca: "),
            (None, nowhere, "--admin-token-file: cannot read \"/nowhere\""),
            (None, write("token", "hunter2\n"), "--admin-token-file: "),
        ] {
            let trust = TrustArgs { admin_ca, admin_token_file };
            let args = AdminArgs { admin: "https://127.0.0.1:1".to_owned(), trust, json: false };
            let error = AdminClient::new(&args).err().unwrap();
            assert!(error.to_string().starts_with(flag), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert_eq!(error.exit_code(), 64);
        }
    }

    #[test]
    fn the_flags_of_each_subcommand_fit_together() {
        use super::super::{clients, services, watch};
        use clap::Args;
        let command = clap::Command::new("test");
        services::Args::augment_args(command.clone()).debug_assert();
        clients::Args::augment_args(command.clone()).debug_assert();
        watch::Args::augment_args(command).debug_assert();
    }

    #[test]
    fn nobody_there_says_what_to_do() {
        // The port was bound and released, so it refuses connections.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = error(&format!("{base}/"));
        assert_eq!(error.exit_code(), 1);
        assert_eq!(
            error.to_string(),
            format!(
                "cannot ask {base}: connection refused; is `lookaside serve` running? --admin names its address"
            )
        );
    }
}
