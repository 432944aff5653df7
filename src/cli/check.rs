//! `lookaside check`: validates the settings of `serve`, and optionally tries them on the
//! keys in etcd, or walks from a name to a list as a client does.
//!
//! In: the settings of `serve`, and with `--live` every key below the prefixes and the shared
//! settings in etcd. Out: a report, and an exit code: 0 all is well; 1 some keys were
//! rejected, a prefix holds no key, the shared settings are wrong, etcd cannot be read, or the
//! way of `--dns` breaks; 64 bad settings. It never changes anything.

pub mod dns;
mod report;
mod show;

use std::process::ExitCode;
use std::sync::Arc;

use super::{admin_client, bad};
use crate::config::{Registry, ServeArgs};
use crate::model::Zone;
use crate::registry::etcd::{self, Connect, EtcdError};
use crate::registry::record::Prefix;
use crate::settings::{Document, Layer, Registrants, source};

use self::report::Report;

/// Validates the settings of serve; with --live, also reads the keys in etcd with them; with
/// --dns, finds a name's list as a client does
///
/// It takes the same flags, environment and file of settings as serve. Exit codes: 0 all
/// is well; 1 some keys were rejected, a prefix holds no key, etcd could not be read, or a
/// client gets no list; 64 the settings are wrong.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CheckArgs {
    /// The settings of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// Read every key below the prefixes and report the result
    #[arg(long)]
    pub live: bool,
    /// The walk from a name to a list.
    #[command(flatten)]
    pub dns: dns::DnsArgs,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Runs `check`. Needs a tokio runtime with time and I/O.
pub async fn run(args: &CheckArgs) -> ExitCode {
    let config = match args.serve.validate() {
        Ok(config) => config,
        Err(problems) => return bad(&problems),
    };
    if let Some(name) = &args.dns.dns {
        return dns::run(&args.dns, name, args.json).await;
    }
    let prefixes = config.prefixes.clone();
    if !args.live {
        let report = Report::new(&prefixes, &Registrants::default(), &[]);
        let shown = if args.json { show::json(&report) } else { show::valid(&report) };
        return print(&shown, true);
    }
    let Registry::Etcd(connect) = config.registry.clone() else {
        return bad(&["--live needs --etcd: give etcd's endpoints (the embedded registry of a \
                      running lookaside is at its --registry-listen)"
            .to_owned()]);
    };
    let document = read_settings(&connect, &config.zone).await;
    let store = document.as_ref().ok().cloned().flatten();
    let settings = config.settings();
    let file = settings.document(Layer::File).cloned();
    let settings = settings.with(file, store);
    match read(connect, &prefixes, settings.registrants()).await {
        Ok(mut report) => {
            report.settings_problem = document.err();
            let shown = if args.json { show::json(&report) } else { show::live(&report) };
            print(&shown, report.is_well())
        }
        Err(trouble) => {
            eprintln!("error: cannot read etcd: {}", admin_client::clean(&trouble.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// Reads all keys below the prefixes. For a prefix without keys, tries it with or without
/// its leading `/`, and adds a hint if that prefix has keys.
async fn read(
    connect: Connect,
    prefixes: &[Prefix],
    registrants: &Registrants,
) -> Result<Report, EtcdError> {
    let options = |prefixes: Vec<Prefix>| etcd::Options { connect: connect.clone(), prefixes };
    let keys = etcd::read_once(options(prefixes.to_vec())).await?;
    let mut report = Report::new(prefixes, registrants, &keys);
    for found in report.prefixes.iter_mut().filter(|found| found.keys_below == 0) {
        let path = match found.prefix.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None => format!("/{}", found.prefix),
        };
        let format = prefixes[0].format.clone();
        let other = etcd::read_once(options(vec![Prefix { path: path.clone(), format }])).await?;
        if !other.is_empty() {
            let hint = format!("below {path:?} are keys ({}): is that the prefix?", other.len());
            found.hint = Some(hint);
        }
    }
    Ok(report)
}

/// Reads the document of settings that all balancers of the zone share; `None` if there is
/// none.
///
/// # Errors
/// If etcd denies it, or a balancer would refuse the document.
async fn read_settings(connect: &Connect, zone: &Zone) -> Result<Option<Arc<Document>>, String> {
    let key = source::key(zone);
    let found = etcd::get(connect, &key).await;
    let Some(found) = found.map_err(|error| format!("cannot read {key}: {error}"))? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&found.value);
    let document = Document::parse(&text).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        let count = problems.len();
        format!("{key} is wrong ({count} problems), and balancers refuse it: {first}")
    })?;
    Ok(Some(Arc::new(document)))
}

fn print(text: &str, well: bool) -> ExitCode {
    match admin_client::print(text) {
        Ok(_) if well => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
