// Chromium, a fresh one for each run, and what its page's process has used.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Devtools } from "./devtools.mjs";
import { need } from "./need.mjs";

const FLAGS = [
  // As the end-to-end tests have it.
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  ...["--disable-component-update", "--disable-sync"],
  // What Playwright adds there, as far as it may cost a page anything.
  ...["--headless", "--disable-dev-shm-usage", "--disable-extensions", "--disable-default-apps", "--mute-audio"],
  ...["--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--no-default-browser-check"],
  ...["--disable-backgrounding-occluded-windows", "--disable-component-extensions-with-background-pages"],
  ...["--disable-features=Translate,OptimizationHints,MediaRouter", "--password-store=basic", "--use-mock-keychain"],
  "--remote-debugging-pipe",
];

/** How much CPU a page burns to be told from the browser's other processes, in microseconds of its main thread. */
const BURN = 100_000;
/** How far what it says it has used may lie from what /proc says, in microseconds. */
const SAME = 20_000;

/** Runs `work(tab)` with a tab of a Chromium that nothing was loaded into before. */
export async function withTab(work) {
  const executable = need(process.env.CHROMIUM ?? "/usr/bin/chromium", "apt-get install chromium, or CHROMIUM");
  const profile = await mkdtemp(join(tmpdir(), "bench-chromium-"));
  const browser = spawn(executable, [...FLAGS, `--user-data-dir=${profile}`, "about:blank"], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  });
  const gone = once(browser, "exit");
  const devtools = new Devtools(browser.stdio[3], browser.stdio[4]);
  try {
    return await work(await Tab.open(devtools));
  } finally {
    await devtools.send("Browser.close").catch(() => browser.kill("SIGKILL"));
    await gone;
    // Its last processes may still write there.
    await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

/** Which Chromium it is. */
export function version() {
  return withTab(async (tab) => (await tab.browser("Browser.getVersion")).product);
}

class Tab {
  #devtools;
  #session;
  #pid;

  static async open(devtools) {
    const tab = new Tab();
    tab.#devtools = devtools;
    const { targetId } = await devtools.send("Target.createTarget", { url: "about:blank" });
    tab.#session = (await devtools.send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
    return tab;
  }

  /** Sends a command to the browser. */
  browser(method, params) {
    return this.#devtools.send(method, params);
  }

  /** Sends a command to the page. */
  page(method, params) {
    return this.#devtools.send(method, params, this.#session);
  }

  /** Loads a page that has `bench` (pages/page.js). */
  async load(url) {
    const { errorText } = await this.page("Page.navigate", { url });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    // The scripts of a page run before it is complete, and there is no need to ask for events.
    while (!(await this.evaluate("document.readyState === 'complete' && 'bench' in globalThis"))) await sleep(5);
  }

  /** The value of an expression in the page; of a promise, when it has one. */
  async evaluate(expression) {
    const how = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.page("Runtime.evaluate", how);
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  /** Finds the process of the page that is loaded, and has it count. Pages of one site stay in it. */
  async findProcess() {
    // By the thread's CPU, not by the clock, for the machine may be busy.
    await this.page("Performance.enable", { timeDomain: "threadTicks" });
    const { processInfo } = await this.browser("SystemInfo.getProcessInfo");
    const pids = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
    // The browser does not say whose each is, but a page tells how much its thread has used.
    const look = async () => [(await this.#metrics()).ThreadTime, ...(await Promise.all(pids.map(mainThread)))];
    const before = await look();
    let own, others;
    do {
      // By the clock, for a page has no other; on a busy machine that takes several times.
      await this.evaluate("for (const end = performance.now() + 100; performance.now() < end; );");
      [own, ...others] = (await look()).map((time, index) => time - before[index]);
    } while (own < BURN);
    const apart = others.map((used) => Math.abs(used - own));
    const least = Math.min(...apart);
    if (least > SAME) throw new Error(`the page has used ${own} us, processes ${pids}: ${others}`);
    this.#pid = pids[apart.indexOf(least)];
  }

  /** CPU that the page's process has used until now, in microseconds: by the scheduler, and as Chromium counts it. */
  async used() {
    const tasks = await readdir(`/proc/${this.#pid}/task`);
    const times = await Promise.all(tasks.map((task) => runTime(`/proc/${this.#pid}/task/${task}`)));
    const process = times.reduce((sum, time) => sum + time, 0);
    const main = await mainThread(this.#pid);
    const { TaskDuration, ScriptDuration } = await this.#metrics();
    return { main, task: TaskDuration, script: ScriptDuration, process };
  }

  /** Bytes in use after a garbage collection: of JavaScript's heap, of buffers, and of a WebAssembly module's memory. */
  async heap() {
    // What a first one finds may only then be free of finalizers and weak references.
    for (let i = 0; i < 2; i += 1) await this.page("HeapProfiler.collectGarbage");
    const { usedSize, backingStorageSize } = await this.page("Runtime.getHeapUsage");
    return { heap: usedSize, buffers: backingStorageSize, module: await this.evaluate("bench.moduleMemory()") };
  }

  /** What Chromium counts, times in microseconds. */
  async #metrics() {
    const { metrics } = await this.page("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value * 1e6]));
  }
}

/** The scheduler's own count: exact, where the times of /proc/PID/stat are in steps of 10 ms. */
async function runTime(folder) {
  try {
    return Number((await readFile(`${folder}/schedstat`, "utf8")).split(" ")[0]) / 1000;
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ESRCH") return 0; // a thread that has just ended
    throw error;
  }
}

const mainThread = (pid) => runTime(`/proc/${pid}/task/${pid}`);
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
