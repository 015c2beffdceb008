// Draws the light curve with Plotly: T1 above, T2 below, bright at the top.
// Names come from directories and headers. Plotly reads text as HTML: `plain` makes it text again.

const DAY_MS = 86_400_000;
const JD_OF_1970 = 2440587.5;
const LEAST_SPAN_MAG = 0.05;
const FAR = 1.0; // spans of the good points beyond which a rejected one does not widen the axis
const MAX_CYCLES = 20;
const MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

export const plain = (text) => String(text)
  .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export const toMs = (jd) => (jd - JD_OF_1970) * DAY_MS;
export const utc = (jd) => new Date(Math.round(toMs(jd) / 1000) * 1000).toISOString().slice(0, 19).replace("T", " ");

const whenPlotly = new Promise((done, failed) => {
  if (window.Plotly) { done(window.Plotly); return; }
  const script = document.getElementById("plotly");
  script.addEventListener("load", () => done(window.Plotly));
  script.addEventListener("error", () => failed(new Error("plotly.min.js cannot be loaded")));
});

export const isKept = (state) => state === "good" || state === "restored";

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {
    t1: of("--t1"), t2: of("--t2"), ink: of("--ink"), quiet: of("--quiet"), line: of("--line"),
    grid: of("--grid"), paper: of("--paper"), grey: of("--earlier"), mark: of("--mark"), keep: of("--keep"),
  };
}

function span(values, errors, which) {
  let low = Infinity, high = -Infinity;
  values.forEach((value, i) => {
    if (value === null || !which(i)) return;
    const error = errors?.[i] ?? 0;
    low = Math.min(low, value - error);
    high = Math.max(high, value + error);
  });
  return low <= high ? [low, high] : null;
}

/** The range of a magnitude axis, faint end first; rejected points that lie far off stay outside. */
function range(values, errors, kept, extra = []) {
  let found = span(values, errors, (i) => kept[i]) ?? span(values, errors, () => true);
  if (!found) return [1, 0];
  let [low, high] = found;
  const far = FAR * Math.max(high - low, LEAST_SPAN_MAG);
  for (const value of [...values, ...extra]) {
    if (value === null || value < low - far || value > high + far) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const lack = Math.max(0, LEAST_SPAN_MAG - (high - low)) / 2;
  const pad = 0.07 * Math.max(high - low, LEAST_SPAN_MAG);
  return [high + lack + pad, low - lack - pad];
}

const SYMBOLS = { good: "circle", proposed: "circle-open", rejected: "x-thin-open", restored: "circle" };

export class Curve {
  constructor(element, { onHover, onPick, onSelect }) {
    this.element = element;
    this.on = { onHover, onPick, onSelect };
    this.mode = "select";
    this.revision = 0;
    this.ready = false;
  }

  /** Draw. `view`: {observation, earlier, phase, showEarlier, selection, cursor}. */
  async draw(view) {
    this.view = view;
    const Plotly = await whenPlotly;
    if (this.view !== view) return; // another was asked for meanwhile
    const { data, layout } = this.figure(view);
    const config = { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: false, showTips: false };
    await Plotly.react(this.element, data, layout, config);
    if (!this.ready) this.listen();
  }

  listen() {
    this.ready = true;
    const index = (point) => point?.data?.meta === "own" ? point.customdata : null;
    this.element.on("plotly_hover", (event) => {
      const i = index(event.points?.[0]);
      if (i !== null) this.on.onHover(i);
    });
    this.element.on("plotly_click", (event) => {
      const i = index(event.points?.[0]);
      if (i !== null) this.on.onPick(i, event.event?.shiftKey || event.event?.ctrlKey || event.event?.metaKey);
    });
    this.element.on("plotly_selected", (event) => {
      if (!event?.range) return; // not by a person: Plotly tells of the selection that was cleared
      const chosen = (event.points ?? []).map(index).filter((i) => i !== null);
      this.on.onSelect(new Set(chosen), this.event?.shiftKey);
    });
    this.element.addEventListener("pointerup", (event) => { this.event = event; }, true);
    this.element.on("plotly_doubleclick", () => this.reset());
  }

  setMode(mode) {
    this.mode = mode;
    if (this.ready) window.Plotly.relayout(this.element, { dragmode: mode, selections: [] });
  }

  /** Show everything again. */
  reset() {
    this.revision += 1;
    if (this.view) this.draw({ ...this.view });
  }

  /** Zoom by a factor about the cursor or the middle; pan by a part of the width. */
  move({ factor = 1, shift = 0 }) {
    if (!this.ready) return;
    const axis = this.element._fullLayout.xaxis;
    const number = axis.type === "date" ? (v) => new Date(`${String(v).replace(" ", "T")}Z`).getTime() : Number;
    const [from, to] = axis.range.map(number);
    const width = (to - from) * factor;
    const x = this.view.cursor === null ? null : this.x[this.view.cursor];
    const part = x === null || x < from || x > to ? 0.5 : (x - from) / (to - from);
    const begin = from + part * (to - from) - part * width + shift * (to - from);
    window.Plotly.relayout(this.element, { "xaxis.range": [begin, begin + width] });
  }

  figure(view) {
    const { observation, phase } = view;
    const points = observation.points;
    const ink = colours();
    const states = points.state;
    const kept = states.map(isKept);
    const folded = phase && points.phase;
    this.x = folded ? points.phase : points.jd.map((jd) => jd === null ? null : toMs(jd));
    const texts = points.label.map((_, i) => this.hover(observation, states, i));
    const limits = points.t1_limit;
    const data = [];
    const earlier = view.showEarlier && view.earlier?.length ? this.earlier(view, ink, folded) : null;
    if (earlier) data.push(earlier);
    const bands = [
      { y: points.t1, errors: points.t1_error, colour: ink.t1, axis: "y", name: "T1" },
      { y: points.t2, errors: points.t2_error, colour: ink.t2, axis: "y2", name: "T2" },
    ];
    for (const one of bands) {
      data.push(this.bars(one, kept, limits));
      const places = new Map();
      points.label.forEach((_, i) => {
        if (one.y[i] === null || this.x[i] === null) return;
        const kind = one.name === "T1" && limits[i] ? `limit ${states[i]}` : states[i];
        if (!places.has(kind)) places.set(kind, []);
        places.get(kind).push(i);
      });
      const order = [...places.keys()].sort((a, b) => isKept(a.split(" ").at(-1)) - isKept(b.split(" ").at(-1)));
      for (const kind of order) data.push(this.trace(one, places.get(kind), kind, texts, ink));
    }
    data.push(...this.marks(view, bands, ink));
    let t1 = range(points.t1, points.t1_error, kept.map((k, i) => k && !limits[i]));
    if (folded && earlier) t1 = range([...points.t1, ...earlier.y], points.t1_error, [...kept.map((k, i) => k && !limits[i]), ...earlier.y.map(() => true)]);
    const catalogue = observation.check?.catalogue;
    const t2 = range(points.t2, points.t2_error, kept, catalogue === null || catalogue === undefined ? [] : [catalogue]);
    return { data, layout: this.layout({ observation, folded, ink, t1, t2, catalogue }) };
  }

  /** The points of one star that share a sign: styles of single points would cost far more. */
  trace(one, which, kind, texts, ink) {
    const of = (f) => which.map(f);
    const state = kind.split(" ").at(-1);
    const good = isKept(state);
    const opacity = good ? 1 : 0.6;
    const down = good ? "triangle-down" : "triangle-down-open";
    return {
      type: "scatter", mode: "markers", meta: "own", yaxis: one.axis, xaxis: "x", name: one.name,
      x: of((i) => this.x[i]), y: of((i) => one.y[i]), customdata: which,
      text: of((i) => texts[i]), hovertemplate: "%{text}<extra></extra>",
      marker: {
        color: one.colour, opacity, size: (good ? 6.5 : 9) - (which.length > 300 ? 1.5 : 0),
        symbol: kind.startsWith("limit") ? down : SYMBOLS[state],
        line: { color: state === "restored" ? ink.keep : one.colour, width: state === "restored" ? 2.5 : good ? 0 : 1.8 },
      },
      selected: { marker: { opacity } }, unselected: { marker: { opacity } }, selectedpoints: null,
    };
  }

  /** Error bars as one line with gaps: a thousand of them cost no more than one. */
  bars(one, kept, limits) {
    const x = [], y = [];
    one.y.forEach((value, i) => {
      const error = one.errors[i];
      if (!kept[i] || value === null || !error || this.x[i] === null || (one.name === "T1" && limits[i])) return;
      x.push(this.x[i], this.x[i], null);
      y.push(value - error, value + error, null);
    });
    return {
      type: "scatter", mode: "lines", meta: "bars", xaxis: "x", yaxis: one.axis, x, y, hoverinfo: "skip", connectgaps: false,
      line: { color: one.colour, width: x.length > 900 ? 0.8 : 1.2, simplify: false }, opacity: 0.75,
    };
  }

  /** Rings around what is selected, and a wider one around the cursor, on both stars. */
  marks(view, bands, ink) {
    const chosen = [...view.selection];
    const ring = (which, size, width, name) => bands.map((one) => ({
      type: "scatter", mode: "markers", meta: name, xaxis: "x", yaxis: one.axis, hoverinfo: "skip",
      x: which.map((i) => this.x[i]), y: which.map((i) => one.y[i]),
      marker: { symbol: "circle-open", size, color: ink.mark, line: { width, color: ink.mark } },
      selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 1 } }, selectedpoints: null,
    }));
    return [
      ...!chosen.length ? [] : ring(chosen, 13, 2.2, "selected"),
      ...view.cursor === null ? [] : ring([view.cursor], 19, 1.3, "cursor"),
    ];
  }

  /** Earlier nights moved by whole periods on to this one; without a period by whole days. */
  earlier(view, ink, folded) {
    const { observation } = view;
    const x = [], y = [], text = [];
    const own = observation.points.jd.filter((jd) => jd !== null);
    if (!own.length) return null;
    const margin = 0.05 * (Math.max(...own) - Math.min(...own)) + 0.002;
    const [from, to] = [Math.min(...own) - margin, Math.max(...own) + margin];
    const period = observation.fold?.period_d ?? 1;
    if (!folded && (to - from) / period > MAX_CYCLES) return null; // the night shows them all itself
    for (const night of view.earlier) {
      night.jd.forEach((jd, i) => {
        if (jd === null || night.mag[i] === null) return;
        const words = `${plain(night.night)}  ${night.mag[i].toFixed(3)} mag`;
        if (folded) {
          if (night.phase?.[i] === undefined || night.phase[i] === null) return;
          x.push(night.phase[i]); y.push(night.mag[i]); text.push(words);
          return;
        }
        for (let k = Math.ceil((from - jd) / period); jd + k * period <= to; k += 1) {
          x.push(toMs(jd + k * period)); y.push(night.mag[i]); text.push(words);
        }
      });
    }
    return {
      type: "scatter", mode: "markers", meta: "earlier", xaxis: "x", yaxis: "y", x, y, text,
      hovertemplate: "%{text}<extra></extra>",
      marker: { color: ink.grey, size: 4.5, symbol: "circle" },
      selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 1 } }, selectedpoints: null,
    };
  }

  hover(observation, states, i) {
    const points = observation.points;
    const lines = [`<b>${plain(points.label[i])}</b>`];
    if (points.jd[i] !== null) lines.push(`${utc(points.jd[i])} UT`, `JD ${points.jd[i].toFixed(5)}`);
    const magnitude = (value, error) => value === null ? "–" : `${value.toFixed(3)}${error ? ` ± ${error.toFixed(3)}` : ""}`;
    lines.push(`T1 ${points.t1_limit[i] ? "fainter than " : ""}${magnitude(points.t1[i], points.t1_limit[i] ? null : points.t1_error[i])}   T2 ${magnitude(points.t2[i], points.t2_error[i])}`);
    const parts = [];
    if (points.airmass[i] !== null) parts.push(`airmass ${points.airmass[i].toFixed(2)}`);
    if (points.fwhm[i] !== null) parts.push(`FWHM ${points.fwhm[i].toFixed(2)} px`);
    if (parts.length) lines.push(parts.join(", "));
    if (states[i] !== "good") lines.push(`<b>${states[i]}</b>${points.proposed[i] ? `: ${plain(points.proposed[i])}` : ""}`);
    for (const words of [points.flags[i], points.faults[i]]) if (words) lines.push(plain(words.length > 70 ? `${words.slice(0, 69)}…` : words));
    return lines.join("<br>");
  }

  layout({ observation, folded, ink, t1, t2, catalogue }) {
    const font = { family: FONT, size: 12, color: ink.quiet };
    const x = this.x.filter((v) => v !== null);
    let [from, to] = x.length ? [Math.min(...x), Math.max(...x)] : [0, 1];
    const pad = 0.03 * (to - from) || (folded ? 0.02 : 120_000);
    if (folded) { [from, to] = [-0.02, 1.02]; } else { from -= pad; to += pad; }
    const axis = {
      gridcolor: ink.grid, linecolor: ink.line, zeroline: false, showline: true, mirror: true, ticks: "", tickfont: font, ticklabelstandoff: 4, fixedrange: false,
    };
    const middle = (name, colour) => ({ text: name, font: { ...font, color: colour, size: 13 }, standoff: 6 });
    const jds = observation.points.jd.filter((jd) => jd !== null);
    const days = jds.length ? `UT   (JD ${Math.min(...jds).toFixed(3)} … ${Math.max(...jds).toFixed(3)})` : "UT";
    const shapes = [], annotations = [];
    if (catalogue !== null && catalogue !== undefined) {
      shapes.push({ type: "line", xref: "x domain", yref: "y2", x0: 0, x1: 1, y0: catalogue, y1: catalogue, line: { color: ink.t2, width: 1.6, dash: "dash" }, layer: "below" });
      annotations.push({ xref: "x domain", yref: "y2", x: 1, y: catalogue, xanchor: "right", yanchor: "bottom", text: `catalogue ${catalogue.toFixed(3)}`, showarrow: false, bgcolor: ink.paper, opacity: 0.9, borderpad: 1, font: { ...font, size: 11, color: ink.t2 } });
    }
    const revision = `${observation.key} ${folded ? "phase" : "time"} ${this.revision}`;
    return {
      uirevision: revision, autosize: true, dragmode: this.mode, selections: [], hovermode: "closest", hoverdistance: 14, selectionrevision: (this.drawn = (this.drawn ?? 0) + 1),
      showlegend: false, margin: { l: 66, r: 14, t: 10, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: ink.paper,
      font, hoverlabel: { bgcolor: ink.paper, bordercolor: ink.line, align: "left", font: { family: MONO, size: 12, color: ink.ink } },
      newselection: { line: { color: ink.mark, width: 1.5, dash: "solid" } },
      xaxis: {
        ...axis, mirror: "all", anchor: "y2", domain: [0, 1], range: [from, to], type: folded ? "linear" : "date",
        title: middle(folded ? `phase   (${plain(observation.fold.words)})` : days, ink.quiet),
        hoverformat: folded ? ".4f" : "%H:%M:%S", tickformatstops: folded ? undefined : [
          { dtickrange: [null, 60_000], value: "%H:%M:%S" }, { dtickrange: [60_000, 86_400_000], value: "%H:%M" },
          { dtickrange: [86_400_000, null], value: "%Y-%m-%d" },
        ],
      },
      yaxis: { ...axis, anchor: "x", domain: [0.335, 1], range: t1, tickformat: ".2f", title: middle(`T1   ${plain(observation.band ?? observation.filter)}  mag`, ink.t1) },
      yaxis2: { ...axis, anchor: "x", domain: [0, 0.275], range: t2, tickformat: ".2f", nticks: 5, title: middle("T2   mag", ink.t2) },
      shapes, annotations,
    };
  }
}
