//! `lookaside xds-bootstrap`: prints the file by which xDS clients find the balancers.
//!
//! In: flags. Out: JSON, or the problem. It asks nobody: the output depends on the flags
//! only.

use std::io::Write;
use std::process::ExitCode;

use crate::dns::zone::balancer_name;
use crate::model::Zone;
use crate::xds::bootstrap::{Bootstrap, ID, TlsFiles};

use super::bad;

/// Prints the bootstrap file of xDS clients
///
/// Clients read it from the file that GRPC_XDS_BOOTSTRAP names, or as text from
/// GRPC_XDS_BOOTSTRAP_CONFIG.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// The balancers as a gRPC target; one name with the addresses of all of them
    /// [default: dns:///grpclb.ZONE:12000]
    #[arg(long, value_name = "TARGET", env = "LOOKASIDE_XDS_SERVER")]
    pub server: Option<String>,
    /// The DNS zone of the balancers' name
    #[arg(
        long,
        value_name = "ZONE",
        default_value = "lookaside.internal",
        env = "LOOKASIDE_DOMAIN"
    )]
    pub domain: String,
    /// The zone in which the clients run
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// Clients speak TLS to the balancers (Node cannot)
    #[arg(long)]
    pub tls: bool,
    /// The PEM file of the authority that clients trust, on their machines; implies --tls
    /// [default: that of their system]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// The PEM file of the clients' certificate, on their machines, for balancers that ask for one;
    /// implies --tls
    #[arg(long, value_name = "FILE")]
    pub cert: Option<String>,
    /// The PEM file of its key
    #[arg(long, value_name = "FILE")]
    pub key: Option<String>,
    /// How often clients read these files again [default: every ten minutes]
    #[arg(long, value_name = "DURATION")]
    pub refresh: Option<String>,
    /// The name of the clients, which lookaside only shows
    #[arg(long, value_name = "NAME", default_value = ID)]
    pub id: String,
    /// The service that the clients belong to
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
}

/// The default port of balancers.
const PORT: u16 = 12000;

/// Prints the file, or the problem.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match args.file() {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(problem) => bad(&[problem]),
    }
}

impl Args {
    /// Returns the file as text.
    ///
    /// # Errors
    /// Returns the problem of a flag.
    pub fn file(&self) -> Result<String, String> {
        let zone = Zone::new(&self.domain).map_err(|error| format!("--domain: {error}"))?;
        let server = match &self.server {
            Some(server) => server.clone(),
            None => format!("dns:///{}:{PORT}", balancer_name(&zone)),
        };
        let (ca, cert, key) = (self.ca.clone(), self.cert.clone(), self.key.clone());
        let files = TlsFiles::new(ca, cert, key, self.refresh.as_deref(), "--")?;
        let bootstrap = Bootstrap {
            server,
            tls: (self.tls || files.any()).then_some(files),
            zone: self.zone.clone(),
            id: self.id.clone(),
            cluster: self.cluster.clone(),
        };
        Ok(bootstrap.json())
    }
}
