//! Attempts to get in, read a secret or forge a text: at the admin address, the gRPC port
//! and towards etcd. `docs/security.md` names the test of each.

#[path = "security/admin.rs"]
mod admin;
#[path = "security/certificates.rs"]
mod certificates;
#[path = "security/names.rs"]
mod names;
#[path = "security/secrets.rs"]
mod secrets;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::WAIT_MAX;
use crate::support::lookaside::program;

const READER: &str = "reader-token-0123456789";
const OPERATOR: &str = "operator-token-0123456789";

/// Files in a directory that is deleted when this value is dropped.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path().join(name))
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path is text").to_owned()
}

/// Runs the program to its end, without settings in the environment of the test run.
fn lookaside(args: &[&str]) -> Output {
    command(args).output().expect("lookaside runs")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOOKASIDE_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// Returns exit code and all that a program printed.
fn printed(output: &Output) -> (Option<i32>, String) {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&all).into_owned())
}

/// Sends a request as it stands, and returns status, head and body. The connection is for
/// this request only.
fn ask(address: SocketAddr, line: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("a socket takes a timeout");
    let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
    let request = format!("{line} HTTP/1.1\r\n{host}{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_lowercase(), body.to_owned())
}

/// Returns the header that brings a token.
fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}
