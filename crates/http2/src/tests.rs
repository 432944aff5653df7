//! Complete connections, over a transport whose every byte the test decides.

use std::sync::atomic::Ordering;
use std::task::Waker;

use proptest::prelude::*;

use super::frame::kind;
use super::*;
use world::{PING, World, frame, opening};

mod world;

// ---- writing

#[test]
fn a_stream_that_is_reset_while_it_waits_lets_the_others_be_served() {
    let mut world = World::new(2);
    world.open(1, "/0");
    world.open(3, "/1");
    world.take(1_000);
    // All data is written by now; the next write finds no room.
    world.wire.0.lock().unwrap().capacity = 0;
    world.publish(0, 100);
    world.frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    world.publish(1, 100);
    world.take(1_000);
    assert_eq!(world.given().get(&3), Some(&vec![1]));
}

#[test]
fn what_is_left_of_a_stream_that_is_gone_holds_no_list() {
    let mut world = World::new(1);
    world.open(1, "/0");
    world.take(1_000);
    let list = bytes::Bytes::from(vec![7; 10_000]);
    world.wire.0.lock().unwrap().capacity = 100;
    world.publish(0, 10_000);
    world.frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    // Its frame is still written completely.
    world.take(20_000);
    let frames = world.received();
    assert!(
        frames
            .iter()
            .any(|(head, payload)| { head.kind == kind::DATA && payload[8..] == list[..] })
    );
}

/// All streams share the window of the connection.
#[test]
fn a_stream_with_much_to_say_leaves_room_for_the_others() {
    let mut world = World::new(3);
    world.take(usize::MAX / 2);
    world.windows(1 << 28);
    (0..3).for_each(|at| world.open(at * 2 + 1, &format!("/{at}")));
    world.publish(0, 1_000_000);
    world.publish(1, 100);
    world.publish(2, 100);
    world.grow(0, 10_000);
    assert_eq!(world.given().get(&3), Some(&vec![1]));
    assert_eq!(world.given().get(&5), Some(&vec![1]));
    world.publish(1, 100);
    world.grow(0, 10_000);
    world.grow(0, 10_000);
    assert_eq!(world.given().get(&3), Some(&vec![1, 2]));
    world.grow(0, 1_000_000);
    assert_eq!(world.given().get(&1), Some(&vec![1]), "and says all in the end");
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, usize),
    Reset(u32),
    Take(usize),
    /// The operating system takes no more for now.
    Full,
    Grow(u32, u32),
    Windows(u32),
    Open(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..40_000_usize).prop_map(|(at, length)| Step::Publish(at, length)),
        1 => (0..3_u32).prop_map(Step::Reset),
        4 => prop_oneof![0..30_usize, 0..100_000_usize].prop_map(Step::Take),
        3 => Just(Step::Full),
        2 => (0..4_u32, 1..40_000_u32).prop_map(|(at, by)| Step::Grow(at, by)),
        1 => (0..70_000_u32).prop_map(Step::Windows),
        1 => (0..3_u32).prop_map(Step::Open),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// However data was taken in part, reset or blocked: in the end each open stream has
    /// the newest version, and no message was torn.
    #[test]
    fn all_that_is_due_is_written_in_the_end(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new(3);
        // The stream that reads each source.
        let mut open = [1, 3, 5];
        let mut next = 7;
        let mut live = [true; 3];
        for (at, stream) in open.into_iter().enumerate() {
            world.open(stream, &format!("/{at}"));
        }
        for step in steps {
            match step {
                Step::Publish(at, length) => world.publish(at, length),
                Step::Reset(at) if live[at as usize] => {
                    live[at as usize] = false;
                    world.frame(kind::RST_STREAM, 0, open[at as usize], &[0, 0, 0, 8]);
                }
                Step::Open(at) if !live[at as usize] => {
                    let at = at as usize;
                    (live[at], open[at]) = (true, next);
                    next += 2;
                    // Data that the former stream did not take counts as taken.
                    world.sources[at].0.lock().unwrap().waits = None;
                    world.open(open[at], &format!("/{at}"));
                    world.publish(at, 10);
                }
                Step::Take(bytes) => world.take(bytes),
                Step::Full => world.wire.0.lock().unwrap().capacity = 0,
                Step::Grow(0, by) => world.grow(0, by),
                Step::Grow(at, by) if live[at as usize - 1] => {
                    world.grow(open[at as usize - 1], by);
                }
                Step::Windows(size) => world.windows(size),
                Step::Reset(_) | Step::Open(_) | Step::Grow(..) => {}
            }
        }
        // A WINDOW_UPDATE has no answer, which would wake a sleeping connection.
        for at in (0..3).filter(|at| live[*at]) {
            world.grow(open[at], 1 << 28);
        }
        world.grow(0, 1 << 28);
        world.take(1 << 28);
        prop_assert!(!world.over);
        let given = world.given();
        for at in (0..3).filter(|at| live[*at]) {
            let newest = world.sources[at].0.lock().unwrap().version;
            let last = given.get(&open[at]).and_then(|versions| versions.last());
            prop_assert_eq!(last.copied().unwrap_or(0), newest, "stream {}", open[at]);
        }
    }
}

#[test]
fn many_streams_of_one_connection_are_given_the_newest_now_and_then_and_one_always() {
    let served = |streams: u32| {
        let mut world = World::new(streams as usize);
        world.take(usize::MAX / 2);
        world.windows(1 << 28);
        world.grow(0, 1 << 30);
        (0..streams).for_each(|at| world.open(at * 2 + 1, &format!("/{at}")));
        for _ in 0..100 {
            (0..streams as usize).for_each(|at| world.sources[at].publish(100_000));
            world.run();
            world.sleep(Duration::from_millis(100));
        }
        let during = world.wire.0.lock().unwrap().received.len();
        world.wait(30, |world, _| world.say(PING));
        (during, world.given())
    };
    // A single stream misses nothing.
    assert_eq!(served(1).1[&1], (1..=100).collect::<Vec<_>>());
    // A gigabyte is published to a hundred streams.
    let (bytes, given) = served(100);
    assert!(bytes < 30_000_000, "{bytes} bytes");
    assert_eq!(given.len(), 100);
    for (stream, versions) in given {
        assert_eq!(versions.last(), Some(&100), "stream {stream}");
        assert!(versions.len() > 1, "stream {stream} was told {versions:?}");
    }
}

// ---- reading

#[test]
fn one_turn_takes_in_a_few_requests_and_then_lets_others_go_first() {
    let mut world = World::new(1);
    world.take(1 << 20);
    let burst: Vec<u8> = (0..99).flat_map(|n| opening(n * 2 + 1, "/none")).collect();
    let mut both = world.wire.0.lock().unwrap();
    both.said.extend_from_slice(&burst);
    both.reader.take().into_iter().for_each(Waker::wake);
    drop(both);
    let mut seen = 0;
    while world.woken.0.load(Ordering::Relaxed) {
        world.poll();
        let begun = world.begun.lock().unwrap().len();
        assert!(begun - seen <= 32, "{} requests in one turn", begun - seen);
        seen = begun;
    }
    assert_eq!(seen, 99);
}

// ---- timeouts

#[test]
fn a_connection_without_a_stream_is_told_to_go_after_a_minute() {
    let mut world = World::new(1);
    world.take(1 << 20);
    let mut pings = |world: &mut World, second: u64| {
        if second.is_multiple_of(20) {
            world.say(PING);
        }
    };
    let over = world.wait(100, &mut pings);
    assert!((60..=62).contains(&over.unwrap()), "{over:?}");
    assert_eq!(world.sent(kind::GOAWAY), [(0, 0)]);
    assert!(world.close.is_idle());

    // A connection with a stream stays; it is told to leave a minute after its stream
    // ended.
    let mut world = World::new(1);
    world.take(1 << 20);
    world.open(1, "/0");
    assert!(!world.close.is_idle());
    assert_eq!(world.wait(600, &mut pings), None);
    world.frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    let over = world.wait(100, &mut pings);
    assert!((60..=62).contains(&over.unwrap()), "{over:?}");
}

#[test]
fn a_connection_that_is_used_now_and_then_stays() {
    let mut world = World::new(1);
    world.take(1 << 20);
    let over = world.wait(600, |world, second| {
        if second.is_multiple_of(50) {
            // One stream after the other, as health checks do.
            let stream = u32::try_from(second / 50).unwrap() * 2 + 1;
            world.open(stream, "/0");
            world.frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        }
        if second.is_multiple_of(20) {
            world.say(PING);
        }
    });
    assert_eq!(over, None);
}

#[test]
fn one_that_is_asked_to_go_says_so_first() {
    let mut world = World::new(1);
    world.close.request();
    world.run();
    assert!(!world.over, "it has a moment to read what it is told");
    world.take(1 << 20);
    assert!(world.over);
    assert_eq!(world.sent(kind::GOAWAY), [(0, 0)]);
}

#[test]
fn a_frame_without_an_end_ends_the_connection() {
    let calm = Reason::EnhanceYourCalm as u32;
    for unfinished in [
        // A head whose rest arrives byte by byte.
        frame(kind::DATA, 0, 1, &[0; 100])[..5].to_vec(),
        // A header block that never ends.
        frame(kind::HEADERS, 0, 1, &[0x83]),
    ] {
        let mut world = World::new(1);
        world.take(1 << 20);
        world.say(&unfinished);
        let over = world.wait(60, |world, second| {
            if second.is_multiple_of(3) && unfinished.len() == 5 && second < 9 {
                world.say(&[0]);
            }
        });
        assert!((10..=12).contains(&over.unwrap()), "{over:?}");
        assert_eq!(world.sent(kind::GOAWAY), [(0, calm)]);
    }
}

#[test]
fn a_message_without_an_end_ends_its_stream() {
    let mut world = World::new(1);
    world.take(1 << 20);
    world.open(1, "/0");
    // The data of one stream is never read, that of the other is dropped at once.
    world.open(3, "/0");
    world.begun.lock().unwrap().pop();
    world.frame(kind::DATA, 0, 1, b"begun");
    world.frame(kind::DATA, 0, 3, b"begun");
    let over = world.wait(13, |world, _| world.frame(kind::DATA, 0, 1, b"."));
    assert_eq!(over, None);
    assert_eq!(world.sent(kind::RST_STREAM), [(1, Reason::EnhanceYourCalm as u32)]);
}

/// While the peer accepts no data, its message may wait for longer, but not for ever.
#[test]
fn a_message_without_an_end_ends_a_blocked_stream_too() {
    let mut world = World::new(1);
    world.take(1 << 20);
    world.windows(0);
    world.open(1, "/0");
    world.frame(kind::DATA, 0, 1, b"begun");
    let resets = [1, 3].map(|stream| (stream, Reason::EnhanceYourCalm as u32));
    world.wait(58, |world, _| world.frame(kind::DATA, 0, 1, b"."));
    assert_eq!(world.sent(kind::RST_STREAM), []);
    world.wait(4, |world, _| world.frame(kind::PING, 0, 0, &[0; 8]));
    assert_eq!(world.sent(kind::RST_STREAM), resets[..1]);
    // It has the usual time once the peer accepts data.
    world.open(3, "/0");
    world.frame(kind::DATA, 0, 3, b"begun");
    world.wait(30, |world, _| world.frame(kind::DATA, 0, 3, b"."));
    world.grow(3, 1_000);
    world.wait(8, |world, _| world.frame(kind::DATA, 0, 3, b"."));
    assert_eq!(world.sent(kind::RST_STREAM), resets[..1]);
    world.wait(5, |world, _| world.frame(kind::PING, 0, 0, &[0; 8]));
    assert_eq!(world.sent(kind::RST_STREAM), resets);
}

/// The peer may not send faster than the transport lets it.
#[test]
fn a_long_message_gets_more_room_and_more_time() {
    let mut world = World::new(1);
    world.take(1 << 20);
    world.open(1, "/0");
    world.frame(kind::DATA, 0, 1, b"begun");
    world.begun.lock().unwrap()[0].expect(500_000);
    let charged = |world: &World| std::mem::take(&mut world.wire.0.lock().unwrap().charged);
    charged(&world);
    world.frame(kind::DATA, 0, 1, &[0; 4_000]);
    // The bytes of a long message are given back, but for the work of reading them.
    assert_eq!(charged(&world), 32 - 4_000);
    let missing = 500_000 - 68 * 1024;
    assert_eq!(world.sent(kind::WINDOW_UPDATE)[1..], [(1, missing), (0, missing)]);
    let most = u64::from(10 + missing / 8192);
    let piece = [0; 5_000];
    let over = world.wait(most - 1, |world, _| world.frame(kind::DATA, 0, 1, &piece));
    assert_eq!((over, world.sent(kind::RST_STREAM)), (None, vec![]));
    world.wait(3, |_, _| {});
    assert_eq!(world.sent(kind::RST_STREAM), [(1, Reason::EnhanceYourCalm as u32)]);
}

/// The reader charges for what it does with long messages.
#[test]
fn the_bytes_of_whole_long_messages_are_given_back() {
    let mut world = World::new(1);
    world.take(1 << 20);
    world.open(1, "/0");
    let charged = |world: &World| std::mem::take(&mut world.wire.0.lock().unwrap().charged);
    let reader = |world: &mut World, done: usize, expected: usize| {
        let begun = world.begun.lock().unwrap();
        begun[0].finish(done);
        begun[0].expect(expected);
        drop(begun);
        world.poll();
    };
    charged(&world);
    // In one frame, with the beginning of another one.
    world.frame(kind::DATA, 0, 1, &[0; 9_000]);
    assert_eq!(charged(&world), 32);
    reader(&mut world, 8_000, 20_000);
    assert_eq!(charged(&world), -8_000);
    world.frame(kind::DATA, 0, 1, &[0; 10_000]);
    assert_eq!(charged(&world), 32 - 10_000);
    // The last frame has more than the message needs.
    world.frame(kind::DATA, 0, 1, &[0; 9_000]);
    assert_eq!(charged(&world), 32 - 1_000);
    reader(&mut world, 20_000, 0);
    assert_eq!(charged(&world), -9_000);
}

#[test]
fn a_peer_that_takes_nothing_for_a_minute_is_gone_whatever_it_says() {
    let mut world = World::new(1);
    world.take(1_000);
    world.open(1, "/0");
    world.wire.0.lock().unwrap().capacity = 10;
    world.publish(0, 100);
    let over = world.wait(200, |world, second| {
        if second.is_multiple_of(10) {
            world.grow(0, 1);
        }
    });
    assert!((60..=62).contains(&over.unwrap()), "{over:?}");
}

#[test]
fn what_all_connections_hold_is_bounded() {
    let common = Common::new();
    let mut shares: Vec<Share> = (0..300).map(|_| Share::new(common.clone())).collect();
    let held = shares.iter_mut().filter_map(|share| share.hold(256 * 1024).then_some(())).count();
    assert!((128..=129).contains(&held), "{held} hold a connection's window");
    // Little data is always accepted, and released data makes room.
    let mut small = Share::new(common.clone());
    assert!(small.hold(100) && !small.hold(1_000));
    shares.truncate(100);
    assert!(small.hold(2_000));
    drop((shares, small));
    assert!(Share::new(common).hold(20 * 1024 * 1024));
}
