//! The bootstrap file by which gRPC clients find an xDS server.
//!
//! In: how clients reach the server, and what they say of themselves. Out: JSON that Go,
//! Java, C-core and Node accept. Pure.

use serde::Serialize;

/// How clients reach the server, and what they say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The server's gRPC target: `dns:///HOST:PORT` or `HOST:PORT`.
    pub server: String,
    /// Whether clients speak TLS to the server.
    pub tls: bool,
    /// The PEM file of the authority that clients trust; `None`: that of their system.
    pub ca: Option<String>,
    /// The zone in which the clients run.
    pub zone: Option<String>,
    /// The name of the clients.
    pub id: String,
    /// The service that the clients belong to.
    pub cluster: Option<String>,
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
    ca_certificate_file: &'a str,
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
        let tls = || Credentials {
            r#type: "tls",
            config: self.ca.as_deref().map(|file| TlsConfig { ca_certificate_file: file }),
        };
        let insecure = || Credentials { r#type: "insecure", config: None };
        let server = Server {
            server_uri: &self.server,
            channel_creds: vec![if self.tls { tls() } else { insecure() }],
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Bootstrap {
        Bootstrap {
            server: "dns:///grpclb.lookaside.internal:12000".into(),
            tls: false,
            ca: None,
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
        let all = Bootstrap {
            tls: true,
            ca: Some("/etc/ca.pem".into()),
            zone: Some("a".into()),
            cluster: Some("shop".into()),
            ..plain()
        };
        let json: serde_json::Value = serde_json::from_str(&all.json()).unwrap();
        let creds = &json["xds_servers"][0]["channel_creds"][0];
        assert_eq!(creds["type"], "tls");
        assert_eq!(creds["config"]["ca_certificate_file"], "/etc/ca.pem");
        assert_eq!(json["node"]["locality"]["zone"], "a");
        assert_eq!(json["node"]["cluster"], "shop");
    }
}
