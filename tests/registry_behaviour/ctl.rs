//! Cases with unmodified `etcdctl`.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::registry_behaviour::scene::Scene;
use crate::support::signal::{self, Signal};

impl Scene {
    fn etcdctl(&self, args: &[&str]) -> Command {
        let endpoint = self.url.trim_start_matches("http://");
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoint}")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn ctl(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = self.etcdctl(args).spawn().context("etcdctl: Debian's etcd-client")?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "etcdctl {args:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn see(&mut self, args: &[&str], input: &str) -> Result<String> {
        let output = self.ctl(args, input).await?;
        self.note(format!("{args:?}: {output}"));
        Ok(output)
    }
}

pub async fn commands(s: &mut Scene) -> Result<()> {
    let (a, b, prefix) = (s.key("a"), s.key("b"), s.prefix.clone());
    let mut watching = s.etcdctl(&["watch", "--prefix", "--prev-kv", &prefix]).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("a pipe")?).lines();
    // etcdctl prints nothing when its watch begins, so the case writes until it prints.
    while tokio::select! {
        line = lines.next_line() => { line?; false }
        () = tokio::time::sleep(std::time::Duration::from_millis(100)) => true,
    } {
        s.ctl(&["put", &s.key("begin"), "1"], "").await?;
    }
    s.see(&["put", &a, "1"], "").await?;
    s.see(&["put", "--prev-kv", &a, "2"], "").await?;
    s.see(&["put", &b, "1"], "").await?;
    s.see(&["get", "--prefix", &prefix, "--sort-by=KEY", "--order=DESCEND"], "").await?;
    s.see(&["get", "--prefix", "--keys-only", "--limit=1", &prefix], "").await?;
    let txn = format!("ver(\"{a}\") = \"0\"\n\nput {a} created\n\nput {a} updated\nget {a}\n\n");
    s.see(&["txn"], &txn).await?;
    s.see(&["del", "--prev-kv", &a], "").await?;
    seen_by_watch(&mut lines, &[&a, "2", &a, "updated", "DELETE", &a]).await?;
    watching.start_kill()?;

    let granted = s.ctl(&["lease", "grant", "60"], "").await?;
    let lease = granted.split(' ').nth(1).context("lease ID granted with TTL(60s)")?.to_owned();
    s.ctl(&["put", &a, "leased", &format!("--lease={lease}")], "").await?;
    let standing = s.ctl(&["lease", "timetolive", "--keys", &lease], "").await?;
    ensure!(standing.contains("granted with TTL(60s)") && standing.contains(&a), "{standing}");
    let kept = s.ctl(&["lease", "keep-alive", "--once", &lease], "").await?;
    ensure!(kept.contains("keepalived with TTL(60)"), "{kept}");
    ensure!(s.ctl(&["lease", "list"], "").await?.contains(&lease), "it is listed");
    s.ctl(&["lease", "revoke", &lease], "").await?;
    s.see(&["get", &a], "").await?;

    ensure!(s.ctl(&["member", "list"], "").await?.contains(&s.url), "its URL is listed");
    ensure!(s.ctl(&["endpoint", "status", "-w=table"], "").await?.contains("3."), "a version");
    s.ctl(&["endpoint", "health"], "").await?;
    s.see(&["alarm", "list"], "").await?;
    let newest = s.client.get("any", None).await?.header().context("a header")?.revision();
    s.ctl(&["compaction", &newest.to_string()], "").await?;
    let again = s.ctl(&["compaction", &newest.to_string()], "").await;
    s.note(format!("{:?}", again.is_err_and(|e| e.to_string().contains("has been compacted"))));
    lock(s).await
}

/// A client that sends a name and a password is served without a check of them.
pub async fn users(s: &mut Scene) -> Result<()> {
    let a = s.key("a");
    s.see(&["--user", "root:root", "put", &a, "1"], "").await?;
    s.see(&["--user", "root:root", "get", &a], "").await?;
    s.see(&["user", "add", "joe:secret"], "").await?;
    s.see(&["role", "add", "reader"], "").await?;
    s.see(&["user", "grant-role", "joe", "reader"], "").await?;
    s.see(&["--user", "joe:secret", "user", "get", "joe"], "").await?;
    s.see(&["user", "list"], "").await?;
    s.see(&["role", "list"], "").await?;
    s.see(&["role", "delete", "reader"], "").await?;
    s.see(&["user", "delete", "joe"], "").await?;
    let enabled = s.ctl(&["auth", "enable"], "").await;
    s.note(enabled.is_err_and(|e| e.to_string().contains("root user does not exist")).to_string());
    Ok(())
}

/// etcdctl's lock uses transactions, a session's lease and watches.
async fn lock(s: &mut Scene) -> Result<()> {
    let name = s.key("lock");
    let mut first: Child = s.etcdctl(&["lock", &name]).spawn()?;
    let mut held = BufReader::new(first.stdout.take().context("a pipe")?).lines();
    ensure!(held.next_line().await?.context("the lock is taken")?.starts_with(&name));
    let mut second: Child = s.etcdctl(&["lock", &name]).spawn()?;
    let mut waiting = BufReader::new(second.stdout.take().context("a pipe")?).lines();
    // The first lock ends (its lease is revoked), and the second client gets it.
    signal::send(first.id().context("it runs")?, Signal::INT);
    ensure!(waiting.next_line().await?.context("the lock is passed on")?.starts_with(&name));
    s.note("the lock was passed on");
    signal::send(second.id().context("it runs")?, Signal::INT);
    second.wait().await?;
    Ok(())
}

async fn seen_by_watch(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    wanted: &[&str],
) -> Result<()> {
    for wanted in wanted {
        loop {
            let line = lines.next_line().await?.context("the watch goes on")?;
            if line == *wanted {
                break;
            }
        }
    }
    Ok(())
}
