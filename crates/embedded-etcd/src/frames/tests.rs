//! Tests with request headers that etcd accepts and HTTP/2 libraries refuse, in pieces of any
//! length.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const GOOD: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    (":authority", "#initially=[http://h:1]"),
    ("content-type", "application/grpc"),
];

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| put(&mut block, name.as_bytes(), value.as_bytes()));
    block
}

/// Returns the bytes for the library when `bytes` come `step` at a time.
async fn through(bytes: &[u8], step: usize) -> io::Result<Vec<u8>> {
    let (mut client, server) = tokio::io::duplex(step);
    let write = async move {
        // Writing fails if the connection ends first.
        let _ = client.write_all(bytes).await;
    };
    let read = async move {
        let (mut frames, mut out) = (Frames::new(server, Blocks::default()), Vec::new());
        frames.read_to_end(&mut out).await.map(|_| out)
    };
    tokio::join!(write, read).1
}

/// Returns the bytes for the library, or `None` if the connection ends. Checks that they do
/// not depend on how the input is cut.
async fn passed(bytes: &[u8]) -> Option<Vec<u8>> {
    let whole = through(bytes, 1 << 20).await.ok();
    for step in [1, 7, 1_000] {
        assert_eq!(through(bytes, step).await.ok(), whole, "{step} at a time");
    }
    whole
}

fn connection(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    for &(kind, flags, stream, payload) in frames {
        put_frame(&mut bytes, kind, flags, stream, payload);
    }
    bytes
}

/// Returns the rewritten block of a request.
fn rewritten() -> Vec<u8> {
    block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        ("content-type", "application/grpc"),
    ])
}

#[tokio::test]
async fn what_is_no_http2_passes_as_it_is() {
    for bytes in [
        &b""[..],
        b"GET /health HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        &[0xff; 3_000],
    ] {
        assert_eq!(passed(bytes).await.as_deref(), Some(bytes));
    }
}

#[tokio::test]
async fn heads_are_rewritten_and_the_rest_passes() {
    let head = block(&GOOD);
    let (one, two) = head.split_at(20);
    let padded = [&[3, 0, 0, 0, 0, 16], one, &[0; 3]].concat();
    let (body, trailers) = (vec![7; 10_000], block(&[("x", "y")]));
    let came = connection(&[
        (4, 0, 0, &[]),
        (HEADERS, PADDED | PRIORITY, 1, &padded),
        (CONTINUATION, END_HEADERS, 1, two),
        (0, 0, 1, &body),
        (HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
        (HEADERS, END_HEADERS | END_STREAM, 3, &head),
        (6, 0, 0, &[1; 8]),
    ]);
    let goes = connection(&[
        (4, 0, 0, &[]),
        (HEADERS, END_HEADERS, 1, &rewritten()),
        (0, 0, 1, &body),
        (HEADERS, END_HEADERS | END_STREAM, 1, &[]),
        (HEADERS, END_HEADERS | END_STREAM, 3, &rewritten()),
        (6, 0, 0, &[1; 8]),
    ]);
    assert_eq!(passed(&came).await, Some(goes));
}

/// Breaches of HTTP/2's rules stay breaches, which the library answers.
#[tokio::test]
async fn what_breaks_the_rules_goes_on_as_breaking_them() {
    let no_request = block(&GOOD[..2]);
    let came = connection(&[
        (HEADERS, END_HEADERS, 1, &no_request),
        (HEADERS, END_HEADERS, 3, &[0xff, 0xff, 0xff, 0xff, 0xff]),
    ]);
    let goes = connection(&[(HEADERS, END_HEADERS, 1, &[]), (HEADERS, END_HEADERS, 3, &[0x80])]);
    assert_eq!(passed(&came).await, Some(goes));

    let between = connection(&[(HEADERS, 0, 1, &block(&GOOD)), (0, 0, 1, b"data")]);
    let goes = connection(&[(HEADERS, 0, 1, &[]), (0, 0, 1, b"data")]);
    assert_eq!(passed(&between).await, Some(goes));

    for odd in [(HEADERS, END_HEADERS, 2), (HEADERS, END_HEADERS, 0), (CONTINUATION, 4, 1)] {
        let came = connection(&[(odd.0, odd.1, odd.2, &block(&GOOD))]);
        assert_eq!(passed(&came).await.as_deref(), Some(&came[..]), "{odd:?}");
    }
    let padding = connection(&[(HEADERS, END_HEADERS | PADDED, 1, &[200, 0, 0])]);
    assert_eq!(passed(&padding).await, None);
}

#[tokio::test]
async fn a_long_head_is_taken_and_one_too_long_is_not() {
    let long = "v".repeat(500_000);
    let head = block(&[&GOOD[..], &[("x", &long)]].concat());
    let continued = |head: &[u8]| {
        let parts: Vec<_> = head.chunks(16_000).collect();
        let last = parts.len() - 1;
        let frame = |(i, part)| {
            let kind = if i == 0 { HEADERS } else { CONTINUATION };
            (kind, if i == last { END_HEADERS } else { 0 }, 1, part)
        };
        connection(&parts.into_iter().enumerate().map(frame).collect::<Vec<_>>())
    };
    let goes = connection(&[(HEADERS, END_HEADERS, 1, &rewritten())]);
    assert_eq!(through(&continued(&head), 1 << 16).await.ok(), Some(goes));
    let longer = [head, vec![0; BLOCK_MAX]].concat();
    assert!(through(&continued(&longer), 1 << 16).await.is_err());
    // Empty frames could come for ever, so they are refused.
    let empty = connection(&[(HEADERS, 0, 1, &[]), (CONTINUATION, 0, 1, &[])]);
    assert!(through(&empty, 1 << 16).await.is_err());
}

#[test]
fn what_all_connections_hold_is_bounded() {
    let blocks = Blocks::default();
    let new =
        || Rewriter { blocks: blocks.clone(), decoder: Decoder::default(), block: None, last: 0 };
    let part = [0; FRAME_MAX];
    let mut all: Vec<_> = (0..BLOCKS_MAX / BLOCK_MAX + 5).map(|_| new()).collect();
    let mut refused = 0;
    for rewriter in &mut all {
        let mut kind = HEADERS;
        for _ in 0..BLOCK_MAX / FRAME_MAX {
            let head = Head { length: FRAME_MAX, kind, flags: 0, stream: 1 };
            if rewriter.take(head, &part, &mut Vec::new()).is_err() {
                refused += 1;
                break;
            }
            kind = CONTINUATION;
        }
    }
    assert_eq!(refused, 5);
    drop(all);
    assert_eq!(blocks.0.load(Ordering::Relaxed), 0);
}
