//! The limit of open files of this process.

/// Raises the limit of open files to the allowed maximum. Thousands of backends or clients
/// need as many connections, here and in drivers, which inherit the limit.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("every process may raise its limit to the maximum");
}
