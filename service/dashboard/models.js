// Models and their versions.
import { follow, get, post } from "./api.js";
import { ask, h, say, table } from "./dom.js";
import { number } from "./format.js";

export function models(main, context) {
  const place = h("div", { className: "two" });
  let seen = { models: [] };
  let drawn = "";
  main.append(h("h1", {}, "Models"), place);

  async function load() {
    if (document.hidden || document.querySelector("dialog")) return;
    try {
      const page = await get("/v1/models", context);
      const all = await Promise.all(page.items.map(async (model) => ({
        model,
        versions: await Promise.all(model.versions.map((version) => get(`/v1/models/${encodeURIComponent(model.name)}?version=${version}`, context))),
        uses: new Map(seen.models.filter((use) => use.model === model.name).map((use) => [use.version, use.streams])),
      })));
      const now = JSON.stringify(all.map(({ model, uses }) => [model, [...uses]]));
      if (now === drawn) return;
      drawn = now;
      place.replaceChildren(...all.map(card));
      if (!all.length) place.replaceChildren(h("p", { className: "card" }, "No model is served: upload a bundle, or start with --model NAME=FILE."));
    } catch (error) {
      if (error.name === "AbortError") return;
      drawn = "";
      place.replaceChildren(h("p", { className: "card notice bad", role: "alert" }, error.message));
    }
  }

  function card({ model, versions, uses }) {
    const rows = model.versions.map((version, index) => [
      `v${version}`, version === model.active_version ? h("strong", {}, "active") : h("button", {
        type: "button", onclick: () => activate(model, version, uses), "aria-label": `Activate version ${version} of ${model.name}`,
      }, "Activate …"), number(uses.get(version) ?? 0), scores(versions[index].scores)]);
    return h("section", { className: "card" },
      h("h2", {}, model.name), h("p", { className: "soft" }, `${model.task} of ${model.target || "a target"} from ${model.features.length} input${model.features.length === 1 ? "" : "s"}`,
        model.lagged_targets ? " and the stream's own last labels" : "", model.classes?.length ? `; classes ${model.classes.slice(0, 12).join(", ")}` : ""),
      h("p", { className: "soft" }, `Experts: ${model.experts.map((expert) => `${expert.name} (${expert.learner})`).join(", ")}. Detector: ${model.detector.name}.`),
      h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": `Versions of ${model.name}` },
        table(`Versions of ${model.name}`, [["version"], ["use"], ["streams", "number"], ["held-out scores"]], rows)));
  }

  async function activate(model, version, uses) {
    const streams = [...uses.values()].reduce((sum, count) => sum + count, 0);
    const text = `The ${number(streams)} streams of ${model.name} re-adapt from this version's start on the rows they retain. Activating v${model.active_version} again goes back.`;
    if (!await ask(`Activate version ${version} of ${model.name}?`, text, "Activate")) return;
    try {
      await post(`/v1/models/${encodeURIComponent(model.name)}/activate`, { version });
      say(`Version ${version} of ${model.name} is active.`);
    } catch (error) {
      say(error.message);
    }
    load();
  }

  follow("/v1/overview", context.signal, (kind, found) => { seen = found; load(); }, context.link);
  return () => {};
}

/** Held-out scores: the plain ones, then those after so many batches or points, in that order. */
function scores(found) {
  const flat = Object.entries(found ?? {}).filter(([, value]) => typeof value === "number");
  const after = ([name]) => Number(name.match(/\d+/)?.[0] ?? -1);
  const said = flat.toSorted((one, other) => after(one) - after(other))
    .map(([name, value]) => h("li", {}, `${name.replaceAll("_", " ")}: ${number(value, 3)}`));
  return said.length ? h("ul", { className: "plain" }, said) : null;
}
