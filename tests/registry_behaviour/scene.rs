//! The scene of one case: a client, keys of its own, and a record of what it saw. The
//! record does not depend on the server: revisions count from the start of the case,
//! and leases are numbered as they appear.

use std::time::Duration;

use etcd_client::proto as pb;
use etcd_client::{
    Client, DeleteOptions, Error, GetOptions, PutOptions, Txn, WatchOptions, WatchResponse,
    WatchStream,
};

use crate::support::WAIT_MAX;

pub struct Scene {
    pub client: Client,
    pub url: String,
    pub prefix: String,
    pub lines: Vec<String>,
    base: i64,
    leases: Vec<i64>,
}

impl Scene {
    pub async fn new(url: &str, name: &str) -> Self {
        let mut client = Client::connect([url], None).await.expect("the server is there");
        let prefix = format!("/{}/", name.replace(' ', "-"));
        let status = client.get("any", None).await.expect("it answers");
        let base = status.header().expect("a header").revision();
        let url = url.to_owned();
        Self { client, url, prefix, lines: Vec::new(), base, leases: Vec::new() }
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the absolute revision of one that counts from the start of the case.
    pub fn absolute(&self, revision: i64) -> i64 {
        self.base + revision
    }

    pub fn note(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub fn note_error(&mut self, what: &str, error: &Error) {
        let text = match error {
            Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
            other => other.to_string(),
        };
        self.note(format!("{what}: {text}"));
    }

    pub async fn put(&mut self, name: &str, value: &str, options: Option<PutOptions>) {
        let answer = self.client.put(self.key(name), value, options).await;
        match answer {
            Ok(answer) => {
                let header = self.header(&answer.0.header);
                let previous = answer.0.prev_kv.map(|kv| self.kv(&kv));
                self.note(format!("put {name}: {header} {previous:?}"));
            }
            Err(error) => self.note_error(&format!("put {name}"), &error),
        }
    }

    pub async fn get(&mut self, name: &str, options: Option<GetOptions>) -> Vec<pb::PbKeyValue> {
        match self.client.get(self.key(name), options).await {
            Ok(answer) => {
                let text = self.range(&answer.0);
                self.note(format!("get {name}: {text}"));
                answer.0.kvs
            }
            Err(error) => {
                self.note_error(&format!("get {name}"), &error);
                Vec::new()
            }
        }
    }

    pub async fn delete(&mut self, name: &str, options: Option<DeleteOptions>) {
        match self.client.delete(self.key(name), options).await {
            Ok(answer) => {
                let text = self.deletion(&answer.0);
                self.note(format!("delete {name}: {text}"));
            }
            Err(error) => self.note_error(&format!("delete {name}"), &error),
        }
    }

    pub async fn txn(&mut self, what: &str, txn: Txn) -> bool {
        match self.client.txn(txn).await {
            Ok(answer) => {
                let text = self.transaction(&answer.0);
                self.note(format!("txn {what}: {text}"));
                answer.succeeded()
            }
            Err(error) => {
                self.note_error(&format!("txn {what}"), &error);
                false
            }
        }
    }

    pub async fn compact(&mut self, revision: i64) {
        match self.client.compact(self.absolute(revision), None).await {
            Ok(answer) => {
                let header = self.header(&answer.0.header);
                self.note(format!("compact {revision}: {header}"));
            }
            Err(error) => self.note_error(&format!("compact {revision}"), &error),
        }
    }

    /// Starts a watch, and records the first response, which confirms it.
    pub async fn watch(&mut self, name: &str, options: WatchOptions) -> WatchStream {
        let stream = self.client.watch(self.key(name), Some(options)).await;
        let mut stream = stream.expect("a watch begins");
        self.next(&mut stream).await;
        stream
    }

    /// Returns the next response, and records all of it.
    pub async fn next(&mut self, stream: &mut WatchStream) -> WatchResponse {
        let response = receive(stream).await;
        let text = self.watched(&response.0);
        self.note(format!("watch {text}"));
        response
    }

    /// Records the next events of a watcher that catches up. It ignores how the server
    /// divides past events into responses, and under which headers.
    pub async fn events(&mut self, stream: &mut WatchStream, count: usize) {
        let mut seen = 0;
        while seen < count {
            let response = receive(stream).await.0;
            assert!(!response.events.is_empty(), "events were expected: {response:?}");
            for event in &response.events {
                let text = self.event(event);
                self.note(format!("event #{} {text}", response.watch_id));
                seen += 1;
            }
        }
        assert_eq!(seen, count);
    }

    /// Checks that no event is due: the next response answers a progress request.
    pub async fn quiet(&mut self, stream: &mut WatchStream) {
        stream.request_progress().await.expect("the stream is open");
        let response = self.next(stream).await;
        assert!(response.events().is_empty() && response.watch_id() == -1, "{response:?}");
    }

    pub fn lease(&mut self, id: i64) -> String {
        if id == 0 {
            return "-".to_owned();
        }
        let known = self.leases.iter().position(|&lease| lease == id);
        let index = known.unwrap_or_else(|| {
            self.leases.push(id);
            self.leases.len() - 1
        });
        format!("L{index}")
    }

    pub fn header(&self, header: &Option<pb::PbResponseHeader>) -> String {
        let header = header.as_ref().expect("every response has a header");
        let identity = header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0;
        assert!(identity, "{header:?}");
        format!("@{}", self.revision(header.revision))
    }

    fn revision(&self, revision: i64) -> String {
        match revision {
            0 => "none".to_owned(),
            revision => (revision - self.base).to_string(),
        }
    }

    fn kv(&mut self, kv: &pb::PbKeyValue) -> String {
        let key = String::from_utf8_lossy(&kv.key).replacen(&self.prefix, "", 1);
        let mut value = String::from_utf8_lossy(&kv.value).into_owned();
        if value.len() > 100 {
            value = format!("{} bytes", value.len());
        }
        let (created, modified) =
            (self.revision(kv.create_revision), self.revision(kv.mod_revision));
        let lease = self.lease(kv.lease);
        format!("{key:?}={value:?} c{created} m{modified} v{} {lease}", kv.version)
    }

    fn kvs(&mut self, kvs: &[pb::PbKeyValue]) -> String {
        let all: Vec<_> = kvs.iter().map(|kv| self.kv(kv)).collect();
        format!("[{}]", all.join(", "))
    }

    fn range(&mut self, answer: &pb::PbRangeResponse) -> String {
        let (header, kvs) = (self.inner_header(&answer.header), self.kvs(&answer.kvs));
        format!("{header} count {} more {} {kvs}", answer.count, answer.more)
    }

    fn deletion(&mut self, answer: &pb::PbDeleteResponse) -> String {
        let (header, kvs) = (self.inner_header(&answer.header), self.kvs(&answer.prev_kvs));
        format!("{header} deleted {} {kvs}", answer.deleted)
    }

    fn transaction(&mut self, answer: &pb::PbTxnResponse) -> String {
        let mut text = format!("{} {}", self.inner_header(&answer.header), answer.succeeded);
        for response in &answer.responses {
            text += " | ";
            text += &match response.response.as_ref().expect("each operation is answered") {
                pb::PbTxnOpResponse::ResponseRange(range) => self.range(range),
                pb::PbTxnOpResponse::ResponsePut(put) => {
                    let previous = put.prev_kv.as_ref().map(|kv| self.kv(kv));
                    format!("{} {previous:?}", self.inner_header(&put.header))
                }
                pb::PbTxnOpResponse::ResponseDeleteRange(deletion) => self.deletion(deletion),
                pb::PbTxnOpResponse::ResponseTxn(nested) => {
                    format!("({})", self.transaction(nested))
                }
            };
        }
        text
    }

    /// Within a transaction, a header contains at most the revision.
    fn inner_header(&self, header: &Option<pb::PbResponseHeader>) -> String {
        let revision = header.as_ref().map_or(-1, |header| header.revision);
        format!("@{}", self.revision(revision))
    }

    fn watched(&mut self, response: &pb::PbWatchResponse) -> String {
        let mut text = format!("#{} {}", response.watch_id, self.header(&response.header));
        for (is, word) in [
            (response.created, "created"),
            (response.canceled, "canceled"),
            (response.fragment, "fragment"),
        ] {
            if is {
                text += &format!(" {word}");
            }
        }
        if response.compact_revision != 0 {
            text += &format!(" compacted {}", self.revision(response.compact_revision));
        }
        if !response.cancel_reason.is_empty() {
            text += &format!(" because {}", response.cancel_reason);
        }
        for event in &response.events {
            text += &format!(" | {}", self.event(event));
        }
        text
    }

    fn event(&mut self, event: &pb::PbEvent) -> String {
        let kind = ["PUT", "DELETE"][usize::try_from(event.r#type).expect("one of two")];
        let kv = self.kv(event.kv.as_ref().expect("every event has a key"));
        let before = event.prev_kv.as_ref().map(|kv| self.kv(kv));
        format!("{kind} {kv} before {before:?}")
    }
}

pub async fn receive(stream: &mut WatchStream) -> WatchResponse {
    let wait_max = WAIT_MAX - Duration::from_secs(5);
    let message = tokio::time::timeout(wait_max, stream.message()).await;
    message.expect("a response comes in time").expect("no error").expect("the stream goes on")
}
