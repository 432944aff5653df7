// The dashboard: asks /api/v1 once a second and shows what it says.
// Whatever is shown is set as text, never as HTML: names, ids, metadata and
// user agents are anybody's.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const SHOWN = { services: 100, clients: 100, rejected: 50 };
// Endpoints are shown without being asked for while there are so few services.
const OPEN_UNASKED = 5;

const toggled = new Map(); // service name → whether its endpoints are wanted

const at = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

const td = (...children) => el("td", {}, ...children);
const number = (value) => el("td", { class: "n" }, value.toLocaleString("en"));
const code = (text) => el("code", {}, text);

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
  const response = await fetch("api/v1/" + path, { signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await response.json();
  return response.ok ? body : { error: body.error };
}

function rows(id, total, nodes, none) {
  const columns = at(id).parentElement.tHead.rows[0].cells.length;
  const empty = el("tr", {}, el("td", { class: "none", colspan: columns }, none));
  at(id).replaceChildren(...(nodes.length ? nodes : [empty]));
  return total > SHOWN[id] ? `${total} (the first ${SHOWN[id]} are shown)` : String(total);
}

function show(id, answer, node, none) {
  const failed = answer.error !== undefined;
  const nodes = failed ? [] : answer[id].flatMap(node);
  const count = rows(id, failed ? 0 : answer.total, nodes, failed ? answer.error : none);
  at(id + "-count").textContent = failed ? "" : count;
}

function showStatus(status, streams) {
  const { registry, missing } = status;
  let [kind, text] = ["good", "ready"];
  if (!status.ready) {
    [kind, text] = ["bad", "not ready: " + missing.join("; ")];
  } else if (registry.stale) {
    const { seconds, reason } = registry.stale;
    [kind, text] = ["warn", `registry not heard for ${age(seconds)} (${reason}): serving what was last read`];
  }
  at("state").replaceChildren(el("span", { class: "pill " + kind }, text));
  at("version").textContent = `${status.version} · zone ${status.zone}`;
  const fact = (name, value, kind = "") => el("li", {}, name, el("b", { class: kind }, value));
  at("facts").replaceChildren(
    fact("registry", registry.synced ? (registry.stale ? "stale" : "in sync") : "not read yet",
      registry.synced ? (registry.stale ? "warn" : "good") : "bad"),
    fact("last heard", registry.silent_seconds === null ? "never" : age(registry.silent_seconds) + " ago"),
    fact("revision", registry.revision),
    fact("keys", registry.keys),
    fact("unreadable", registry.rejected, registry.rejected ? "warn" : ""),
    fact("services", registry.services),
    fact("clients", streams),
    fact("up for", age(status.uptime_seconds)),
  );
}

const isOpen = (name, total) => toggled.get(name) ?? total <= OPEN_UNASKED;

function serviceRows(service, total, details) {
  const { name, calls } = service;
  const open = isOpen(name, total);
  const button = el("button", { type: "button", "aria-expanded": open, "data-service": name }, name);
  button.onclick = () => { toggled.set(name, !open); refresh(); };
  const row = el("tr", {}, td(button), number(service.endpoints), number(service.clients),
    number(calls.finished), number(calls.failed_to_send), number(calls.dropped),
    el("td", { class: "n" }, service.revision), td(code(service.dns_name)));
  const detail = details.get(name);
  if (!open || detail === undefined) return [row];
  return [row, el("tr", {}, el("td", { class: "inner", colspan: 8 }, endpoints(detail)))];
}

function endpoints(detail) {
  if (detail.error !== undefined) return el("span", { class: "warn" }, detail.error);
  const heading = (name) => el("th", {}, name);
  const row = (endpoint) => el("tr", {}, td(code(endpoint.address)), td(endpoint.id),
    td(endpoint.weight, ...(endpoint.turns ? [] : [el("span", { class: "warn" }, " no traffic")])),
    td(endpoint.turns), td(code(endpoint.token)),
    td(...Object.entries(endpoint.meta).map(([key, value]) => el("span", { class: "tag" }, `${key}=${value}`))));
  return el("table", {},
    el("thead", {}, el("tr", {}, ...["Endpoint", "Id", "Weight", "Turns in the list", "lb-token", "Metadata"].map(heading))),
    el("tbody", {}, ...detail.endpoints.map(row)));
}

function clientRow(client) {
  const told = client.told === "list" ? `list\u00a0of\u00a0${client.entries}` : client.told;
  return el("tr", {}, td(code(client.peer)), td(client.name),
    td(client.service ?? el("span", { class: "warn" }, "waits")),
    td(client.told === "list" ? told : el("span", { class: "warn" }, told)),
    el("td", { class: "n" }, age(client.list_age_seconds)), el("td", { class: "n" }, age(client.open_seconds)),
    el("td", { class: "n" }, client.revision), number(client.calls.finished), td(client.user_agent));
}

const rejectedRow = ({ key, reason, value }) => el("tr", {}, td(code(key)), td(reason), td(code(value)));

async function refresh() {
  let answers;
  try {
    const part = (list) => ask(`${list}?limit=${SHOWN[list]}`);
    const [status, services, clients, rejected] =
      await Promise.all([ask("status"), part("services"), part("clients"), part("rejected")]);
    const names = (services.services ?? []).map(({ name }) => name).filter((name) => isOpen(name, services.total));
    const detail = async (name) => [name, await ask("services/" + encodeURIComponent(name))];
    answers = { status, services, clients, rejected, details: new Map(await Promise.all(names.map(detail))) };
  } catch {
    const text = "the balancer does not answer: what is shown may be old";
    at("state").replaceChildren(el("span", { class: "pill bad" }, text));
    return;
  }
  // Whoever is copying something should not lose it.
  if (document.getSelection().type === "Range") return;
  const focused = document.activeElement?.dataset?.service;
  const { status, services, clients, rejected, details } = answers;
  showStatus(status, clients.total);
  show("services", services, (service) => serviceRows(service, services.total, details),
    "No service has a backend yet: lookaside register holds a registration for one.");
  show("clients", clients, clientRow, "No client is connected.");
  show("rejected", rejected, rejectedRow, "None: every key below the prefixes was understood.");
  if (focused !== undefined) {
    [...document.querySelectorAll("button")].find((button) => button.dataset.service === focused)?.focus();
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, EVERY_MS);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
keepFresh();
