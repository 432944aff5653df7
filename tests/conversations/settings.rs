//! Tests settings that change while streams are open.
//!
//! In: documents. Out: the answers that waiting and new streams get.

use lookaside::settings::WhenEmpty;

use crate::conversations::ports;
use crate::conversations::wire::{Balanced, Kind, PYTHON};

#[tokio::test]
async fn a_changed_setting_reaches_streams_that_wait() {
    let what = |kind: Kind| match kind {
        Kind::ServerList(list) if list.servers.is_empty() => "empty",
        Kind::ServerList(list) if list.servers.iter().all(|s| s.drop) => "drop",
        Kind::FallbackResponse(_) => "fallback",
        other => panic!("{other:?}"),
    };
    let mut balanced = Balanced::start(WhenEmpty::Wait).await;
    balanced.put("lost a 10.0.0.1:1").await;
    balanced.put("zoned a 10.0.0.2:2 zone=a").await;
    let mut streams = Vec::new();
    // A service that never registered, one that is lost, and a zone without backends.
    for name in ["hello.dev", "lost", "zone--b.zoned"] {
        let mut stream = balanced.open(PYTHON, name).await;
        assert!(matches!(stream.next().await, Kind::InitialResponse(_)));
        streams.push(stream);
    }
    assert_eq!(ports(&streams[1].servers().await), [1]);
    balanced.delete("lost a 10.0.0.1:1").await;
    for stream in &mut streams {
        assert_eq!(what(stream.next().await), "empty");
    }
    balanced.settle("[service.'*']\nwhen-empty = 'drop'\n").await;
    for stream in &mut streams {
        assert_eq!(what(stream.next().await), "drop");
    }
    // A pattern for one service alone, by its path. It has no registration.
    balanced
        .settle("[service.'*']\nwhen-empty = 'drop'\n[service.'dev/*']\nwhen-empty = 'fallback'\n")
        .await;
    assert_eq!(what(streams[0].next().await), "fallback");
    balanced.settle("").await;
    for stream in &mut streams {
        assert_eq!(what(stream.next().await), "empty");
    }
    // A new interval applies to streams that begin later.
    balanced.settle("[service.lost]\nreport-interval = '2s'\n").await;
    for (name, expected) in [("lost", 2), ("zoned", 10)] {
        let mut stream = balanced.open(PYTHON, name).await;
        let Kind::InitialResponse(initial) = stream.next().await else { panic!("no beginning") };
        assert_eq!(initial.client_stats_report_interval.unwrap().seconds, expected);
    }
    balanced.put("lost a 10.0.0.1:1").await;
    assert_eq!(ports(&streams[1].servers().await), [1]);
}
