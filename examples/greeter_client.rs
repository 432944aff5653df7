//! A plain tonic client that balances calls over the addresses that DNS gives for one
//! name. tonic has no grpclb; `examples/clients/rust/README.md` says what a client loses
//! by that.
//!
//!     cargo run --example greeter_client -- hello.lookaside.internal:50051
//!
//! In: a name and a port, and a DNS server. Out: a line for every answer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::mpsc::Sender;
use tonic::transport::channel::Change;
use tonic::transport::{Channel, Endpoint};

#[allow(missing_docs, unreachable_pub, reason = "generated")]
mod pb {
    tonic::include_proto!("helloworld");
}

use pb::HelloRequest;
use pb::greeter_client::GreeterClient;

#[derive(Parser)]
struct Arguments {
    /// NAME:PORT; all servers have this port
    target: String,
    /// IP:PORT of the DNS server to ask [default: the machine's]
    #[arg(long)]
    dns: Option<SocketAddr>,
    #[arg(long, default_value = "world")]
    name: String,
    /// Seconds between calls
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
    /// Calls to make; 0 = no end
    #[arg(long, default_value_t = 0)]
    count: u64,
}

/// The time after which a name that could not be resolved is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// Without this bound, each call would wait for servers whose host is gone.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let given = Arguments::parse();
    let (name, port) = given.target.rsplit_once(':').ok_or_else(|| anyhow::anyhow!("NAME:PORT"))?;
    let (name, port) = (format!("{}.", name.trim_end_matches('.')), port.parse()?);
    // tonic picks two addresses at random, and of them the one with fewer pending calls.
    let (channel, changes) = Channel::balance_channel(16);
    tokio::spawn(follow(resolver(given.dns)?, name, port, changes));

    let mut greeter = GreeterClient::new(channel);
    let mut made = 0;
    loop {
        let mut request = tonic::Request::new(HelloRequest { name: given.name.clone() });
        request.set_timeout(Duration::from_secs(5));
        // A call without any address waits, whatever its own timeout says.
        let call = tokio::time::timeout(Duration::from_secs(5), greeter.say_hello(request));
        match call.await {
            Ok(Ok(reply)) => println!("{}", reply.into_inner().message),
            Ok(Err(status)) => println!("{:?}: {}", status.code(), status.message()),
            Err(_) => println!("DeadlineExceeded: no server"),
        }
        made += 1;
        if made == given.count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs_f64(given.interval)).await;
    }
}

/// Keeps the channel's endpoints equal to DNS. Asks again whenever the time to live of
/// an answer is over. An answer that fails changes nothing.
async fn follow(
    resolver: TokioResolver,
    name: String,
    port: u16,
    changes: Sender<Change<SocketAddr, Endpoint>>,
) {
    let mut known = BTreeSet::new();
    loop {
        let valid_until = match resolver.lookup_ip(name.as_str()).await {
            Ok(answer) => {
                let found = answer.iter().map(|ip| SocketAddr::new(ip, port)).collect();
                let gone = known.difference(&found).map(|&addr| Change::Remove(addr));
                let new =
                    found.difference(&known).map(|&addr| Change::Insert(addr, endpoint(addr)));
                for change in gone.chain(new) {
                    if changes.send(change).await.is_err() {
                        return;
                    }
                }
                known = found;
                answer.valid_until()
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                Instant::now() + RETRY
            }
        };
        tokio::time::sleep_until(valid_until.into()).await;
    }
}

fn endpoint(addr: SocketAddr) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"));
    endpoint.expect("an address is a valid authority").connect_timeout(CONNECT_WITHIN)
}

fn resolver(dns: Option<SocketAddr>) -> anyhow::Result<TokioResolver> {
    let provider = TokioRuntimeProvider::default();
    let Some(dns) = dns else {
        return Ok(TokioResolver::builder(provider)?.build()?);
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = dns.port();
        connection
    });
    let server = NameServerConfig::new(dns.ip(), true, connections.into());
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    Ok(TokioResolver::builder_with_config(config, provider).build()?)
}
