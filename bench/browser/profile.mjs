#!/usr/bin/env node
// Where a client's time goes: the functions of a page's main thread while it takes messages.
//
//   profile.mjs [twine|socketio|bare] [--messages 30000] [--bytes 100] [--top 25]
//
// Names of minified code say little: TWINE_CLIENT may name a bundle that was built without minifying, with a
// module that kept its names.

import { parseArgs } from "node:util";
import { orSay } from "./need.mjs";
import { inOwnSession } from "./session.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    messages: { type: "string", default: "30000" },
    bytes: { type: "string", default: "100" },
    top: { type: "string", default: "25" },
  },
});
const [name = "twine"] = positionals;
const count = Number(options.messages);
const bytes = Number(options.bytes);

/** Between two samples, in microseconds. */
const INTERVAL = 100;

await orSay(() => inOwnSession(main));

async function main() {
  const { withTab } = await import("./chromium.mjs");
  const { burst } = await import("./messages.mjs");
  const { withStage } = await import("./stage.mjs");
  const profile = await withStage(({ site, all }) =>
    withTab(async (tab) => {
      const { server } = all[name] ?? {};
      if (!server) throw new Error(`there is no ${name}: there are ${Object.keys(all).join(", ")}`);
      await tab.load(`${site.origin}/${name}?room=profile`);
      await tab.evaluate("bench.ready");
      const take = (from) =>
        Promise.all([tab.evaluate(`bench.until(${from + count})`), burst(server, "profile", { from, count, bytes })]);
      await take(0); // until the code is hot
      await tab.page("Profiler.enable");
      await tab.page("Profiler.setSamplingInterval", { interval: INTERVAL });
      await tab.page("Profiler.start");
      await take(count);
      return (await tab.page("Profiler.stop")).profile;
    }),
  );
  print(selfTimes(profile));
}

/** Time in each function itself, not in what it calls, in microseconds. */
function selfTimes({ nodes, samples, timeDeltas }) {
  const names = new Map();
  for (const { id, callFrame: { functionName, url, lineNumber, columnNumber } } of nodes) {
    const file = url.split("/").at(-1);
    names.set(id, `${functionName || "(anonymous)"}${file && ` ${file}:${lineNumber + 1}:${columnNumber + 1}`}`);
  }
  const times = new Map();
  samples.forEach((id, index) => times.set(names.get(id), (times.get(names.get(id)) ?? 0) + timeDeltas[index]));
  return times;
}

function print(times) {
  // Waiting for the next message is nobody's, and time outside of scripts is the browser's own.
  times.delete("(idle)");
  const sorted = [...times].sort(([, a], [, b]) => b - a);
  console.log("| function | us a message |\n| --- | --- |");
  for (const [name, time] of sorted.slice(0, Number(options.top))) console.log(`| ${name} | ${(time / count).toFixed(2)} |`);
}
