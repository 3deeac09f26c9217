// One stream: how it does against the frozen start, what happened to it, and what may be done with it.
import { download, follow, get, post } from "./api.js";
import { Chart } from "./charts.js";
import { ask, badge, h, say, table, tile } from "./dom.js";
import { clock, number, sentence } from "./format.js";

const REVISIONS = 1000;
const ROWS = 200;
const WINDOW_ROWS = 100;
const SHOWN = 50;
const WIDE = 1.645;

export function stream(main, context, name) {
  const path = `/v1/streams/${encodeURIComponent(name)}`;
  const tiles = h("dl", { className: "tiles" });
  const state = h("span");
  const buttons = [
    h("button", { type: "button", onclick: snapshot }, "Snapshot …"),
    h("button", { type: "button", onclick: rollBack }, "Roll back …"),
    h("button", { type: "button", className: "risk", onclick: reset }, "Reset …"),
  ];
  const body = h("div", { className: "stack" });
  const problem = h("section", { className: "card notice bad", role: "alert", hidden: true });
  const events = area("Events");
  const rows = area("Recent rows");
  const revisions = area("Revisions");
  main.append(h("p", {}, h("a", { href: "#/streams" }, "Streams"), " / "),
    h("div", { className: "row" }, h("h1", {}, name), state, h("span", { className: "grow" }), buttons), problem,
    h("section", { className: "card", "aria-label": "State" }, tiles), body,
    h("section", { className: "card" }, h("h2", {}, "Drift and other events"), events),
    h("section", { className: "card" }, h("h2", {}, "Recent predictions and labels"), rows),
    h("section", { className: "card" }, h("h2", {}, "Revisions"), revisions));
  let info = null;
  let task = null;
  let log = [];
  let marks = [];
  let charts = [];
  let drawn = -1;
  let drawing = false;

  function fail(error) {
    if (error.name === "AbortError") return;
    if (info === null || error.status === 404) {
      problem.hidden = false;
      problem.textContent = error.message;
    } else say(error.message);
  }

  function charted(model) {
    task = model.task;
    const classes = task === "classification";
    const score = new Chart({
      title: classes ? "Accuracy" : "Mean absolute error", format: (value) => number(value, 3), height: 240, marks: () => marks,
      series: [{ label: "adapted", colour: "accent" }, { label: "frozen start", colour: "other", dash: [6, 4] }],
    });
    const loss = new Chart({
      title: "Loss in nats", format: (value) => number(value, 3), height: 240, marks: () => marks,
      series: [{ label: "adapted", colour: "accent" }, { label: "frozen start", colour: "other", dash: [6, 4] }],
    });
    const answers = classes
      ? new Chart({
        title: "How sure it was", format: (value) => number(value, 2), height: 240, marks: () => marks, scale: { range: [0, 1.05] },
        series: [{ label: "right", colour: "stable", points: true }, { label: "wrong", colour: "drift", points: true }],
      })
      : new Chart({
        title: "Predictions and labels", format: (value) => number(value, 3), height: 240, marks: () => marks, bands: [[2, 3]],
        series: [{ label: "predicted", colour: "accent" }, { label: "95%", colour: "band", width: 1 },
          { label: "5%", colour: "band", width: 1 }, { label: "label", colour: "other", points: true }],
      });
    charts = [score, loss, answers];
    body.replaceChildren(h("div", { className: "two" }, score.figure, loss.figure), answers.figure);
  }

  function show(found) {
    info = found;
    problem.hidden = true;
    state.replaceChildren(badge(found.state));
    tiles.replaceChildren(
      tile("Model", h("a", { href: "#/models" }, found.model), `v${found.model_version}`), tile("Revision", number(found.stream_version)),
      tile("Rows learned", number(found.rows_seen)), tile("Window", number(found.window_rows), "rows"),
      tile("Loss", number(found.loss, 3), "nats"), tile(task === "classification" ? "Accuracy" : "Mean absolute error", number(found.score, 3)),
      tile("Served by", found.serving === "initial" ? "frozen start" : "its own parameters"), tile("Last change", clock(found.updated_at)));
    draw();
  }

  async function draw() {
    if (drawing || info === null || info.stream_version === drawn) return;
    drawing = true;
    try {
      if (!charts.length) charted(await get(`/v1/models/${encodeURIComponent(info.model)}`, context));
      const at = info.stream_version;
      const known = log.at(-1)?.revision ?? 0;
      const after = Math.max(known, at - REVISIONS, 0);
      const [fresh, happened, learned] = await Promise.all([
        get(`${path}/revisions?after=${after}&limit=${REVISIONS}`, context), latestEvents(), get(`${path}/rows?limit=${ROWS}`, context),
      ]);
      log = [...log, ...fresh.items].slice(-REVISIONS);
      drawn = log.at(-1)?.revision ?? at;
      showEvents(happened);
      showScores();
      showRows(learned.items);
      showRevisions();
    } catch (error) {
      fail(error);
    } finally {
      drawing = false;
    }
    if (info.stream_version > drawn) setTimeout(draw, 1000);
  }

  async function latestEvents() {
    const found = [];
    let after = 0;
    for (;;) {
      const page = await get(`${path}/events?after=${after}&limit=1000`, context);
      found.push(...page.items);
      if (page.next_cursor === null) return found;
      after = page.next_cursor;
    }
  }

  function showEvents(happened) {
    const seen = new Map(log.map((each) => [each.revision, each.rows_seen]));
    marks = happened.filter((event) => event.kind === "drift" || event.kind === "warning" || event.kind === "revert")
      .map((event) => ({ x: seen.get(event.revision) ?? event.change_row ?? 0, kind: event.kind === "warning" ? "warning" : "drift" }));
    events.replaceChildren(table("Events, latest first", [["at"], ["what"], ["evidence and action"], ["revision", "number"]],
      happened.slice(-SHOWN).reverse().map((event) => [clock(event.at), badge(event.kind), sentence(event), number(event.revision)]),
      "nothing happened yet"));
  }

  function showScores() {
    const learned = log.filter((each) => each.rows > 0 && each.score !== null);
    const x = learned.map((each) => each.rows_seen);
    const column = (field) => rolling(learned, field);
    const said = (values) => number(values.at(-1) ?? null, 3);
    for (const [chart, own, other] of [[charts[0], "score", "initial_score"], [charts[1], "loss", "initial_loss"]]) {
      const data = [x, column(own), column(other)];
      chart.show(data, `last ${WINDOW_ROWS} rows: adapted ${said(data[1])}, frozen start ${said(data[2])}; ${marks.length} alarms and warnings`);
    }
  }

  function showRows(items) {
    const known = items.toReversed().filter((row) => row.prediction !== null && !Array.isArray(row.prediction));
    const x = known.map((row) => row.row + 1);
    if (task === "classification") {
      const sure = (right) => known.map((row) => ((row.prediction === row.target) === right ? row.probability : null));
      const hits = known.filter((row) => row.prediction === row.target).length;
      charts[2].show([x, sure(true), sure(false)], `${hits} of the last ${known.length} rows right`);
    } else {
      const edge = (side) => known.map((row) => row.prediction + side * WIDE * (row.std ?? 0));
      const inside = known.filter((row) => Math.abs(row.target - row.prediction) <= WIDE * (row.std ?? 0)).length;
      charts[2].show([x, known.map((row) => row.prediction), edge(1), edge(-1), known.map((row) => row.target)],
        `${inside} of the last ${known.length} labels within the 90% band`);
    }
    rows.replaceChildren(table("Rows, latest first", [["row", "number"], ["at"], ["predicted", "number"],
      [task === "classification" ? "probability" : "± std", "number"], ["label", "number"], ["id"], ["input"]],
    items.slice(0, SHOWN).map((row) => [number(row.row), clock(row.at), shown(row.prediction), shown(row.probability ?? row.std),
      shown(row.target), row.id, h("code", {}, JSON.stringify(row.input))])));
  }

  function showRevisions() {
    revisions.replaceChildren(table("Revisions, latest first", [["revision", "number"], ["at"], ["what"], ["rows", "number"],
      ["loss", "number"], ["frozen start", "number"], ["state"], ["restore"]],
    log.slice(-SHOWN).reverse().map((each) => [number(each.revision), clock(each.at),
      each.restored === null ? each.kind : `${each.kind} to ${each.restored}`, number(each.rows), number(each.loss, 3),
      number(each.initial_loss, 3), each.state ? badge(each.state) : null,
      h("button", { type: "button", onclick: () => rollBack(each.revision), "aria-label": `Back to revision ${each.revision}` }, "Back to it")])));
  }

  async function rollBack(to) {
    const revision = typeof to === "number" ? to : Math.max((info?.stream_version ?? 1) - 1, 0);
    const answer = await ask(`Roll ${name} back?`, "It will predict as it did at that revision, as a new revision: nothing is deleted.",
      "Roll back", [{ label: "Revision", name: "revision", type: "number", min: 0, max: info?.stream_version ?? 0, value: revision, required: true }]);
    if (!answer) return;
    await post(`${path}/rollback`, { revision: Number(answer.revision) }).then((done) => say(`At revision ${done.stream_version}: restored ${done.restored}.`), fail);
  }

  async function snapshot() {
    const text = "One file with its state, config and counts, as of its last commit. It holds what the stream has learned: keep it like its data.";
    if (!await ask(`Save a snapshot of ${name}?`, text, "Save")) return;
    await download(`${path}/snapshot`, `${name}.safetensors`).then(() => say("Snapshot saved."), fail);
  }

  async function reset() {
    if (!await ask(`Reset ${name}?`, "It goes back to the meta-initialization, as a new revision; a roll-back undoes it.", "Reset")) return;
    await post(`${path}/reset`).then((done) => say(`At revision ${done.stream_version}: reset.`), fail);
  }

  follow(path, context.signal, (kind, found) => {
    if (kind === "deleted") fail({ status: 404, message: `Stream ${name} was deleted.` });
    else show(found);
  }, (how, error) => { context.link(how, error); if (error) fail(error); });
  return () => charts.forEach((chart) => chart.close());
}

function area(label) {
  return h("div", { className: "scroll tall", tabindex: "0", role: "region", "aria-label": label });
}

function shown(value) {
  return Array.isArray(value) ? value.map((each) => number(each, 3)).join(", ") : value === null || value === undefined ? "–" : number(value);
}

/** Means over the last WINDOW_ROWS rows, by revision; a revision's figure counts as often as it has rows. */
function rolling(revisions, field) {
  const found = [];
  let first = 0;
  let rows = 0;
  let sum = 0;
  revisions.forEach((each, index) => {
    rows += each.rows;
    sum += each.rows * (each[field] ?? 0);
    while (first < index && rows - revisions[first].rows >= WINDOW_ROWS) {
      rows -= revisions[first].rows;
      sum -= revisions[first].rows * (revisions[first][field] ?? 0);
      first += 1;
    }
    found.push(each[field] === null ? null : sum / rows);
  });
  return found;
}
