//! Tests certificates and passwords for etcd that are replaced while the source follows
//! it.
//!
//! In: changed files. Out: a source that uses them for its next connection or login.

use super::{Mirror, WAIT_MAX};
use crate::support::cluster::Cluster;
use crate::support::etcd::Etcd;
use etcd_client::{Client, ConnectOptions};
use lookaside::config::etcd_args::EtcdArgs;
use lookaside::registry::etcd::Connect;
use tokio::time::timeout;

fn connect(args: &EtcdArgs) -> Connect {
    let mut problems = Vec::new();
    args.validate(&mut problems).unwrap_or_else(|| panic!("{problems:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_for_each_connection() {
    let mut etcd = Cluster::start_with_tls();
    let path = |path: &std::path::Path| Some(path.to_str().expect("a path is text").to_owned());
    let files = etcd.certificates().clone();
    let connect = connect(&EtcdArgs {
        etcd: Some(etcd.url(0)),
        etcd_ca: path(&files.ca),
        etcd_cert: path(&files.cert),
        etcd_key: path(&files.key),
        ..EtcdArgs::default()
    });
    let mut mirror = Mirror::of(connect, &["/s/"], 64);
    mirror.until("a first reading", |mirror| mirror.resets == 1).await;
    // The authority and the key are new, so the former files do not fit any more.
    files.renew();
    etcd.restart(0);
    assert!(etcd.ctl(0, &["put", "/s/hello/1", "10.0.0.1:1"]));
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    // With a broken file, the former certificates stay in use.
    std::fs::write(&files.ca, "nonsense").expect("a file");
    let (resets, stale) = (mirror.resets, mirror.stale.len());
    etcd.freeze(0);
    mirror.until("a stale registry", |mirror| mirror.stale.len() > stale).await;
    etcd.thaw(0);
    mirror.until("a reading", |mirror| mirror.resets > resets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_taken_up_without_a_gap() {
    let mut etcd = Etcd::start();
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["role", "add", "reader"]);
    etcd.ctl(&["role", "grant-permission", "--prefix=true", "reader", "read", "/s/"]);
    etcd.ctl(&["user", "add", "me:old"]);
    etcd.ctl(&["user", "grant-role", "me", "reader"]);
    etcd.ctl(&["auth", "enable"]);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "old\n").expect("a file");
    let connect = connect(&EtcdArgs {
        etcd: Some(etcd.url()),
        etcd_user: Some("me".into()),
        etcd_password_file: Some(file.to_str().expect("a path is text").into()),
        ..EtcdArgs::default()
    });
    let mut mirror = Mirror::of(connect, &["/s/"], 64);
    mirror.until("a first reading", |mirror| mirror.resets == 1).await;

    // The password changes in etcd first and then in the file. Open calls go on.
    let options = ConnectOptions::new().with_user("root", "secret");
    let mut root = Client::connect([etcd.url()], Some(options)).await.expect("etcd answers");
    root.user_change_password("me", "new").await.expect("root may");
    let before = mirror.fresh;
    mirror.until("signs of life", |mirror| mirror.fresh >= before + 2).await;
    root.put("/s/hello/1", "10.0.0.1:1", None).await.expect("root may");
    mirror.until_has(&[("/s/hello/1", "10.0.0.1:1")]).await;
    assert_eq!((mirror.resets, mirror.stale.len()), (1, 0), "{:?}", mirror.stale);

    std::fs::write(&file, "new\n").expect("a file");
    mirror.until("a reading with the new login", |mirror| mirror.resets == 2).await;
    assert_eq!(mirror.stale.len(), 0, "{:?}", mirror.stale);
    timeout(WAIT_MAX, root.put("/s/hello/2", "10.0.0.2:1", None))
        .await
        .expect("in time")
        .expect("a put");
    mirror.until("the next key", |mirror| mirror.keys.len() == 2).await;

    // An etcd that restarts asks for the password again.
    root.user_change_password("me", "newer").await.expect("root may");
    etcd.kill();
    std::fs::write(&file, "newer\n").expect("a file");
    etcd.restart();
    mirror.until("a reading with the newest", |mirror| mirror.resets == 3).await;
    assert_eq!(mirror.keys.len(), 2);
}
