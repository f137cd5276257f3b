"use strict";

const PAUSE_MS = 2000;
const byId = (id) => document.getElementById(id);

byId("token").value = sessionStorage.getItem("token") || "";
byId("token").addEventListener("input", (event) => sessionStorage.setItem("token", event.target.value));

async function ask(path) {
  const token = byId("token").value;
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const response = await fetch(path, { headers, cache: "no-store" });
  return { status: response.status, body: await response.json() };
}

function cell(kind, value, name) {
  const element = document.createElement(kind);
  element.textContent = value === null || value === undefined ? "–" : String(value);
  if (name) element.className = name;
  return element;
}

// Everything is set as text, never as markup: names and details come from outside.
function fill(table, columns, rows) {
  const head = document.createElement("tr");
  columns.forEach((column) => head.append(cell("th", column)));
  const body = rows.map((row) => {
    const line = document.createElement("tr");
    row.forEach((value) => line.append(value instanceof Node ? value : cell("td", value, typeof value === "number" ? "number" : "")));
    return line;
  });
  table.replaceChildren(head, ...body);
}

function showChecks(ready) {
  const rows = ready.checks.map((check) => [
    check.name,
    cell("td", check.ready ? "ready" : "not ready", check.ready ? "good" : "bad"),
    check.detail,
  ]);
  fill(byId("checks"), ["check", "state", "detail"], rows);
  byId("state").textContent = ready.ready ? "ready" : "not ready: " + ready.not_ready.join(", ");
  byId("state").className = ready.ready ? "good" : "bad";
}

// {"backlog": {"entries": 1}} becomes {"backlog entries": 1}; lists are left to those who ask for them.
function flat(fields, before = "") {
  return Object.entries(fields).flatMap(([name, value]) => {
    const column = before + name.replaceAll("_", " ");
    if (Array.isArray(value)) return [];
    return value !== null && typeof value === "object" ? flat(value, column + " ") : [[column, value]];
  });
}

function showKinds(flush) {
  const kinds = (flush.kinds || []).map((kind) => new Map(flat(kind)));
  const columns = [...new Set(kinds.flatMap((kind) => [...kind.keys()]))];
  fill(byId("kinds"), columns, kinds.map((kind) => columns.map((column) => kind.get(column))));
}

const titled = (module) => module && [module.name, module.version, "(" + String(module.digest).slice(0, 12) + ")"].filter(Boolean).join(" ");
const at = (unixMs) => unixMs ? new Date(unixMs).toISOString().slice(0, 19) + "Z" : null;

// Of what serves nothing, nothing is known but that it was rolled back.
function health(module) {
  if (module.unfit) return cell("td", "does not fit", "bad");
  if (module.condemned) return cell("td", "rolled back", "bad");
  if (module.healthy === null || module.healthy === undefined) return null;
  return cell("td", module.healthy ? "good" : "failing", module.healthy ? "good" : "bad");
}

function showRules(rules) {
  if (rules.durable === false) byId("rules-note").textContent = "not written down: after a restart the set before serves: " + rules.unsaved;
  const live = Object.entries(rules.active || {}).map(([what, module]) => [what, module, null]);
  const tried = ["canary", "shadow"].filter((role) => rules[role]).map((role) => [role, rules[role], Number((rules[role].share * 100).toFixed(4)) + " %"]);
  fill(byId("serving"), ["what", "module", "share", "since", "by"],
    [...live, ...tried].map(([what, module, share]) => [what, titled(module) + (module.unfit ? ": NOT LOADED: " + module.unfit : ""), share, at(module.since_ms), module.by]));
  fill(byId("modules"), ["module", "serves", "uploaded", "by", "failures", "health", "last failure"],
    (rules.modules || []).map((module) => [
      titled(module),
      (module.serves || []).join(", ") || null,
      at(module.uploaded_at_ms),
      module.by,
      module.failures,
      health(module),
      module.last_failure,
    ]));
  fill(byId("events"), ["at", "what", "module", "by", "reason"],
    (rules.events || []).slice(0, 10).map((event) => [at(event.at_ms), event.what, event.module, event.by, event.reason]));
}

const percent = (permille) => (permille / 10).toFixed(1) + " %";
const ms = (us) => (us / 1000).toFixed(us < 10000 ? 1 : 0);

function showReads(cache) {
  const all = [...(cache.reads || []), ...(cache.upstreams || []).map((one) => ({ ...one, name: "upstream " + one.name }))];
  fill(byId("reads"),
    ["read", "class", "rule", "requests", "hits", "stale", "failed", "p50 ms", "p99 ms", "saved s", "kept", "KiB", "evicted"],
    all.map((one) => [
      one.name, one.class, one.rule, one.requests, percent(one.hit_permille), one.stale, one.failed,
      ms(one.cost_p50_us), ms(one.cost_p99_us), (one.saved_ms / 1000).toFixed(1),
      one.entries, (one.bytes / 1024).toFixed(1), one.evictions,
    ]));
}

// Shows what is there, or beside it why it is not.
async function section(path, note, show) {
  const answer = await ask(path);
  byId(note).textContent = answer.status === 200 ? "" : answer.body.detail || "status " + answer.status;
  if (answer.status === 200) show(answer.body);
}

async function look() {
  try {
    showChecks((await ask("/readyz")).body);
    await section("/admin/v1/flush", "flush-note", showKinds);
    await section("/admin/v1/policies", "rules-note", showRules);
    await section("/admin/v1/cache", "reads-note", showReads);
  } catch (error) {
    byId("state").textContent = "no answer: " + error.message;
    byId("state").className = "bad";
  }
  setTimeout(look, PAUSE_MS);
}

look();
