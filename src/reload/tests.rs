//! Tests of values whose files change, become invalid and become valid again.

use super::*;

fn files(directory: &tempfile::TempDir, names: &[&str]) -> Vec<File> {
    let file = |name: &&str| File { flag: "--x", path: directory.path().join(name) };
    names.iter().map(file).collect()
}

/// Returns the text of both files, which must be equal.
fn pair(contents: &[Vec<u8>]) -> Result<Loaded<String>, Vec<String>> {
    if contents[0] != contents[1] {
        return Err(vec!["--x: they do not match".into()]);
    }
    let value = String::from_utf8_lossy(&contents[0]).into_owned();
    Ok(Loaded { value, expiries: vec![("test", 7)] })
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_file_by_file_is_used_once_it_matches() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("a", "1");
    write("b", "1");
    let value = Reloading::open("test", files(&directory, &["a", "b"]), pair).unwrap();
    value.refresh().await;
    assert_eq!((value.version(), value.value().as_str()), (0, "1"));
    write("a", "2");
    value.refresh().await;
    assert_eq!((value.version(), value.value().as_str()), (0, "1"));
    write("b", "2");
    value.refresh().await;
    assert_eq!((value.version(), value.value().as_str()), (1, "2"));
    assert_eq!(value.credential().unwrap().expiries, [("test", 7)]);
}

#[tokio::test(start_paused = true)]
async fn a_lasting_fault_is_reported_once_and_the_former_value_stays() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("a", "1");
    write("b", "1");
    let value = Reloading::open("test", files(&directory, &["a", "b"]), pair).unwrap();
    for fault in ["mismatch", "empty", "missing"] {
        match fault {
            "mismatch" => write("b", "3"),
            "empty" => write("b", ""),
            _ => std::fs::remove_file(directory.path().join("b")).unwrap(),
        }
        let before = value.credential().unwrap().failures;
        value.refresh().await;
        assert_eq!(
            value.credential().unwrap().failures,
            before,
            "{fault} may be a change under way"
        );
        tokio::time::advance(SETTLES_WITHIN).await;
        value.refresh().await;
        value.refresh().await;
        let now = value.credential().unwrap();
        assert_eq!((now.failures, now.broken), (before + 1, true), "{fault} is told once");
        assert_eq!(value.value(), "1");
    }
    write("b", "1");
    value.refresh().await;
    assert!(!value.credential().unwrap().broken);
    write("b", "9");
    value.check_files(true).await;
    assert_eq!(value.credential().unwrap().failures, 4, "a requested look reports at once");
}

#[tokio::test]
async fn a_swapped_symbolic_link_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (folder, text) in [("old", "1"), ("new", "2")] {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("a"), text).unwrap();
    }
    std::os::unix::fs::symlink("old", at("data")).unwrap();
    let file = File { flag: "--x", path: at("data").join("a") };
    let value = Reloading::open("test", vec![file.clone(), file], pair).unwrap();
    std::os::unix::fs::symlink("new", at("next")).unwrap();
    std::fs::rename(at("next"), at("data")).unwrap();
    value.refresh().await;
    assert_eq!((value.version(), value.value().as_str()), (1, "2"));
}

#[test]
fn every_file_that_cannot_be_read_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), "").unwrap();
    let problems = Reloading::open("test", files(&directory, &["a", "b"]), pair).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.starts_with("--x: ")), "{problems:?}");
}

#[test]
fn an_end_is_reported_from_thirty_days_before_and_once_a_day() {
    const DAY: i64 = 24 * 3600;
    let ending = |end| {
        let expiries = vec![("serve", end), ("etcd", 1_000 * DAY)];
        [Credential { used_for: "serve", expiries, broken: false, reloads: 0, failures: 0 }]
    };
    let (start, mut warned) = (Instant::now(), Warned::new());
    let mut at = |left: i64, hours: u64| {
        let now = start + Duration::from_secs(hours * 3600);
        ends_to_report(&ending(100 * DAY), 100 * DAY - left, now, &mut warned)
    };
    assert!(at(30 * DAY, 0).is_empty());
    assert_eq!(at(30 * DAY - 1, 1), [("serve", 29)]);
    assert!(at(29 * DAY, 24).is_empty(), "it was reported 23 hours ago");
    assert_eq!(at(29 * DAY, 25), [("serve", 29)]);
    assert_eq!(at(1, 49), [("serve", 0)]);
    assert_eq!(at(-1, 73), [("serve", -1)]);
}
