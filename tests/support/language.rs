//! The languages with a driver for their gRPC clients, and how programs start with a
//! resolver of their own.
//!
//! A language is a directory `tests/clients/NAME` with two scripts: `driver`, and `build`,
//! which is quick if there is nothing to do.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// One implementation of gRPC clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    pub name: &'static str,
    pub family: Family,
    /// Whether it asks the servers in `/etc/resolv.conf` even if its target names a server.
    pub asks_system: bool,
}

/// The code base of a client's grpclb. Clients of one family behave alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Core,
    Go,
    Java,
}

/// The source of answers to a program's questions for names.
#[derive(Debug, Clone)]
pub enum Resolver {
    /// That of this machine.
    System,
    /// The files of this directory. The program runs in a mount namespace where they replace
    /// those of the same name in `/etc`, such as `resolv.conf` and `hosts`.
    Files(PathBuf),
}

pub const PYTHON: Language = Language::new("python", Family::Core);

/// Java asks the machine's resolver.
pub const JAVA: Language = Language { asks_system: true, ..Language::new("java", Family::Java) };

/// Clients with xDS. Those of C-core have it without a further package.
pub const XDS_PYTHON: Language = PYTHON;
/// Debian's, which is three years older than Python's.
pub const XDS_CPP: Language = Language::new("cpp", Family::Core);
pub const XDS_GO: Language = Language::new("go-xds", Family::Go);
pub const XDS_JAVA: Language = Language::new("java-xds", Family::Java);
pub const XDS_NODE: Language = Language::new("node-xds", Family::Core);
/// tonic-xds, an implementation of its own.
pub const XDS_RUST: Language = Language::new("rust-xds", Family::Core);

/// Node.js. It has no grpclb and its own implementation of gRPC.
pub const NODE: Language = Language::new("node", Family::Core);

/// A script that mounts the files of a directory, its first argument, over those of `/etc`,
/// and then runs the command that follows.
const ENTER: &str = r#"
for file in "$1"/*; do
    mount --bind "$file" "/etc/${file##*/}" || exit
done
shift
exec "$@"
"#;

/// Every language with a grpclb, with or without a driver in this tree.
const ALL: [Language; 7] = [
    PYTHON,
    Language::new("cpp", Family::Core),
    Language::new("ruby", Family::Core),
    Language::new("php", Family::Core),
    Language::new("go", Family::Go),
    Language::new("go-old", Family::Go),
    JAVA,
];

impl Language {
    const fn new(name: &'static str, family: Family) -> Self {
        Self { name, family, asks_system: false }
    }

    /// Returns the languages with a grpclb whose drivers are in this tree.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter().filter(|language| language.home().join("driver").exists())
    }

    /// Returns the language of this name, with or without a grpclb.
    #[track_caller]
    pub fn named(name: &str) -> Self {
        let found = Self::all().chain([NODE]).find(|language| language.name == name);
        found.unwrap_or_else(|| panic!("no driver for {name}"))
    }

    /// Builds the driver, once per process. The error names what is missing on this machine.
    pub fn build(&self) -> Result<(), String> {
        static BUILT: Mutex<Option<HashMap<&str, Result<(), String>>>> = Mutex::new(None);
        // The lock is held during the build, so that other threads wait for it.
        let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let built = built.get_or_insert_default();
        built.entry(self.name).or_insert_with(|| self.build_now()).clone()
    }

    /// Returns the reason why the driver cannot run on this machine.
    pub fn obstacle(&self) -> Option<String> {
        if self.asks_system && !namespaces() {
            return Some(
                "it asks /etc/resolv.conf, and only root on Linux can stand in for it".into(),
            );
        }
        self.build().err()
    }

    pub(super) fn command(&self, resolver: &Resolver) -> Command {
        resolver.command(self.home().join("driver"))
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

impl Resolver {
    /// Returns a command that runs a program with this resolver, and without the machine's
    /// proxy, which must not be used for loopback.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self {
            Self::System => Command::new(program),
            Self::Files(directory) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", ENTER, "sh"]).arg(directory).arg(program);
                command
            }
        };
        for name in ["http_proxy", "https_proxy", "grpc_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
    }
}

/// Returns whether this process can replace `/etc/resolv.conf` for its children.
fn namespaces() -> bool {
    let mut command = Command::new("unshare");
    let script = "mount --bind /dev/null /etc/resolv.conf";
    command.args(["--mount", "sh", "-c", script]).stdin(Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}
