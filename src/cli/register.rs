//! `lookaside register`: keeps a backend registered, whatever language it is written in.
//!
//! In: flags and environment. Out: a key in etcd for as long as the command (or, without
//! one, this program) runs; one line on standard output each time the key is written; the
//! command's exit code. It never passes on a signal to stop before the key is removed and
//! clients have had time to hear of it.

mod command;
mod health;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::command::{Command, Signals, pass_on};
use self::health::{Health, HealthArgs};
use crate::config::{etcd_args::EtcdArgs, take};
use crate::model::{HostPort, Meta, ServiceName, Weight};
use crate::register::{self, Held, Options, RegisterError, Status};
use crate::registry::Registration;
use crate::registry::record::Format;

/// Registers a backend in etcd, and keeps it registered
///
/// If a command is given, this program starts it, ends with it and returns its exit
/// code. SIGINT, SIGTERM, SIGHUP and SIGQUIT first remove the key; after --drain-delay the
/// signal goes to the command's process group, and a second signal goes at once. Other
/// signals (SIGUSR1, SIGUSR2, SIGWINCH, …) go to the command's process group at once. On Linux the command gets SIGTERM when this
/// program is killed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegisterArgs {
    /// The connection to etcd
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// The service that the backend belongs to
    #[arg(long, env = "LOOKASIDE_SERVICE")]
    pub service: Option<String>,
    /// The address at which clients reach the backend
    #[arg(long, value_name = "HOST:PORT", env = "LOOKASIDE_ADDR")]
    pub addr: Option<String>,
    /// How long the key remains if this program dies without removing it
    #[arg(long, value_name = "DURATION", default_value = "15s", env = "LOOKASIDE_TTL")]
    pub ttl: String,
    /// The backend's own name [default: its address]
    #[arg(long, env = "LOOKASIDE_ID")]
    pub id: Option<String>,
    /// The backend's share of the calls, relative to the others [default: the format's, mostly 1]
    #[arg(long, value_name = "N", env = "LOOKASIDE_WEIGHT", allow_negative_numbers = true)]
    pub weight: Option<String>,
    /// The backend's zone: short for --meta zone=ZONE
    #[arg(long, env = "LOOKASIDE_ZONE")]
    pub zone: Option<String>,
    /// Other metadata of the backend; repeatable [env: LOOKASIDE_META, one pair per line, or pairs
    /// separated by commas]
    #[arg(long, value_name = "KEY=VALUE")]
    pub meta: Vec<String>,
    /// The pairs of `LOOKASIDE_META`, which `--meta` replaces
    #[arg(long, hide = true, env = "LOOKASIDE_META")]
    pub meta_pairs: Option<String>,
    /// The format of key and value, for other readers of the same keys: auto, plain,
    /// etcd-naming, kratos… (see docs/formats.md)
    #[arg(long, default_value = "auto", env = "LOOKASIDE_FORMAT")]
    pub format: String,
    /// The part of the key before the service's name
    #[arg(long, default_value = "/etcd3_naming/", env = "LOOKASIDE_PREFIX")]
    pub prefix: String,
    /// Register only while the backend's grpc.health.v1 says SERVING
    #[arg(long, env = "LOOKASIDE_WHEN_SERVING")]
    pub when_serving: bool,
    /// How long the command runs on after the key is removed, so that clients stop calling it
    /// first
    // A list reaches clients within a second or two, and what they have begun takes a moment.
    #[arg(long, value_name = "DURATION", default_value = "2s", env = "LOOKASIDE_DRAIN_DELAY")]
    pub drain_delay: String,
    /// How the backend's health is checked
    #[command(flatten)]
    pub health: HealthArgs,
    /// The command that runs the backend, if this program shall start it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The validated flags.
struct Plan {
    options: Options,
    health: Option<Health>,
    drain_delay: Duration,
    command: Vec<OsString>,
}

/// The longest `--drain-delay`. Whatever stops programs kills them long before.
const DRAIN_DELAY_MAX: Duration = Duration::from_secs(3600);
/// Bad flags (`EX_USAGE` of sysexits.h).
const BAD_FLAGS: u8 = 64;

/// Runs `register`. Needs a tokio runtime with time, I/O and signals.
pub async fn run(args: RegisterArgs) -> ExitCode {
    let plan = match args.validate() {
        Ok(plan) => plan,
        Err(problems) => {
            for problem in problems {
                let _ = writeln!(std::io::stderr(), "error: {problem}");
            }
            return ExitCode::from(BAD_FLAGS);
        }
    };
    // The handlers exist before the command starts, so that no signal is missed.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}"), 1),
    };
    let mut command = match Command::start(&plan.command) {
        Ok(command) => command,
        Err((error, code)) => return fail(&error, code),
    };
    let (stop_tx, stop_rx) = oneshot::channel();
    let presence = tokio::spawn(stay(plan.options, plan.health, stop_rx));
    let id = command.id();
    let (signal, ended) = tokio::select! {
        signal = signals.stop(id) => (Some(signal), None),
        code = command.ended() => (None, Some(code)),
    };
    drop(stop_tx);
    let left = presence.await;
    let (withdrawn, was_there) = (matches!(left, Ok(Ok(_))), matches!(left, Ok(Ok(true))));
    match (signal, ended) {
        (_, Some(code)) => ExitCode::from(code),
        (Some(signal), _) if id.is_some() => {
            // Without a key, or while it still exists, a delay would not help.
            let delay = if was_there { plan.drain_delay } else { Duration::ZERO };
            let second = tokio::select! {
                code = command.ended() => return ExitCode::from(code),
                second = signals.stop(id) => Some(second),
                () = tokio::time::sleep(delay) => None,
            };
            pass_on(id, signal);
            if let Some(second) = second.filter(|second| *second != signal) {
                pass_on(id, second);
            }
            ExitCode::from(command.end_with(&mut signals).await)
        }
        _ => ExitCode::from(u8::from(!withdrawn)),
    }
}

fn fail(error: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}

/// Holds the registration until `stop_rx` fires. With `health`, it holds it only while the
/// backend is serving. Returns whether there was a key, which is removed now.
async fn stay(
    options: Options,
    mut health: Option<Health>,
    mut stop_rx: oneshot::Receiver<()>,
) -> Result<bool, RegisterError> {
    loop {
        let serving = async {
            if let Some(health) = &mut health {
                health.until_serving().await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut stop_rx => return Ok(false),
            () = serving => {}
        }
        let held = register::hold(options.clone()).await?;
        let over = async {
            say_when_registered(&held, &options).await;
            match &mut health {
                Some(health) => health.until_not_serving().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = &mut stop_rx => {
                let was_there = *held.status().borrow() == Status::Registered;
                return held.withdraw().await.map(|()| was_there);
            }
            () = over => {}
        }
        // The error is logged where it happened; the lease's end removes the key.
        let _ = held.withdraw().await;
    }
}

async fn say_when_registered(held: &Held, options: &Options) {
    let mut status_rx = held.status();
    if status_rx.wait_for(|status| *status == Status::Registered).await.is_err() {
        return;
    }
    let Registration { service, address, .. } = &options.registration;
    let line = format!("registered service={service} address={address} key={}", held.key());
    // Standard output may be closed, which is not an error.
    let _ = writeln!(std::io::stdout(), "{line}");
}

impl RegisterArgs {
    /// Returns what to register and to run, or all problems.
    fn validate(self) -> Result<Plan, Vec<String>> {
        let mut problems = Vec::new();
        let etcd_problems = problems.len();
        let connect = self.etcd.validate(&mut problems);
        if self.etcd.etcd.is_none() && problems.len() == etcd_problems {
            problems.push("--etcd is missing".into());
        }
        let ttl = self.ttl(&mut problems);
        let drain_delay = self.drain_delay(&mut problems);
        let meta = self.meta(&mut problems);
        let format = take("--format", self.format.parse::<Format>(), &mut problems);
        let usual = format.as_ref().map_or(Weight::DEFAULT, Format::default_weight);
        let registration = self.registration(meta, usual, &mut problems);
        if let (Some(format), Some(registration)) = (&format, &registration) {
            let fits = register::check_format(format, &self.prefix, registration);
            take("--format", fits, &mut problems);
        }
        let health = match &registration {
            Some(Registration { address, .. }) if self.when_serving => {
                self.health.validate(address, &mut problems)
            }
            _ => {
                self.health.without_use(self.when_serving, &mut problems);
                None
            }
        };
        let prefix = self.prefix;
        let (Some(connect), Some(registration), Some(ttl), Some(drain_delay), Some(format), []) =
            (connect, registration, ttl, drain_delay, format, &problems[..])
        else {
            return Err(problems);
        };
        let options = Options { connect, prefix, registration, ttl, format };
        Ok(Plan { options, health, drain_delay, command: self.command })
    }

    fn ttl(&self, problems: &mut Vec<String>) -> Option<Duration> {
        let ttl = take("--ttl", humantime::parse_duration(&self.ttl), problems)?;
        take("--ttl", register::check_ttl(ttl), problems)?;
        Some(ttl)
    }

    fn drain_delay(&self, problems: &mut Vec<String>) -> Option<Duration> {
        let delay = humantime::parse_duration(&self.drain_delay);
        let delay = take("--drain-delay", delay, problems)?;
        if delay > DRAIN_DELAY_MAX {
            let text = &self.drain_delay;
            problems.push(format!("--drain-delay: {text:?} is more than 1h"));
        }
        Some(delay)
    }

    fn registration(
        &self,
        meta: Meta,
        usual: Weight,
        problems: &mut Vec<String>,
    ) -> Option<Registration> {
        let service = required("--service", self.service.as_deref(), problems)
            .and_then(|text| take("--service", ServiceName::new(text), problems));
        let address = required("--addr", self.addr.as_deref(), problems)
            .and_then(|text| take("--addr", HostPort::parse(text), problems));
        let id = self.id.clone().or_else(|| address.as_ref().map(HostPort::to_string));
        if let Some(id) = &id {
            take("--id", register::check_id(id), problems);
        }
        let weight = match &self.weight {
            None => usual,
            Some(text) => match text.parse() {
                Ok(weight) => Weight(weight),
                Err(_) => {
                    problems.push(format!("--weight: {text:?} is no whole number from 0 on"));
                    Weight::DEFAULT
                }
            },
        };
        let (service, address, id) = (service?, address?, id?.into());
        Some(Registration { service, id, address, weight, meta: Arc::new(meta) })
    }

    fn meta(&self, problems: &mut Vec<String>) -> Meta {
        let mut meta = Meta::new();
        let pairs = match (self.meta.as_slice(), self.meta_pairs.as_deref()) {
            ([], Some(variable)) => pairs(variable),
            (flags, _) => flags.iter().map(String::as_str).collect(),
        };
        for text in pairs {
            let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                problems.push(format!("--meta: {text:?} is not KEY=VALUE"));
                continue;
            };
            if key == "weight" {
                problems.push("--meta: weight cannot be given here: use --weight".into());
            }
            if meta.insert(key.to_owned(), value.to_owned()).is_some() {
                problems.push(format!("--meta: {key:?} is given twice"));
            }
        }
        if let Some(zone) = &self.zone {
            if zone.trim().is_empty() {
                problems.push("--zone is empty".into());
            }
            if meta.insert("zone".to_owned(), zone.clone()).is_some() {
                problems.push("--zone and --meta zone=… are the same: give one".into());
            }
        }
        meta
    }
}

/// Returns the pairs in a variable. A value may contain commas: only a comma before `KEY=`
/// begins another pair, and no comma does if each pair has its own line.
fn pairs(variable: &str) -> Vec<&str> {
    let mut lines = variable.lines().map(str::trim).filter(|line| !line.is_empty());
    if variable.contains('\n') {
        return lines.collect();
    }
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let begins = |part: &str| {
        part.split_once('=').is_some_and(|(key, _)| !key.is_empty() && key.chars().all(is_key))
    };
    let Some(line) = lines.next_back() else { return Vec::new() };
    let commas = line.match_indices(',').map(|(at, _)| at);
    let ends = commas.filter(|at| begins(&line[at + 1..])).chain([line.len()]);
    let mut start = 0;
    ends.map(|end| &line[std::mem::replace(&mut start, end + 1)..end]).collect()
}

fn required<'a>(flag: &str, text: Option<&'a str>, problems: &mut Vec<String>) -> Option<&'a str> {
    if text.is_none() {
        problems.push(format!("{flag} is missing"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_the_variable_may_hold_commas() {
        let check = |variable, expected: &[&str]| assert_eq!(pairs(variable), expected);
        check("", &[]);
        check("version=2,color=red", &["version=2", "color=red"]);
        check("tags=a,b", &["tags=a,b"]);
        check("tags=a,b,zone=x", &["tags=a,b", "zone=x"]);
        check("tags=a,b=c\n", &["tags=a,b=c"]);
        check("a=1,2\n b=3,c=4 \n", &["a=1,2", "b=3,c=4"]);
        check("nothing", &["nothing"]);
    }
}
