//! Certificates for tests, also those that must be refused.

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// How many authorities there were. Each has a name of its own.
static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        let name = format!("authority {}", AUTHORITIES.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Returns its own certificate.
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// Returns a certificate for these names and its key.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_with(names, |_| {})
    }

    /// Returns a certificate that ended in 2001, and its key.
    pub fn sign_ended(&self, names: &[&str]) -> (String, String) {
        self.sign_with(names, |params| {
            params.not_before = date_time_ymd(2000, 9, 9);
            params.not_after = date_time_ymd(2001, 9, 9);
        })
    }

    /// Returns a certificate that is for servers only, and its key.
    pub fn sign_for_servers(&self, names: &[&str]) -> (String, String) {
        self.sign_with(names, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    fn sign_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }
}
