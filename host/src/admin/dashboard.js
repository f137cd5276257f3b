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

async function look() {
  try {
    showChecks((await ask("/readyz")).body);
    const flush = await ask("/admin/v1/flush");
    byId("flush-note").textContent = flush.status === 200 ? "" : flush.body.detail || "status " + flush.status;
    if (flush.status === 200) showKinds(flush.body);
  } catch (error) {
    byId("state").textContent = "no answer: " + error.message;
    byId("state").className = "bad";
  }
  setTimeout(look, PAUSE_MS);
}

look();
