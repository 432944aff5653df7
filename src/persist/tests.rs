//! Tests that a saved state is read again, and that no other file is.

use proptest::prelude::*;

use super::*;

const PREFIX: &str = "/etcd3_naming/";

fn snapshot(name: &str, ids: &[&str]) -> Arc<catalog::Service> {
    let endpoint = |(port, id): (u16, &&str)| Endpoint {
        id: (*id).into(),
        addr: BackendAddr::new([127, 0, 0, 1].into(), port).unwrap(),
        weight: Weight(u32::from(port)),
        meta: Arc::new([("zone".to_owned(), "ä\n\"".to_owned())].into()),
    };
    let endpoints = (1..).zip(ids).map(endpoint).collect();
    let snapshot = ServiceSnapshot::new(ServiceName::new(name).unwrap(), 1, endpoints);
    Arc::new(catalog::Service::new(1, snapshot, crate::settings::ServiceSettings::DEFAULT))
}

async fn store(dir: &tempfile::TempDir) -> Store {
    open(dir.path()).await.unwrap()
}

async fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir, [PREFIX.to_owned()]).await
}

fn content(services: &[Arc<catalog::Service>]) -> Vec<(ServiceName, Vec<Endpoint>)> {
    services.iter().map(|service| (service.name.clone(), service.endpoints.clone())).collect()
}

fn names(loaded: Option<(Restored, OperatorState)>) -> Vec<String> {
    let services = loaded.map(|(restored, _)| restored.services).unwrap_or_default();
    services.iter().map(|(name, _)| name.to_string()).collect()
}

async fn saved(dir: &tempfile::TempDir) -> Vec<u8> {
    let services = [snapshot("dev/game", &["7", "8"]), snapshot("hello", &["a"])];
    let mut store = store(dir).await;
    store.save(&services, &OperatorState::default()).await.unwrap();
    std::fs::read(store.file()).unwrap()
}

#[tokio::test]
async fn what_is_saved_is_loaded_whole() {
    let dir = tempfile::TempDir::new().unwrap();
    assert_eq!(store(&dir).await.load(), None, "nothing is there yet");
    let services: Vec<_> = (0..100).map(|n| snapshot(&format!("s{n:03}"), &["a", "b"])).collect();
    let mut below = open(&dir.path().join("made")).await.unwrap();
    below.save(&services, &OperatorState::default()).await.unwrap();
    let (restored, operator_state) = below.load().unwrap();
    assert_eq!(operator_state, OperatorState::default());
    assert_eq!(restored.services, content(&services));
    assert!(restored.age < Duration::from_secs(60));
    below.save(&[], &OperatorState::default()).await.unwrap();
    assert_eq!(below.load().unwrap().0.services, [], "an empty registry is a state too");
    let mut left: Vec<_> =
        std::fs::read_dir(&below.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lock", "state", "state.bak"], "no temporary file is left");
}

#[tokio::test]
async fn the_one_before_serves_when_the_newest_cannot() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut store = store(&dir).await;
    store.save(&[snapshot("old", &["a"])], &OperatorState::default()).await.unwrap();
    store.save(&[snapshot("new", &["a"])], &OperatorState::default()).await.unwrap();
    assert_eq!(names(store.load()), ["new"]);
    let whole = std::fs::read(store.file()).unwrap();
    std::fs::write(store.file(), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(names(store.load()), ["old"]);
    std::fs::remove_file(store.file()).unwrap();
    assert_eq!(names(store.load()), ["old"], "a crash between two renames");
    std::fs::write(store.backup(), "x").unwrap();
    assert_eq!(store.load(), None);
}

#[tokio::test]
async fn what_is_not_ours_is_refused_with_the_reason() {
    let dir = tempfile::TempDir::new().unwrap();
    let whole = saved(&dir).await;
    let text = String::from_utf8(whole.clone()).unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let error = parse(bytes, &[PREFIX.to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(b"", "it is no state");
    check(b"{}\n", "it is no state");
    check(b"\x7fELF", "it is no state");
    check(text.replacen("lookaside state", "something else", 1).as_bytes(), "it is no state");
    check(text.replacen("\"version\":1", "\"version\":2", 1).as_bytes(), "it has version 2");
    check(text.replacen(PREFIX, "/elsewhere/", 1).as_bytes(), "it was made of the prefixes");
    check(text.replacen("127.0.0.1:2", "127.0.0.1:3", 1).as_bytes(), "its checksum is wrong");
    check(&whole[..whole.len() - 1], "its end is missing");
    let head = text.lines().next().unwrap();
    let signed = |line: &str| {
        let content = format!("{head}\n{line}\n");
        format!("{content}{{\"crc32\":{}}}\n", crc32fast::hash(content.as_bytes()))
    };
    check(signed("{\"service\":\"a\"}").as_bytes(), "line 2: missing field");
    let zero = r#"{"service":"a","endpoints":[{"id":"a","addr":"127.0.0.1:0","weight":1}]}"#;
    check(signed(zero).as_bytes(), "line 2: ");
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_an_error_with_its_remedy() {
    let dir = tempfile::TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let check = async |dir: &Path, expected: &str| {
        let error = open(dir).await.unwrap_err().to_string();
        let begin = format!("--state-dir {dir:?} cannot be used: ");
        assert!(error.starts_with(&begin) && error.contains(expected), "{error}");
    };
    std::fs::write(at("file"), "x").unwrap();
    check(&at("file"), "give a directory that this process may write to").await;
    check(&at("file/below"), "give a directory that this process may write to").await;
    assert_eq!(std::fs::read(at("file")).unwrap(), b"x");
    std::fs::create_dir_all(at("blocked/state")).unwrap();
    check(&at("blocked"), "state\" is a directory: move it away").await;

    let first = open(&at("used")).await.unwrap();
    check(&at("used"), "another process uses it: give each balancer a directory of its own").await;
    drop(first);
    assert!(open(&at("used")).await.is_ok(), "the lock went with its holder");
}

#[tokio::test]
async fn what_crashes_have_left_is_tidied_away() {
    let dir = tempfile::TempDir::new().unwrap();
    for litter in ["state.new", "state.new.17", "state.new.18"] {
        std::fs::write(dir.path().join(litter), "x").unwrap();
    }
    std::fs::write(dir.path().join("other"), "x").unwrap();
    drop(store(&dir).await);
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lock", "other"]);
}

/// A process that can write to the directory cannot choose which file is read or written.
#[tokio::test]
async fn links_and_pipes_are_neither_followed_nor_waited_for() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::TempDir::new().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    let mut store = open(&dir.path().join("dir")).await.unwrap();
    store.save(&[snapshot("hello", &["a"])], &OperatorState::default()).await.unwrap();
    let mode = std::fs::metadata(store.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::rename(store.file(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.file()).unwrap();
    assert_eq!(store.load(), None, "a link");
    assert!(store.touch().await.is_err());
    let before = std::fs::read(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.dir.join("state.new")).unwrap();
    store.save(&[snapshot("other", &["a"])], &OperatorState::default()).await.unwrap();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), before, "nothing is written through a link");
    assert_eq!(names(store.load()), ["other"]);

    for file in [store.file(), store.backup()] {
        let _ = std::fs::remove_file(&file);
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    assert_eq!(store.load(), None, "a pipe");
    assert!(store.touch().await.is_err());
}

#[test]
fn a_pause_grows_with_what_a_writing_cost() {
    let check = |millis, bytes, seconds| {
        assert_eq!(pause(Duration::from_millis(millis), bytes), Duration::from_secs(seconds));
    };
    check(0, 0, 1);
    check(10, 100_000, 1);
    check(2_000, 0, 38);
    check(10, 10 << 20, 40);
    check(10, 1 << 40, 60);
    check(60_000, u64::MAX, 19 * 60);
}

/// Two minutes of a large registry that changes all the time, on a paused clock that waits
/// only for the disk.
#[tokio::test(start_paused = true)]
async fn churn_is_written_at_a_bounded_rate_and_the_first_state_at_once() {
    use crate::catalog::{Input, drive};
    use crate::model::HostPort;
    use crate::registry::{Change, Entry, Event, Key, Registration};
    let dir = tempfile::TempDir::new().unwrap();
    let store = store(&dir).await;
    let file = store.file();
    let (inputs, inputs_rx) = tokio::sync::mpsc::channel(16);
    let (catalog, counters) = (Catalog::new(), Arc::<Counters>::default());
    let world = async {
        tokio::join!(
            drive(inputs_rx, catalog.clone(), crate::clock::wall),
            run(store, catalog.clone(), counters.clone())
        )
    };
    let entry = |id: u32, weight| Entry {
        key: Key::new(format!("/{id}").as_bytes()),
        decoded: Ok(vec![Registration {
            service: ServiceName::new(&format!("s{}", id % 100)).unwrap(),
            id: id.to_string().into(),
            address: HostPort::parse(&format!("10.0.0.1:{}", id + 1)).unwrap(),
            weight: Weight(weight),
            meta: Arc::new([("note".to_owned(), "x".repeat(1_000))].into()),
        }]
        .into()),
        leased: true,
    };
    let story = async {
        let all = (0..2_000).map(|id| entry(id, 1)).collect();
        inputs
            .send(Input::Registry(Event::Reset { revision: 1, all, went_back: false }))
            .await
            .unwrap();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(counters.states_saved.total(), 1, "the first state, at once");
        assert!(std::fs::metadata(&file).unwrap().len() > 2_000_000);
        for revision in 2..1_200 {
            let changes = vec![Change::Put(entry(7, u32::try_from(revision).unwrap()))];
            let event = Event::Apply { revision, changes };
            inputs.send(Input::Registry(event)).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        counters.states_saved.total()
    };
    let saved = tokio::select! {
        saved = story => saved,
        _ = world => panic!("the world ends"),
    };
    // 2 MB at 256 KiB a second: every eight seconds.
    assert!((10..=20).contains(&saved), "{saved} times in two minutes");
}

proptest! {
    /// A file that is cut or changed anywhere is served as it was written, or not at all.
    #[test]
    fn damage_is_never_served(cut in 0..1000_usize, at in 0..1000_usize, byte: u8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::TempDir::new().unwrap();
        let whole = runtime.block_on(saved(&dir));
        let good = parse(&whole, &[PREFIX.to_owned()]).unwrap();
        let mut bytes = whole.clone();
        bytes.truncate(cut % (whole.len() + 1));
        if cut % 2 == 0 { bytes.clone_from(&whole); }
        if let Some(place) = bytes.get_mut(at % whole.len()) { *place = byte; }
        if let Ok(found) = parse(&bytes, &[PREFIX.to_owned()]) {
            prop_assert_eq!(found, good);
        }
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &[PREFIX.to_owned()]);
    }
}

#[tokio::test]
async fn what_operators_decided_is_saved_too() {
    use crate::marks::{Mark, MarkKey, Timestamp, Value};
    use crate::settings::Document;
    let dir = tempfile::TempDir::new().unwrap();
    let value =
        Value { why: "a \"disk\"\n".to_owned(), until: Some(Timestamp(9)), ..Value::default() };
    let key = MarkKey::parse("drain/game.dev/zone=a").unwrap();
    let text =
        "[service.'*']\nguard = 7\nkeep-lost = '90s'\n[service.'a\"\\b']\nwhen-empty = 'drop'\n";
    let operator_state = OperatorState {
        marks: vec![Arc::new(Mark { key, value })],
        settings: Some(Arc::new(Document::parse(text).unwrap())),
    };
    let mut store = store(&dir).await;
    store.save(&[snapshot("hello", &["a"])], &operator_state).await.unwrap();
    assert_eq!(store.load().unwrap().1, operator_state);
    // An invalid mark or document is left out, and the rest is read.
    let head = Head {
        format: FORMAT.to_owned(),
        version: VERSION,
        prefixes: vec![PREFIX.to_owned()],
        operator_state: (&operator_state).into(),
    };
    let whole = String::from_utf8(line(&head).unwrap()).unwrap();
    let parse = |head: String| {
        let tail = line(&Tail { crc32: crc32fast::hash(head.as_bytes()) }).unwrap();
        parse(&[head.into_bytes(), tail].concat(), &[PREFIX.to_owned()])
    };
    assert_eq!(parse(whole.clone()).unwrap().operator_state, operator_state);
    let without = parse(whole.replace("drain/", "freeze/")).unwrap().operator_state;
    assert_eq!((without.marks.len(), &without.settings), (0, &operator_state.settings));
    let without = parse(whole.replace("guard = ", "guart = ")).unwrap().operator_state;
    assert_eq!((&without.marks, without.settings), (&operator_state.marks, None));
}
