//! Cases on the wire: request heads that libraries send differently or not at all, and
//! requests by HTTP/1.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::registry_behaviour::scene::Scene;
use crate::support::WAIT_MAX;
use crate::support::wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, RST_STREAM, SETTINGS,
    field, message, put_data, put_frame, put_opening,
};

type Field = (&'static [u8], Vec<u8>);

const PATH: &[u8] = b"/etcdserverpb.KV/Range";

/// Returns the head of a call as clients send it.
fn usual() -> Vec<Field> {
    vec![
        (b":method", b"POST".to_vec()),
        (b":scheme", b"http".to_vec()),
        (b":path", PATH.to_vec()),
        (b":authority", b"127.0.0.1:2379".to_vec()),
        (b"content-type", b"application/grpc".to_vec()),
        (b"te", b"trailers".to_vec()),
    ]
}

/// Returns the usual head with one field changed or added.
fn with(name: &'static [u8], value: &[u8]) -> Vec<Field> {
    let mut fields = usual();
    match fields.iter_mut().find(|field| field.0 == name) {
        Some(field) => field.1 = value.to_vec(),
        None => fields.push((name, value.to_vec())),
    }
    fields
}

fn without(name: &[u8]) -> Vec<Field> {
    usual().into_iter().filter(|field| field.0 != name).collect()
}

pub async fn heads(s: &mut Scene) -> Result<()> {
    let authorities: [&[u8]; 18] = [
        b"#initially=[http://127.0.0.1:2379]",
        b"#initially=[127.0.0.1:2379;127.0.0.1:2380]",
        b"etcd-endpoints://0xc0001a4000/127.0.0.1:2379",
        b"endpoint://client-3d1c3f3c-7f0a/127.0.0.1:2379",
        b"unix:///run/etcd.sock",
        b"/run/etcd.sock",
        b"",
        b"a b",
        b"\"quoted\"",
        b"h1:1,h2:2",
        b"user:password@h:1",
        b"a@b@c",
        b"[::1",
        b"h:99999",
        b"%zz",
        b"\xff\xfe",
        b"a\0b",
        b"a\nb",
    ];
    for authority in authorities {
        see(s, &String::from_utf8_lossy(authority), &with(b":authority", authority)).await?;
    }
    see(s, "a long authority", &with(b":authority", &[b'x'; 5_000])).await?;
    see(s, "another host", &with(b"host", b"another")).await?;
    see(s, "no authority, a host", &{
        let mut fields = without(b":authority");
        fields.push((b"host", b"h".to_vec()));
        fields
    })
    .await?;
    let fields: &[(&'static [u8], &[&[u8]])] = &[
        (b":scheme", &[b"https", b"grpc", b"", b"a b", b"\xff"]),
        (b"te", &[b"gzip", b"", b"trailers, deflate"]),
        (b"connection", &[b"keep-alive"]),
        (b"transfer-encoding", &[b"chunked"]),
        (b"content-length", &[b"8", b"9", b"x"]),
        (b"user-agent", &[b""]),
        (b"grpc-accept-encoding", &[b"gzip", b"", b"identity,deflate,gzip"]),
        (b"grpc-encoding", &[b"identity", b"", b"gzip", b"unheard-of"]),
        (b"grpc-timeout", &[b"5S", b"99999999H", b"+5S", b"", b"5", b"5s", b"999999999S", b"x"]),
        (
            b"content-type",
            &[b"application/grpc+proto", b"application/grpc;charset=utf-8", b"application/grpc+"],
        ),
        (b":path", &[b"etcdserverpb.KV/Range", b"/etcdserverpb.KV/range", b"/x/y", b"//x\"{}/ /"]),
        (b"hasleader", &[b"true"]),
        (b"X-Upper", &[b"case"]),
        (b"a space", &[b"in a name"]),
        (b"x-bytes", &[b"\xff\xfe", b"a\nb"]),
        (b":unknown", &[b"x"]),
        (b"x-long", &[&[b'v'; 100_000]]),
    ];
    for &(name, values) in fields {
        for value in values {
            let shown = String::from_utf8_lossy(&value[..value.len().min(40)]);
            let what = format!("{} {shown}", String::from_utf8_lossy(name));
            see(s, &what, &with(name, value)).await?;
        }
    }
    for missing in [&b":scheme"[..], b"te"] {
        see(s, &format!("no {}", String::from_utf8_lossy(missing)), &without(missing)).await?;
    }
    see(s, "a field twice", &[&usual()[..1], &usual()].concat()).await
}

async fn see(s: &mut Scene, what: &str, fields: &[Field]) -> Result<()> {
    let outcome = timeout(WAIT_MAX, call(&s.url, fields)).await.context(what.to_owned())?;
    s.note(format!("{what}: {}", outcome.context(what.to_owned())?));
    Ok(())
}

/// Sends a Range with this head on a connection of its own, and returns the outcome.
async fn call(url: &str, fields: &[Field]) -> Result<String> {
    let mut bytes = Vec::new();
    put_opening(&mut bytes);
    put_head(&mut bytes, 1, fields);
    put_data(&mut bytes, 1, &[]);
    let request = message(&field(1, b"any"));
    put_frame(&mut bytes, DATA, END_STREAM, 1, &request);
    let mut socket = TcpStream::connect(url.trim_start_matches("http://")).await?;
    socket.write_all(&bytes).await?;
    let mut answered = false;
    loop {
        let mut head = [0; Head::SIZE];
        socket.read_exact(&mut head).await?;
        let head = Head::read(&head);
        let mut payload = vec![0; head.length];
        socket.read_exact(&mut payload).await?;
        match head.kind {
            SETTINGS if head.flags & ACK == 0 => {
                let mut ack = Vec::new();
                put_frame(&mut ack, SETTINGS, ACK, 0, &[]);
                socket.write_all(&ack).await?;
            }
            DATA => answered |= head.length > 5,
            HEADERS if head.flags & END_STREAM != 0 => {
                return Ok(if answered { "answered" } else { "refused" }.to_owned());
            }
            RST_STREAM => return Ok(format!("reset {payload:?}")),
            GOAWAY => return Ok("ended".to_owned()),
            _ => {}
        }
    }
}

/// Writes a head in as many frames as it takes.
fn put_head(out: &mut Vec<u8>, stream: u32, fields: &[Field]) {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        put_string(&mut block, name);
        put_string(&mut block, value);
    }
    let mut parts = block.chunks(16_000).peekable();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
        put_frame(out, kind, flags, stream, part);
        kind = CONTINUATION;
    }
}

/// Writes a string of any length (RFC 7541, 5.2).
fn put_string(block: &mut Vec<u8>, text: &[u8]) {
    match text.len().checked_sub(127) {
        None => block.push(text.len() as u8),
        Some(mut more) => {
            block.push(127);
            while more >= 128 {
                block.push(more as u8 | 128);
                more >>= 7;
            }
            block.push(more as u8);
        }
    }
    block.extend_from_slice(text);
}

pub async fn http1(s: &mut Scene) -> Result<()> {
    for request in [
        "GET /health HTTP/1.1",
        "GET /health?serializable=true HTTP/1.1",
        "GET /health HTTP/1.0",
        "HEAD /health HTTP/1.1",
        "POST /health HTTP/1.1",
        "POST /version HTTP/1.1",
        "GET /health/ HTTP/1.1",
        "GET / HTTP/1.1",
        "GET /no/such HTTP/1.1",
        "GET /version HTTP/1.1",
    ] {
        let (head, body) = ask(&s.url, request).await.context(request)?;
        let status = head.lines().next().unwrap_or_default().to_owned();
        let kind = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
        });
        // The servers have different versions.
        let body = match serde_json::from_str::<serde_json::Value>(&body) {
            Ok(json) if request.contains("/version") => {
                let text = |name| json[name].as_str().is_some_and(|v| v.starts_with("3."));
                format!("{} {}", text("etcdserver"), text("etcdcluster"))
            }
            _ => body,
        };
        s.note(format!("{request}: {status}, {kind:?}, {body:?}"));
    }
    Ok(())
}

/// Returns head and body of the answer.
async fn ask(url: &str, request: &str) -> Result<(String, String)> {
    let mut socket = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let request = format!("{request}\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(Duration::from_secs(10), socket.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head")?;
    Ok((head.to_owned(), body.to_owned()))
}
