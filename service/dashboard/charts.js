// Charts: uPlot in the colours of the page, as wide as their place, with what they show in words beside them.
import uPlot from "./uPlot.js";
import { h } from "./dom.js";

const charts = new Set();

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Draw all charts anew, in the colours of another theme. */
export function redraw() {
  for (const chart of charts) chart.build();
}

/**
 * A figure with one chart.
 *
 * options: `title`, `time` (x is epoch seconds, not a row), `series` ([{label, colour, width?, dash?, points?, band?}]),
 * `format` (of values), `marks` (() => [{x, kind}]), `height`, `bars`.
 */
export class Chart {
  constructor(options) {
    this.options = options;
    this.data = [[], ...options.series.map(() => [])];
    this.words = h("span", { className: "soft" });
    this.place = h("div", { className: "plot", "aria-hidden": "true" });
    const caption = h("figcaption", {}, h("h2", {}, options.title), this.words);
    this.figure = h("figure", { className: "card" }, caption, this.place);
    this.plot = null;
    this.watcher = new ResizeObserver(() => this.resize());
    this.watcher.observe(this.place);
    charts.add(this);
  }

  /** Show other data: x, then one column a series; `words` say what they show. */
  show(data, words) {
    this.data = data;
    this.words.textContent = words;
    if (this.plot) this.plot.setData(data);
    else this.build();
  }

  resize() {
    const width = this.place.clientWidth;
    if (!this.plot || !width) this.build();
    else if (width !== this.plot.width) this.plot.setSize({ width, height: this.plot.height });
  }

  build() {
    const width = this.place.clientWidth;
    if (!width) return;
    this.plot?.destroy();
    this.place.replaceChildren();
    const { time = false, series, format, height = 210, scale = {} } = this.options;
    const hours = "{HH}:{mm}";
    const axis = { stroke: colour("soft"), grid: { stroke: colour("grid"), width: 1 }, ticks: { stroke: colour("grid") } };
    const shown = (plot, value) => (value === null || value === undefined ? "–" : format(value));
    this.plot = new uPlot({
      width,
      height,
      scales: { x: { time }, y: scale },
      legend: { live: true },
      cursor: { drag: { x: true, y: false } },
      axes: [{ ...axis, ...(time ? { values: [[3600, hours, null, null, null, null, null, null, 0], [60, hours, null, null, null, null, null, null, 0], [1, `${hours}:{ss}`, null, null, null, null, null, null, 0]] } : {}) }, { ...axis, size: 64, values: (plot, values) => values.map((value) => format(value)) }],
      series: [
        { label: time ? "at" : "row", value: time ? "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" : (plot, value) => value ?? "–" },
        ...series.map((each) => ({
          label: each.label,
          stroke: each.points ? undefined : colour(each.colour),
          width: each.width ?? 2,
          dash: each.dash,
          fill: each.fill && colour(each.fill),
          paths: each.bars ? uPlot.paths.bars({ size: [0.7, 24] }) : each.points ? () => null : undefined,
          points: each.points ? { show: true, size: 5, fill: colour(each.colour), stroke: colour(each.colour) } : { show: false },
          spanGaps: each.spanGaps ?? false,
          value: shown,
        })),
      ],
      bands: (this.options.bands ?? []).map((pair) => ({ series: pair, fill: colour("band") })),
      hooks: { draw: [(plot) => this.mark(plot)] },
    }, this.data, this.place);
  }

  /** Upright lines where something happened. */
  mark(plot) {
    const alarmsLast = (mark) => (mark.kind === "warning" ? 0 : 1);
    for (const { x, kind } of (this.options.marks?.() ?? []).toSorted((a, b) => alarmsLast(a) - alarmsLast(b))) {
      const { min, max } = plot.scales.x;
      if (min === null || x < min || x > max) continue;
      const at = Math.round(plot.valToPos(x, "x", true));
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.strokeStyle = colour(kind);
      ctx.fillStyle = colour(kind);
      ctx.globalAlpha = kind === "warning" ? 0.45 : 1;
      ctx.lineWidth = (kind === "warning" ? 1 : 1.8) * devicePixelRatio;
      ctx.setLineDash([5, 4]);
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.arc(at, bbox.top + 4, 4 * devicePixelRatio, 0, 7);
      ctx.fill();
      ctx.restore();
    }
  }

  close() {
    charts.delete(this);
    this.watcher.disconnect();
    this.plot?.destroy();
  }
}
