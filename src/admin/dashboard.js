// The dashboard: asks /api/v1 once a second and shows the answers.
// All values are set as text, never as HTML: names, ids, metadata and user agents may
// contain anything.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
// An answer that takes longer is reported as missing.
const SILENT_MS = 2500;
const SHOWN = { services: 100, clients: 100, rejected: 50, remarks: 50 };
// With at most this many services, their endpoints are shown without a click.
const OPEN_UNASKED = 5;
// Characters that control a terminal, change the reading direction, or are invisible.
const UNFIT = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

// The token is kept for this tab only. It is sent as a header, which no other site can do.
const TOKEN = "lookaside-token";
let token = sessionStorage.getItem(TOKEN);
let locked = false; // whether the page waits for a token

class Refused extends Error {}

const toggled = new Map(); // service name → whether its endpoints are wanted
let asked = null; // when the unanswered request was sent, or null

const at = (id) => document.getElementById(id);
const clean = (text) => text.replace(UNFIT, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : clean(String(child)))));
  return node;
}

const td = (...children) => el("td", {}, ...children);
const number = (value) => el("td", { class: "n" }, value.toLocaleString("en"));
const code = (text) => el("code", {}, text);
const warn = (text) => el("span", { class: "warn" }, text);
const bad = (text) => el("span", { class: "bad" }, text);

// Makes the children of a node equal to these, and touches only what differs, so
// that selected text and the focus stay.
function fill(parent, nodes) {
  const key = (node) => node.dataset?.key;
  const wanted = new Set(nodes.map(key));
  let old = parent.firstChild;
  for (const node of nodes) {
    while (old !== null && key(old) !== undefined && !wanted.has(key(old))) {
      const gone = old;
      old = old.nextSibling;
      gone.remove();
    }
    if (old !== null && old.nodeName === node.nodeName && key(old) === key(node)) {
      patch(old, node);
      old = old.nextSibling;
    } else {
      parent.insertBefore(node, old);
    }
  }
  while (old !== null) {
    const gone = old;
    old = old.nextSibling;
    gone.remove();
  }
}

function patch(old, node) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  fill(old, [...node.childNodes]);
}

function age(seconds) {
  if (seconds === null) return "never";
  if (seconds < 10) return seconds.toFixed(1) + " s";
  const s = Math.floor(seconds);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + (Math.floor(s / 60) % 60) + " min";
  return Math.floor(s / 86400) + " d " + (Math.floor(s / 3600) % 24) + " h";
}

async function ask(path) {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch("api/v1/" + path, { headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await response.json();
  if (response.status === 401) throw new Refused(body.error);
  return response.ok ? body : { error: body.error };
}

function rows(id, total, nodes, none) {
  const columns = at(id).parentElement.tHead.rows[0].cells.length;
  const empty = el("tr", { "data-key": "none" }, el("td", { class: "none", colspan: columns }, none));
  fill(at(id), nodes.length ? nodes : [empty]);
  return total > SHOWN[id] ? `${total} (the first ${SHOWN[id]} are shown)` : String(total);
}

function show(id, answer, node, none) {
  const failed = answer.error !== undefined;
  const nodes = failed ? [] : answer[id].flatMap(node);
  const count = rows(id, failed ? 0 : answer.total, nodes, failed ? answer.error : none);
  at(id + "-count").textContent = failed ? "" : count;
}

function pills(all) {
  fill(at("state"), all.map(([kind, text]) => el("span", { class: "pill " + kind }, text)));
}

// Red: clients' calls fail. Amber: an operator should look at it.
const suffers = ({ state, endpoints, clients }) => (endpoints === 0 || state === "unusable") && clients > 0;

function showStatus(status, services, streams) {
  const { registry, missing } = status;
  const all = [["good", "ready"]];
  if (!status.ready) all[0] = ["bad", "not ready: " + missing.join("; ")];
  if (registry.stale) {
    const { seconds, reason } = registry.stale;
    all.push([registry.synced ? "warn" : "bad", `registry stale for ${age(seconds)} (${reason}): ${registry.served}`]);
  }
  if (registry.restored) all.push(["warn", `registry not read yet: serving the state saved at ${registry.restored}`]);
  for (const { use, ends_in_seconds, ends_soon } of status.certificates) {
    const text = ends_in_seconds < 0 ? "has ended" : `ends in ${age(ends_in_seconds)}`;
    if (ends_soon) all.push([ends_in_seconds < 0 ? "bad" : "warn", `the certificate ${use} ${text}: renew it`]);
  }
  for (const use of status.credentials_broken) all.push(["warn", `the changed files of ${use} cannot be used: the log says why`]);
  for (const { source } of status.settings_refused) all.push(["warn", `the settings of ${sourceName(source)} are refused`]);
  const hurt = (services.problems ?? []).filter(suffers);
  const waiting = registry.streams_waiting;
  if (hurt.length) all.push(["bad", `clients ask, but no backend takes calls: ${hurt.map(({ name }) => name).join(", ")}`]);
  if (waiting) all.push(["warn", `${waiting} clients wait for backends`]);
  const counts = [
    [registry.services_in_panic, "services in panic: too little of them is healthy, so all of it is listed"],
    [registry.endpoints_unhealthy, "backends unhealthy"],
    [registry.services_guarded, "services guarded: they keep backends that do not answer"],
    [registry.endpoints_held, "backends held: listed although their registrations are gone"],
    [registry.endpoints_unresolved, "backends unresolved: their host names do not resolve"],
    [registry.endpoints_down, "backends down: they refuse connections and are not listed"],
  ];
  for (const [count, text] of counts) if (count) all.push(["warn", `${count} ${text}`]);
  // "Ready" is about this process, so it is green only if nothing else is wrong.
  if (status.ready && all.length > 1) all[0] = ["", "ready, but:"];
  pills(all);
  document.title = all.some(([kind]) => kind === "bad") ? "lookaside: trouble" : "lookaside";
  at("version").textContent = `${status.version} · zone ${status.zone}`;
  const fact = (name, value, kind = "") => el("li", {}, name, el("b", { class: kind }, value));
  const concern = (name, value) => fact(name, value, value ? "warn" : "");
  const [known, kind] = !registry.synced ? ["not read yet", "bad"]
    : registry.restored ? ["saved state", "warn"] : registry.stale ? ["stale", "warn"] : ["in sync", "good"];
  fill(at("facts"), [
    fact("registry", known, kind),
    fact("last heard", registry.silent_seconds === null ? "never" : age(registry.silent_seconds) + " ago"),
    fact("revision", registry.revision),
    fact("keys", registry.keys),
    concern("rejected keys", registry.rejected),
    concern("odd keys", registry.remarks),
    fact("services", registry.services),
    concern("without backends", registry.services_empty),
    concern("held", registry.endpoints_held),
    concern("guarded", registry.services_guarded),
    concern("down", registry.endpoints_down),
    concern("unhealthy", registry.endpoints_unhealthy),
    concern("in panic", registry.services_in_panic),
    concern("unresolved", registry.endpoints_unresolved),
    fact("clients", streams),
    fact("up for", age(status.uptime_seconds)),
  ]);
}

const sourceName = (source) => (source === "file" ? "the file" : source);

// A refused document is taken as a whole or not at all, so what operators asked for last is
// not in force.
function showRefused(refused) {
  const row = ({ source, place, refused, refused_seconds }) => el("li", { "data-key": source },
    warn(`${sourceName(source)}, `), code(place), `, for ${age(refused_seconds)}: ${refused}`,
    el("p", { class: "soft" }, source === "file"
      ? "Repair the file: it is read again when it changes."
      : "Correct the document and apply it again: lookaside settings check FILE, then lookaside settings apply FILE."));
  fill(at("refused-documents"), refused.map(row));
  at("refused-settings").hidden = refused.length === 0;
}

function stateOf(service) {
  const { state, endpoints, held, down, unhealthy, panic, unresolved } = service;
  const { drained, shed, fallback, clients, since_seconds } = service;
  const since = since_seconds === null ? "" : ` for ${age(since_seconds)}`;
  if (state === "ok") return "ok";
  const parts = [];
  if (state === "empty") parts.push(`no backend${since}`);
  if (state === "unusable") parts.push("no backend takes calls: weight 0 or drained");
  if (state === "guarded") parts.push("guarded: keeps backends that do not answer");
  if (held) parts.push(`${held} of ${endpoints} held${since}`);
  if (down) parts.push(`${down} down`);
  if (unhealthy) parts.push(`${unhealthy} of ${endpoints} unhealthy${panic ? ": panic, all are listed" : ""}`);
  if (unresolved) parts.push(`${unresolved} unresolved`);
  if (shed) parts.push(`${shed} % of calls shed`);
  if (fallback) parts.push("clients use DNS");
  if (drained) parts.push(`${drained} of ${endpoints} drained`);
  if (suffers(service)) parts.push(`${clients} clients ask`);
  return (suffers(service) ? bad : warn)(parts.join(", "));
}

function showProblems(services) {
  const known = (services.problems ?? []).map((service) =>
    el("tr", { "data-key": service.name }, td(service.name), td(stateOf(service)), number(service.clients)));
  const unknown = (services.unknown ?? []).map(({ name, clients, since_seconds }) =>
    el("tr", { "data-key": "?" + name }, td(name), td(warn(`never registered, asked for since ${age(since_seconds)}`)), number(clients)));
  fill(at("problems"), [...known, ...unknown]);
  at("attention").hidden = known.length + unknown.length === 0;
}

const isOpen = (name, total) => toggled.get(name) ?? total <= OPEN_UNASKED;

function serviceRows(service, total, details) {
  const { name, calls, clients_by_protocol: by } = service;
  const open = isOpen(name, total);
  const button = el("button", { type: "button", "aria-expanded": open, "data-service": name }, name);
  const row = el("tr", { "data-key": name }, td(button), td(stateOf(service)), number(service.endpoints), number(service.clients),
    number(by.grpclb), number(by.xds), number(calls.finished), number(calls.failed_to_send), number(calls.dropped),
    el("td", { class: "n" }, service.revision), td(code(service.dns_name)));
  const detail = details.get(name);
  if (!open || detail === undefined) return [row];
  return [row, el("tr", { "data-key": name + "/" }, el("td", { class: "inner", colspan: 11 }, endpoints(detail)))];
}

function drainedBy({ by, until, why }) {
  return `drained${by && ` by ${by}`}${until ? ` until ${until}` : ""}${why && `: ${why}`}`;
}

function endpointState(endpoint) {
  const { held, down, drained, delayed_seconds, slow_start, load_factor, unhealthy } = endpoint;
  const { turns, weight, meta } = endpoint;
  if (drained) return warn(drainedBy(drained));
  if (down) return bad("down: refuses connections");
  if (held) return warn(`held for ${age(held.seconds)}: ${held.why}; ${held.probe ?? "not probed yet"}`);
  if (meta["lame-duck"] === "true") return warn("drains itself: lame-duck=true");
  if (unhealthy) return (turns ? warn : bad)(`unhealthy${turns ? ", and listed" : ""}: ${unhealthy}`);
  if (delayed_seconds != null && !turns) return warn(`delayed for ${age(delayed_seconds)}: came and went too often`);
  if (load_factor != null && slow_start == null)
    return `by its load: ${Math.round(100 * load_factor)} % of its share`;
  if (slow_start != null) return `slow start: ${Math.round(100 * slow_start)} % of its share`;
  return turns ? "ok" : warn(weight ? "not selected" : "weight 0: no traffic");
}

function endpoints(detail) {
  if (detail.error !== undefined) return warn(detail.error);
  const heading = (name) => el("th", {}, name);
  const row = (endpoint) => el("tr", { "data-key": endpoint.address + " " + endpoint.id }, td(code(endpoint.address)), td(endpoint.id),
    td(endpointState(endpoint)), td(endpoint.weight), td(endpoint.turns), td(code(endpoint.token)),
    td(...Object.entries(endpoint.meta).map(([key, value]) => el("span", { class: "tag" }, `${key}=${value}`))));
  return el("table", {},
    el("thead", {}, el("tr", {}, ...["Endpoint", "Id", "State", "Weight", "Turns in the list", "lb-token", "Metadata"].map(heading))),
    el("tbody", {}, ...detail.endpoints.map(row)));
}

function clientRow(client) {
  const told = client.told === "list" ? `list\u00a0of\u00a0${client.entries}` : client.told;
  // grpclb knows no acknowledgement.
  const { sent, accepted, refusal } = client.xds ?? {};
  const version = (text) => (text ? code(text) : "–");
  const behind = (text) => (sent && text !== sent ? warn(text ?? "nothing yet") : version(text));
  return el("tr", { "data-key": `${client.id} ${client.name}` }, td(code(client.id)), td(code(client.peer)),
    td(client.protocol === "xds" ? "xDS" : client.protocol), td(client.name),
    td(client.service ? [client.service, client.zone && `zone\u00a0${client.zone}`].filter(Boolean).join(", ") : warn("waits")),
    td(client.told === "list" ? told : warn(told), ...(refusal ? [" ", bad(`refused: ${refusal}`)] : [])),
    td(version(sent)), td(behind(accepted)),
    el("td", { class: "n" }, age(client.list_age_seconds)), el("td", { class: "n" }, age(client.open_seconds)),
    el("td", { class: "n" }, client.revision), number(client.calls.finished), td(client.user_agent));
}

const remarkRow = ({ key, remarks }) => el("tr", { "data-key": key }, td(code(key)), td(remarks.join("; ")));
const rejectedRow = ({ key, reason, value }) => el("tr", { "data-key": key }, td(code(key)), td(reason), td(code(value)));

async function refresh() {
  asked ??= Date.now();
  const used = token;
  let answers;
  try {
    const part = (list) => ask(`${list}?limit=${SHOWN[list]}`);
    const [status, services, clients, rejected] =
      await Promise.all([ask("status"), part("services"), part("clients"), part("rejected")]);
    const names = (services.services ?? []).filter(({ endpoints }) => endpoints > 0)
      .map(({ name }) => name).filter((name) => isOpen(name, services.total));
    const detail = async (name) => [name, await ask("services/" + encodeURIComponent(name))];
    answers = { status, services, clients, rejected, details: new Map(await Promise.all(names.map(detail))) };
  } catch (error) {
    if (!(error instanceof Refused)) showSilence();
    // Another token may have been typed meanwhile.
    else if (token === used) lock();
    return;
  }
  asked = null;
  document.body.classList.remove("old");
  unlock();
  const { status, services, clients, rejected, details } = answers;
  showStatus(status, services, clients.total);
  showRefused(status.settings_refused);
  showProblems(services);
  show("services", services, (service) => serviceRows(service, services.total, details),
    "No service has a backend yet: lookaside register holds a registration for one.");
  show("clients", clients, clientRow, "No client is connected.");
  show("rejected", rejected, rejectedRow, "None: every key below the prefixes could be decoded.");
  const odd = { total: rejected.remarks_total, remarks: rejected.remarks, error: rejected.error };
  show("remarks", odd, remarkRow, "None.");
}

// Asks for a token and shows nothing else.
function lock() {
  asked = null;
  locked = true;
  const wrong = token !== null;
  token = null;
  sessionStorage.removeItem(TOKEN);
  at("refused").textContent = wrong ? "The balancer does not know this token." : "";
  at("login").hidden = false;
  at("all").hidden = true;
  document.title = "lookaside: token needed";
  pills([["warn", "a token is needed"]]);
  at("token").focus();
}

function unlock() {
  at("login").hidden = true;
  at("all").hidden = false;
  // A link sends no token.
  at("links").hidden = token !== null;
}

// Marks the page as old: the balancer does not answer.
function showSilence() {
  if (asked === null) return;
  document.body.classList.add("old");
  document.title = "lookaside: no answer";
  pills([["bad loud", `no answer for ${Math.round((Date.now() - asked) / 1000)} s: what is shown is old`]]);
}

async function keepFresh() {
  if (!document.hidden && !locked) await refresh();
  setTimeout(keepFresh, EVERY_MS);
}

at("services").addEventListener("click", (event) => {
  const name = event.target.dataset?.service;
  if (name === undefined) return;
  toggled.set(name, event.target.getAttribute("aria-expanded") !== "true");
  refresh();
});
document.addEventListener("visibilitychange", () => {
  // No request was sent while the page was hidden.
  asked = null;
  if (!document.hidden && !locked) refresh();
});
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = at("token").value.trim();
  at("token").value = "";
  // Tokens are ASCII; a header takes nothing else.
  if (!/^[\x21-\x7e]+$/.test(typed)) {
    at("refused").textContent = "A token has letters, digits and signs only.";
    return;
  }
  token = typed;
  sessionStorage.setItem(TOKEN, token);
  locked = false;
  refresh();
});
// A request that hangs would otherwise show nothing.
setInterval(() => { if (asked !== null && Date.now() - asked > SILENT_MS) showSilence(); }, EVERY_MS);
keepFresh();
