//! Says what runs each fenced block of the pages.
//!
//! A row takes the blocks of a page that have its tag and begin with its text. A scene runs
//! its blocks in the order of the pages.

use std::time::Instant;

use super::page::{Block, blocks, pages, read};
use super::world::World;
use super::{
    Scene, clients, formats, inline, languages, operate, policy, readme, resolvers, splits,
};

struct Row {
    /// A page, or a folder of pages.
    page: &'static str,
    tag: &'static str,
    begins: &'static str,
    scene: Scene,
    run: fn(&mut World, &Block),
}

const fn row(
    page: &'static str,
    tag: &'static str,
    begins: &'static str,
    scene: Scene,
    run: fn(&mut World, &Block),
) -> Row {
    Row { page, tag, begins, scene, run }
}

use Scene::{
    Admin, Anywhere, Connect, Dns, Embedded, Faults, Formats, Health, Load, Marks, Orders, Policy,
    Readme, Register, Servers, Settings, Tls, Zones,
};

const ROWS: &[Row] = &[
    row("README.md", "text", "  your backends", Anywhere, drawing),
    // CI runs both, and a test that runs all tests has no end.
    row("README.md", "console", "$ make demo", Anywhere, inline::names),
    row("README.md", "console", "$ lookaside check --live", Readme, formats::dry_run),
    row("README.md", "console", "$ lookaside serve", Readme, readme::serve),
    row("README.md", "console", "$ lookaside register", Readme, readme::register),
    row("README.md", "python", "channel = ", Readme, languages::python),
    row("README.md", "go", "import", Anywhere, languages::go),
    row("README.md", "console", "$ lookaside services", Readme, readme::look),
    row("ARCHITECTURE.md", "text", " registry/etcd", Anywhere, drawing),
    row("docs/admin.md", "text", "$ lookaside explain", Admin, operate::explain),
    row("docs/authorization.md", "toml", "# clients", Settings, operate::checked_document),
    row("docs/authorization.md", "toml", "# registrants", Settings, operate::checked_document),
    row("docs/authorization.md", "text", "deploy/etcd-roles", Anywhere, operate::script),
    row("docs/connect.md", "python", "channel = ", Connect, languages::python),
    row("docs/connect.md", "go", "import", Anywhere, languages::go),
    row("docs/connect.md", "java", "ManagedChannel", Anywhere, languages::java),
    row("docs/connect.md", "cpp", "grpc::", Connect, languages::cpp),
    row("docs/connect.md", "ruby", "stub = ", Connect, languages::ruby),
    row("docs/dns.md", "console", "$ lookaside serve", Dns, resolvers::ask_directly),
    row("docs/xds.md", "toml", "# xds.toml", Policy, policy::xds_document),
    row("docs/xds.md", "console", "$ lookaside xds-bootstrap", Anywhere, inline::names),
    // A test of Envoy itself takes it from there (tests/envoy.rs).
    row("docs/xds.md", "yaml", "# envoy.yaml", Anywhere, drawing),
    row("docs/dns.md", "text", "options {", Dns, resolvers::bind),
    row("docs/dns.md", "text", "server:", Dns, resolvers::unbound),
    row("docs/dns.md", "text", "zone \"lookaside.internal\"", Dns, resolvers::bind_secondary),
    row("docs/dns.md", "text", "remote:", Dns, resolvers::knot_secondary),
    row("docs/dns.md", "text", "server=", Dns, resolvers::dnsmasq),
    row(
        "docs/dns.md",
        "text",
        "lookaside.internal:53 {\n    errors\n    cache",
        Dns,
        resolvers::names_both_balancers,
    ),
    row(
        "docs/dns.md",
        "text",
        "lookaside.internal:53 {\n    errors\n    etcd",
        Dns,
        resolvers::coredns_etcd,
    ),
    row("docs/dns.md", "ini", "[Resolve]", Dns, resolvers::names_both_balancers),
    row("docs/dns.md", "text", "lb.example.com.", Dns, resolvers::delegation),
    row("docs/dns.md", "console", "$ lookaside dns-records", Dns, resolvers::static_records),
    row("docs/embedded-registry.md", "sh", "export ETCDCTL", Embedded, operate::etcdctl),
    row("docs/faults.md", "console", "$ lookaside release", Faults, operate::release),
    // The test itself is one of `make test`.
    row("docs/faults.md", "console", "$ cargo test", Anywhere, inline::names),
    row("docs/formats.md", "sh", "lookaside check --live", Formats, formats::dry_run),
    row("docs/formats.md", "toml", "prefix = ", Anywhere, formats::description),
    row("docs/formats.md", "toml", "[format.", Anywhere, formats::description),
    row("docs/marks.md", "text", "$ lookaside drain", Marks, operate::drain),
    row("docs/marks.md", "text", "$ lookaside shed", Marks, operate::tell_clients),
    row("docs/marks.md", "text", "$ lookaside fallback", Marks, operate::tell_clients),
    row("docs/marks.md", "console", "$ etcdctl put", Marks, operate::drain_by_etcdctl),
    row("docs/policy.md", "toml", "# policy.toml", Policy, policy::document),
    row("docs/policy.md", "text", "$ lookaside settings apply policy", Policy, policy::newcomer),
    row("docs/policy.md", "text", "  started", Policy, policy::explained),
    row("docs/policy.md", "toml", "# health.toml", Health, policy::health_document),
    row("docs/policy.md", "text", "$ lookaside settings apply health", Health, policy::sick),
    row("docs/policy.md", "toml", "# tls.toml", Tls, clients::tls),
    row("docs/policy.md", "text", "  healthy", Health, policy::sickness),
    row("docs/policy.md", "toml", "# load.toml", Load, clients::document),
    row("docs/policy.md", "text", "$ lookaside settings apply load", Load, clients::load),
    row("docs/policy.md", "toml", "# canary.toml", Policy, splits::document),
    row("docs/policy.md", "text", "$ lookaside settings apply canary", Policy, splits::canary),
    row("docs/policy.md", "text", "  split", Policy, splits::explained),
    row("docs/policy.md", "toml", "# clients.toml", Policy, splits::in_force),
    row("docs/policy.md", "toml", "# ramp.toml", Policy, splits::in_force),
    row("docs/policy.md", "toml", "# keys.toml", Policy, policy::keys),
    row("docs/policy.md", "toml", "# zones.toml", Zones, clients::document),
    row("docs/policy.md", "text", "$ lookaside settings apply zones", Zones, clients::zones),
    row("docs/policy.md", "toml", "# subset.toml", Policy, policy::subset_document),
    row("docs/policy.md", "text", "$ lookaside settings apply subset", Policy, policy::subset),
    row("docs/policy.md", "text", "  subset", Policy, policy::subset_explained),
    row("docs/policy.md", "toml", "# shed.toml", Load, clients::document),
    row("docs/policy.md", "text", "$ lookaside settings apply shed", Load, clients::overload),
    row("docs/policy.md", "text", "$ lookaside drain", Orders, clients::drain),
    row("docs/policy.md", "text", "$ lookaside shed", Orders, clients::shed),
    row("docs/policy.md", "text", "$ lookaside fallback", Orders, clients::fallback),
    row("docs/policy.md", "text", "$ lookaside explain hash", Orders, clients::key),
    row("docs/register.md", "console", "$ lookaside register", Register, readme::register_and_end),
    row("docs/register.md", "rust", "let held = ", Connect, languages::rust),
    row("docs/register.md", "go", "func register", Connect, languages::go_register),
    row("docs/settings.md", "toml", "# settings.toml", Settings, operate::settings_document),
    row("docs/settings.md", "text", "$ lookaside settings check", Settings, operate::settings),
    row("docs/settings.md", "toml", "# networks.toml", Settings, operate::networks),
    row("docs/settings.md", "toml", "# diff.toml", Settings, operate::checked_document),
    row("docs/settings.md", "text", "$ lookaside settings diff", Settings, operate::list_changes),
    row("docs/servers/", "sh", "lookaside serve --etcd URL", Servers, formats::framework),
];

/// Runs the blocks of a scene.
#[track_caller]
pub(super) fn play(scene: Scene) {
    let mut world = World::new();
    for (block, row) in all().iter().filter_map(|block| Some((block, rows(block).next()?))) {
        if row.scene == scene {
            let began = Instant::now();
            println!("{} ...", block.at());
            (row.run)(&mut world, block);
            println!("{} took {:?}", block.at(), began.elapsed());
        }
    }
}

/// Returns the blocks that no row takes, or several do, and the rows that take none.
pub(super) fn breaches() -> Vec<String> {
    let blocks = all();
    let mut breaches = Vec::new();
    for block in &blocks {
        let (at, tag) = (block.at(), &block.tag);
        match rows(block).count() {
            1 => {}
            0 => breaches.push(format!(
                "{at}: no test runs this block (`{tag}`): give it a row in tests/snippets/table.rs"
            )),
            n => {
                breaches.push(format!("{at}: {n} rows of tests/snippets/table.rs take this block"))
            }
        }
    }
    for row in ROWS.iter().filter(|row| !blocks.iter().any(|block| row.takes(block))) {
        let Row { page, tag, begins, .. } = row;
        breaches.push(format!("{page}: no block `{tag}` begins with {begins:?}: remove its row"));
    }
    breaches
}

impl Row {
    fn takes(&self, block: &Block) -> bool {
        let page = block.page == self.page
            || self.page.ends_with('/') && block.page.starts_with(self.page);
        page && block.tag == self.tag && block.text.starts_with(self.begins)
    }
}

fn rows(block: &Block) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| row.takes(block))
}

fn all() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks(page)).collect()
}

/// There is nothing to run; `tidy` compares ARCHITECTURE.md with the sources.
fn drawing(_: &mut World, block: &Block) {
    assert!(read(&block.page).lines().nth(block.line).is_some());
}
