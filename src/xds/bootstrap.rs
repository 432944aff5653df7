//! The bootstrap file by which gRPC clients find an xDS server.
//!
//! In: how clients reach the server, and what they say of themselves. Out: JSON that Go,
//! Java, C-core and Node accept. Pure.

use std::time::Duration;

use serde::Serialize;

/// How clients reach the server, and what they say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The server's gRPC target: `dns:///HOST:PORT` or `HOST:PORT`.
    pub server: String,
    /// The files by which clients speak TLS to the server; `None`: they do not.
    pub tls: Option<TlsFiles>,
    /// The zone in which the clients run.
    pub zone: Option<String>,
    /// The name of the clients.
    pub id: String,
    /// The service that the clients belong to.
    pub cluster: Option<String>,
}

/// PEM files on the clients' machines (gRFC A65).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that clients trust; `None`: those of their system.
    ca: Option<String>,
    /// The clients' certificate and its key, for mutual TLS.
    certificate: Option<(String, String)>,
    /// How often clients read the files again; `None`: as often as they like.
    refresh: Option<Duration>,
}

#[derive(Serialize)]
struct File<'a> {
    xds_servers: [Server<'a>; 1],
    node: Node<'a>,
}

#[derive(Serialize)]
struct Server<'a> {
    server_uri: &'a str,
    channel_creds: Vec<Credentials<'a>>,
    server_features: [&'static str; 2],
}

#[derive(Serialize)]
struct Credentials<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<TlsConfig<'a>>,
}

#[derive(Serialize)]
struct TlsConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_certificate_file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key_file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_interval: Option<String>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    /// Node refuses a file without it.
    locality: Locality<'a>,
}

#[derive(Serialize)]
struct Locality<'a> {
    zone: &'a str,
}

/// The id of clients that give none. Nothing depends on it.
pub const ID: &str = "client";
/// Clients before 2023 speak xDS v2 without the first. With the second, a client keeps what
/// it has, should a server ever leave it out.
const FEATURES: [&str; 2] = ["xds_v3", "ignore_resource_deletion"];

impl Bootstrap {
    /// Returns the file.
    #[must_use]
    pub fn json(&self) -> String {
        let credentials = match &self.tls {
            Some(files) => Credentials { r#type: "tls", config: files.config() },
            None => Credentials { r#type: "insecure", config: None },
        };
        let server = Server {
            server_uri: &self.server,
            channel_creds: vec![credentials],
            server_features: FEATURES,
        };
        let locality = Locality { zone: self.zone.as_deref().unwrap_or_default() };
        let node = Node { id: &self.id, cluster: self.cluster.as_deref(), locality };
        let file = File { xds_servers: [server], node };
        // It holds only text, which can always be written.
        let mut json = serde_json::to_string_pretty(&file).unwrap_or_default();
        json.push('\n');
        json
    }
}

impl TlsFiles {
    /// Takes the names of files and the interval as text. `dash` stands before the names of
    /// these options in errors.
    ///
    /// # Errors
    /// Returns what does not fit together, with the remedy.
    pub fn new(
        ca: Option<String>,
        certificate: Option<String>,
        key: Option<String>,
        refresh: Option<&str>,
        dash: &str,
    ) -> Result<Self, String> {
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(format!("{dash}cert needs {dash}key: give both files")),
            (None, Some(_)) => return Err(format!("{dash}key needs {dash}cert: give both files")),
        };
        let refresh = match refresh {
            Some(text) if ca.is_none() && certificate.is_none() => {
                return Err(format!(
                    "{dash}refresh {text:?} is of no use without a file: give {dash}ca or {dash}cert"
                ));
            }
            Some(text) => Some(interval(text).ok_or_else(|| {
                format!("{dash}refresh: {text:?} is no duration of 1s or more, such as 10m")
            })?),
            None => None,
        };
        Ok(Self { ca, certificate, refresh })
    }

    /// Returns whether any file is named.
    #[must_use]
    pub fn any(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some()
    }

    fn config(&self) -> Option<TlsConfig<'_>> {
        let (certificate, key) =
            self.certificate.as_ref().map(|(cert, key)| (&**cert, &**key)).unzip();
        self.any().then(|| TlsConfig {
            ca_certificate_file: self.ca.as_deref(),
            certificate_file: certificate,
            private_key_file: key,
            // Seconds, as protobuf writes a duration in JSON.
            refresh_interval: self.refresh.map(|every| format!("{}s", every.as_secs_f64())),
        })
    }
}

fn interval(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|every| *every >= Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Bootstrap {
        Bootstrap {
            server: "dns:///grpclb.lookaside.internal:12000".into(),
            tls: None,
            zone: None,
            id: "client".into(),
            cluster: None,
        }
    }

    #[test]
    fn a_file_has_what_every_client_needs() {
        let expected = r#"{
  "xds_servers": [
    {
      "server_uri": "dns:///grpclb.lookaside.internal:12000",
      "channel_creds": [
        {
          "type": "insecure"
        }
      ],
      "server_features": [
        "xds_v3",
        "ignore_resource_deletion"
      ]
    }
  ],
  "node": {
    "id": "client",
    "locality": {
      "zone": ""
    }
  }
}
"#;
        assert_eq!(plain().json(), expected);
    }

    #[test]
    fn options_are_in_their_places() {
        let path = |name: &str| Some(format!("/etc/{name}.pem"));
        let files = TlsFiles::new(path("ca"), path("cert"), path("key"), Some("10m"), "--");
        let all = Bootstrap {
            tls: files.ok(),
            zone: Some("a".into()),
            cluster: Some("shop".into()),
            ..plain()
        };
        let json: serde_json::Value = serde_json::from_str(&all.json()).unwrap();
        let creds = &json["xds_servers"][0]["channel_creds"][0];
        assert_eq!(creds["type"], "tls");
        let config = serde_json::json!({
            "ca_certificate_file": "/etc/ca.pem",
            "certificate_file": "/etc/cert.pem",
            "private_key_file": "/etc/key.pem",
            "refresh_interval": "600s",
        });
        assert_eq!(creds["config"], config);
        let system = Bootstrap { tls: Some(TlsFiles::default()), ..plain() }.json();
        let json_of: serde_json::Value = serde_json::from_str(&system).unwrap();
        let expected = serde_json::json!([{"type": "tls"}]);
        assert_eq!(json_of["xds_servers"][0]["channel_creds"], expected);
        assert_eq!(json["node"]["locality"]["zone"], "a");
        assert_eq!(json["node"]["cluster"], "shop");
    }
    #[test]
    fn files_that_do_not_fit_together_are_named() {
        let check = |[ca, cert, key]: [Option<&str>; 3], refresh, expected: &str| {
            let [ca, cert, key] = [ca, cert, key].map(|file| file.map(str::to_owned));
            let problem = TlsFiles::new(ca, cert, key, refresh, "--").unwrap_err();
            assert_eq!(problem, expected);
        };
        check([None, Some("a"), None], None, "--cert needs --key: give both files");
        check([None, None, Some("a")], None, "--key needs --cert: give both files");
        let unused = "--refresh \"1m\" is of no use without a file: give --ca or --cert";
        check([None, None, None], Some("1m"), unused);
        for bad in ["", "10", "0s", "999ms", "-1s"] {
            let expected = format!("--refresh: {bad:?} is no duration of 1s or more, such as 10m");
            check([Some("a"), None, None], Some(bad), &expected);
        }
    }
}
