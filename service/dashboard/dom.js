// Elements without a library. Text is always text: nothing that a client sent is read as HTML.

/** An element: `h("a", {href: "#/"}, "Overview")`. A property `on…` is a listener, `null` and `false` leave out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A table with a caption for those who do not see where it stands. */
export function table(caption, columns, rows, empty = "nothing yet") {
  const heads = columns.map(([name, kind]) => h("th", { scope: "col", className: kind }, name));
  const lines = rows.map((cells) =>
    h("tr", {}, cells.map((cell, index) => h("td", { className: columns[index][1] }, cell ?? "–"))));
  const body = lines.length ? lines : [h("tr", {}, h("td", { colspan: columns.length, className: "soft" }, empty))];
  return h("table", {}, h("caption", { className: "hidden" }, caption), h("thead", {}, h("tr", {}, heads)),
    h("tbody", {}, body));
}

export function badge(state) {
  return h("span", { className: `badge ${state}` }, state);
}

export function tile(name, value, note = "") {
  return h("div", { className: "tile" }, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, ` ${note}`) : ""));
}

let toastArea;
/** Say something for a while, to screen readers too. */
export function say(text) {
  toastArea ??= document.body.appendChild(h("p", { className: "toast", role: "status" }));
  toastArea.textContent = text;
  clearTimeout(toastArea.timer);
  toastArea.timer = setTimeout(() => { toastArea.textContent = ""; }, 6000);
}

/** Ask before something is done; resolves to the form's fields, or to null. */
export function ask(title, text, button, fields = []) {
  return new Promise((resolve) => {
    const inputs = fields.map(({ label, ...properties }) => h("label", {}, label, h("input", properties)));
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const confirm = h("button", { type: "submit", className: "main" }, button);
    const form = h("form", { method: "dialog" }, h("h2", { id: "asked" }, title), h("p", {}, text), inputs,
      h("div", { className: "row" }, h("span", { className: "grow" }), cancel, confirm));
    const dialog = h("dialog", { "aria-labelledby": "asked" }, form);
    let answer = null;
    form.addEventListener("submit", () => { answer = Object.fromEntries(new FormData(form)); });
    dialog.addEventListener("close", () => { dialog.remove(); resolve(answer); });
    document.body.append(dialog);
    dialog.showModal();
    (inputs.length ? inputs[0].querySelector("input") : cancel).focus();
  });
}
