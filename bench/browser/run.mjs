#!/usr/bin/env node
// What a client costs the browser: Twine's, Socket.IO's, and a bare WebSocket. See ../README.md.
//
//   run.mjs [--rounds 5] [--messages 10000] [--steady 3000] [--rate 500] [--out ../out/browser.json]
//   run.mjs --table ../out/browser.json

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { loadavg } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { orSay } from "./need.mjs";
import * as report from "./report.mjs";
import { inOwnSession } from "./session.mjs";

/** Payloads, in bytes. Only the first is also sent by the clock: what counts there does not grow with it. */
const PAYLOADS = [100, 1000];

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    messages: { type: "string", default: "10000" },
    steady: { type: "string", default: "3000" },
    rate: { type: "string", default: "500" },
    out: { type: "string", default: fileURLToPath(new URL("../out/browser.json", import.meta.url)) },
    table: { type: "string" },
  },
});

await orSay(async () => {
  if (options.table) return print(JSON.parse(await readFile(options.table, "utf8")));
  await inOwnSession(async () => print(await run()));
});

async function run() {
  const { version } = await import("./chromium.mjs");
  const { messages, start } = await import("./measure.mjs");
  const { sizes } = await import("./size.mjs");
  const { withStage } = await import("./stage.mjs");
  const [rounds, count, steady, rate] = ["rounds", "messages", "steady", "rate"].map(number);

  /** Everything once; each round begins with another client, so that no one always has the same neighbour. */
  const oneRound = async ({ site, all }, round) => {
    const names = Object.keys(all);
    const order = names.map((_, index) => names[(index + round) % names.length]);
    const result = { load: loadavg()[0], messages: {}, start: {} };
    for (const [index, bytes] of PAYLOADS.entries()) {
      const how = { count, bytes, steady: index === 0 ? steady : 0, rate };
      result.messages[bytes] = await each(order, names, (name) => messages(site, name, all[name].server, how));
    }
    const pages = ["empty", ...names];
    result.start = await each(["empty", ...order], pages, (name) => start(site, name));
    return result;
  };

  return withStage(async (stage) => {
    const { files } = stage;
    const clients = ["twine.min.js", "socket.io.min.js"];
    const result = {
      chromium: await version(),
      options: { count, steady, rate },
      sizes: Object.fromEntries(clients.map((name) => [name, sizes(files[name])])),
      rounds: [],
    };
    for (let round = 0; round < rounds; round += 1) {
      console.error(`round ${round + 1} of ${rounds}`);
      result.rounds.push(await oneRound(stage, round));
      await mkdir(dirname(options.out), { recursive: true });
      await writeFile(options.out, JSON.stringify(result, null, 1));
    }
    return result;
  });
}

/** One after the other in this order; the results in that of `names`. */
async function each(order, names, work) {
  const results = {};
  for (const name of order) results[name] = await work(name);
  return Object.fromEntries(names.map((name) => [name, results[name]]));
}

function number(name) {
  const value = Number(options[name]);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a whole number from 1`);
  return value;
}

function print({ chromium, options: { count, steady, rate }, sizes, rounds }) {
  const loads = rounds.map(({ load }) => load.toFixed(1)).join(", ");
  console.log(`${chromium}; ${rounds.length} rounds, medians (and the range); load before each round: ${loads}\n`);
  console.log(`CPU a message of the page's process. Bursts of ${count}; steady: ${steady} at ${rate} a second.`);
  for (const bytes of PAYLOADS) console.log(`\n${report.messages(rounds, bytes)}`);
  console.log("\nMemory after a garbage collection, medians: before the messages, after the first, after the next\n");
  for (const bytes of PAYLOADS) console.log(`${report.heaps(rounds, bytes)}\n`);
  console.log(`From navigating to the first subscription\n\n${report.starts(rounds)}\n`);
  console.log(`Bytes of what a page loads\n\n${report.sizes(sizes)}`);
}
