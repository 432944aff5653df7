//! Any name a client may send: a target or an error, never a panic.

use lookaside::model::{ServiceName, Target, Zone, name};

/// Panics at what must not be.
pub fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(zone) = Zone::new("lookaside.internal") else { return };
    let Ok(target) = Target::parse(text, &zone) else { return };
    assert!(!target.name.is_empty() && target.name.len() <= 255);
    assert!(target.longer().len() <= 8);
    for reading in target.longer() {
        let Ok(service) = ServiceName::new(&reading.name) else { continue };
        assert_eq!(target.selectors_for(&service), reading.selectors);
    }
    // What a client asks for can be registered, and is then found.
    let Ok(service) = ServiceName::new(&target.name) else { return };
    assert_eq!(target.selectors_for(&service), target.selectors);
    assert!(name::matches(&target.name, &service).is_some());
    assert_eq!(target.canonical(), service.canonical());
}
