// The other engines: Firefox by WebDriver BiDi, WebKitGTK by plain WebDriver. Both give the same:
// `goto`, `evaluate` (waits for promises), `complaints`, `close`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./port.js";

const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";
const WEBKIT_DRIVER = process.env.WEBKIT_DRIVER ?? "/usr/bin/WebKitWebDriver";

/** Each engine: how to launch it, and what it needs to be installed. */
export const ENGINES = {
  Firefox: { launch: firefox, needs: [FIREFOX] },
  WebKitGTK: { launch: webkit, needs: [WEBKIT_DRIVER, "/usr/bin/xvfb-run", "/usr/bin/dbus-run-session"] },
};

/** Why a test has to be left out, if it has to. CI has everything, or fails. */
export function missing({ needs }) {
  const absent = needs.filter((path) => !existsSync(path));
  if (absent.length === 0 || process.env.CI) return false;
  return `not installed: ${absent.join(", ")}; \`make setup\` installs what is missing`;
}

async function firefox() {
  const { default: puppeteer } = await import("puppeteer-core");
  const home = await mkdtemp(join(tmpdir(), "twine-firefox-"));
  const browser = await puppeteer.launch({
    browser: "firefox",
    executablePath: FIREFOX,
    env: { ...process.env, HOME: home },
  });
  const page = await browser.newPage();
  const complaints = [];
  page.on("console", (line) => ["error", "warn"].includes(line.type()) && complaints.push(line.text()));
  page.on("pageerror", (error) => complaints.push(`exception: ${error}`));
  return {
    complaints,
    goto: (url) => page.goto(url),
    evaluate: (source) => page.evaluate(source),
    async close() {
      await browser.close();
      await rm(home, { recursive: true, force: true });
    },
  };
}

async function webkit() {
  const port = await freePort();
  // A display and a session bus of its own; the group is ended as a whole.
  const driver = spawn("xvfb-run", ["-a", "dbus-run-session", "--", WEBKIT_DRIVER, `--port=${port}`], {
    detached: true,
    stdio: "ignore",
    env: { ...process.env, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1" },
  });
  const gone = once(driver, "exit");
  const ask = (method, path, body) => webDriver(`http://127.0.0.1:${port}${path}`, method, body);
  let session;
  const close = async () => {
    if (session) await ask("DELETE", session);
    process.kill(-driver.pid);
    await gone;
  };
  try {
    await answers(`http://127.0.0.1:${port}/status`, driver);
    const options = { binary: await miniBrowser(), args: ["--automation"] };
    const capabilities = { alwaysMatch: { "webkitgtk:browserOptions": options, timeouts: { script: 60_000 } } };
    session = `/session/${(await ask("POST", "/session", { capabilities })).sessionId}`;
  } catch (error) {
    await close();
    throw error;
  }
  return {
    complaints: [], // this driver tells of none
    goto: (url) => ask("POST", `${session}/url`, { url }),
    evaluate: (source) =>
      ask("POST", `${session}/execute/async`, { script: `Promise.resolve(${source}).then(arguments[0])`, args: [] }),
    close,
  };
}

async function webDriver(url, method, body) {
  const answer = await fetch(url, { method, body: body && JSON.stringify(body) });
  const { value } = await answer.json();
  if (!answer.ok) throw new Error(`${method} ${url}: ${value.error}: ${value.message}`);
  return value;
}

/** Waits until a program that is starting answers: this one prints nothing, so that it has to be asked. */
async function answers(url, program) {
  while (program.exitCode === null) {
    try {
      return await fetch(url);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error(`${program.spawnargs.join(" ")} ended with ${program.exitCode}`);
}

async function miniBrowser() {
  for (const folder of await readdir("/usr/lib")) {
    for (const version of ["webkit2gtk-4.1", "webkit2gtk-4.0", "webkitgtk-6.0"]) {
      const path = `/usr/lib/${folder}/${version}/MiniBrowser`;
      if (existsSync(path)) return path;
    }
  }
  throw new Error("MiniBrowser is not installed; it comes with WebKitWebDriver");
}

