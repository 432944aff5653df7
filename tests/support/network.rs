//! Further networks beside a test's own (see `namespace`), each connected to it by one link
//! that can be cut. They work only inside a namespace.

use std::process::Command;

use super::namespace::is_inside;

/// A network with one address. The test's network has another address on the same link.
pub struct Network {
    number: usize,
}

impl Network {
    /// Creates network `number` (from 0). It reaches the other networks through the test's.
    #[track_caller]
    pub fn new(number: usize) -> Self {
        assert!(is_inside(), "networks are made inside a namespace only");
        let network = Self { number };
        let (name, ours, theirs) = (network.name(), network.ours(), network.theirs());
        if number == 0 {
            // Names of networks are files; a tmpfs hides those of the machine.
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

    /// Returns the file by which a thread enters the network.
    pub fn file(&self) -> String {
        format!("/run/netns/{}", self.name())
    }

    /// Returns the address of the test's end of the link.
    pub fn ours(&self) -> String {
        format!("10.77.{}.1", self.number)
    }

    pub fn theirs(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    /// Drops everything that the network sends, so no packet gets an answer. The test's side
    /// gets no error.
    pub fn cut(&self) {
        // Only the far end's routes change: the test's side must not get an error.
        run(&["ip", "-n", &self.name(), "route", "flush", "table", "main"]);
        run(&["ip", "-n", &self.name(), "route", "add", "blackhole", "default"]);
    }

    /// Drops all packets to one other network, but not those to the test's.
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
