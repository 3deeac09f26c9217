// All streams: a list of any length, of which only the part in sight is in the page.
import { follow, get } from "./api.js";
import { badge, h } from "./dom.js";
import { clock, number } from "./format.js";

const PAGE = 500;
const LINE = 42;
const AROUND = 12;
const HEADS = [["stream"], ["state"], ["model"], ["rows", "number"], ["loss", "number"], ["score", "number"], ["changed"]];

export function streams(main, context) {
  const search = h("input", { type: "search", placeholder: "id begins with …", autocomplete: "off", spellcheck: "false" });
  const model = h("select", {}, h("option", { value: "" }, "all models"));
  const state = h("select", {}, h("option", { value: "" }, "all states"),
    ["new", "stable", "warning", "drifted"].map((name) => h("option", { value: name }, name)));
  const count = h("p", { className: "soft", role: "status" });
  const space = h("div", { className: "space", role: "rowgroup" });
  const list = h("div", { className: "list", tabindex: "0", role: "table", "aria-label": "Streams" },
    h("div", { className: "heads", role: "row" }, HEADS.map(([name, kind]) => h("span", { className: kind, role: "columnheader" }, name))), space);
  main.append(h("h1", {}, "Streams"), h("section", { className: "card" },
    h("div", { className: "row" }, h("label", {}, "Search", search), h("label", {}, "Model", model),
      h("label", {}, "State", state), h("span", { className: "grow" }), count), list));
  let all = [];
  let shown = [];
  let cursor = null;
  let loading = null;
  let failed = "";

  const path = (after, limit) => {
    const asked = new URLSearchParams({ limit: String(limit) });
    if (search.value) asked.set("prefix", search.value);
    if (model.value) asked.set("model", model.value);
    if (after) asked.set("cursor", after);
    return `/v1/streams?${asked}`;
  };

  function begin() {
    loading?.abort();
    loading = null;
    all = [];
    cursor = null;
    list.scrollTop = 0;
    more(true);
  }

  async function more(first = false) {
    if (loading || (!first && cursor === null)) return;
    const own = loading = new AbortController();
    context.signal.addEventListener("abort", () => own.abort());
    try {
      const page = await get(path(first ? null : cursor, PAGE), { signal: own.signal });
      all = first ? page.items : [...all, ...page.items];
      cursor = page.next_cursor;
      failed = "";
    } catch (error) {
      if (error.name === "AbortError") return;
      failed = error.message;
      cursor = null;
    }
    loading = null;
    filter();
  }

  function filter() {
    shown = state.value ? all.filter((stream) => stream.state === state.value) : all;
    const and = cursor === null ? "" : state.value ? ` of ${number(all.length)}, looking on` : " and more";
    count.textContent = failed || `${number(shown.length)} streams${and}`;
    list.setAttribute("aria-rowcount", String(cursor === null ? shown.length + 1 : -1));
    draw();
  }

  function draw() {
    space.style.height = `${shown.length * LINE}px`;
    const from = Math.max(Math.floor(list.scrollTop / LINE) - AROUND, 0);
    const to = Math.min(Math.ceil((list.scrollTop + list.clientHeight) / LINE) + AROUND, shown.length);
    const focused = document.activeElement?.closest?.(".line")?.dataset.stream;
    space.replaceChildren(...shown.slice(from, to).map((stream, offset) => line(stream, from + offset)));
    if (focused) space.querySelector(`[data-stream="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
    if (to > shown.length - PAGE / 4) more();
  }

  function line(stream, index) {
    const cells = [h("a", { href: `#/streams/${stream.stream}`, title: stream.stream }, stream.stream), badge(stream.state),
      `${stream.model} v${stream.model_version}`, number(stream.rows_seen), number(stream.loss, 3), number(stream.score, 3), clock(stream.updated_at)];
    const element = h("div", { className: "line", role: "row", "aria-rowindex": String(index + 2), "data-stream": stream.stream },
      cells.map((cell, at) => h("span", { role: "cell", className: HEADS[at][1] }, cell)));
    element.style.top = `${index * LINE}px`;
    return element;
  }

  /** Ask again for the streams in sight. */
  async function refresh() {
    if (document.hidden || loading || !all.length) return;
    const from = Math.max(Math.floor(list.scrollTop / LINE) - AROUND, 0);
    const first = all.indexOf(shown[from]);
    const length = Math.min(Math.ceil(list.clientHeight / LINE) + 2 * AROUND, PAGE);
    try {
      const page = await get(path(first > 0 ? all[first - 1].stream : null, length), { signal: context.signal });
      if (loading) return;
      const end = page.next_cursor === null ? all.length : first + length;
      const until = page.items.at(-1)?.stream;
      const rest = page.next_cursor === null ? [] : all.slice(first).filter((stream) => stream.stream > until);
      all = end >= 0 ? [...all.slice(0, Math.max(first, 0)), ...page.items, ...rest] : all;
      filter();
    } catch { /* the next one may */ }
  }

  get("/v1/models", { signal: context.signal }).then((page) =>
    model.append(...page.items.map((each) => h("option", { value: each.name }, each.name))), () => {});
  let typed;
  search.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(begin, 200); });
  model.addEventListener("change", begin);
  state.addEventListener("change", filter);
  list.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  begin();
  follow("/v1/overview", context.signal, refresh, context.link);
  return () => { clearTimeout(typed); loading?.abort(); };
}
