//! Flags for the connection to etcd.
//!
//! In: text from flags and environment, and the files that they name. Out: a
//! [`Connect`], or all problems. It never opens a connection or shows a password.

use std::fmt;

use crate::registry::etcd::{Connect, Credentials, Tls};
use crate::reload::{File, Loaded, Reloading, expiry};

/// Flags for the connection to etcd. The files are read again whenever they change.
#[derive(Clone, Default, clap::Args)]
pub struct EtcdArgs {
    /// etcd's endpoints, separated by commas
    // The URL may contain a password, which the help must not show.
    #[arg(long, value_name = "URL[,URL…]", env = "LOOKASIDE_ETCD", hide_env_values = true)]
    pub etcd: Option<String>,
    /// The user to log in to etcd as
    // etcdctl takes USER:PASSWORD here, which the help must not show.
    #[arg(long, value_name = "USER", env = "LOOKASIDE_ETCD_USER", hide_env_values = true)]
    pub etcd_user: Option<String>,
    /// A file whose first line is the user's password
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_PASSWORD_FILE")]
    pub etcd_password_file: Option<String>,
    /// The certificate authority that signed etcd's certificate, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_CA")]
    pub etcd_ca: Option<String>,
    /// The client certificate for etcd, in PEM, if etcd wants one
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_CERT")]
    pub etcd_cert: Option<String>,
    /// The client certificate's key, in PEM
    #[arg(long, value_name = "FILE", env = "LOOKASIDE_ETCD_KEY")]
    pub etcd_key: Option<String>,
}

impl EtcdArgs {
    /// Returns the connection to etcd. Returns `None` if `--etcd` is missing or if there are
    /// problems, which it adds to `problems`.
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
        let connect = Connect::with(&endpoints, Credentials { user, tls });
        let connect = connect.and_then(|connect| match connect.check_roots() {
            Ok(()) => Ok(connect),
            Err(error) => Err(vec![error]),
        });
        match connect {
            Ok(connect) => (problems.len() == before).then_some(connect),
            Err(errors) => {
                problems.extend(errors.iter().map(|error| format!("--etcd: {error}")));
                None
            }
        }
    }

    fn user(&self, problems: &mut Vec<String>) -> Option<(String, Reloading<String>)> {
        const FLAG: &str = "--etcd-password-file";
        if self.etcd_user.as_ref().is_some_and(|user| user.contains(':')) {
            problems.push(format!(
                "--etcd-user: it holds a colon: give the name alone, and the password in a file \
                 by {FLAG}, because every user of this machine can read the command line"
            ));
        }
        match (&self.etcd_user, &self.etcd_password_file) {
            (Some(user), Some(path)) => {
                if user.is_empty() {
                    problems.push("--etcd-user is empty".into());
                }
                let files = vec![File { flag: FLAG, path: path.into() }];
                let path = path.clone();
                let password = Reloading::open("etcd_password", files, move |contents| {
                    let text = String::from_utf8_lossy(&contents[0]);
                    match text.lines().next() {
                        None | Some("") => {
                            Err(vec![format!("{FLAG}: {path:?} begins with no password")])
                        }
                        Some(line) => Ok(Loaded { value: line.to_owned(), expiries: Vec::new() }),
                    }
                });
                let password = password.map_err(|found| problems.extend(found)).ok()?;
                Some((user.clone(), password))
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

    fn tls(&self, problems: &mut Vec<String>) -> Option<Reloading<Tls>> {
        if self.etcd_cert.is_some() != self.etcd_key.is_some() {
            problems.push("--etcd-cert and --etcd-key need each other".into());
        }
        let named = [
            ("--etcd-ca", &self.etcd_ca),
            ("--etcd-cert", &self.etcd_cert),
            ("--etcd-key", &self.etcd_key),
        ];
        let file = |(flag, path): (&'static str, &Option<String>)| {
            path.as_ref().map(|path| File { flag, path: path.into() })
        };
        let files: Vec<File> = named.into_iter().filter_map(file).collect();
        if files.is_empty() {
            return None;
        }
        let (ca, identity) = (self.etcd_ca.is_some(), self.etcd_cert.is_some());
        let flags = files.iter().map(|file| file.flag).collect::<Vec<_>>().join(", ");
        let tls = Reloading::open("etcd", files, move |contents| {
            let mut contents = contents.iter().cloned();
            let ca = if ca { contents.next().unwrap_or_default() } else { Vec::new() };
            let identity = if identity { contents.next().zip(contents.next()) } else { None };
            let value = Tls { ca, identity };
            value.check().map_err(|error| vec![format!("{flags}: {error}")])?;
            let ends = [
                ("etcd_ca", expiry(&value.ca)),
                ("etcd", value.identity.as_ref().and_then(|(cert, _)| expiry(cert))),
            ];
            let ends = ends.into_iter().filter_map(|(used_for, end)| Some((used_for, end?)));
            Ok(Loaded { expiries: ends.collect(), value })
        });
        tls.map_err(|found| problems.extend(found)).ok()
    }
}

impl fmt::Debug for EtcdArgs {
    /// Leaves out the endpoints and what follows the user's name, because both may contain a
    /// password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { etcd: _, etcd_user, etcd_password_file, etcd_ca, etcd_cert, etcd_key } = self;
        let name = etcd_user.as_ref().and_then(|user| user.split(':').next());
        f.debug_struct("EtcdArgs")
            .field("etcd_user", &name)
            .field("etcd_password_file", etcd_password_file)
            .field("etcd_ca", etcd_ca)
            .field("etcd_cert", etcd_cert)
            .field("etcd_key", etcd_key)
            .finish_non_exhaustive()
    }
}
