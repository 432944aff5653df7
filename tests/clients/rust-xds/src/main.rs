//! A real tonic-xds client, steered over standard input by lines of JSON.
//!
//! In: commands. Out: one line of JSON for each, with the same `id` and either `ok` or
//! `error`. The README beside the clients has the commands and the reports. The client is
//! unmodified: nothing here knows of lookaside.

mod channel;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use channel::{Calls, Channel, Opening};

/// The version of tonic-xds in Cargo.toml.
const VERSION: &str = "tonic-xds 0.1.0-alpha.4";

#[derive(Deserialize)]
struct Command {
    id: u64,
    r#do: String,
    #[serde(default)]
    channel: u64,
    /// What a kind of command has beside these.
    #[serde(flatten)]
    rest: Value,
}

/// Carries out commands.
struct Driver {
    runtime: Handle,
    channels: Mutex<HashMap<u64, Arc<Channel>>>,
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let channels = Mutex::default();
    let driver = Arc::new(Driver { runtime: runtime.handle().clone(), channels });
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let command: Command = serde_json::from_str(&line).expect("commands are JSON");
        let driver = driver.clone();
        if command.r#do == "open" || command.r#do == "start" {
            // At once and in order: what follows may rely on them.
            driver.answer(command);
        } else {
            std::thread::spawn(move || driver.answer(command));
        }
    }
    // Calls that still wait end with the process.
    std::process::exit(0);
}

impl Driver {
    fn answer(&self, command: Command) {
        let id = command.id;
        let reply = match self.carry_out(command) {
            Ok(ok) => json!({ "id": id, "ok": ok }),
            Err(error) => json!({ "id": id, "error": error }),
        };
        // Standard output is locked for the whole line.
        println!("{reply}");
    }

    fn carry_out(&self, command: Command) -> Result<Value, String> {
        let Command { r#do, channel, rest, .. } = command;
        let channels = || self.channels.lock().expect("no holder panics");
        match r#do.as_str() {
            "hello" => return Ok(json!({ "version": VERSION })),
            "open" => {
                let opening: Opening = read(rest)?;
                let opened = Channel::open(&opening, &self.runtime)?;
                channels().insert(channel, Arc::new(opened));
                return Ok(Value::Null);
            }
            _ => {}
        }
        let known = channels().get(&channel).cloned().ok_or("no such channel")?;
        let report = match r#do.as_str() {
            "call" => {
                let calls: Calls = read(rest)?;
                calls.check()?;
                known.call(&calls, Some(calls.count), &AtomicBool::new(false))
            }
            "start" => {
                let calls: Calls = read(rest)?;
                calls.check()?;
                known.start(calls)?;
                return Ok(Value::Null);
            }
            "stop" => known.stop()?,
            "close" => {
                known.end();
                channels().remove(&channel);
                return Ok(Value::Null);
            }
            other => return Err(format!("no such command: {other}")),
        };
        serde_json::to_value(report).map_err(|error| error.to_string())
    }
}

fn read<T: serde::de::DeserializeOwned>(arguments: Value) -> Result<T, String> {
    serde_json::from_value(arguments).map_err(|error| error.to_string())
}
