//! Reads the names and the end of a client's certificate, once for each connection.
//!
//! In: the certificate that the handshake has verified, in DER. Out: its names, and when it
//! ends. A certificate that cannot be read has no names, so no rule about certificates names
//! its client.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::model::CertificateNames;

/// What a certificate says of its client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FromCertificate {
    /// `None` if it has none.
    pub(super) names: Option<Arc<CertificateNames>>,
    /// When it ends, since 1970; `None` if it cannot be read.
    pub(super) ends: Option<Duration>,
}

/// The most names of a kind that are kept. Each is compared with rules, for each stream.
const NAMES_MAX: usize = 64;

/// Reads the first certificate of a chain, which is the client's own.
pub(super) fn of(chain: &[CertificateDer<'_>]) -> FromCertificate {
    let Some(own) = chain.first() else { return FromCertificate::default() };
    let Ok(certificate) = Certificate::from_der(own) else { return FromCertificate::default() };
    let ends = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    let alternative = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let alternative = alternative.ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for name in &alternative {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().into()),
            GeneralName::DnsName(name) => dns.push(name.as_str().to_ascii_lowercase().into()),
            _ => {}
        }
    }
    uris.truncate(NAMES_MAX);
    dns.truncate(NAMES_MAX);
    let names = CertificateNames { uris: uris.into(), dns: dns.into() };
    let some = !names.uris.is_empty() || !names.dns.is_empty();
    FromCertificate { names: some.then(|| Arc::new(names)), ends: Some(ends) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(2051, 1, 2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_names_of_the_clients_own_certificate_count() {
        let names = vec![
            SanType::URI("spiffe://prod/web".try_into().unwrap()),
            SanType::DnsName("A.Web.Example".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
        let other = certificate(vec![SanType::URI("spiffe://prod/other".try_into().unwrap())]);
        let found = of(&[certificate(names), other]);
        let names = found.names.unwrap();
        assert_eq!((&*names.uris[0], &*names.dns[0]), ("spiffe://prod/web", "a.web.example"));
        assert_eq!((names.uris.len(), names.dns.len()), (1, 1));
        assert_eq!(found.ends, Some(Duration::from_secs(2_556_230_400)));
    }

    #[test]
    fn a_certificate_without_names_or_that_is_garbage_names_nobody() {
        assert_eq!(of(&[certificate(Vec::new())]).names, None);
        assert_eq!(of(&[CertificateDer::from(vec![1, 2, 3])]), FromCertificate::default());
        assert_eq!(of(&[]), FromCertificate::default());
    }
}
