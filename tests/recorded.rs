//! The bytes of the lists that clients get of recorded registries.
//!
//! In: `tests/registries/NAME.txt`, each with the keys and values that the registrants of one
//! framework write, and names that clients ask for. Out: a digest of the first list of each
//! name, compared with `tests/registries/digests`. So no change alters the bytes of lists
//! unseen. What differs from stream to stream is taken out before: the entry at which a list
//! begins, and the nonce in the token of the first one.
//!
//! After a change that is meant to alter lists, `LOOKASIDE_RENEW=on cargo test --test e2e
//! recorded::` writes the digests anew, and `git diff` shows which lists it alters. With
//! `LOOKASIDE_BIN`, another build of the program is compared.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::etcd::Etcd;
use crate::support::lookaside::Balancer;
use crate::support::raw_call::RawCall;
use crate::support::wire::{self, Response};

/// The tag of an entry's token, its length without and with a nonce, and that of the nonce.
const TOKEN: u8 = 3 << 3 | 2;
const PLAIN: u8 = 16;
const UNIQUE: u8 = PLAIN + NONCE;
const NONCE: u8 = 9;

/// The keys and values of one registry, and the names that clients ask for.
#[derive(Default)]
struct Registry {
    prefix: String,
    names: Vec<String>,
    keys: Vec<(String, String)>,
}

impl Registry {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("it is committed");
        let mut registry = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (what, rest) = line.split_once(' ').expect("a word and more");
            match what {
                "prefix" => rest.clone_into(&mut registry.prefix),
                "name" => registry.names.push(rest.to_owned()),
                "key" => {
                    let (key, value) = rest.split_once('\t').expect("a key and a value");
                    registry.keys.push((key.to_owned(), value.to_owned()));
                }
                _ => panic!("{}: {line}", path.display()),
            }
        }
        registry
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registries")
}

/// Returns the entries of the first list for a name.
fn first_list(balancer: &Balancer, name: &str) -> Vec<Vec<u8>> {
    let mut call = RawCall::open(balancer.grpclb(), wire::BALANCE_LOAD);
    call.send(&wire::balance_request(name));
    loop {
        let message = call.next();
        match wire::parse_response(&message) {
            Response::Initial => {}
            Response::List(list) => return wire::entries(list).map(without_nonce).collect(),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Returns an entry as the lists after the first one have it.
fn without_nonce(entry: &[u8]) -> Vec<u8> {
    let mut entry = entry.to_vec();
    let token = entry.windows(2).position(|two| two == [TOKEN, UNIQUE]);
    if let Some(at) = token {
        entry[at + 1] = PLAIN;
        let nonce = at + 2 + usize::from(PLAIN);
        assert_eq!(entry[nonce], b'~', "{entry:?}");
        entry.drain(nonce..nonce + usize::from(NONCE));
    }
    let is_backend = entry.windows(2).any(|two| two == [TOKEN, PLAIN]);
    assert!(is_backend, "no backend, so the name selects nothing: {entry:?}");
    entry
}

/// Returns a list as if it began at the entry that makes it least. Of equal turns, any will do.
fn least_turn(list: &[Vec<u8>]) -> Vec<u8> {
    let turn = |first: usize| [&list[first..], &list[..first]].concat();
    let least = (0..list.len()).map(turn).min().unwrap_or_default();
    least.iter().flat_map(|entry| wire::field(1, entry)).collect()
}

/// Returns a line for each name of a registry: the length of its list, and the digest.
fn digests(etcd: &Etcd, path: &Path) -> String {
    let registry = Registry::read(path);
    for (key, value) in &registry.keys {
        etcd.ctl(&["put", "--", key, value]);
    }
    let balancer = Balancer::start(&["--etcd", &etcd.url(), "--prefix", &registry.prefix]);
    balancer.wait_ready();
    let file = path.file_stem().expect("a name").to_string_lossy();
    let mut lines = String::new();
    for name in &registry.names {
        let list = first_list(&balancer, name);
        let digest = crc32fast::hash(&least_turn(&list));
        let _ = writeln!(lines, "{file} {name} {} {digest:08x}", list.len());
    }
    lines
}

#[test]
fn lists_of_recorded_registries_keep_their_bytes() {
    let etcd = Etcd::start();
    let files = fs::read_dir(folder()).expect("they are committed");
    let mut files: Vec<_> = files.map(|file| file.expect("it can be listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "txt"));
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    let found: String = files.iter().map(|file| digests(&etcd, file)).collect();
    let stored = folder().join("digests");
    if std::env::var_os("LOOKASIDE_RENEW").is_some() {
        return fs::write(&stored, found).expect("it can be written");
    }
    let expected = fs::read_to_string(&stored).expect("it is committed");
    let of_expected = |line: &&str| expected.lines().all(|other| other != *line);
    let of_found = |line: &&str| found.lines().all(|other| other != *line);
    let new: Vec<_> = found.lines().filter(of_expected).collect();
    let old: Vec<_> = expected.lines().filter(of_found).collect();
    assert!(
        new.is_empty() && old.is_empty(),
        "other bytes for clients: {new:#?} in place of {old:#?}. If that is meant: \
         LOOKASIDE_RENEW=on cargo test --test e2e recorded::"
    );
}
