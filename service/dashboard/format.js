// Figures as people read them.

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

export function rate(value) {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toLocaleString("en", { maximumFractionDigits: 1 });
}

export function milliseconds(seconds) {
  return seconds === null ? "–" : `${number(seconds * 1000, 2)} ms`;
}

/** The reader's own time; with the date where that is not today. */
export function clock(text) {
  const [day, time] = local(new Date(text));
  return day === local(new Date())[0] ? time : `${day} ${time}`;
}

function local(date) {
  const two = (value) => String(value).padStart(2, "0");
  return [`${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`];
}

/** A quantile of counts in buckets, by the middle of straight lines between the bounds; null without counts. */
export function quantile(counts, bounds, share) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  let below = 0;
  for (let index = 0; index < counts.length; index += 1) {
    if (below + counts[index] >= share * total) {
      const low = index ? bounds[index - 1] : 0;
      const high = bounds[index] ?? low;
      return low + (high - low) * ((share * total - below) / counts[index]);
    }
    below += counts[index];
  }
  return bounds[bounds.length - 1];
}

/** What an event says, in a sentence. */
export function sentence(event) {
  if (event.kind === "revert") {
    return event.action === "initial"
      ? `the frozen start is served: it has done better by ${number(event.statistic, 3)} nats a row (${number(event.threshold, 3)} would do)`
      : "its own parameters are served again";
  }
  const evidence = event.statistic === null || event.detector === null ? ""
    : ` ${event.detector}: ${number(event.statistic, 3)} against ${number(event.threshold, 3)}`;
  const moved = event.feature ? `, input ${event.feature} moved by ${number(event.shift, 2)} standard deviations` : "";
  const since = event.change_row === null ? "" : `, since row ${event.change_row.toLocaleString("en")}`;
  const action = event.action ? `; re-adapted on ${event.rows_used ?? 0} rows` : "";
  return `${evidence}${moved}${since}${action}`.trim() || "–";
}
