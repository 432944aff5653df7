//! What is written is read again, and nothing else is.

use proptest::prelude::*;

use super::*;

const PREFIX: &str = "/etcd3_naming/";

fn snapshot(name: &str, ids: &[&str]) -> Arc<ServiceSnapshot> {
    let endpoint = |(port, id): (u16, &&str)| Endpoint {
        id: (*id).into(),
        addr: BackendAddr::new([127, 0, 0, 1].into(), port).unwrap(),
        weight: Weight(u32::from(port)),
        meta: Arc::new([("zone".to_owned(), "ä\n\"".to_owned())].into()),
    };
    let endpoints = (1..).zip(ids).map(endpoint).collect();
    Arc::new(ServiceSnapshot::new(ServiceName::new(name).unwrap(), 1, endpoints))
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::new(dir.path(), [PREFIX.to_owned()])
}

fn content(services: &[Arc<ServiceSnapshot>]) -> Vec<(ServiceName, Vec<Endpoint>)> {
    services.iter().map(|service| (service.name.clone(), service.endpoints.clone())).collect()
}

fn names(restored: Option<Restored>) -> Vec<String> {
    let services = restored.map(|restored| restored.services).unwrap_or_default();
    services.iter().map(|(name, _)| name.to_string()).collect()
}

async fn saved(dir: &tempfile::TempDir) -> Vec<u8> {
    let services = [snapshot("dev/game", &["7", "8"]), snapshot("hello", &["a"])];
    store(dir).save(&services).await.unwrap();
    std::fs::read(store(dir).file()).unwrap()
}

#[tokio::test]
async fn what_is_saved_is_loaded_whole() {
    let dir = tempfile::TempDir::new().unwrap();
    assert_eq!(store(&dir).load(), None, "nothing is there yet");
    let services: Vec<_> = (0..100).map(|n| snapshot(&format!("s{n:03}"), &["a", "b"])).collect();
    let below = Store::new(&dir.path().join("made"), [PREFIX.to_owned()]);
    below.save(&services).await.unwrap();
    let restored = below.load().unwrap();
    assert_eq!(restored.services, content(&services));
    assert!(restored.age < Duration::from_secs(60));
    below.save(&[]).await.unwrap();
    assert_eq!(below.load().unwrap().services, [], "an empty registry is a state too");
    assert_eq!(std::fs::read_dir(below.dir).unwrap().count(), 2, "no temporary file is left");
}

#[tokio::test]
async fn the_one_before_serves_when_the_newest_cannot() {
    let dir = tempfile::TempDir::new().unwrap();
    let store = store(&dir);
    store.save(&[snapshot("old", &["a"])]).await.unwrap();
    store.save(&[snapshot("new", &["a"])]).await.unwrap();
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
async fn a_place_that_cannot_be_written_is_an_error_and_leaves_what_is_there() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let store = Store::new(&file, [PREFIX.to_owned()]);
    assert!(store.save(&[]).await.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}

proptest! {
    /// A file cut or changed anywhere is served as it was written, or not at
    /// all.
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
