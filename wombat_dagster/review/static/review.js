// The review page: the list on the left, one light curve, what is decided on it.
// Every name is put in as text (`textContent`), never as HTML.

import * as api from "/static/api.js";
import { Curve, isKept, utc } from "/static/curve.js";
import { ReportDialog } from "/static/report.js";

const POLL_MS = 10_000;
const TOAST_MS = 9_000;
const MOST_LISTED = 1000;
const VIEWS = [
  ["waiting", "Waiting"], ["changed", "Changed"], ["held", "Held"], ["parked", "Parked"],
  ["approved", "Approved"], ["exported", "Reported"], ["rejected", "Rejected"], ["unfinished", "Unfinished"],
];
const EMPTY_WORDS = {
  waiting: "Nothing waits for you.", changed: "Nothing changed since you decided.",
  held: "No check star disagrees.", parked: "Nothing is parked.", approved: "Nothing is approved.",
  exported: "Nothing was reported yet.", rejected: "Nothing is rejected.", unfinished: "All is finished.",
};
const DECIDED = {
  approve: "Approved", reject: "Rejected", "reject-points": "Rejected", "restore-points": "Restored",
  "confirm-star": "Confirmed the star", export: "Written into a report", submit: "Submitted",
  recall: "Approval taken back by wombat",
};
const WHY = ["clouds", "bad focus or tracking", "check star out of control", "wrong star", "a star blends in", "comps disagree"];

const $ = (id) => document.getElementById(id);

function make(tag, { text, className, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

const state = {
  list: [], counts: {}, parked: {}, words: {}, events: [], who: "", raw: "",
  view: "waiting", search: "", filter: "", night: "",
  key: null, observation: null, earlier: null, selection: new Set(), cursor: null,
  phase: false, showEarlier: true, busy: false, toastUndo: null, asked: 0, drawing: null,
};

// ------------------------------------------------------------------------------------ the list

const isIn = (one, view) => view === "changed" ? one.changed !== null : one.view === view;

function listed() {
  const wanted = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return state.list.filter((one) => isIn(one, state.view)
    && (!state.filter || one.filter === state.filter)
    && (!state.night || one.night === state.night)
    && wanted.every((word) => one.text.includes(word)));
}

async function refresh() {
  let found;
  try { found = await api.overview(); } catch (error) { tell(error.message, { bad: true }); return; }
  const raw = JSON.stringify(found);
  if (raw === state.raw) return;
  Object.assign(state, { raw, list: found.observations, counts: found.counts, parked: found.parked, words: found.words, who: found.who, events: found.events ?? [] });
  state.nChanged = found.changed;
  for (const one of state.list) {
    one.text = `${one.target} ${one.filter} ${one.night} ${one.word} ${one.reason ?? ""} ${one.key}`.toLowerCase();
  }
  showList();
  noticeChange();
}

function showList() {
  showViews();
  showChoices();
  const shown = listed();
  const nodes = shown.slice(0, MOST_LISTED).map(item);
  if (!nodes.length) nodes.push(make("li", { className: "none", text: EMPTY_WORDS[state.view] }));
  const focused = document.activeElement?.closest?.("#list [data-key]")?.dataset.key;
  $("list").replaceChildren(...nodes);
  if (focused) [...$("list").querySelectorAll("button")].find((one) => one.dataset.key === focused)?.focus();
  const all = state.list.filter((one) => isIn(one, state.view)).length;
  $("count").textContent = shown.length === all ? many(all, "observation") : `${shown.length} of ${many(all, "observation")}`;
  if (shown.length > MOST_LISTED) $("count").textContent += `, the first ${MOST_LISTED} are listed`;
  showPipeline();
  if (!state.key) showEmpty();
}

function showViews() {
  if (!$("views").childElementCount) {
    $("views").append(...VIEWS.map(([view, words]) => make("button", { type: "button", "data-view": view }, document.createTextNode(words), make("span"))));
  }
  for (const button of $("views").children) {
    const view = button.dataset.view;
    const n = view === "changed" ? state.nChanged : state.counts[view] ?? 0;
    button.setAttribute("aria-pressed", String(view === state.view));
    button.className = n > 0 && (view === "changed" || view === "held") ? "loud" : "";
    button.lastChild.className = n ? "n" : "n none";
    button.lastChild.textContent = n;
  }
}

function showChoices() {
  const here = state.list.filter((one) => isIn(one, state.view));
  const fill = (select, value, all, values) => {
    if (value && !values.includes(value)) values.unshift(value);
    select.replaceChildren(make("option", { value: "", text: all }), ...values.map((one) => make("option", { value: one, text: one })));
    select.value = value;
  };
  fill($("by-filter"), state.filter, "All filters", [...new Set(here.map((one) => one.filter))].sort());
  fill($("by-night"), state.night, "All nights", [...new Set(here.map((one) => one.night))]);
}

function item(one) {
  const button = make("button", { type: "button", "data-key": one.key, "aria-current": one.key === state.key ? "true" : null });
  button.append(make("span", { className: "first" }, make("span", { className: "name", text: one.target, title: one.target }), make("span", { className: "band", text: one.filter })));
  const second = make("span", { className: "second" }, make("span", { text: one.night }), make("span", { text: many(one.n_frames, "frame") }));
  if (one.changed) second.append(make("span", { className: "changed", text: "changed" }));
  if (one.view === "parked" || one.view === "unfinished") second.append(make("span", { text: one.word }));
  if (one.view === "exported") second.append(make("span", { text: one.submitted }));
  button.append(second);
  if ((one.view === "parked" || one.view === "held") && one.reason) button.append(make("span", { className: "why", text: one.reason }));
  return make("li", {}, button);
}

function showPipeline() {
  const box = $("pipeline");
  const lines = [];
  for (const [word, n] of Object.entries(state.parked)) {
    lines.push(make("li", { title: state.words[word]?.remedy }, make("span", { text: `${n} ${word}` }), make("span", { text: state.words[word]?.cause ?? "" })));
  }
  const held = state.counts.held ?? 0, unfinished = state.counts.unfinished ?? 0;
  if (held) lines.push(make("li", {}, make("span", { text: `${held} held` }), make("span", { text: "the check star is off" })));
  if (unfinished) lines.push(make("li", {}, make("span", { text: `${unfinished} unfinished` }), make("span", { text: "not begun, or on the way" })));
  if (!lines.length) lines.push(make("li", {}, make("span", { text: "Nothing is parked or held." })));
  const events = state.events.map(event);
  box.replaceChildren();
  if (events.length) box.append(make("h2", { text: "Events" }), make("ul", {}, ...events));
  box.append(make("h2", { text: "Rest of the pipeline" }), make("ul", {}, ...lines));
}

function event(one) {
  const shown = make("button", { type: "button", className: "plain", text: one.words, title: `Show ${one.key}` });
  shown.addEventListener("click", () => open(one.key));
  const seen = make("button", { type: "button", className: "plain seen", text: "Seen", "aria-label": `Seen: ${one.words}` });
  seen.addEventListener("click", async () => {
    try { await api.write("/api/seen", { ids: [one.id] }); } catch (error) { tell(error.message, { bad: true }); return; }
    refresh();
  });
  return make("li", { className: "event" }, shown, seen);
}

function markCurrent() {
  for (const button of $("list").querySelectorAll("button")) {
    if (button.dataset.key === state.key) {
      button.setAttribute("aria-current", "true");
      button.scrollIntoView({ block: "nearest" });
    } else button.removeAttribute("aria-current");
  }
}

function step(by) {
  const keys = listed().map((one) => one.key);
  if (!keys.length) return;
  const at = keys.indexOf(state.key);
  open(keys[Math.max(0, Math.min(keys.length - 1, at < 0 ? 0 : at + by))]);
}

// ------------------------------------------------------------------------- one observation

async function open(key, { keep = false } = {}) {
  const number = ++state.asked;
  if (!keep) {
    Object.assign(state, { selection: new Set(), cursor: null, earlier: null });
    notices.length = 0;
  }
  state.key = key;
  if (location.hash.slice(1) !== encodeURIComponent(key)) history.replaceState(null, "", `#${encodeURIComponent(key)}`);
  markCurrent();
  let found = keep ? null : fromAhead(key);
  try { found ??= await api.observation(key); } catch (error) {
    if (number !== state.asked) return;
    if (error.status === 404) { state.key = null; state.observation = null; showEmpty(); }
    tell(error.message, { bad: true });
    return;
  }
  if (number !== state.asked) return;
  show(found, { keep });
  if (found.points) {
    await state.drawing; // first things first
    try {
      const { nights } = await api.earlier(key);
      if (number !== state.asked) return;
      state.earlier = nights;
      if (nights.length) drawCurve(); else showToggles();
    } catch { /* the curve does without */ }
  }
  if (number === state.asked) lookAhead();
}

/** What comes next in the list is asked for while the person looks at this one. */
let ahead = null;

async function lookAhead() {
  const keys = listed().map((one) => one.key);
  const next = keys[keys.indexOf(state.key) + 1];
  if (!next || ahead?.key === next) return;
  try { ahead = await api.observation(next); } catch { /* it is asked for again when it is opened */ }
}

/** Return what was asked for ahead, if the list does not know better by now. */
function fromAhead(key) {
  const found = ahead;
  ahead = null;
  const now = state.list.find((one) => one.key === key);
  const isFresh = found?.key === key && now && !differs(found, now);
  return isFresh ? found : null;
}

const differs = (found, now) => now.version !== found.version || now.seen !== found.seen
  || now.changed !== found.changed || now.view !== found.view;

function show(found, { keep = false } = {}) {
  const isOther = state.observation?.key !== found.key;
  if (state.observation?.version !== found.version) { state.selection.clear(); state.cursor = null; }
  state.observation = found;
  state.key = found.key;
  $("empty").hidden = true;
  $("shown").hidden = false;
  if (isOther) $("work").scrollTop = 0;
  $("target").textContent = found.star?.name ?? found.target;
  $("band").textContent = found.filter;
  document.title = `${found.target} ${found.filter} ${found.night} – wombat review`;
  $("subtitle").textContent = subtitle(found);
  if (!found.points) { state.selection.clear(); state.cursor = null; }
  showButtons();
  showBanners();
  showFacts();
  showHistory();
  showChart();
  showPoint(state.cursor ?? firstPoint());
  drawCurve();
}

function subtitle(found) {
  const words = [found.night];
  if (found.star && found.star.name !== found.target) words.push(`directory ${found.target}`);
  if (found.points) words.push(many(found.points.label.length, "point"));
  if (found.n_quarantined) words.push(`${found.n_quarantined} frames not used`);
  words.push(found.submitted ? { approved: "approved", usrrej: "rejected", exported: "written into a report", submitted: "submitted" }[found.submitted] ?? found.submitted
    : { waiting: "waiting for you", held: "held", parked: `parked: ${found.word}`, unfinished: "unfinished" }[found.view]);
  return words.join(" · ");
}

const firstPoint = () => {
  const states = state.observation?.points?.state;
  return states?.length ? Math.max(0, states.findIndex(isKept)) : null;
};

function drawCurve() {
  const found = state.observation;
  $("curve-area").hidden = !found?.points;
  if (found?.points) {
    const n = found.points.state.filter((one) => !isKept(one)).length;
    $("plot").setAttribute("aria-label", `Light curve of ${found.target}, ${found.filter}, ${found.night}: ${many(found.points.label.length, "point")}, ${n} rejected or proposed to be`);
    state.drawing = curve.draw({ observation: found, earlier: state.earlier, phase: state.phase && found.fold !== null, showEarlier: state.showEarlier, selection: state.selection, cursor: state.cursor })
      .then(() => { if (state.observation === found) $("plot").dataset.drawn = found.key; })
      .catch((error) => tell(error.message, { bad: true }));
    showLegend();
  }
  showToggles();
}

function showToggles() {
  const found = state.observation;
  const hasPhase = Boolean(found?.points && found.fold);
  $("phase").disabled = !hasPhase;
  $("phase").title = hasPhase ? `Fold: ${found.fold.words} (p)` : "No period is known";
  $("phase").setAttribute("aria-pressed", String(state.phase && hasPhase));
  $("earlier").disabled = !state.earlier?.length;
  $("earlier").textContent = state.earlier?.length ? `Earlier nights: ${state.earlier.length}` : "Earlier nights";
  $("earlier").title = state.earlier?.length
    ? `The same star on ${many(state.earlier.length, "earlier night")}, moved by whole ${found?.fold ? "periods" : "days"} (e)` : "There are none of this star in this band";
  $("earlier").setAttribute("aria-pressed", String(state.showEarlier && Boolean(state.earlier?.length)));
  showSelection();
}

function showSelection() {
  const states = state.observation?.points?.state ?? [];
  const chosen = [...state.selection];
  const n = chosen.length;
  $("selected").textContent = n ? `${n} selected` : "None selected";
  $("reject-points").disabled = state.busy || !chosen.some((i) => states[i] !== "rejected");
  $("restore-points").disabled = state.busy || !chosen.some((i) => !isKept(states[i]));
}

function sign(draw, colour) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, attributes] of draw) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    svg.append(shape);
  }
  svg.style.color = `var(${colour})`;
  return svg;
}

const dot = { cx: 6, cy: 6, r: 3.4 };
const filled = [["circle", { ...dot, fill: "currentColor" }]];
const hollow = [["circle", { ...dot, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }]];
const cross = [["path", { d: "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5", stroke: "currentColor", "stroke-width": 1.7 }]];
const kept = [["circle", { ...dot, fill: "var(--t1)", stroke: "var(--keep)", "stroke-width": 2.2 }]];
const limit = [["path", { d: "M2 3h8L6 10z", fill: "currentColor" }]];
const dash = [["path", { d: "M0 6h12", stroke: "currentColor", "stroke-width": 1.6, "stroke-dasharray": "4 2.5" }]];

function showLegend() {
  const { points, check } = state.observation;
  const n = (name) => points.state.filter((one) => one === name).length;
  const lines = [[filled, "--t1", "T1"], [filled, "--t2", `T2${check?.name ? ` ${check.name}` : ""}`]];
  if (check?.catalogue !== null && check?.catalogue !== undefined) lines.push([dash, "--t2", "its catalogue magnitude"]);
  if (n("proposed")) lines.push([hollow, "--t1", `${n("proposed")} proposed to be rejected`]);
  if (n("rejected")) lines.push([cross, "--t1", `${n("rejected")} rejected`]);
  if (n("restored")) lines.push([kept, "--t1", `${n("restored")} restored`]);
  const limits = points.t1_limit.filter(Boolean).length;
  if (limits) lines.push([limit, "--t1", `${limits} fainter than`]);
  if (state.showEarlier && state.earlier?.length) lines.push([filled, "--earlier", `earlier, moved by whole ${state.observation.fold ? "periods" : "days"}`]);
  $("legend").replaceChildren(...lines.map(([draw, colour, words]) => make("li", {}, sign(draw, colour), document.createTextNode(words))));
}

function showEmpty() {
  $("shown").hidden = true;
  $("empty").hidden = false;
  const shown = listed();
  const words = state.list.length === 0 ? "No observations are known yet: wombat run, or wombat up, finds them."
    : shown.length ? "" : state.search || state.filter || state.night ? "Nothing here fits the search." : EMPTY_WORDS[state.view];
  const rest = VIEWS.filter(([view]) => view !== state.view && (view === "changed" ? state.nChanged : state.counts[view])).map(([view, name]) => `${view === "changed" ? state.nChanged : state.counts[view]} ${name.toLowerCase()}`);
  $("empty").replaceChildren(make("h2", { text: words }), make("p", { text: rest.length ? `Elsewhere: ${rest.join(", ")}.` : "" }));
}

// --------------------------------------------------------------------------- facts in words

function term(label, words, className = "") {
  return [make("dt", { text: label }), make("dd", { text: words, className })];
}

function showFacts() {
  const found = state.observation;
  $("facts").replaceChildren(...found.facts.flatMap((one) => term(one.label, one.words, one.tone)));
  if (!found.facts.length) $("facts").replaceChildren(...term("State", found.word));
  const star = found.star;
  const words = [];
  if (star) {
    const name = star.auid ? `${star.name} (${star.auid})` : star.name;
    words.push(["T1", name]);
    if (star.type) words.push(["Type", star.type]);
    if (star.bright !== null && star.faint !== null) words.push(["Range", `${star.bright.toFixed(2)} – ${star.faint.toFixed(2)} mag`]);
    if (found.fold) words.push(["Period", found.fold.words]);
    words.push(["Found by", `${star.match}, ${star.source}`]);
  }
  $("star").replaceChildren(...words.flatMap(([label, text]) => term(label, text)));
  $("notes").replaceChildren(...found.notes.map((text) => make("li", { text })));
}

function showHistory() {
  const lines = [...state.observation.history].reverse().map((one) => {
    const words = `${DECIDED[one.kind] ?? one.kind}${one.n_points ? ` ${many(one.n_points, "point")}` : ""}${one.why ? `: ${one.why}` : ""}`;
    return make("li", {}, make("div", { text: words, className: one.undone ? "undone" : "" }),
      make("div", { className: "meta", text: `${one.who}, ${one.when.slice(0, 16).replace("T", " ")} UT${one.undone ? ", undone" : ""}` }));
  });
  if (!lines.length) lines.push(make("li", { className: "meta", text: "None yet." }));
  $("history").replaceChildren(...lines);
}

function showChart() {
  const found = state.observation;
  $("chart-button").hidden = !found.has_chart;
  if (found.has_chart) {
    const address = api.chartAddress(found.key, found.version);
    if ($("chart").getAttribute("src") !== address) $("chart").src = address;
  }
  $("chart-caption").textContent = found.has_chart ? "Finding chart" : "No finding chart";
}

const lastHeld = () => [...(state.observation?.history ?? [])].reverse().find((one) => !one.undone) ?? null;

function showButtons() {
  const found = state.observation;
  const measured = found.points !== null;
  $("approve").disabled = state.busy || !measured || (found.submitted !== null && found.submitted !== "usrrej" && !found.changed);
  $("reject").disabled = state.busy || !measured || ["usrrej", "exported", "submitted"].includes(found.submitted);
  const last = lastHeld();
  $("undo").disabled = state.busy || !last?.may_undo;
  $("undo").title = last ? `${last.may_undo ? "Undo" : "Not undone here"}: ${(DECIDED[last.kind] ?? last.kind).toLowerCase()}${last.n_points ? ` ${many(last.n_points, "point")}` : ""} (u)` : "Nothing to undo (u)";
}

const notices = [];

function showBanners() {
  const found = state.observation;
  const banners = notices.map(({ words, button, act }) => banner("info", words, button, act));
  if (found.changed) banners.push(banner("warn", `Changed since you decided: ${found.changed}`));
  if (found.view === "held") banners.push(banner("warn", `Held: ${found.held ?? found.reason ?? "its check star is out of control"}`));
  if (found.to_confirm) banners.push(banner("warn", `${found.star.name} was found by its position alone. Is it the star that you meant by “${found.target}”?`, "Yes, confirm", confirmStar));
  if (!found.points) {
    const said = state.words[found.word];
    banners.push(banner("warn", [found.no_points, said?.cause, said?.remedy].filter(Boolean).join(" – ")));
  }
  $("banners").replaceChildren(...banners);
}

function banner(kind, words, button, act) {
  const box = make("div", { className: `banner ${kind}` }, make("span", { text: words }));
  if (button) {
    const pressed = make("button", { type: "button", text: button });
    pressed.addEventListener("click", act);
    box.append(pressed);
  }
  return box;
}

/** Tell when somebody decided, or the pipeline made magnitudes again, under the open curve. */
function noticeChange() {
  const found = state.observation;
  const now = found && state.list.find((one) => one.key === found.key);
  if (!now || state.busy) return;
  if (!differs(found, now)) return;
  if (!state.selection.size) { open(found.key, { keep: true }); return; }
  if (notices.length) return;
  notices.push({
    words: now.version !== found.version ? "The magnitudes were made again meanwhile." : "Somebody decided on this meanwhile.", button: "Show it",
    act: () => open(found.key),
  });
  showBanners();
}

// ---------------------------------------------------------------------------- frame and point

function showPoint(i) {
  const found = state.observation;
  const points = found.points;
  const none = points === null || i === null || i === undefined;
  const address = !none && points.picture[i] ? api.pictureAddress(found.key, points.raw_hash[i], found.version) : null;
  $("thumb").hidden = address === null;
  $("no-thumb").textContent = address === null ? "no picture" : "";
  if (address !== null && $("thumb").getAttribute("src") !== address) $("thumb").src = address;
  $("thumb").alt = none ? "" : `Frame ${points.label[i]}`;
  $("frame-name").textContent = none ? "" : points.label[i];
  if (none) { $("point").replaceChildren(); return; }
  const magnitude = (value, error) => value === null ? "–" : error === null ? value.toFixed(3) : `${value.toFixed(3)} ± ${error.toFixed(3)}`;
  const number = (value, digits, unit = "") => value === null ? "–" : `${value.toFixed(digits)}${unit}`;
  const rows = [
    ["UT", points.jd[i] === null ? "–" : utc(points.jd[i])], ["JD", number(points.jd[i], 5)],
    ["T1", (points.t1_limit[i] ? "fainter than " : "") + magnitude(points.t1[i], points.t1_limit[i] ? null : points.t1_error[i])],
    ["T2", magnitude(points.t2[i], points.t2_error[i])],
    ["Airmass", number(points.airmass[i], 2)], ["FWHM", number(points.fwhm[i], 2, " px")],
    ["Exposure", number(points.exposure[i], 1, " s")], ["Comps", String(points.n_comps[i])],
  ];
  if (points.phase) rows.push(["Phase", number(points.phase[i], 4)]);
  const words = { good: "kept", proposed: "proposed to be rejected", rejected: "rejected", restored: "restored" }[points.state[i]];
  const why = [points.proposed[i], points.flags[i], points.faults[i]].filter(Boolean).join("; ");
  $("point").replaceChildren(...rows.flatMap(([label, text]) => term(label, text)), ...term("State", words, "state"), ...(why ? term("Reasons", why) : []));
}

function moveCursor(by, extend) {
  const points = state.observation?.points;
  if (!points?.label.length) return;
  const before = state.cursor;
  const n = points.label.length;
  state.cursor = before === null ? (by > 0 ? 0 : n - 1) : Math.max(0, Math.min(n - 1, before + by));
  if (extend) {
    if (before !== null) state.selection.add(before);
    state.selection.add(state.cursor);
  }
  showPoint(state.cursor);
  speakPoint(state.cursor);
  drawCurve();
}

/** Say a point to whoever does not see the curve. */
function speakPoint(i) {
  const points = state.observation.points;
  const magnitude = points.t1[i] === null ? "no magnitude" : `T1 ${points.t1[i].toFixed(3)}`;
  $("spoken").textContent = `Point ${i + 1} of ${points.label.length}, ${magnitude}, ${points.state[i]}${state.selection.has(i) ? ", selected" : ""}`;
}

function toggle(i) {
  if (i === null) return;
  if (!state.selection.delete(i)) state.selection.add(i);
  drawCurve();
}

function unselect() {
  state.selection.clear();
  state.cursor = null;
  drawCurve();
}

const curve = new Curve($("plot"), {
  onHover: showPoint,
  onPick: (i, adds) => {
    if (!adds && !(state.selection.size === 1 && state.selection.has(i))) state.selection.clear();
    state.cursor = i;
    showPoint(i);
    toggle(i);
  },
  onSelect: (chosen, adds) => {
    state.selection = adds ? new Set([...state.selection, ...chosen]) : chosen;
    state.cursor = null;
    drawCurve();
  },
});

function setMode(mode) {
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  curve.setMode(mode);
}

// -------------------------------------------------------------------------------- decisions

async function decide(kind, { hashes = [], why = null, on = state.observation } = {}) {
  if (!on || state.busy) return false;
  state.busy = true;
  showButtons();
  showSelection();
  try {
    const found = await api.write("/api/decide", { key: on.key, kind, raw_hashes: hashes, why, seen: on.seen, version: on.version });
    state.busy = false;
    if (state.key === on.key) { state.selection.clear(); show(found, { keep: true }); }
    await refresh();
    return found;
  } catch (error) {
    state.busy = false;
    const now = error.answer?.observation;
    if (error.status === 409 && now) {
      if (state.key === on.key) {
        notices.push({ words: `${error.message}. Nothing was changed by you; this is how it is now.`, button: "Dismiss", act: () => { notices.length = 0; showBanners(); } });
        show(now, { keep: true });
      }
      refresh();
    }
    tell(error.message, { bad: true });
    return false;
  } finally {
    state.busy = false;
    if (state.observation) { showButtons(); showSelection(); }
  }
}

/** Go on to what comes next in the list once the open one has left it. */
async function decideAndGoOn(kind, options) {
  const on = state.observation;
  const before = listed().map((one) => one.key);
  const at = before.indexOf(on.key);
  const found = await decide(kind, options);
  if (!found) return;
  tell(`${DECIDED[kind]}: ${on.target} ${on.filter} ${on.night}`, { undo: found });
  const left = new Set(listed().map((one) => one.key));
  if (left.has(on.key) || at < 0) return;
  const next = before.slice(at + 1).find((key) => left.has(key)) ?? before.slice(0, at).reverse().find((key) => left.has(key));
  if (next) await open(next);
}

function approve() {
  if ($("approve").disabled || !state.observation) return;
  if (state.observation.word === "held" || state.observation.held) {
    askWhy("Its check star is off. Why is it approved all the same?", "Approve", ["check star is variable", "check star's catalogue magnitude is off", "only the check star was clouded"], (why) => decideAndGoOn("approve", { why }));
  } else decideAndGoOn("approve");
}

function reject() {
  if ($("reject").disabled || !state.observation) return;
  askWhy("Why is it rejected?", "Reject", WHY, (why) => decideAndGoOn("reject", { why }));
}

async function decidePoints(kind) {
  const points = state.observation?.points;
  const button = $(kind);
  if (!points || button.disabled) return;
  const fits = kind === "reject-points" ? (i) => points.state[i] !== "rejected" : (i) => !isKept(points.state[i]);
  const chosen = [...state.selection].filter(fits);
  const found = await decide(kind, { hashes: chosen.map((i) => points.raw_hash[i]) });
  if (found) tell(`${DECIDED[kind]} ${many(chosen.length, "point")}`, { undo: found });
}

async function undo() {
  if (!$("toast").hidden && state.toastUndo) {
    const on = state.toastUndo;
    hideToast();
    if (on.key !== state.key) await open(on.key);
    if (state.observation?.key === on.key) await undoLast();
    return;
  }
  await undoLast();
}

async function undoLast() {
  if ($("undo").disabled) { tell("Nothing to undo here."); return; }
  const last = lastHeld();
  const found = await decide("undo");
  if (found) tell(`Undone: ${(DECIDED[last.kind] ?? last.kind).toLowerCase()}${last.n_points ? ` ${many(last.n_points, "point")}` : ""}`);
}

async function confirmStar() {
  const found = await decide("confirm-star");
  if (found) tell("Confirmed the star", { undo: found });
}

let whyDone = null;

function askWhy(title, button, reasons, done) {
  $("why-title").textContent = title;
  const submit = $("why-form").querySelector("[type=submit]");
  submit.textContent = button;
  submit.className = button === "Reject" ? "danger solid" : "go";
  $("why").value = "";
  $("why-chips").replaceChildren(...reasons.map((text) => {
    const chip = make("button", { type: "button", text });
    chip.addEventListener("click", () => { $("why").value = text; $("why").focus(); });
    return chip;
  }));
  whyDone = done;
  $("why-dialog").showModal();
  $("why").focus();
}

$("why-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = $("why").value.trim();
  if (!words) { $("why").focus(); return; }
  $("why-dialog").close();
  whyDone?.(words);
});
$("why").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("why-form").requestSubmit(); }
});

// ------------------------------------------------------------------------------------ telling

let toastTimer = null;

function tell(words, { bad = false, undo: undoes = null } = {}) {
  clearTimeout(toastTimer);
  $("toast-words").textContent = words;
  $("toast").classList.toggle("bad", bad);
  state.toastUndo = undoes;
  $("toast-undo").hidden = undoes === null;
  $("toast").hidden = false;
  toastTimer = setTimeout(hideToast, TOAST_MS);
}

function hideToast() {
  clearTimeout(toastTimer);
  $("toast").hidden = true;
  state.toastUndo = null;
}

// --------------------------------------------------------------------------------- the report

const report = new ReportDialog({
  dialog: $("report-dialog"), body: $("report-body"), button: $("report-write"), make, many,
  opening: hideToast,
  approved: () => state.list.filter((one) => one.view === "approved"),
  done: refresh, tell,
});

// ------------------------------------------------------------------------------------- the keys

const KEYS = [
  [["j", "ArrowDown"], "j  ↓", "next observation", () => step(1)],
  [["k", "ArrowUp"], "k  ↑", "previous observation", () => step(-1)],
  [["ArrowRight"], "→", "next point", (event) => moveCursor(1, event.shiftKey)],
  [["ArrowLeft"], "←", "previous point; with Shift both select on the way", (event) => moveCursor(-1, event.shiftKey)],
  [[" "], "Space", "select the point, or not", () => toggle(state.cursor)],
  [["a"], "a", "approve the observation", approve],
  [["r"], "r", "reject the observation, with a reason", reject],
  [["x"], "x", "reject the selected points", () => decidePoints("reject-points")],
  [["c"], "c", "restore the selected points", () => decidePoints("restore-points")],
  [["u"], "u", "undo", undo],
  [["m"], "m", "confirm the star that was found by position", () => { if (state.observation?.to_confirm) confirmStar(); }],
  [["s"], "s", "dragging selects", () => setMode("select")],
  [["d"], "d", "dragging zooms", () => setMode("zoom")],
  [["v"], "v", "dragging moves", () => setMode("pan")],
  [["+", "="], "+", "zoom in, at the point", () => curve.move({ factor: 0.6 })],
  [["-"], "−", "zoom out", () => curve.move({ factor: 1 / 0.6 })],
  [["["], "[", "to the left", () => curve.move({ shift: -0.25 })],
  [["]"], "]", "to the right", () => curve.move({ shift: 0.25 })],
  [["z"], "z", "show everything again", () => curve.reset()],
  [["p"], "p", "phase or time", () => { if (!$("phase").disabled) $("phase").click(); }],
  [["e"], "e", "earlier nights", () => { if (!$("earlier").disabled) $("earlier").click(); }],
  [["w"], "w", "report to the AAVSO", () => report.open()],
  [["/"], "/", "search", () => $("search").focus()],
  [["t"], "t", "dark or light", toggleTheme],
  [["Escape"], "Esc", "select nothing", unselect],
  [["?"], "?", "these keys", () => $("help-dialog").showModal()],
];
const BY_KEY = new Map(KEYS.flatMap(([keys, , , act]) => keys.map((key) => [key, act])));

$("keys").replaceChildren(...KEYS.flatMap(([, shown, words]) => [make("dt", {}, make("kbd", { text: shown })), make("dd", { text: words })]));

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (at.matches("input, textarea, select")) {
    if (event.key === "Escape") at.blur();
    if (at.id === "search" && event.key === "Enter") { at.blur(); step(0); }
    return;
  }
  if (at.matches("button, a") && (event.key === " " || event.key === "Enter")) return;
  const act = BY_KEY.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (!act) return;
  event.preventDefault();
  act(event);
});

// ------------------------------------------------------------------------------------- the rest

function toggleTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("wombat-theme", document.documentElement.dataset.theme); } catch { /* not kept */ }
  drawCurve();
}

function pick(view) {
  state.view = view;
  showList();
  const shown = listed();
  if (!shown.some((one) => one.key === state.key)) {
    if (shown.length) open(shown[0].key);
    else { state.key = null; state.observation = null; showEmpty(); }
  }
}

function wire() {
  $("views").addEventListener("click", (event) => {
    const button = event.target.closest("[data-view]");
    if (button) pick(button.dataset.view);
  });
  $("list").addEventListener("click", (event) => {
    const button = event.target.closest("[data-key]");
    if (button) open(button.dataset.key);
  });
  $("search").addEventListener("input", (event) => { state.search = event.target.value; showList(); });
  $("by-filter").addEventListener("change", (event) => { state.filter = event.target.value; showList(); });
  $("by-night").addEventListener("change", (event) => { state.night = event.target.value; showList(); });
  $("approve").addEventListener("click", approve);
  $("reject").addEventListener("click", reject);
  $("undo").addEventListener("click", undoLast);
  $("toast-undo").addEventListener("click", undo);
  $("reject-points").addEventListener("click", () => decidePoints("reject-points"));
  $("restore-points").addEventListener("click", () => decidePoints("restore-points"));
  $("reset").addEventListener("click", () => curve.reset());
  $("phase").addEventListener("click", () => { state.phase = !state.phase; drawCurve(); });
  $("earlier").addEventListener("click", () => { state.showEarlier = !state.showEarlier; drawCurve(); });
  $("report").addEventListener("click", () => report.open());
  $("theme").addEventListener("click", toggleTheme);
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  $("chart-button").addEventListener("click", () => { $("chart-large").src = $("chart").src; $("chart-dialog").showModal(); });
  for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  $("thumb").addEventListener("error", () => { $("thumb").hidden = true; $("no-thumb").textContent = "no picture"; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCurve);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  addEventListener("hashchange", () => {
    const key = decodeURIComponent(location.hash.slice(1));
    if (key && key !== state.key) open(key);
  });
  setInterval(() => { if (!document.hidden && !state.busy) refresh(); }, POLL_MS);
}

async function begin() {
  if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", `/${location.hash}`);
  wire();
  performance.mark("asked");
  await refresh();
  requestAnimationFrame(() => setTimeout(() => { // the list is on the screen
    performance.measure("list", "asked");
    document.body.dataset.listed = "yes";
  }));
  let key = null;
  try { key = decodeURIComponent(location.hash.slice(1)) || null; } catch { /* no key */ }
  const asked = key && state.list.find((one) => one.key === key);
  if (asked && !isIn(asked, state.view)) { state.view = asked.view; showList(); }
  const first = asked?.key ?? listed()[0]?.key;
  if (first) await open(first); else showEmpty();
}

begin();
