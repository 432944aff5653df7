//! Tests of the dashboard in a real browser, driven by WebDriver: it goes on updating
//! while text is selected, says when the balancer is lost or settings are refused, and asks for
//! a token.

use std::process::{Child, Command, Stdio};

use crate::support::ads::{self, Kind};
use crate::support::lookaside::Balancer;
use crate::support::raw_call::RawCall;
use crate::support::signal::Signal;
use crate::support::wire;
use crate::support::{eventually, free_port, skip};
use serde_json::{Value, json};

/// A browser with one page.
struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    /// Starts a browser, or returns `None` if chromedriver is not installed.
    fn start() -> Option<Self> {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let base = format!("http://127.0.0.1:{port}");
        let args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let capabilities =
            json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": args}}}});
        let mut browser = Self { driver, session: String::new() };
        let started =
            eventually("the browser starts", || post(&format!("{base}/session"), &capabilities));
        let id = started["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("{base}/session/{id}");
        Some(browser)
    }

    fn open(&self, url: &str) {
        post(&format!("{}/url", self.session), &json!({"url": url})).expect("the page opens");
    }

    fn run(&self, script: &str) -> Value {
        let script = json!({"script": script, "args": []});
        post(&format!("{}/execute/sync", self.session), &script).expect("the script runs")
    }

    /// Returns the text of an element.
    fn text(&self, id: &str) -> String {
        let script = format!("return document.getElementById({id:?}).textContent");
        self.run(&script).as_str().expect("text").to_owned()
    }

    #[track_caller]
    fn until(&self, id: &str, says: &str) {
        eventually(says, || self.text(id).contains(says).then_some(()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn post(url: &str, body: &Value) -> Option<Value> {
    let request = ureq::post(url).config().proxy(None).build();
    let request = request.header("content-type", "application/json");
    let text = request.send(body.to_string()).ok()?.body_mut().read_to_string().ok()?;
    Some(serde_json::from_str::<Value>(&text).ok()?["value"].clone())
}

#[test]
fn selected_text_freezes_nothing_and_a_lost_balancer_is_said() {
    let Some(browser) = Browser::start() else {
        return skip(
            "selected_text_freezes_nothing",
            "chromedriver is missing: scripts/need chromium",
        );
    };
    let mut balancer = Balancer::start(&[]);
    balancer.wait_ready();
    browser.open(&format!("http://{}/", balancer.admin()));
    browser.until("state", "ready");
    let put = |id: &str| balancer.register("hello", id, &format!("10.0.0.1:{id}"));
    put("1");
    browser.until("services", "10.0.0.1:1");
    browser.run("getSelection().selectAllChildren(document.getElementById('services'))");
    put("2");
    browser.until("services", "10.0.0.1:2");
    let selected = browser.run("return getSelection().toString()");
    assert!(selected.as_str().expect("text").contains("hello.lookaside.internal"), "{selected}");
    balancer.kill();
    browser.until("state", "no answer for");
    assert!(!browser.text("state").contains("ready"));
    assert!(browser.run("return document.title").as_str().expect("text").contains("no answer"));
}

/// A refused document is not in force, so the page says at its top what is wrong, where it came
/// from and since when.
#[test]
fn refused_settings_are_said_at_the_top() {
    let Some(browser) = Browser::start() else {
        return skip(
            "refused_settings_are_said_at_the_top",
            "chromedriver is missing: scripts/need chromium",
        );
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("it is written");
    write("[service.hello]\nguard = 10\n");
    let path = file.path().to_str().expect("a path is text");
    let balancer = Balancer::start(&["--config", path]);
    balancer.wait_ready();
    browser.open(&format!("http://{}/", balancer.admin()));
    browser.until("state", "ready");
    let hidden = || browser.run("return document.getElementById('refused-settings').hidden");
    assert_eq!(hidden(), true);
    let key = "/lookaside/settings/lookaside.internal";
    let put = |text: &str| {
        let registry = balancer.registry().to_string();
        let args = ["--endpoints", &registry, "put", key, text];
        let put = Command::new("etcdctl").env("ETCDCTL_API", "3").args(args).output();
        assert!(put.expect("etcdctl runs").status.success());
    };
    put("version = 0\n");
    browser.until("refused-documents", &format!("etcd, {key}, for "));
    assert_eq!(hidden(), false);
    let shown = browser.text("refused-documents");
    assert!(shown.contains("1:11: version is 0: this lookaside reads version = 1"), "{shown}");
    assert!(shown.contains("lookaside settings apply FILE"), "{shown}");
    browser.until("state", "the settings of etcd are refused");
    let top = "const at = (id) => document.getElementById(id).getBoundingClientRect().top; \
               return at('refused-settings') < at('facts')";
    assert_eq!(browser.run(top), true, "it is above all tables");
    // A text from etcd is text, whatever is in it.
    put("'<img src=x onerror=alert(1)>' = 1\n");
    browser.until("refused-documents", "<img src=x onerror=alert(1)>");
    assert_eq!(browser.run("return document.images.length"), 0);

    write("[service.hello]\nguard = 101\n");
    balancer.signal(Signal::HUP);
    browser.until("refused-documents", &format!("the file, {path}, for "));
    browser.until("state", "the settings of the file are refused");
    put("version = 1\n");
    write("[service.hello]\nguard = 11\n");
    balancer.signal(Signal::HUP);
    eventually("nothing is refused", || (hidden() == true).then_some(()));
    assert!(!browser.text("state").contains("refused"));
}

/// Two clients of one service, of which the one by xDS refuses its backends.
#[test]
fn protocols_versions_and_refusals_are_shown() {
    let Some(browser) = Browser::start() else {
        return skip(
            "protocols_versions_and_refusals_are_shown",
            "chromedriver is missing: scripts/need chromium",
        );
    };
    let balancer = Balancer::start(&[]);
    balancer.wait_ready();
    balancer.register("hello", "1", "10.0.0.1:1");
    balancer.wait_listed("hello", "1");
    let mut grpclb = RawCall::open(balancer.grpclb(), wire::BALANCE_LOAD);
    grpclb.send(&wire::balance_request("hello"));
    let _first = (grpclb.next(), grpclb.next());
    let mut xds = RawCall::open(balancer.grpclb(), ads::PATH);
    xds.send(&ads::request(Kind::Endpoints, "hello", b"", b"", true));
    let response = xds.next();
    let response = ads::Response::parse(&response);
    let version = std::str::from_utf8(response.version).expect("text");
    browser.open(&format!("http://{}/", balancer.admin()));
    let cells = |key: &str| {
        let script = "return [...document.querySelectorAll('tr')].filter((row) => row.dataset.key";
        let cells = "[...row.cells].map((cell) => cell.textContent)";
        let row = browser.run(&format!("{script} === {key:?}).map((row) => {cells})[0]"));
        row.as_array()
            .map(|row| row.iter().map(|cell| cell.as_str().expect("text").to_owned()))
            .map(Iterator::collect::<Vec<_>>)
            .unwrap_or_default()
    };
    browser.until("clients", "nothing yet");
    let row = cells("xds-0 hello");
    assert_eq!(row[..1], ["xds-0"]);
    assert_eq!(row[2..8], ["xDS", "hello", "hello", "list\u{a0}of\u{a0}1", version, "nothing yet"]);
    let row = cells("grpclb-0 hello");
    assert_eq!(row[2..8], ["grpclb", "hello", "hello", "list\u{a0}of\u{a0}1", "–", "–"]);
    // Clients together, by grpclb, by xDS.
    assert_eq!(cells("hello")[3..6], ["2", "1", "1"]);
    xds.send(&ads::refusal(Kind::Endpoints, "hello", response.nonce, "do <b>not</b> like it"));
    browser.until("clients", "refused: do <b>not</b> like it");
    // It accepts the next one.
    balancer.register("hello", "2", "10.0.0.1:2");
    let response = xds.next();
    let response = ads::Response::parse(&response);
    let version = std::str::from_utf8(response.version).expect("text");
    xds.send(&ads::request(Kind::Endpoints, "hello", response.version, response.nonce, false));
    eventually("the new version is acknowledged", || {
        (cells("xds-0 hello")[6..8] == [version, version]).then_some(())
    });
    assert!(!browser.text("clients").contains("refused"));
}

#[test]
fn a_token_is_asked_for_and_kept_in_the_tab() {
    let Some(browser) = Browser::start() else {
        return skip(
            "a_token_is_asked_for_and_kept_in_the_tab",
            "chromedriver is missing: scripts/need chromium",
        );
    };
    let token = "reader-token-0123456789";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), token).expect("it is written");
    let path = file.path().to_str().expect("a path is text");
    let balancer = Balancer::start(&["--admin-reader-tokens", path]);
    balancer.wait_ready();
    let page = format!("http://{}/", balancer.admin());
    browser.open(&page);
    browser.until("state", "a token is needed");
    let hidden = |id: &str| browser.run(&format!("return document.getElementById({id:?}).hidden"));
    let send = |token: &str| {
        browser.run(&format!(
            "document.getElementById('token').value = {token:?}; \
             document.querySelector('#login button').click()"
        ));
    };
    assert_eq!((hidden("login"), hidden("all")), (false.into(), true.into()));
    send("grün");
    browser.until("refused", "letters, digits and signs only");
    send("reader-token-0123456780");
    browser.until("refused", "does not know this token");
    send(token);
    browser.until("state", "ready");
    assert_eq!((hidden("login"), hidden("all")), (true.into(), false.into()));
    assert_eq!(browser.run("return document.getElementById('token').value"), "");
    let kept =
        "return [sessionStorage.length, localStorage.length, document.cookie, location.href]";
    assert_eq!(browser.run(kept), json!([1, 0, "", page]), "it is kept in the tab alone");
    browser.open(&page);
    browser.until("state", "ready");
    // The token is replaced: the page asks again and shows nothing old.
    std::fs::write(file.path(), "reader-token-of-next-week").expect("it is written");
    browser.until("state", "a token is needed");
    assert_eq!(hidden("all"), true);
    assert_eq!(browser.run("return sessionStorage.length"), 0);
    send("reader-token-of-next-week");
    browser.until("state", "ready");
    assert!(!balancer.log().contains("reader-token"), "{}", balancer.log());
}
