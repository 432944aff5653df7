//! Certificates for balancers and backends.
//!
//! In: names, and a directory of the case. Out: certificates and keys as files, signed
//! by an authority of the case's own.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::transport::Identity;

/// The certificate authority that clients trust.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files and as text.
pub struct Certificate {
    pub cert: String,
    pub key: String,
    pub identity: Identity,
}

impl Authority {
    pub fn new(directory: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        // A leaf of the same name would look self-signed.
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let authority = Self { directory: directory.into(), issuer: Issuer::new(params, key) };
        authority.write("ca.pem", &pem);
        authority
    }

    /// Returns the file with its own certificate.
    pub fn ca(&self) -> String {
        self.path("ca.pem")
    }

    /// Signs a certificate for a name.
    pub fn sign(&self, name: &str) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let cert_pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let key_pem = key.serialize_pem();
        Certificate {
            cert: self.write(&format!("{name}.pem"), &cert_pem),
            key: self.write(&format!("{name}.key.pem"), &key_pem),
            identity: Identity::from_pem(cert_pem, key_pem),
        }
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.directory.join(name), text).expect("a temporary file");
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("temporary paths are text").to_owned()
    }
}
