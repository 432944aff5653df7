//! HTTP client of the admin API, and output helpers for the subcommands.
//!
//! In: paths below the admin address. Out: the API's JSON, as text and as types, or an
//! error with its remedy. Text from elsewhere is never printed unescaped, because it could
//! control the terminal.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::admin::json;
use crate::model::text;

/// Flags of every subcommand that asks a running balancer. (It is not called `Args` as in
/// the subcommands, because clap needs distinct names of flattened structs.)
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// The balancer's admin address (`serve --admin-listen`)
    #[arg(long, value_name = "URL", env = "LOOKASIDE_ADMIN", default_value = DEFAULT)]
    pub admin: String,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// A client of one admin address.
pub struct AdminClient {
    agent: ureq::Agent,
    base: String,
    /// `base` without a password.
    shown: String,
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
    #[error("--admin {0:?} is not an admin address: expected http://HOST:PORT, as {DEFAULT} is")]
    Address(String),
    /// `--admin` asks for TLS, which the admin address does not speak.
    #[error("--admin {0:?}: the admin address speaks plain HTTP: write http://… instead")]
    Tls(String),
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
/// The limit for connecting. An admin address is near, so a longer silence means that no
/// balancer is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The limit for a whole answer: 100,000 clients are 40 MB.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 512 << 20;
/// sysexits(3): the command was used wrongly.
const USAGE: u8 = 64;
const BAD_REQUEST: u16 = 400;

impl AdminClient {
    /// Returns a client of the address in `--admin`.
    ///
    /// # Errors
    /// Returns an error if the address is not `http://HOST:PORT` or `HOST:PORT`.
    pub fn new(args: &AdminArgs) -> Result<Self, AdminError> {
        let text = args.admin.trim_end_matches('/');
        if text.starts_with("https://") {
            return Err(AdminError::Tls(text::without_password(&args.admin)));
        }
        let host = text.strip_prefix("http://").unwrap_or(text);
        let authority = host.parse::<http::uri::Authority>();
        if !authority.is_ok_and(|authority| authority.port_u16().is_some()) {
            return Err(AdminError::Address(text::without_password(&args.admin)));
        }
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            // The environment's proxies are for outside addresses.
            .proxy(None)
            .build()
            .new_agent();
        let base = format!("http://{host}");
        Ok(Self { agent, shown: text::without_password(&base), base })
    }

    /// Sends a GET request for a path, which begins with `/`.
    ///
    /// # Errors
    /// Returns an error if there is no answer or the balancer refuses.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Fetched<T>, AdminError> {
        self.read(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// Sends an empty POST request for a path, which begins with `/`.
    ///
    /// # Errors
    /// Returns an error if there is no answer or the balancer refuses.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<Fetched<T>, AdminError> {
        self.read(self.agent.post(format!("{}{path}", self.base)).send_empty())
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
        self.read(self.agent.post(format!("{}{path}", self.base)).send(text))
    }

    fn read<T: DeserializeOwned>(
        &self,
        response: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Fetched<T>, AdminError> {
        let unreachable = |error: ureq::Error| AdminError::Unreachable {
            base: self.shown.clone(),
            cause: match error {
                ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    "connection refused".to_owned()
                }
                error => clean(&error.to_string()),
            },
        };
        let response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(ANSWER_MAX).read_to_string();
        let foreign = || AdminError::Foreign { base: self.shown.clone(), status };
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
            Self::Address(_) | Self::Tls(_) | Self::Refused { status: BAD_REQUEST, .. } => USAGE,
            _ => 1,
        }
    }
}

/// Writes a text and a line break to standard output. Returns `false` if the reader closed
/// the pipe (`| head`), which is not an error.
///
/// # Errors
/// Returns an error if the text cannot be written for another reason.
pub fn print(text: &str) -> Result<bool, AdminError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// Percent-encodes a name for a path or query.
#[must_use]
pub fn encode(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Returns a table with headings. Each row is one line whatever the terminal's width, so
/// that `grep` and `awk` can read it.
#[must_use]
pub fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Escapes characters that control a terminal or are invisible.
#[must_use]
pub fn clean(text: &str) -> String {
    text::shown(text)
}

/// Writes JSON line by line and escapes characters that control a terminal. Returns like
/// [`print()`].
///
/// # Errors
/// Returns an error if the text cannot be written.
pub fn print_json(json: &str) -> Result<bool, AdminError> {
    let lines: Vec<_> = json.lines().map(text::shown_json).collect();
    print(&lines.join("\n"))
}

/// Writes a message to standard error. Standard output is for data only.
pub fn say(what: &str) {
    let _ = writeln!(io::stderr(), "{}", clean(what));
}

/// Formats an age in seconds: `0.4s`, `12s`, `3m 5s`, `2h 7m`, `4d 1h`.
#[must_use]
pub fn age(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    // Huge numbers saturate.
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m {}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h {}m", whole / 3_600, whole / 60 % 60),
        _ => format!("{}d {}h", whole / 86_400, whole / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(admin: &str) -> AdminError {
        let args = AdminArgs { admin: admin.to_owned(), json: false };
        let client = match AdminClient::new(&args) {
            Ok(client) => client,
            Err(error) => return error,
        };
        client.get::<json::Services>("/api/v1/services").unwrap_err()
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_usage_errors() {
        for bad in ["", "http://", "ftp://a:1", "127.0.0.1", "http://a b:1", "http://a:99999"] {
            let error = error(bad);
            assert!(matches!(error, AdminError::Address(_)), "{bad}: {error}");
            assert_eq!(error.exit_code(), 64);
        }
        let secret = error("http://me:secret@127.0.0.1").to_string();
        assert!(secret.contains("http://***@127.0.0.1"), "{secret}");
        let error = error("https://127.0.0.1:12001");
        assert_eq!(error.exit_code(), 64);
        assert_eq!(
            error.to_string(),
            r#"--admin "https://127.0.0.1:12001": the admin address speaks plain HTTP: write http://… instead"#
        );
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

    #[test]
    fn tables_are_plain_lines() {
        let rows = [["a", "1"], ["long-name", "\u{1b}[2J"]];
        let rows = rows.iter().map(|row| row.iter().map(ToString::to_string).collect());
        assert_eq!(
            table(&["NAME", "N"], rows),
            " NAME       N\n a          1\n long-name  \\u{1b}[2J"
        );
    }

    #[test]
    fn what_steers_a_terminal_is_shown_instead() {
        assert_eq!(clean("a\u{1b}]0;x\u{7}b"), "a\\u{1b}]0;x\\u{7}b");
        assert_eq!(clean("\u{202e}gnp\u{200b}"), "\\u{202e}gnp\\u{200b}");
        assert_eq!(clean("grüße <script>"), "grüße <script>");
    }

    #[test]
    fn ages_are_short() {
        let check = |seconds, expected| assert_eq!(age(seconds), expected);
        check(0.04, "0.0s");
        check(9.96, "10.0s");
        check(59.9, "59s");
        check(185.0, "3m 5s");
        check(7_620.0, "2h 7m");
        check(349_300.0, "4d 1h");
        check(-1.0, "0.0s");
    }
}
