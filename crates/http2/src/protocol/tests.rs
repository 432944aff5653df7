//! Valid and invalid frames of peers, one by one.

use super::*;

/// A connection as its peer sees it.
struct Scene {
    protocol: Protocol<()>,
}

/// The results of a frame, as text: events, answers, the end.
impl Scene {
    fn new() -> Self {
        let mut scene = Self { protocol: Protocol::new() };
        scene.protocol.out.clear();
        scene
    }

    /// A connection whose settings are exchanged.
    fn settled() -> Self {
        let mut scene = Self::new();
        assert_eq!(scene.say(kind::SETTINGS, 0, 0, &[]), "settings ack");
        scene
    }

    /// A connection with open streams, whose requests have not ended.
    fn with_streams(ids: &[u32]) -> Self {
        let mut scene = Self::settled();
        for &id in ids {
            assert_eq!(scene.say(kind::HEADERS, flag::END_HEADERS, id, REQUEST), "request");
        }
        scene
    }

    fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> String {
        let head = Head { length: payload.len(), kind, flags, stream };
        let mut seen = match self.protocol.receive(head, payload) {
            Ok(Event::Nothing) => vec![],
            Ok(Event::Pong) => vec!["pong".to_owned()],
            Ok(Event::Request(_, opening)) => {
                let end = if opening.end { " end" } else { "" };
                self.protocol.open(opening, ());
                vec![format!("request{end}")]
            }
            Ok(Event::Data(at, data)) => vec![format!("data {at} {}", data.len())],
            Ok(Event::End(at, data)) => vec![format!("end {at} {}", data.len())],
            Err(reason) => vec![format!("over: {reason:?}")],
        };
        seen.extend(self.answers());
        seen.join(", ")
    }

    /// Returns the frames that wait to be written.
    fn answers(&mut self) -> Vec<String> {
        let out = std::mem::take(&mut self.protocol.out);
        let mut rest = &out[..];
        let mut answers = Vec::new();
        while let Some(head) = Head::read(rest) {
            let payload = &rest[Head::SIZE..Head::SIZE + head.length];
            rest = &rest[Head::SIZE + head.length..];
            answers.push(match head.kind {
                kind::SETTINGS if head.has(flag::ACK) => "settings ack".to_owned(),
                kind::SETTINGS => "settings".to_owned(),
                kind::PING if head.has(flag::ACK) => "ping ack".to_owned(),
                kind::RST_STREAM => format!("reset {} {}", head.stream, frame::number(payload)),
                kind::GOAWAY => {
                    format!("goaway {} {}", frame::number(payload), frame::number(&payload[4..]))
                }
                kind::WINDOW_UPDATE => {
                    format!("window {} {}", head.stream, frame::number(payload))
                }
                kind::HEADERS => format!("headers {} {:02x}", head.stream, payload[0]),
                kind::DATA => format!("data {} {}", head.stream, head.length),
                other => format!("kind {other}"),
            });
        }
        answers
    }
}

/// `POST`, `http`, `/`.
const REQUEST: &[u8] = &[0x83, 0x86, 0x84];
const END_HEADERS: u8 = flag::END_HEADERS;
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

/// A field that is not in any table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::put(&mut block, name.as_bytes(), value.as_bytes());
    block
}

fn request_with(name: &str, value: &str) -> Vec<u8> {
    [REQUEST, &field(name, value)].concat()
}

#[test]
fn a_request_goes_from_head_to_end() {
    let mut scene = Scene::with_streams(&[1]);
    assert_eq!(scene.say(kind::DATA, 0, 1, b"abc"), "data 0 3");
    assert_eq!(scene.say(kind::DATA, flag::END_STREAM, 1, b""), "end 0 0");
    scene.protocol.respond(0, 200, &http::HeaderMap::new(), false);
    scene.protocol.end_body(0, None);
    scene.protocol.finish(0);
    assert_eq!(scene.answers(), ["headers 1 88", "data 1 0"]);
    // The next request is complete in one frame.
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 3, REQUEST), "request end");
    // A third one ends with trailers.
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, 5, REQUEST), "request");
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 5, &field("x", "y")), "end 1 0");
}

#[test]
fn a_smaller_table_is_told_of_before_the_next_block_whichever_it_is() {
    const UPDATE: &str = "20";
    let headers = http::HeaderMap::from_iter([(http::header::AGE, "1".parse().unwrap())]);
    let smaller = [0, setting::HEADER_TABLE_SIZE as u8, 0, 0, 0, 0];
    // Between a response's head and its trailers.
    let mut scene = Scene::with_streams(&[1, 3]);
    scene.protocol.respond(0, 200, &headers, false);
    assert_eq!(scene.answers(), ["headers 1 88"]);
    assert_eq!(scene.say(kind::SETTINGS, 0, 0, &smaller), "settings ack");
    scene.protocol.end_body(0, Some(&headers));
    // It is announced once.
    scene.protocol.end_body(1, Some(&headers));
    let [first, second] = &scene.answers()[..] else { panic!() };
    assert_eq!(first, &format!("headers 1 {UPDATE}"));
    assert_ne!(second, &format!("headers 3 {UPDATE}"));
    // Before a response's head, and before the refusal of a head that is too large.
    assert_eq!(scene.say(kind::SETTINGS, 0, 0, &smaller), "settings ack");
    scene.protocol.respond(0, 200, &headers, false);
    assert_eq!(scene.answers(), [format!("headers 1 {UPDATE}")]);
    assert_eq!(scene.say(kind::SETTINGS, 0, 0, &smaller), "settings ack");
    let large = request_with("x", &"y".repeat(head::SIZE_MAX));
    let refused = scene.say(kind::HEADERS, WHOLE, 5, &large);
    assert_eq!(refused, format!("headers 5 {UPDATE}"));
}

#[test]
fn settings_come_first() {
    for (kind, flags, payload) in
        [(kind::PING, 0, &[0; 8][..]), (kind::SETTINGS, flag::ACK, &[]), (20, 0, &[])]
    {
        assert_eq!(Scene::new().say(kind, flags, 0, payload), "over: Protocol");
    }
}

#[test]
fn frames_in_the_wrong_place_end_the_connection() {
    use kind::*;
    let five = &[0; 5][..];
    let cases: [(u8, u8, u32, &[u8], &str); 22] = [
        // No stream, or a stream where none may be.
        (DATA, 0, 0, b"a", "over: Protocol"),
        (HEADERS, END_HEADERS, 0, REQUEST, "over: Protocol"),
        (PRIORITY, 0, 0, five, "over: Protocol"),
        (RST_STREAM, 0, 0, &[0; 4], "over: Protocol"),
        (SETTINGS, 0, 1, &[], "over: Protocol"),
        (PING, 0, 1, &[0; 8], "over: Protocol"),
        (GOAWAY, 0, 1, &[0; 8], "over: Protocol"),
        // A stream that was never opened, or that a client must not open.
        (DATA, 0, 3, b"a", "over: Protocol"),
        (RST_STREAM, 0, 3, &[0; 4], "over: Protocol"),
        (WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1], "over: Protocol"),
        (HEADERS, END_HEADERS, 2, REQUEST, "over: Protocol"),
        // Only servers push, and there is no header block to continue.
        (5, 0, 1, REQUEST, "over: Protocol"),
        (CONTINUATION, END_HEADERS, 1, REQUEST, "over: Protocol"),
        // The wrong length.
        (PRIORITY, 0, 1, &[0; 4], "over: FrameSize"),
        (RST_STREAM, 0, 1, five, "over: FrameSize"),
        (SETTINGS, 0, 0, five, "over: FrameSize"),
        (SETTINGS, flag::ACK, 0, &[0; 6], "over: FrameSize"),
        (PING, 0, 0, &[0; 7], "over: FrameSize"),
        (GOAWAY, 0, 0, &[0; 7], "over: FrameSize"),
        (WINDOW_UPDATE, 0, 0, five, "over: FrameSize"),
        (HEADERS, END_HEADERS | flag::PRIORITY, 3, &[0; 4], "over: FrameSize"),
        // It depends on itself.
        (PRIORITY, 0, 3, &[0, 0, 0, 3, 0], "over: Protocol"),
    ];
    for (kind, flags, stream, payload, expected) in cases {
        let said = Scene::with_streams(&[1]).say(kind, flags, stream, payload);
        assert_eq!(said, expected, "kind {kind} on {stream} with {payload:?}");
    }
}

#[test]
fn what_is_not_known_is_ignored() {
    let mut scene = Scene::with_streams(&[1]);
    assert_eq!(scene.say(99, 0xff, 77, b"anything"), "");
    assert_eq!(scene.say(kind::SETTINGS, 0, 0, &[0xff, 0xff, 1, 2, 3, 4]), "settings ack");
    assert_eq!(scene.say(kind::PRIORITY, 0, 9, &[0; 5]), "");
    assert_eq!(scene.say(kind::GOAWAY, 0, 0, &[0; 20]), "");
    assert_eq!(scene.say(kind::PING, 0, 0, b"12345678"), "ping ack");
    assert_eq!(scene.say(kind::PING, flag::ACK, 0, b"12345678"), "pong");
}

#[test]
fn settings_out_of_bounds_end_the_connection() {
    for (id, value, expected) in [
        (setting::ENABLE_PUSH, 2, "over: Protocol"),
        (setting::INITIAL_WINDOW_SIZE, 1 << 31, "over: FlowControl"),
        (setting::MAX_FRAME_SIZE, 16_383, "over: Protocol"),
        (setting::MAX_FRAME_SIZE, 1 << 24, "over: Protocol"),
        (setting::MAX_FRAME_SIZE, (1 << 24) - 1, "settings ack"),
        (setting::MAX_CONCURRENT_STREAMS, 0, "settings ack"),
    ] {
        let mut bytes = Vec::new();
        frame::put_settings(&mut bytes, &[(id, value)]);
        let said = Scene::settled().say(kind::SETTINGS, 0, 0, &bytes[Head::SIZE..]);
        assert_eq!(said, expected, "{id} = {value}");
    }
}

#[test]
fn windows_are_counted_and_given_back_when_read() {
    let mut scene = Scene::with_streams(&[1]);
    let data = [0; 16_000];
    for _ in 0..4 {
        assert_eq!(scene.say(kind::DATA, 0, 1, &data), "data 0 16000");
    }
    // Half of the data is read: the stream gets it back, the connection not yet.
    scene.protocol.release(0, 32_000);
    assert_eq!(scene.answers(), ["window 1 32000"]);
    scene.protocol.release(0, 32_000);
    assert_eq!(scene.answers(), ["window 1 32000"]);
    for _ in 0..4 {
        scene.say(kind::DATA, 0, 1, &data);
    }
    // Beyond the window of the stream.
    assert_eq!(scene.say(kind::DATA, 0, 1, &data), "reset 1 3, window 0 144000");
    // When the stream has ended, the connection gets the unread bytes back.
    assert!(scene.protocol.streams.is_empty());
}

#[test]
fn a_long_message_has_room_while_it_is_read() {
    const LONG: u32 = 200_000;
    let mut scene = Scene::with_streams(&[1, 3]);
    assert_eq!(scene.protocol.missing(0, 60_000), 0);
    let missing = scene.protocol.missing(0, LONG);
    assert_eq!(missing, LONG - STREAM_WINDOW);
    scene.protocol.widen(0, missing);
    assert_eq!(scene.answers(), [format!("window 1 {missing}"), format!("window 0 {missing}")]);
    assert_eq!((scene.protocol.missing(0, LONG), scene.protocol.missing(1, u32::MAX)), (0, 0));
    let data = [0; 10_000];
    for _ in 0..20 {
        assert_eq!(scene.say(kind::DATA, 0, 1, &data), "data 0 10000");
    }
    // What came through the wider window is not given back.
    scene.protocol.release(0, LONG);
    let back = STREAM_WINDOW;
    assert_eq!(scene.answers(), [format!("window 1 {back}"), format!("window 0 {back}")]);
    assert_eq!(scene.protocol.widened(), 0);
    // A stream that ends leaves it to the others to close the window of the connection.
    scene.protocol.widen(0, 100_000);
    scene.protocol.reset_stream(0, Reason::Internal);
    assert_eq!(scene.protocol.widened(), 100_000);
    for _ in 0..6 {
        scene.say(kind::DATA, 0, 3, &data);
    }
    scene.protocol.release(0, 60_000);
    assert_eq!(scene.protocol.widened(), 40_000);
    scene.say(kind::DATA, 0, 3, &data);
    scene.protocol.finish(0);
    assert_eq!(scene.protocol.widened(), 30_000);
}

#[test]
fn all_streams_together_are_bounded() {
    let mut scene = Scene::with_streams(&[1, 3, 5, 7]);
    let data = [0; 16_384];
    for turn in 0..16 {
        let said = scene.say(kind::DATA, 0, [1, 3, 5, 7][turn / 4], &data);
        assert_eq!(said, format!("data {} 16384", turn / 4));
    }
    assert_eq!(scene.say(kind::DATA, 0, 7, b"a"), "over: FlowControl");
}

#[test]
fn padding_counts_and_is_given_back() {
    let mut scene = Scene::with_streams(&[1]);
    let padded = [&[5][..], b"data", &[0; 5]].concat();
    assert_eq!(scene.say(kind::DATA, flag::PADDED, 1, &padded), "data 0 4");
    assert_eq!(scene.protocol.streams[0].unread, 4);
    assert_eq!(scene.say(kind::DATA, flag::PADDED, 1, &[5, 0]), "over: Protocol");
    assert_eq!(scene.say(kind::DATA, flag::PADDED, 1, &[]), "over: FrameSize");
    let padded = [&[2][..], REQUEST, &[0; 2]].concat();
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS | flag::PADDED, 3, &padded), "request");
}

#[test]
fn peers_open_their_windows_within_bounds() {
    let mut scene = Scene::with_streams(&[1]);
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]), "");
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]), "");
    assert_eq!(scene.protocol.streams[0].send_window, 65_535 + 256);
    assert_eq!(scene.protocol.send_window, 65_535 + 256);
    // The initial window changes open streams, below zero too.
    assert_eq!(scene.say(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), "settings ack");
    assert_eq!(scene.protocol.streams[0].send_window, 256);
    assert_eq!(scene.protocol.send_window, 65_535 + 256);

    let all = &[0x7f, 0xff, 0xff, 0xff];
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 1, all), "reset 1 3");
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 1, all), "");
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 0, all), "over: FlowControl");
    let mut scene = Scene::with_streams(&[1]);
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 1, &[0; 4]), "reset 1 1");
    assert_eq!(scene.say(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), "over: Protocol");
}

#[test]
fn a_closed_stream_stays_closed() {
    // A stream that both sides ended.
    let mut scene = Scene::settled();
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 1, REQUEST), "request end");
    assert_eq!(scene.say(kind::DATA, 0, 1, b"more"), "reset 1 5");
    let mut scene = Scene::settled();
    scene.say(kind::HEADERS, WHOLE, 1, REQUEST);
    scene.protocol.finish(0);
    assert_eq!(scene.answers(), Vec::<String>::new());
    assert_eq!(scene.say(kind::DATA, 0, 1, b"more"), "reset 1 5");
    assert_eq!(scene.say(kind::RST_STREAM, 0, 1, &[0; 4]), "");
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 1, REQUEST), "over: StreamClosed");
    // A stream that only this side ended: frames on their way are no error.
    let mut scene = Scene::with_streams(&[1]);
    scene.protocol.finish(0);
    assert_eq!(scene.answers(), ["reset 1 0"]);
    assert_eq!(scene.say(kind::DATA, 0, 1, b"more"), "");
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 1, &field("x", "y")), "");
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 1, REQUEST), "over: Protocol");
    // A stream that only the peer ended.
    let mut scene = Scene::with_streams(&[1]);
    assert_eq!(scene.say(kind::RST_STREAM, 0, 1, &[0; 4]), "");
    assert!(scene.protocol.streams.is_empty());
}

#[test]
fn a_header_block_may_go_on_but_not_for_ever() {
    let mut scene = Scene::settled();
    assert_eq!(scene.say(kind::HEADERS, flag::END_STREAM, 1, &REQUEST[..1]), "");
    assert_eq!(scene.say(kind::CONTINUATION, 0, 1, &REQUEST[1..2]), "");
    assert_eq!(scene.say(kind::CONTINUATION, END_HEADERS, 1, &REQUEST[2..]), "request end");
    // No other frame may come in between, on any stream.
    for (kind, stream) in [(kind::DATA, 1), (kind::CONTINUATION, 5), (99, 3)] {
        let mut scene = Scene::with_streams(&[1]);
        scene.say(kind::HEADERS, 0, 3, REQUEST);
        assert_eq!(scene.say(kind, 0, stream, &[]), "over: Protocol");
    }
    let mut scene = Scene::settled();
    scene.say(kind::HEADERS, 0, 1, &[0; 16_000]);
    assert_eq!(scene.say(kind::CONTINUATION, 0, 1, &[0; 385]), "over: EnhanceYourCalm");
    let mut scene = Scene::settled();
    scene.say(kind::HEADERS, 0, 1, REQUEST);
    let last = (0..16).map(|_| scene.say(kind::CONTINUATION, 0, 1, &[])).last();
    assert_eq!(last.as_deref(), Some("over: EnhanceYourCalm"));
}

#[test]
fn bad_requests_cost_their_stream_and_no_other() {
    let mut scene = Scene::with_streams(&[1]);
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 3, &REQUEST[..2]), "reset 3 1");
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 5, &request_with("X", "y")), "reset 5 1");
    let large = request_with("x", &"v".repeat(9_000));
    // 431: too large.
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 7, &large), "headers 7 08");
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, 9, &large), "headers 9 08, reset 9 0");
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, 1, &field("x", "y")), "reset 1 1");
    assert!(scene.protocol.streams.is_empty());
    // After a block that cannot be decoded, no later one can.
    assert_eq!(scene.say(kind::HEADERS, WHOLE, 11, &[0x80]), "over: Compression");
}

#[test]
fn an_announced_length_is_kept() {
    let five = request_with("content-length", "5");
    for (data, end, expected) in [
        (&b"12345"[..], flag::END_STREAM, "end 0 5"),
        (b"1234", flag::END_STREAM, "reset 1 1"),
        (b"123456", 0, "reset 1 1"),
        (b"1234", 0, "data 0 4"),
    ] {
        let mut scene = Scene::settled();
        scene.say(kind::HEADERS, END_HEADERS, 1, &five);
        assert_eq!(scene.say(kind::DATA, end, 1, data), expected);
    }
    assert_eq!(Scene::settled().say(kind::HEADERS, WHOLE, 1, &five), "reset 1 1");
    let nonsense = request_with("content-length", "five");
    assert_eq!(Scene::settled().say(kind::HEADERS, END_HEADERS, 1, &nonsense), "reset 1 1");
}

#[test]
fn streams_are_bounded_in_number() {
    let ids: Vec<u32> = (0..100).map(|n| 2 * n + 1).collect();
    let mut scene = Scene::with_streams(&ids);
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, 201, REQUEST), "reset 201 7");
    scene.say(kind::RST_STREAM, 0, 1, &[0; 4]);
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, 203, REQUEST), "request");
    // The connection may allow more, up to the announced number.
    let mut id = 205;
    while scene.protocol.is_full() {
        scene.protocol.allow_streams();
        for _ in 0..STREAMS_STEP {
            assert_eq!(scene.say(kind::HEADERS, END_HEADERS, id, REQUEST), "request");
            id += 2;
        }
    }
    assert_eq!(scene.protocol.streams.len(), STREAMS_MAX as usize);
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, id, REQUEST), format!("reset {id} 7"));
}

#[test]
fn who_is_told_to_go_begins_nothing_new() {
    let mut scene = Scene::with_streams(&[1]);
    scene.protocol.go_away(Reason::NoError);
    scene.protocol.go_away(Reason::NoError);
    assert_eq!(scene.answers(), ["goaway 1 0"]);
    assert_eq!(scene.say(kind::HEADERS, END_HEADERS, 3, REQUEST), "reset 3 7");
    assert_eq!(scene.say(kind::DATA, 0, 1, b"goes on"), "data 0 7");
}

#[test]
fn a_peer_with_a_smaller_table_is_told_that_it_is_empty() {
    let mut scene = Scene::with_streams(&[1, 3]);
    scene.say(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
    scene.protocol.respond(0, 200, &http::HeaderMap::new(), false);
    scene.protocol.respond(1, 200, &http::HeaderMap::new(), false);
    assert_eq!(scene.answers(), ["headers 1 20", "headers 3 88"]);
}
