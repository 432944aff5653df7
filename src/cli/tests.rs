//! Tests that flags, variables and keys of the file are one list of settings.

use super::*;
use crate::config::file;

/// Returns the settings of `serve` as text, without their origins.
fn told(arguments: &[&str]) -> String {
    let arguments = ["lookaside", "serve"].iter().chain(arguments).map(OsString::from).collect();
    let mut cli = parse(arguments).expect("arguments that are right");
    let args = cli.command.serve_args().expect("it is serve");
    assert_eq!(args.sources.problems, [""; 0]);
    args.sources = Default::default();
    args.config = None;
    // The `Debug` output leaves out etcd's endpoints.
    format!("{:?} {args:?} {:?}", cli.log, args.etcd.etcd)
}

/// Returns the flags of `serve` that are settings.
fn flags() -> Vec<clap::Arg> {
    let mut command = command();
    command.build();
    let serve = command.find_subcommand("serve").expect("there is serve");
    let no_settings = ["config", "help", "version"];
    let setting = |arg: &&clap::Arg| !no_settings.contains(&arg.get_long().unwrap_or_default());
    serve.get_arguments().filter(setting).cloned().collect()
}

#[test]
fn every_flag_is_a_key_of_the_file_and_a_variable() {
    let mut flags = flags();
    flags.sort_by_key(|flag| flag.get_long().map(str::to_owned));
    let named: Vec<_> = flags.iter().filter_map(clap::Arg::get_long).collect();
    let mut keys = file::keys().to_vec();
    keys.sort_unstable();
    assert_eq!(named, keys);
    for flag in &flags {
        let name = flag.get_long().expect("it has a name").to_uppercase().replace('-', "_");
        let variable = flag.get_env().expect("it has a variable").to_string_lossy();
        assert_eq!(variable, format!("LOOKASIDE_{name}"));
    }
}

#[test]
fn a_key_says_what_its_flag_does_and_the_flag_wins() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("lookaside.toml");
    let config = format!("--config={}", path.display());
    let plain = told(&[]);
    for flag in flags() {
        let name = flag.get_long().unwrap();
        let said = told(&[&format!("--{name}=from-the-file")]);
        assert_ne!(said, plain, "{name}");
        std::fs::write(&path, format!("{name} = 'from-the-file'\n")).unwrap();
        assert_eq!(told(&[&config]), said, "{name}");
        let won = format!("--{name}=from-the-flag");
        assert_eq!(told(&[&config, &won]), told(&[&won]), "{name}");
    }
}
