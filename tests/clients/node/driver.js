// A real @grpc/grpc-js client, steered over standard input by lines of JSON:
// the protocol of tests/clients/python/driver.py. The client is unmodified:
// nothing here knows of lookaside. grpc-js has no grpclb; it balances over the
// addresses that DNS gives, and what needs a balancer is refused.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const { loadSync } = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../../proto/helloworld/greeter.proto");
const { helloworld } = grpc.loadPackageDefinition(loadSync(PROTO));
const { version } = require("@grpc/grpc-js/package.json");

// What came of a number of calls.
class Report {
  constructor(details) {
    this.answers = {};
    this.errors = {};
    if (details) this.calls = [];
  }

  add(kind, text, metadata) {
    this[kind + "s"][text] = (this[kind + "s"][text] ?? 0) + 1;
    this.calls?.push({ [kind]: text, metadata });
  }
}

// One channel, with connections of its own.
class Channel {
  constructor({ target, config, idle_seconds: idle, fallback_seconds: fallback, ca, options }) {
    if (config?.includes("grpclb")) throw new Error("unsupported: config: grpc-js has no grpclb");
    if (fallback != null) throw new Error("unsupported: fallback_seconds: grpc-js has no grpclb");
    const credentials = ca
      ? grpc.credentials.createSsl(fs.readFileSync(ca))
      : grpc.credentials.createInsecure();
    this.client = new helloworld.Greeter(target, credentials, {
      "grpc.use_local_subchannel_pool": 1,
      ...(config && { "grpc.service_config": config }),
      ...(idle != null && { "grpc.client_idle_timeout_ms": idle * 1000 }),
      ...Object.fromEntries(options ?? []),
    });
    this.stopping = null;
  }

  // Calls one after the other: count times, or until the signal.
  async call({ count, timeout, wait_for_ready, every, name, details, headers }, signal) {
    const report = new Report(details);
    for (let made = 0; made !== count && !signal?.aborted; made++) {
      if (made && every) await sleep(every * 1000, null, { signal }).catch(() => {});
      await this.one(report, name, timeout, wait_for_ready, headers);
    }
    return report;
  }

  one(report, name, timeout, waitForReady, headers) {
    return new Promise((resolve) => {
      const sent = new grpc.Metadata({ waitForReady });
      for (const [key, value] of Object.entries(headers ?? {})) sent.set(key, value);
      const seen = {};
      const see = (metadata) => {
        for (const [key, value] of Object.entries(metadata?.getMap() ?? {})) {
          if (typeof value === "string") seen[key] = value;
        }
      };
      let outcome;
      const options = { deadline: Date.now() + timeout * 1000 };
      const call = this.client.sayHello(
        { name },
        sent,
        options,
        (error, reply) => {
          outcome = error
            ? ["error", `${grpc.status[error.code]}: ${error.details}`]
            : ["answer", reply.message];
        },
      );
      call.on("metadata", see);
      call.on("status", (status) => {
        see(status.metadata);
        // The callback is called in the same turn; which comes first is not said.
        setImmediate(() => resolve(report.add(...outcome, seen)));
      });
    });
  }

  start(command) {
    if (this.background) throw new Error("it is calling already");
    this.stopping = new AbortController();
    this.background = this.call({ ...command, count: -1 }, this.stopping.signal);
    return null;
  }

  async stop() {
    if (!this.background) throw new Error("it is not calling");
    this.stopping.abort();
    const report = await this.background;
    this.background = null;
    return report;
  }

  close() {
    this.stopping?.abort();
    this.client.close();
    return null;
  }
}

const channels = new Map();

function carryOut(command) {
  const { do: what, channel } = command;
  if (what === "hello") return { version: `grpc-js ${version}` };
  if (what === "open") {
    channels.set(channel, new Channel(command));
    return null;
  }
  if (!["call", "start", "stop", "close"].includes(what)) {
    throw new Error(`no such command: ${what}`);
  }
  const found = channels.get(channel);
  if (what === "close") channels.delete(channel);
  return found[what](command);
}

async function answer(command) {
  let reply;
  try {
    reply = { id: command.id, ok: (await carryOut(command)) ?? null };
  } catch (error) {
    reply = { id: command.id, error: error.message };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}

const commands = readline.createInterface({ input: process.stdin });
commands.on("line", (line) => answer(JSON.parse(line)));
// Calls that still wait would hold up the process's end.
commands.on("close", () => process.exit(0));
