//! Further networks beside a test's own (see `namespace`), each joined to it by
//! one link that can be cut. Only inside a namespace.

use std::process::Command;

use super::namespace::is_inside;

/// A network with one address; the test's own has another on the same link.
pub struct Network {
    number: usize,
}

impl Network {
    /// The nth; it reaches the others through the test's.
    #[track_caller]
    pub fn new(number: usize) -> Self {
        assert!(is_inside(), "networks are made inside a namespace only");
        let network = Self { number };
        let (name, ours, theirs) = (network.name(), network.ours(), network.theirs());
        if number == 0 {
            // Names of networks are files, and the machine's are not ours.
            let files = "mkdir -p /run/netns && mount -t tmpfs none /run/netns && \
                         echo 1 >/proc/sys/net/ipv4/ip_forward";
            run(&["sh", "-c", files]);
        }
        run(&["ip", "netns", "add", &name]);
        let link = network.link();
        run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "far", "netns", &name]);
        run(&["ip", "addr", "add", &format!("{ours}/30"), "dev", &link]);
        run(&["ip", "link", "set", &link, "up"]);
        run(&["ip", "-n", &name, "addr", "add", &format!("{theirs}/30"), "dev", "far"]);
        run(&["ip", "-n", &name, "link", "set", "far", "up"]);
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        run(&["ip", "-n", &name, "route", "add", "default", "via", &ours]);
        network
    }

    pub fn name(&self) -> String {
        format!("net{}", self.number)
    }

    /// What a thread enters it by.
    pub fn file(&self) -> String {
        format!("/run/netns/{}", self.name())
    }

    /// The address of the test's end.
    pub fn ours(&self) -> String {
        format!("10.77.{}.1", self.number)
    }

    pub fn theirs(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    /// Everything that is sent either way is lost, and nobody is told.
    pub fn cut(&self) {
        // Down at the far end only: our side must not see that it has no way.
        run(&["ip", "-n", &self.name(), "route", "flush", "table", "main"]);
        run(&["ip", "-n", &self.name(), "route", "add", "blackhole", "default"]);
    }

    /// Answers nothing that comes from another network, but our own.
    pub fn cut_from(&self, other: &Self) {
        let net = format!("10.77.{}.0/30", other.number);
        run(&["ip", "-n", &self.name(), "route", "add", "blackhole", &net]);
    }

    pub fn mend_to(&self, other: &Self) {
        let net = format!("10.77.{}.0/30", other.number);
        run(&["ip", "-n", &self.name(), "route", "del", "blackhole", &net]);
    }

    fn link(&self) -> String {
        format!("near{}", self.number)
    }
}

#[track_caller]
fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("it is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
