//! Bugs of C-core that lookaside avoids, each shown with the newest grpcio and an
//! old grpc++: these clients survive what would break them. Each test fails when
//! the remedy that it names is taken out.

use std::time::Duration;

use crate::core_clients::scene::{World, answered_by, metric};
use crate::support::backend::Backend;
use crate::support::core::{Calls, Driver, Open};
use crate::support::etcd::Etcd;
use crate::support::eventually;
use crate::support::free_port;

const LANGUAGES: [&str; 2] = ["python", "cpp"];

/// Longer than any test, so that a timer of this length never helps a client.
const NEVER: Duration = Duration::from_secs(600);

/// A client in fallback keeps its last list. It ignores an equal first list of the
/// next stream as unchanged, and would stay in fallback for ever.
/// Remedy: the first list of a stream is unlike any other.
fn out_of_fallback(balancer_goes_first: bool) {
    for language in LANGUAGES {
        let mut world = World::start();
        let fallback = Backend::start("fallback");
        world.fallback_to("hello", "fallback", fallback.addr());
        let one = Backend::start("one");
        let addr = one.addr();
        world.list("hello", "one", addr);
        let driver = Driver::start(language);
        let target = world.target("hello", fallback.addr().port());
        let client = driver.open(&Open::grpclb(target).ask_dns_every(NEVER));
        answered_by(&client, "one");

        if balancer_goes_first {
            world.balancer.kill();
            answered_by(&client, "one");
            drop(one);
        } else {
            drop(one);
            crate::core_clients::scene::fails_with(&client, "UNAVAILABLE");
            world.balancer.kill();
        }
        answered_by(&client, "fallback");

        let _one = Backend::start_at("one", addr);
        world.restart_balancer();
        answered_by(&client, "one");
        driver.is_alive();
    }
}

#[test]
fn a_client_that_lost_its_balancer_then_its_backends_leaves_fallback() {
    out_of_fallback(true);
}

#[test]
fn a_client_that_lost_its_backends_then_its_balancer_leaves_fallback() {
    out_of_fallback(false);
}

/// After an equal first list on a new stream, connections keep counting for the old
/// stream, so reports say zero although calls flow. Remedy: as above.
#[test]
fn reports_are_right_after_the_balancer_was_restarted() {
    for language in LANGUAGES {
        let mut world = World::start();
        let one = Backend::start("one");
        world.list("hello", "one", one.addr());
        let driver = Driver::start(language);
        let client = driver.open(&Open::grpclb(world.target("hello", 443)).ask_dns_every(NEVER));
        answered_by(&client, "one");
        client.start(&Calls::new(1).every(Duration::from_millis(5)));
        world.restart_balancer();
        // Its calls go over the connection that it had before.
        let finished = "lookaside_client_calls_finished_total{service=\"hello\"}";
        eventually("calls are reported on the new stream", || {
            (metric(&world.balancer, finished) >= 20).then_some(())
        });
        assert_eq!(client.stop().failed(), 0, "{language}");
        // Counts the calls that carry a token of the new list.
        let tokens = one.tokens();
        let made = tokens.iter().filter(|&token| Some(token) == tokens.last()).count() as u64;
        eventually("all are reported", || {
            (metric(&world.balancer, finished) >= made).then_some(())
        });
        assert_eq!(metric(&world.balancer, finished), made, "{language}");
    }
}

/// C-core ends its process (null dereference) on a list that it cannot decode, for
/// instance one with text that is not UTF-8. Remedy: a list contains no text from
/// registrations, and tokens are digits.
#[test]
fn odd_registrations_do_not_reach_clients() {
    let world = World::start();
    let one = Backend::start("one");
    let addr = one.addr().to_string();
    let odd_id = "\u{1}é\u{7f}\u{202e}\"\\ \u{10ffff}".repeat(20);
    let json = format!(
        r#"{{"Op":0,"Addr":"{addr}","Metadata":{{"id":"\u0000\u0001é","\u0007":"\ud83d\ude00\u0000"}}}}"#
    );
    let broken_json =
        [br#"{"Op":0,"Addr":"127.0.0.1:1","Metadata":""#, &b"\xff\xfe\"}"[..]].concat();
    let long = "x".repeat(10_000);
    let registrations: [(&[u8], &[u8]); 9] = [
        (b"/etcd3_naming/hello/one", addr.as_bytes()),
        (b"/etcd3_naming/hello/\xff\xfe", addr.as_bytes()),
        (b"/etcd3_naming/hel\xfflo/one", addr.as_bytes()),
        (b"/etcd3_naming/hello/bytes", b"\xff\xfe\x80"),
        (b"/etcd3_naming/hello/port", b"127.0.0.1:500053"),
        (b"/etcd3_naming/hello/json", json.as_bytes()),
        (b"/etcd3_naming/hello/broken", &broken_json),
        (b"/etcd3_naming/hello/long", long.as_bytes()),
        (b"/etcd3_naming/hello/\x00", addr.as_bytes()),
    ];
    let odd_key = format!("/etcd3_naming/hello/{odd_id}");
    put(&world.etcd, registrations.into_iter().chain([(odd_key.as_bytes(), addr.as_bytes())]));
    eventually("what cannot be read is counted", || {
        (metric(&world.balancer, "lookaside_registry_rejected_keys") >= 5).then_some(())
    });
    for language in LANGUAGES {
        let driver = Driver::start(language);
        let client = driver.open(&Open::grpclb(world.target("hello", 443)));
        client.shares(&["one"]);
        // Lists change while such keys exist.
        put(&world.etcd, [(&b"/etcd3_naming/hello/\xff"[..], &b"\xff"[..])]);
        let two = Backend::start("two");
        world.list("hello", "two", two.addr());
        client.shares(&["one", "two"]);
        world.unlist("hello", "two");
        client.shares(&["one"]);
        driver.is_alive();
    }
    let tokens = one.tokens();
    assert!(!tokens.is_empty());
    for token in tokens {
        let token = token.expect("every call carries a token");
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()), "{token:?}");
    }
}

/// C-core leaves out tokens of more than 50 bytes. Remedy: a token's length does not
/// depend on registrations.
#[test]
fn tokens_arrive_however_long_the_names_are() {
    let world = World::start();
    let service = "long-service-name-of-somebody/".repeat(3) + "x";
    let name = service.split('/').rev().collect::<Vec<_>>().join(".");
    for language in LANGUAGES {
        let one = Backend::start("one");
        let id = format!("{language}-{}", "instance".repeat(100));
        world.etcd.ctl(&["put", &format!("/etcd3_naming/{service}/{id}"), &one.addr().to_string()]);
        let driver = Driver::start(language);
        let client = driver.open(&Open::grpclb(world.target(&name, 443)));
        client.shares(&["one"]);
        let tokens = one.tokens();
        let whole = |token: &Option<String>| {
            token.as_ref().is_some_and(|token| !token.is_empty() && token.len() < 50)
        };
        assert!(!tokens.is_empty() && tokens.iter().all(whole), "{language}: {tokens:?}");
        world.etcd.ctl(&["del", &format!("/etcd3_naming/{service}/{id}")]);
    }
}

/// A client opens a stream that ended after its initial response again at once:
/// 2,400 times a second. Remedy: a stream that cannot be served is refused before.
#[test]
fn refused_streams_make_clients_back_off() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let world = World::start_with(&["--etcd", &nobody]);
    let opened = || metric(&world.balancer, "lookaside_streams_opened_total");
    let tried = || opened() + metric(&world.balancer, "lookaside_streams_refused_total");
    for language in LANGUAGES {
        let before = tried();
        let driver = Driver::start(language);
        let client = driver.open(&Open::grpclb(world.target("hello", 443)));
        let report = client.call(&Calls::waiting(1).timeout(Duration::from_secs(6)));
        assert_eq!(report.failed(), 1, "{report:?}");
        // Clients try again after 1 s, 1.6 s, 2.6 s …, each a fifth more or less.
        let tries = tried() - before;
        assert!((2..=8).contains(&tries), "{language}: {tries} streams");
        drop(client);
    }
    assert_eq!(opened(), 0);
}

/// Puts keys and values of any bytes, which `etcdctl` cannot: it takes text only.
fn put<'a>(etcd: &Etcd, pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([etcd.url()], None).await.expect("etcd");
        for (key, value) in pairs {
            client.put(key, value, None).await.expect("etcd takes any bytes");
        }
    });
}
