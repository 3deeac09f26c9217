// The server: answers, errors, a key where one is needed, and what happens live.

const KEY = "acclimate.key";
let askForKey = async () => null;
let asking = null;

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function key() {
  return sessionStorage.getItem(KEY);
}

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** What is called when the server wants a key, or another; resolves to the key, or to null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  const own = key();
  if (own) headers.Authorization = `Bearer ${own}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer.");
  }
  if (response.status === 401) {
    if (own === key()) {
      asking ??= askForKey(Boolean(own)).finally(() => { asking = null; });
      const given = await asking;
      if (!given) throw new Problem(401, "The server asks for a key.");
      setKey(given);
    }
    return send(path, options);
  }
  if (!response.ok) throw new Problem(response.status, await reason(response));
  return response;
}

async function reason(response) {
  try {
    const problem = await response.json();
    const places = (problem.errors ?? []).map((error) => `${error.loc.join(".")}: ${error.msg}`);
    return places.length ? places.join("; ") : problem.detail ?? problem.title;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

export async function get(path, options = {}) {
  return (await send(path, options)).json();
}

export async function post(path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return (await send(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) })).json();
}

/** Save what a path answers as a file. */
export async function download(path, name) {
  const address = URL.createObjectURL(await (await send(path)).blob());
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/**
 * Follow a path as server-sent events until the signal aborts, coming back when the connection is lost. The browser's
 * own EventSource sends no key.
 */
export async function follow(path, signal, onMessage, onState) {
  let pause = 500;
  let last = null;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const response = await send(path, { headers, signal });
      onState("live");
      pause = 500;
      for await (const message of messages(response.body)) {
        last = message.id ?? last;
        onMessage(message.event, JSON.parse(message.data));
      }
      onState("lost");
    } catch (error) {
      if (signal.aborted) return;
      onState("lost", error);
      if (error.status === 401 || error.status === 403 || error.status === 404) return;
    }
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    pause = Math.min(pause * 2, 8000);
  }
}

async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const fields = {};
      for (const line of text.slice(0, end).split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
      }
      text = text.slice(end + 2);
      if (fields.data) yield fields;
    }
  }
}
