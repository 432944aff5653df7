//! `lookaside settings`: checks, compares, applies and shows the document of settings that
//! all replicas share.
//!
//! In: a document, and a running balancer's admin address or etcd. Out: its problems, what
//! it would change, the document in etcd, or the settings in force. Exit codes: 0 done,
//! 1 another operator changed the document or there is no answer, 64 a bad document or flag.

use std::io::Read;
use std::process::ExitCode;

use super::admin_client::{self, AdminArgs, AdminClient, AdminError, TrustArgs, clean};
use super::bad;
use crate::admin::json::{self, InForce};
use crate::config::etcd_args::EtcdArgs;
use crate::config::take;
use crate::model::Zone;
use crate::registry::etcd::{self, Connect, EtcdError};
use crate::settings::{Document, source};

mod diff;

/// Checks, compares, applies and shows per-service settings
///
/// A document is TOML with [service."PATTERN"] tables. It is a key in etcd that every
/// balancer of the zone reads. It wins over the tables in the file of serve.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckDocument),
    Diff(DiffArgs),
    Apply(ApplyArgs),
    Show(ShowArgs),
}

/// Reports the problems of a document
#[derive(Debug, clap::Args)]
struct CheckDocument {
    /// The document; - for standard input
    file: String,
    /// A balancer whose services the patterns are compared with
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// How that balancer and this program know each other.
    #[command(flatten)]
    trust: TrustArgs,
}

/// Shows which settings and which lists of services a document would change; changes nothing
#[derive(Debug, clap::Args)]
struct DiffArgs {
    /// The document; - for standard input
    file: String,
    /// The balancer to ask.
    #[command(flatten)]
    admin: AdminArgs,
}

/// Writes a document to etcd, unless it is changed there meanwhile
#[derive(Debug, clap::Args)]
struct ApplyArgs {
    /// The document; - for standard input
    file: String,
    /// The connection to etcd
    #[command(flatten)]
    etcd: EtcdArgs,
    /// The DNS zone of the balancers that read it (serve --domain)
    #[arg(
        long,
        value_name = "ZONE",
        default_value = "lookaside.internal",
        env = "LOOKASIDE_DOMAIN"
    )]
    domain: String,
    /// Write only if the document in etcd still has this revision, which diff and show print; 0:
    /// write only if there is none
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
}

/// Shows the settings in force for each service, and their origin
#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The service, as registered or as its clients name it [default: all]
    service: Option<String>,
    /// The balancer to ask.
    #[command(flatten)]
    admin: AdminArgs,
}

/// The most bytes that are read. It is far more than a document may have, so that an error
/// about its length names the true length.
const FILE_MAX: u64 = 16 << 20;

/// Runs `settings` and returns the exit code.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Diff(args) => match read(&args.file) {
            Ok((text, _)) => done(diff::run(&text, &args.admin)),
            Err(problems) => bad(&problems),
        },
        Command::Apply(args) => apply(args),
        Command::Show(args) => done(show(args)),
    }
}

fn check(args: &CheckDocument) -> ExitCode {
    let (text, document) = match read(&args.file) {
        Ok(read) => read,
        Err(problems) => return bad(&problems),
    };
    let tables = document.len();
    if let Some(admin) = &args.admin {
        let admin = AdminArgs { admin: admin.clone(), trust: args.trust.clone(), json: false };
        if let Err(error) = diff::ask(&text, &admin).map(|diff| warn(&diff.value.unmatched)) {
            return done(Err(error));
        }
    }
    done(admin_client::print(&format!("{}: right, {tables} tables", args.file)).map(drop))
}

fn apply(args: &ApplyArgs) -> ExitCode {
    let mut problems = Vec::new();
    let connect = args.etcd.validate(&mut problems);
    if connect.is_none() && problems.is_empty() {
        problems.push(
            "--etcd is missing: give the endpoints of the balancers' etcd (the embedded \
             registry of a running lookaside is at its --registry-listen)"
                .to_owned(),
        );
    }
    let zone = take("--domain", Zone::new(&args.domain), &mut problems);
    let text = read(&args.file).map(|(text, _)| text);
    let text = text.map_err(|found| problems.extend(found)).ok();
    let (Some(connect), Some(zone), Some(text), true) = (connect, zone, text, problems.is_empty())
    else {
        return bad(&problems);
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let key = source::key(&zone);
    match runtime.block_on(put(&connect, &key, &text, args.revision)) {
        Ok(said) => done(admin_client::print(&format!("{key}: {said}")).map(drop)),
        Err(EtcdError(reason)) => fail(&format!("{key}: {reason}")),
    }
}

/// Writes the document and returns a message about the result.
async fn put(
    connect: &Connect,
    key: &str,
    text: &str,
    wanted: Option<i64>,
) -> Result<String, EtcdError> {
    let found = etcd::get(connect, key).await?;
    let revision = found.as_ref().map_or(0, |found| found.revision);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != revision) {
        return Err(EtcdError(format!(
            "etcd holds revision {revision}, not {wanted}: another client changed it; look at \
             `lookaside settings diff`, then apply with --revision {revision}"
        )));
    }
    if found.is_some_and(|found| found.value == text.as_bytes()) {
        return Ok(format!("unchanged, revision {revision}"));
    }
    match etcd::swap(connect, key, text, revision).await? {
        Some(revision) => Ok(format!("applied, revision {revision}")),
        None => Err(EtcdError(
            "another client changed it at the same time: look at `lookaside settings diff`, then \
             apply again"
                .to_owned(),
        )),
    }
}

fn show(args: &ShowArgs) -> Result<(), AdminError> {
    let path = match &args.service {
        Some(service) => format!("/api/v1/settings?service={}", admin_client::encode(service)),
        None => "/api/v1/settings".to_owned(),
    };
    let answer = AdminClient::new(&args.admin)?.get::<json::Settings>(&path)?;
    if args.admin.json {
        admin_client::print_json(&answer.text)?;
        return Ok(());
    }
    let json::Settings { sources, services, unmatched, .. } = answer.value;
    for source in &sources {
        let place = source.place.as_deref().unwrap_or_default();
        if let Some(revision) = source.revision {
            admin_client::say(&format!("{place}: revision {revision}"));
        }
        if let Some(reason) = &source.refused {
            admin_client::say(&format!("warning: {place} is refused: {reason}"));
        }
        if let Some(reason) = &source.unheard {
            admin_client::say(&format!("warning: {place} cannot be read: {reason}"));
        }
    }
    for json::Unmatched { source, pattern } in &unmatched {
        admin_client::say(&format!("warning: \"{pattern}\" ({source}) matches no service now"));
    }
    let rows = services.into_iter().flat_map(|json::ServiceSettings { service, settings }| {
        settings
            .into_iter()
            .map(move |(key, one)| vec![service.clone(), key, one.value.clone(), from(&one)])
    });
    admin_client::print(&admin_client::table(&["SERVICE", "KEY", "VALUE", "FROM"], rows))?;
    Ok(())
}

/// Returns the text of the document and the parsed document.
fn read(file: &str) -> Result<(String, Document), Vec<String>> {
    let cannot = |error: std::io::Error| vec![format!("cannot read {file:?}: {error}")];
    let mut bytes = Vec::new();
    let opened: Box<dyn Read> = match file {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(cannot)?),
    };
    opened.take(FILE_MAX).read_to_end(&mut bytes).map_err(cannot)?;
    let text =
        String::from_utf8(bytes).map_err(|_| vec![format!("{file}: it is no UTF-8 text")])?;
    match Document::parse(&text) {
        Ok(document) => Ok((text, document)),
        Err(problems) => Err(problems.iter().map(|problem| format!("{file}:{problem}")).collect()),
    }
}

fn warn(unmatched: &[String]) {
    for pattern in unmatched {
        admin_client::say(&format!("warning: \"{pattern}\" matches no service now"));
    }
}

fn from(one: &InForce) -> String {
    match &one.pattern {
        Some(pattern) => format!("{} {pattern}", one.source),
        None => one.source.clone(),
    }
}

fn done(result: Result<(), AdminError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", clean(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("error: {}", clean(error));
    ExitCode::FAILURE
}
