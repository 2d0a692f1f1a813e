// Tables in Markdown: medians, and in brackets how far the rounds lie apart.

import { BASE } from "./contenders.mjs";

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

const digits = (value) => value.toFixed(Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0);

/** `12.3 (11.9–13.0)` */
const spread = (values) => {
  const range = `${digits(Math.min(...values))}–${digits(Math.max(...values))}`;
  return `${digits(median(values))} (${range})`;
};

const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

const PHASES = { cold: "burst, first", warm: "burst, next", steady: "steady" };
const COSTS = { main: "main thread", task: "tasks", script: "script", process: "process" };

/** CPU a message, by phase and contender; `×` is the median of the ratios to the base of the same round. */
export function messages(rounds, bytes) {
  const rows = [];
  for (const phase of Object.keys(PHASES)) {
    for (const name of Object.keys(rounds[0].messages[bytes])) {
      const of = (name, cost) => rounds.map(({ messages }) => messages[bytes][name][phase]?.[cost]);
      if (of(name, "main")[0] === undefined) continue;
      const cells = Object.keys(COSTS).map((cost) => {
        const base = of(BASE, cost);
        const own = of(name, cost);
        const ratio = median(own.map((value, round) => value / base[round]));
        return `${spread(own)} × ${ratio.toFixed(2)}`;
      });
      rows.push([PHASES[phase], name, ...cells]);
    }
  }
  return table([`${bytes} B`, "client", ...Object.values(COSTS).map((cost) => `${cost}, us`)], rows);
}

/** KiB in use after a garbage collection: before the messages, after the first, and after the next. */
export function heaps(rounds, bytes) {
  const KIB = 1024;
  const kinds = { heap: "JavaScript's heap", buffers: "buffers", module: "module's memory" };
  const rows = Object.keys(rounds[0].messages[bytes]).map((name) => {
    const at = (index, kind) => median(rounds.map(({ messages }) => messages[bytes][name].heap[index][kind] / KIB)).toFixed(0);
    return [name, ...Object.keys(kinds).map((kind) => [0, 1, 2].map((index) => at(index, kind)).join(", "))];
  });
  return table([`${bytes} B`, ...Object.values(kinds).map((kind) => `${kind}, KiB`)], rows);
}

export function starts(rounds) {
  const rows = [];
  for (const cache of ["cold", "warm"]) {
    for (const name of Object.keys(rounds[0].start)) {
      const values = (what) => rounds.flatMap(({ start }) => [start[name][cache]].flat().map((load) => load[what]));
      const shown = (what, scale = 1) =>
        values(what)[0] === undefined ? "" : spread(values(what).map((value) => value / scale));
      rows.push([cache, name, shown("connected"), shown("subscribed"), shown("main", 1000), shown("process", 1000)]);
    }
  }
  const head = ["cache", "page", "connected, ms", "subscribed, ms", "main thread's CPU, ms", "process's CPU, ms"];
  return table(head, rows);
}

export function sizes(all) {
  return table(["script", "raw", "gzip", "brotli"], Object.entries(all).map(([name, { raw, gzip, brotli }]) => [name, raw, gzip, brotli]));
}
