//! The flags that say how etcd is reached.
//!
//! In: text from flags and environment, files they name. Out: a [`Connect`], or
//! every problem there is. Reads files, connects to nothing, shows no password.

use std::fs;

use crate::registry::etcd::{Connect, Tls};

/// How etcd is reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EtcdArgs {
    /// etcd's endpoints, separated by commas
    #[arg(long, value_name = "URL[,URL…]", env = "LOOKASIDE_ETCD")]
    pub etcd: Option<String>,
    /// The user to log in as
    #[arg(long, value_name = "USER", env = "LOOKASIDE_ETCD_USER")]
    pub etcd_user: Option<String>,
    /// A file whose first line is the user's password
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_PASSWORD_FILE")]
    pub etcd_password_file: Option<String>,
    /// The certificate authority that signed etcd's certificate, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_CA")]
    pub etcd_ca: Option<String>,
    /// Our certificate, where etcd wants one, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_CERT")]
    pub etcd_cert: Option<String>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_KEY")]
    pub etcd_key: Option<String>,
}

impl EtcdArgs {
    /// How etcd is reached; `None` where no etcd is given, or where there are
    /// problems, which it adds.
    #[must_use]
    pub fn validate(&self, problems: &mut Vec<String>) -> Option<Connect> {
        let before = problems.len();
        let user = self.user(problems);
        let tls = self.tls(problems);
        let Some(etcd) = &self.etcd else {
            let any = user.is_some() || tls.is_some();
            if any && problems.len() == before {
                problems.push("--etcd is missing: options for etcd are given without it".into());
            }
            return None;
        };
        let endpoints: Vec<&str> = etcd.split(',').collect();
        match Connect::new(&endpoints, user, tls.as_ref()) {
            Ok(connect) => (problems.len() == before).then_some(connect),
            Err(errors) => {
                problems.extend(errors.iter().map(|error| format!("--etcd: {error}")));
                None
            }
        }
    }

    fn user(&self, problems: &mut Vec<String>) -> Option<(String, String)> {
        match (&self.etcd_user, &self.etcd_password_file) {
            (Some(user), Some(file)) => {
                if user.is_empty() {
                    problems.push("--etcd-user is empty".into());
                }
                let text = read("--etcd-password-file", file, problems)?;
                let text = String::from_utf8_lossy(&text);
                let password = text.lines().next().unwrap_or_default();
                if password.is_empty() {
                    problems
                        .push(format!("--etcd-password-file: {file:?} begins with no password"));
                }
                Some((user.clone(), password.to_owned()))
            }
            (Some(_), None) => {
                problems.push("--etcd-user needs --etcd-password-file".into());
                None
            }
            (None, Some(_)) => {
                problems.push("--etcd-password-file needs --etcd-user".into());
                None
            }
            (None, None) => None,
        }
    }

    fn tls(&self, problems: &mut Vec<String>) -> Option<Tls> {
        let mut read = |flag, file: &Option<String>| {
            file.as_ref().map(|file| read(flag, file, problems).unwrap_or_default())
        };
        let ca = read("--etcd-ca", &self.etcd_ca);
        let certificate = read("--etcd-cert", &self.etcd_cert);
        let key = read("--etcd-key", &self.etcd_key);
        if certificate.is_some() != key.is_some() {
            problems.push("--etcd-cert and --etcd-key need each other".into());
        }
        let identity = certificate.zip(key);
        match (ca, identity) {
            // A file that cannot be read is a problem of its own.
            (Some(ca), _) if ca.is_empty() => None,
            (Some(ca), identity) => Some(Tls { ca, identity }),
            (None, Some(_)) => {
                problems.push("--etcd-cert needs --etcd-ca".into());
                None
            }
            (None, None) => None,
        }
    }
}

fn read(flag: &str, file: &str, problems: &mut Vec<String>) -> Option<Vec<u8>> {
    match fs::read(file) {
        Ok(bytes) if bytes.is_empty() => {
            problems.push(format!("{flag}: {file:?} is empty"));
            None
        }
        Ok(bytes) => Some(bytes),
        Err(error) => {
            problems.push(format!("{flag}: cannot read {file:?}: {error}"));
            None
        }
    }
}
