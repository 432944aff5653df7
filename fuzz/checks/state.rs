//! Any bytes as a state file: what was saved or an error, never a panic.

use lookaside::persist::parse;

/// An even first byte makes the rest the whole file; an odd one gives it the
/// head and the sum that a whole file has, so that what lies between is read.
pub fn check(data: &[u8]) {
    let [mode, rest @ ..] = data else { return };
    let prefixes = ["/p/".to_owned()];
    if mode % 2 == 0 {
        let _ = parse(rest, &prefixes);
        return;
    }
    let mut file = br#"{"format":"lookaside state","version":1,"prefixes":["/p/"]}"#.to_vec();
    file.push(b'\n');
    file.extend_from_slice(rest);
    if !rest.is_empty() {
        file.push(b'\n');
    }
    let sum = crc32fast::hash(&file);
    file.extend_from_slice(format!("{{\"crc32\":{sum}}}\n").as_bytes());
    let Ok(content) = parse(&file, &prefixes) else { return };
    // Torn anywhere, it is refused.
    let torn = file.len() * usize::from(*mode) / 256;
    assert!(parse(&file[..torn], &prefixes).is_err());
    for (_, endpoints) in content.services {
        assert!(endpoints.iter().all(|endpoint| !endpoint.addr.ip().is_unspecified()));
    }
}
