//! The languages whose clients can be driven, and how a driver is started.
//!
//! A language is a directory `tests/clients/NAME` with two scripts: `build`,
//! quick when there is nothing to do, and `driver`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// One implementation of gRPC's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    pub name: &'static str,
    pub family: Family,
    /// Asks the servers in `/etc/resolv.conf`, whatever its target says.
    pub asks_system: bool,
}

/// Who wrote the client's grpclb: its habits are those of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Core,
    Go,
    Java,
}

/// Who answers a driver's DNS questions.
#[derive(Debug, Clone)]
pub enum Resolver {
    /// Those of this machine.
    System,
    /// Those in this file, in the format of `/etc/resolv.conf`: the driver
    /// runs in a mount namespace where it stands in for that.
    File(PathBuf),
}

pub const PYTHON: Language = Language::new("python", Family::Core);

/// Has no grpclb, and its gRPC is its own.
pub const NODE: Language = Language::new("node", Family::Core);

/// Every language with a grpclb, whether its driver is there or not.
const ALL: [Language; 7] = [
    PYTHON,
    Language::new("cpp", Family::Core),
    Language::new("ruby", Family::Core),
    Language::new("php", Family::Core),
    Language::new("go", Family::Go),
    Language::new("go-old", Family::Go),
    Language { asks_system: true, ..Language::new("java", Family::Java) },
];

impl Language {
    const fn new(name: &'static str, family: Family) -> Self {
        Self { name, family, asks_system: false }
    }

    /// Those whose drivers are in this tree.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter().filter(|language| language.home().join("driver").exists())
    }

    /// The one of this name, with a grpclb or without.
    #[track_caller]
    pub fn named(name: &str) -> Self {
        let found = Self::all().chain([NODE]).find(|language| language.name == name);
        found.unwrap_or_else(|| panic!("no driver for {name}"))
    }

    /// Builds its driver, once for this process. The error says what is
    /// missing here.
    pub fn build(&self) -> Result<(), String> {
        static BUILT: Mutex<Option<HashMap<&str, Result<(), String>>>> = Mutex::new(None);
        // Held while it builds: others wait for the same.
        let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let built = built.get_or_insert_default();
        built.entry(self.name).or_insert_with(|| self.build_now()).clone()
    }

    /// What makes it impossible to run it here.
    pub fn obstacle(&self) -> Option<String> {
        if self.asks_system && !namespaces() {
            return Some(
                "it asks /etc/resolv.conf, and only root on Linux can stand in for it".into(),
            );
        }
        self.build().err()
    }

    pub(super) fn command(&self, resolver: &Resolver) -> Command {
        let driver = self.home().join("driver");
        let mut command = match resolver {
            Resolver::System => Command::new(driver),
            Resolver::File(path) => {
                let mut command = Command::new("unshare");
                let script = "mount --bind \"$1\" /etc/resolv.conf && exec \"$2\"";
                command.args(["--mount", "sh", "-c", script, "sh"]).arg(path).arg(driver);
                command
            }
        };
        // A proxy of the machine's has no business on loopback.
        for name in ["http_proxy", "https_proxy", "grpc_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
    }

    fn build_now(&self) -> Result<(), String> {
        let build = Command::new(self.home().join("build")).stdin(Stdio::null()).output();
        let output = build.map_err(|error| format!("its build does not start: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        eprintln!("{}: {errors}", self.home().join("build").display());
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no error shown");
        Err(format!("it cannot be built here: {last}"))
    }

    fn home(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(self.name)
    }
}

/// Whether this process may give its children a `/etc/resolv.conf`.
fn namespaces() -> bool {
    let mut command = Command::new("unshare");
    let script = "mount --bind /dev/null /etc/resolv.conf";
    command.args(["--mount", "sh", "-c", script]).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}
