//! Finds the end of certificates. Pure.
//!
//! In: certificates in PEM. Out: the earliest end.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Returns the earliest end of all certificates, in seconds since 1970. Returns `None` if no
/// certificate can be read.
#[must_use]
pub fn expiry(pem: &[u8]) -> Option<i64> {
    let end = |certificate: CertificateDer<'_>| {
        let certificate = Certificate::from_der(&certificate).ok()?;
        let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
        i64::try_from(end.as_secs()).ok()
    };
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).filter_map(end).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 2);
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn the_first_of_a_chain_to_end_counts() {
        let chain = certificate(2051) + &certificate(2031);
        assert_eq!(expiry(chain.as_bytes()), Some(1_925_078_400));
        assert_eq!(expiry(certificate(2051).as_bytes()), Some(2_556_230_400));
        assert_eq!(expiry(b"nonsense"), None);
    }
}
