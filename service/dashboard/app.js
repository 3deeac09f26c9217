// Which page is shown, in which colours, with which key.
import { key, onKeyNeeded, setKey } from "./api.js";
import { redraw } from "./charts.js";
import { ask } from "./dom.js";
import { models } from "./models.js";
import { overview } from "./overview.js";
import { stream } from "./stream.js";
import { streams } from "./streams.js";

const THEMES = ["system", "light", "dark"];
const THEME = "acclimate.theme";
const main = document.getElementById("main");
const link = document.getElementById("link");
const themeButton = document.getElementById("theme");
const keyButton = document.getElementById("key");
let leave = null;
let ending = null;

function page() {
  const [section, name] = location.hash.replace(/^#\/?/, "").split("/");
  if (section === "main") return;
  leave?.();
  ending?.abort();
  ending = new AbortController();
  const context = { signal: ending.signal, link: state };
  main.replaceChildren();
  const shown = section === "streams" ? (name ? "stream" : "streams") : section === "models" ? "models" : "overview";
  for (const each of document.querySelectorAll("nav a")) {
    const own = each.getAttribute("href") === (shown === "overview" ? "#/" : `#/${shown.replace(/^stream$/, "streams")}`);
    if (own) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  const id = name ? decodeURIComponent(name) : "";
  document.title = `${id || shown} · acclimate`;
  leave = shown === "stream" ? stream(main, context, id) : { streams, models, overview }[shown](main, context);
  keyButton.hidden = !key();
}

function state(how, error) {
  link.className = `link ${how}`;
  const text = how === "live" ? "live" : error?.status === 401 ? "no key" : "connection lost";
  if (link.textContent !== text) link.textContent = text;
}

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  themeButton.textContent = `Theme: ${name}`;
  redraw();
}

async function askForKey(again) {
  const text = again ? "The server does not take this key." : "This server answers to keys only. acclimate keys create makes one.";
  const answer = await ask("Key", `${text} It is kept in this tab until it is closed.`, "Use it",
    [{ label: "Key", name: "key", type: "password", autocomplete: "off", required: true }]);
  keyButton.hidden = false;
  return answer?.key.trim() || null;
}

onKeyNeeded(askForKey);
keyButton.addEventListener("click", async () => {
  const given = await askForKey(false);
  if (given) { setKey(given); page(); }
});
themeButton.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(localStorage.getItem(THEME) ?? "system") + 1) % THEMES.length];
  localStorage.setItem(THEME, next);
  theme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
theme(localStorage.getItem(THEME) ?? "system");
addEventListener("hashchange", () => { page(); main.focus(); });
page();
