// What goes on: streams by state, rates, times, alarms.
import { follow } from "./api.js";
import { Chart } from "./charts.js";
import { badge, h, table, tile } from "./dom.js";
import { clock, milliseconds, number, quantile, rate, sentence } from "./format.js";

const STATES = ["stable", "new", "warning", "drifted"];
const SAMPLES_MAX = 720;

export function overview(main, context) {
  const rates = new Chart({
    title: "Rows a second", time: true, format: rate, scale: { range: (plot, low, high) => [0, Math.max(high * 1.1, 1)] },
    series: [{ label: "learned", colour: "accent" }, { label: "predicted", colour: "other", dash: [6, 4] }],
  });
  const times = new Chart({
    title: "Latency", time: true, format: milliseconds,
    scale: { range: (plot, low, high) => [0, Math.max((high ?? 0) * 1.1, 0.001)] },
    series: [
      { label: "adaptation p50", colour: "accent" }, { label: "adaptation p99", colour: "accent", dash: [6, 4] },
      { label: "commit p50", colour: "other" }, { label: "commit p99", colour: "other", dash: [6, 4] },
    ].map((each) => ({ ...each, spanGaps: true })),
  });
  const alarms = new Chart({
    title: "Alarms", time: true, format: number, scale: { range: (plot, low, high) => [0, Math.max(high ?? 0, 4)] },
    series: [
      { label: "drifts and warnings", colour: "warning", bars: true, fill: "warning" },
      { label: "drifts", colour: "drift", bars: true, fill: "drift" },
    ],
  });
  const tiles = h("dl", { className: "tiles" });
  const bar = h("div", { className: "bar", "aria-hidden": "true" });
  const events = h("div", { className: "scroll tall", tabindex: "0", role: "region", "aria-label": "Latest events" });
  const welcome = h("div", { className: "card notice", hidden: true }, h("p", {}, "No streams yet. Feed one, and it shows up here: ",
    h("code", {}, "make demo"), " plays five real streams into this server; ", h("a", { href: "/docs" }, "the API"), " takes yours."));
  main.append(h("h1", {}, "Overview"), welcome,
    h("section", { className: "card", "aria-label": "Streams by state" }, tiles, bar),
    h("div", { className: "two" }, rates.figure, times.figure), alarms.figure,
    h("section", { className: "card" }, h("h2", {}, "Latest events"), events));
  let samples = [];

  function show(found) {
    samples = [...samples, ...found.samples].slice(-SAMPLES_MAX);
    const total = Object.values(found.states).reduce((sum, streams) => sum + streams, 0);
    welcome.hidden = total > 0;
    const latest = samples.at(-1);
    const each = (name) => rate((latest?.[name] ?? 0) / found.sample_seconds);
    tiles.replaceChildren(
      tile("Streams", h("a", { href: "#/streams" }, number(total)), `${number(found.hot)} in memory`),
      ...STATES.map((state) => tile(badge(state), number(found.states[state] ?? 0))),
      tile("Learned", each("learned"), "rows/s"), tile("Predicted", each("predicted"), "rows/s"));
    bar.replaceChildren(...STATES.filter((state) => found.states[state]).map((state) => {
      const part = h("span", { className: state });
      part.style.width = `${(100 * found.states[state]) / total}%`;
      return part;
    }));
    const at = samples.map((sample) => sample.at);
    const per = (name) => samples.map((sample) => sample[name] / found.sample_seconds);
    const time = (name, share) => samples.map((sample) => quantile(sample[name], found.bucket_seconds, share));
    rates.show([at, per("learned"), per("predicted")],
      latest ? `now ${each("learned")} learned, ${each("predicted")} predicted` : "the first figures come in seconds");
    const columns = [time("learning", 0.5), time("learning", 0.99), time("commits", 0.5), time("commits", 0.99)];
    const last = columns.map((column) => milliseconds(column.findLast((value) => value !== null) ?? null));
    times.show([at, ...columns], `last: adaptation ${last[0]} (99%: ${last[1]}), commit ${last[2]} (99%: ${last[3]})`);
    const minutes = byMinute(samples, Date.parse(found.at) / 1000);
    const drifts = summed(minutes[2]);
    alarms.show(minutes, `in the last hour: ${number(drifts)} drifts, ${number(summed(minutes[1]) - drifts)} warnings; a bar a minute`);
    events.replaceChildren(table("Latest events of all streams",
      [["at"], ["stream"], ["what"], ["evidence and action"], ["revision", "number"]],
      found.events.map((event) => [clock(event.at), h("a", { href: `#/streams/${event.stream}` }, event.stream),
        badge(event.kind), sentence(event), number(event.revision)])));
  }

  follow("/v1/overview", context.signal, (kind, found) => show(found), context.link);
  return () => [rates, times, alarms].forEach((chart) => chart.close());
}

function summed(values) {
  return values.reduce((sum, value) => sum + value, 0);
}

/** Minutes of the last hour, and in each drifts and warnings together, and drifts. */
function byMinute(samples, now) {
  const last = Math.floor(now / 60);
  const found = new Map(Array.from({ length: 60 }, (_, index) => [last - 59 + index, [0, 0]]));
  for (const sample of samples) {
    const counts = found.get(Math.floor((sample.at - 1) / 60));
    if (counts) {
      counts[0] += sample.drifts + sample.warnings;
      counts[1] += sample.drifts;
    }
  }
  const counts = [...found.values()];
  return [[...found.keys()].map((minute) => minute * 60 + 30), counts.map((pair) => pair[0] || null), counts.map((pair) => pair[1] || null)];
}
