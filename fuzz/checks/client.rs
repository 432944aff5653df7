//! A client that sends any bytes. The server must answer with HTTP/2 of at most a few times
//! their length, and must end; it must never panic or hang.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Longer than any wait that a connection may have.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// Says `data` to `serve`. Its first byte says what the rest is: bytes from the
/// first on, frames after the preface, or the messages of an open stream, which
/// asked for `path`; and in which pieces it comes. Beyond `answer_max` bytes, the
/// answer must be in proportion to what was said.
pub fn check<F: Future>(
    data: &[u8],
    path: &str,
    answer_max: usize,
    serve: impl FnOnce(DuplexStream) -> F,
) {
    let [mode, rest @ ..] = data else { return };
    let said = match mode % 3 {
        0 => rest.to_vec(),
        1 => [PREFACE, rest].concat(),
        _ => [PREFACE, &request(path), &frame(0, 0, rest)].concat(),
    };
    let pieces = [1, 7, 64, usize::MAX][usize::from(mode / 3) % 4];
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    let answer = runtime.block_on(speak(&said, pieces, serve));
    // A request is answered by some headers, and a frame by one like it.
    assert!(answer.len() <= answer_max + 16 * said.len(), "{} for {}", answer.len(), said.len());
    // The embedded etcd answers HTTP/1.0 and HTTP/1.1, too.
    let mut rest = if answer.starts_with(b"HTTP/1.") { &[] } else { &answer[..] };
    while let [l0, l1, l2, kind, _, _, _, _, _, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        assert!(*kind <= 9 && length <= 16_384, "kind {kind}, length {length}");
        // The last may be cut off with its connection.
        rest = after.get(length..).unwrap_or_default();
    }
}

async fn speak<F: Future>(
    said: &[u8],
    pieces: usize,
    serve: impl FnOnce(DuplexStream) -> F,
) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (mut from, mut to) = tokio::io::split(ours);
    let talk = async {
        for piece in said.chunks(pieces) {
            // The server has closed the connection.
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = to.shutdown().await;
    };
    let mut answer = Vec::new();
    let heard = async { drop(from.read_to_end(&mut answer).await) };
    let served = async {
        let served = tokio::time::timeout(TIME_LIMIT, serve(theirs)).await;
        served.expect("every connection ends");
    };
    tokio::join!(talk, heard, served);
    answer
}

/// A request, without its messages.
fn request(path: &str) -> Vec<u8> {
    // POST and http from the static table.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(":path", path), ("content-type", "application/grpc")] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(1, 4, &block)
}

/// Of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}
