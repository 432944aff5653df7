//! `lookaside check --dns NAME`: walks from a name to a list as a client does.
//!
//! In: a name or target, DNS servers, and TLS. Out: a report of each step (SRV, addresses,
//! TXT, fallback addresses, balancers, lists), and an exit code: 0 a client gets a list from
//! every balancer that DNS names; 1 the way breaks; 64 bad flags. It changes nothing, and
//! shows the balancers a stream of a moment.

mod servers;
mod show;
mod steps;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use self::steps::{Step, Target, Verdict};
use crate::backend_channel::{self, Tls};
use crate::balancer::ask::first_list;
use crate::cli::bad;
use crate::dns::zone::{LOCATOR, SETTINGS};
use tonic::{Code, Status};

/// How to walk.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DnsArgs {
    /// Walk from this name or target (dns:///hello.lookaside.internal) to a list as a client does,
    /// and say where the way breaks
    #[arg(long, value_name = "NAME", conflicts_with = "live")]
    pub dns: Option<String>,
    /// The DNS server to ask; repeatable [default: the target's, else the system's]
    #[arg(long, value_name = "IP[:PORT]", requires = "dns", value_delimiter = ',')]
    pub dns_server: Vec<String>,
    /// Connect to the balancers by TLS, and trust the system's authorities
    #[arg(long, requires = "dns")]
    pub dns_tls: bool,
    /// The authority that must have signed the balancers' certificates, in PEM; turns TLS on
    #[arg(long, value_name = "FILE", requires = "dns")]
    pub dns_ca: Option<String>,
}

/// The way to walk.
struct Way {
    /// The name without port and trailing dot.
    host: String,
    /// The name as a client sends it to the balancer.
    name: String,
    servers: Vec<SocketAddr>,
    tls: Option<Arc<ClientConfig>>,
}

/// How long a balancer has to answer: to connect, and to send a list.
const BALANCER_MAX: Duration = Duration::from_secs(5);
/// The most addresses of balancers that are asked.
const BALANCERS_MAX: usize = 32;

impl DnsArgs {
    fn way(&self, typed: &str) -> Result<Way, Vec<String>> {
        let mut problems = Vec::new();
        let (server, name) = match typed.strip_prefix("dns:") {
            Some(rest) => match rest.strip_prefix("//").and_then(|rest| rest.split_once('/')) {
                Some((server, name)) => (server, name),
                None => ("", rest.trim_start_matches('/')),
            },
            None => ("", typed),
        };
        let host = name.rsplit_once(':').map_or(name, |(host, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { name }
        });
        let host = host.trim_end_matches('.').to_owned();
        if host.is_empty() || host.contains(':') || host.parse::<IpAddr>().is_ok() {
            problems.push(format!(
                "--dns: {typed:?} is no name: give it as clients do, such as \
                 dns:///hello.lookaside.internal"
            ));
        }
        let mut servers = Vec::new();
        let given = [server.to_owned()].into_iter().filter(|_| self.dns_server.is_empty());
        for text in self.dns_server.iter().cloned().chain(given).filter(|text| !text.is_empty()) {
            let ip = || Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, 53));
            match text.parse().ok().or_else(ip) {
                Some(server) => servers.push(server),
                None => problems.push(format!("--dns-server: {text:?} is no IP or IP:PORT")),
            }
        }
        let tls = match &self.dns_ca {
            Some(path) => match std::fs::read(path) {
                Ok(pem) => Some(backend_channel::tls::config(Some(&pem), None)),
                Err(error) => Some(Err(format!("{path:?} cannot be read: {error}"))),
            },
            None => self.dns_tls.then(|| backend_channel::tls::config(None, None)),
        };
        let tls = tls.transpose().map_err(|error| problems.push(format!("--dns-ca: {error}")));
        match tls {
            Ok(tls) if problems.is_empty() => {
                let servers = if servers.is_empty() { servers::of_system() } else { servers };
                Ok(Way { host, name: name.to_owned(), servers, tls })
            }
            _ => Err(problems),
        }
    }
}

/// Walks, and prints what was found.
pub(super) async fn run(args: &DnsArgs, typed: &str, json: bool) -> ExitCode {
    let way = match args.way(typed) {
        Ok(way) => way,
        Err(problems) => return bad(&problems),
    };
    let steps = way.walk().await;
    let well = steps.iter().all(|step| step.verdict != Verdict::Broken);
    let shown = if json { show::json(typed, well, &steps) } else { show::text(&steps) };
    super::print(&shown, well)
}

impl Way {
    async fn walk(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let targets = self.targets(&mut steps).await;
        let mut balancers = Vec::new();
        for target in &targets {
            for ip in self.addresses(target, &mut steps).await {
                balancers.push((target, SocketAddr::new(ip, target.port)));
            }
        }
        if !targets.is_empty() {
            steps.push(self.config().await);
            steps.push(self.fallback().await);
        }
        for (target, address) in balancers.into_iter().take(BALANCERS_MAX) {
            steps.push(self.list(target, address).await);
        }
        steps
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<(Message, SocketAddr), String> {
        servers::ask(&self.servers, name, kind).await
    }

    async fn targets(&self, steps: &mut Vec<Step>) -> Vec<Target> {
        let name = format!("{}.{}", LOCATOR.join("."), self.host);
        let (step, targets) = match self.ask(&name, RecordType::SRV).await {
            Ok((answer, server)) => steps::targets(format!("SRV {name} at {server}"), &answer),
            Err(problem) => (steps::silence("srv", format!("SRV {name}"), problem), Vec::new()),
        };
        steps.push(step);
        targets
    }

    /// Returns the answers about both families, and who gave them.
    async fn both(&self, name: &str) -> Result<(Vec<Message>, SocketAddr), String> {
        let (v4, server) = self.ask(name, RecordType::A).await?;
        let (v6, _) = self.ask(name, RecordType::AAAA).await?;
        Ok((vec![v4, v6], server))
    }

    async fn addresses(&self, target: &Target, steps: &mut Vec<Step>) -> Vec<IpAddr> {
        let asked = format!("A, AAAA {}", target.name);
        let (step, all) = match self.both(&target.name).await {
            Ok((answers, server)) => {
                steps::addresses(format!("{asked} at {server}"), &answers, server.ip())
            }
            Err(problem) => (steps::silence("address", asked, problem), Vec::new()),
        };
        steps.push(step);
        all
    }

    async fn config(&self) -> Step {
        let name = format!("{SETTINGS}.{}", self.host);
        match self.ask(&name, RecordType::TXT).await {
            Ok((answer, server)) => steps::config(format!("TXT {name} at {server}"), &answer),
            Err(problem) => steps::silence("txt", format!("TXT {name}"), problem),
        }
    }

    async fn fallback(&self) -> Step {
        let asked = format!("A, AAAA {}", self.host);
        match self.both(&self.host).await {
            Ok((answers, server)) => steps::fallback(format!("{asked} at {server}"), &answers),
            Err(problem) => steps::silence("fallback", asked, problem),
        }
    }

    /// Connects to a balancer and asks for the list.
    async fn list(&self, target: &Target, address: SocketAddr) -> Step {
        let asked = format!("{address} ({})", target.name);
        let broken = |problem, remedy| Step::broken("balancer", asked.clone(), problem, remedy);
        let unreachable = "is a balancer running there, and does a firewall let clients reach it? \
                           DNS names what --advertise or --listen say";
        let stream = match timeout(BALANCER_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return broken(format!("no connection: {error}"), unreachable),
            Err(_) => return broken(format!("no connection in {BALANCER_MAX:?}"), unreachable),
        };
        let tls = match &self.tls {
            None => None,
            Some(config) => match backend_channel::tls::server_name(&target.name) {
                Ok(name) => Some(Tls { config: config.clone(), name }),
                Err(error) => return broken(error, "let DNS name a host that certificates can"),
            },
        };
        let with_tls = tls.is_some();
        let opened = timeout(BALANCER_MAX, backend_channel::open(stream, tls, &target.name)).await;
        let speaks = "the port must be lookaside's --listen. Where it has --tls-cert, clients need \
                      TLS (--dns-tls, --dns-ca), and its certificate must name the SRV target";
        let channel = match opened {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) if with_tls => return broken(format!("no TLS: {error}"), speaks),
            Ok(Err(error)) => return broken(format!("no HTTP/2: {error}"), speaks),
            Err(_) => return broken(format!("no HTTP/2 in {BALANCER_MAX:?}"), speaks),
        };
        match timeout(BALANCER_MAX, first_list(channel, &self.name)).await {
            Ok(Ok(list)) => steps::list(asked, &list),
            Ok(Err(status)) => broken(refusal(&status), remedy(&status)),
            Err(_) => broken(format!("no list in {BALANCER_MAX:?}"), speaks),
        }
    }
}

fn refusal(status: &Status) -> String {
    format!("the balancer refuses: {:?}: {}", status.code(), backend_channel::cause(status))
}

fn remedy(status: &Status) -> &'static str {
    match status.code() {
        Code::Unimplemented => "the port must be lookaside's --listen",
        Code::InvalidArgument | Code::NotFound => "the name must be one that docs/names.md allows",
        Code::Unavailable => "/readyz at the balancer's admin address says what is missing",
        _ => "the balancer's log says why",
    }
}
