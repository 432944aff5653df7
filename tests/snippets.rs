//! Every command and snippet of the README and of docs/, run as it is written.
//!
//! In: the Markdown pages. Out: a failure for each block that does not do what its page says,
//! and for each block that no test runs, with page and line. `table` says what runs a block.

#[path = "snippets/clients.rs"]
mod clients;
#[path = "snippets/formats.rs"]
mod formats;
#[path = "snippets/inline.rs"]
mod inline;
#[path = "snippets/languages.rs"]
mod languages;
#[path = "snippets/operate.rs"]
mod operate;
#[path = "snippets/page.rs"]
mod page;
#[path = "snippets/policy.rs"]
mod policy;
#[path = "snippets/readme.rs"]
mod readme;
#[path = "snippets/resolvers.rs"]
mod resolvers;
#[path = "snippets/splits.rs"]
mod splits;
#[path = "snippets/table.rs"]
mod table;
#[path = "snippets/world.rs"]
mod world;

use std::process::Command;

use crate::support::namespace::{is_inside, isolated};

/// Makes a test of each scene: it plays the blocks that `table` gives to the scene. The list
/// names what `scripts/need` installs before.
macro_rules! scenes {
    ($($test:ident $scene:ident $needs:expr,)*) => {
        /// Blocks that are run one after another in one world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Scene {
            /// Needs neither a network nor other programs.
            Anywhere,
            $($scene),*
        }

        $(#[test]
        fn $test() {
            prepare(&$needs);
            isolated(|| table::play(Scene::$scene));
        })*
    };
}

scenes! {
    the_readme_works_from_top_to_bottom Readme ["etcd", "python"],
    backends_register_themselves Register ["etcd", "python"],
    clients_connect Connect ["etcd", "python", "ruby", "cpp", "go"],
    a_listing_is_explained Admin ["etcd"],
    backends_are_drained Marks ["etcd"],
    held_backends_are_released Faults ["etcd"],
    settings_are_applied Settings ["etcd"],
    a_newcomer_gets_its_share_in_steps Policy ["etcd"],
    a_sick_backend_is_left_out Health ["etcd"],
    a_backend_with_tls_says_by_tls_that_it_is_sick Tls ["etcd"],
    clients_call_busy_backends_less_and_drop_what_none_can_serve Load ["etcd", "python"],
    clients_keep_to_their_zone Zones ["etcd", "python"],
    clients_obey_operators_and_keys Orders ["etcd", "python"],
    a_dry_run_reads_etcd Formats ["etcd"],
    every_frameworks_command_reads_its_format Servers ["etcd"],
    resolvers_forward_to_the_balancer Dns ["etcd", "dig", "resolvers"],
    the_embedded_registry_takes_etcdctl Embedded ["etcd"],
}

#[test]
fn what_needs_no_network_works() {
    table::play(Scene::Anywhere);
}

#[test]
fn every_block_is_run_by_a_scene() {
    let breaches = table::breaches();
    assert!(breaches.is_empty(), "\n  {}", breaches.join("\n  "));
}

#[test]
fn inline_code_names_what_is_there() {
    let breaches = inline::breaches();
    assert!(breaches.is_empty(), "\n  {}", breaches.join("\n  "));
}

/// Installs what a scene needs. Within the namespace there is no network to install from.
/// A scene itself skips what is still missing.
fn prepare(needs: &[&str]) {
    if is_inside() || !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        return;
    }
    for need in needs {
        // It says itself what is wrong.
        let _ = Command::new(page::root().join("scripts/need")).arg(need).status();
    }
    if needs.contains(&"cpp") {
        languages::build();
    }
}
