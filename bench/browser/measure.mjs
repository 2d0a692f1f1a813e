// One page in one fresh Chromium: what its messages cost, or its start.

import { withTab } from "./chromium.mjs";
import { TooBusy, burst, steadily } from "./messages.mjs";

/** What clients put off (acknowledging, storing, compiling hot code) is theirs all the same, in milliseconds. */
const AFTERMATH = 1500;

/** The same after a page has started. */
const AFTER_START = 500;

/** The longest that messages may be on their way, in milliseconds. */
const PATIENCE = 60_000;

/** How often a measurement is made that the machine was too busy for. */
const ATTEMPTS = 5;

/** How often a page is loaded again in the same Chromium. The first times fill its caches, of code too. */
const AGAIN = 6;
const FILLING = 3;

let rooms = 0;
const newRoom = () => `r${(rooms += 1)}`;
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const address = (site, name, room) => `${site.origin}/${name}?room=${room}`;

/**
 * CPU a message, in microseconds: of the first `count` messages of a page in a burst (`cold`), of
 * the next (`warm`), and of `steady` ones by the clock. And the heap before, between and after.
 */
export async function messages(site, name, server, how) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await messagesOnce(site, name, server, how);
    } catch (error) {
      if (!(error instanceof TooBusy) || attempt === ATTEMPTS) throw error;
      console.error(`${name}, again: ${error.message}`);
    }
  }
}

function messagesOnce(site, name, server, { count, bytes, steady, rate }) {
  return withTab(async (tab) => {
    const room = newRoom();
    await tab.load(address(site, name, room));
    await within(tab, tab.evaluate("bench.ready"));
    await tab.findProcess();

    const result = { heap: [await tab.heap()] };
    result.cold = await phase(tab, 0, count, (from) => burst(server, room, { from, count, bytes }));
    result.heap.push(await tab.heap());
    result.warm = await phase(tab, count, count, (from) => burst(server, room, { from, count, bytes }));
    result.heap.push(await tab.heap());
    if (steady) {
      const publish = (from) => steadily(server, room, { from, count: steady, bytes, rate });
      result.steady = await phase(tab, 2 * count, steady, publish);
    }

    const { faults, next } = await tab.evaluate("bench.state");
    if (next !== 2 * count + steady) faults.push(`${next} messages instead of ${2 * count + steady}`);
    if (faults.length > 0) throw new Error(`${name}: messages are lost, repeated or out of order:\n${faults.join("\n")}`);
    return result;
  });
}

/** Publishes messages, and gives what each of them cost the page's process. */
async function phase(tab, from, count, publish) {
  const before = await tab.used();
  const start = performance.now();
  await within(tab, Promise.all([tab.evaluate(`bench.until(${from + count})`), publish(from)]));
  const seconds = (performance.now() - start) / 1000;
  await sleep(AFTERMATH);
  const after = await tab.used();
  const costs = Object.entries(before).map(([what, value]) => [what, (after[what] - value) / count]);
  return { ...Object.fromEntries(costs), seconds };
}

/** What it takes from navigating to the first subscription: time in milliseconds, CPU in microseconds. */
export function start(site, name) {
  return withTab(async (tab) => {
    // In the process that is there already: how long a browser takes to start one is not the client's.
    await tab.load(address(site, "empty", ""));
    await tab.findProcess();
    const cold = await load(tab, site, name);
    const warm = [];
    for (let i = 0; i < AGAIN; i += 1) {
      const one = await load(tab, site, name);
      if (i >= FILLING) warm.push(one);
    }
    return { cold, warm };
  });
}

async function load(tab, site, name) {
  const before = await tab.used();
  await tab.load(address(site, name, newRoom()));
  const { connected, subscribed } = await within(tab, tab.evaluate("bench.ready"));
  const { main } = await tab.used();
  await sleep(AFTER_START);
  const after = await tab.used();
  return { connected, subscribed, main: main - before.main, process: after.process - before.process };
}

/** Waits for what a page does; one that never comes to it must not hold the run up. */
async function within(tab, work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(async () => {
      const state = await tab.evaluate("bench.state").catch((error) => ({ error: error.message }));
      reject(new Error(`the page is not there after ${PATIENCE / 1000} s: ${JSON.stringify(state)}`));
    }, PATIENCE);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
