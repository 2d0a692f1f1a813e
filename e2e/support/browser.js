// Chromium, and pages whose every complaint is kept.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  ...["--disable-component-update", "--disable-sync"],
];

/** Chromium; with its back/forward cache, which tests are spared by default, or without. */
export function launch(flags = [], { caching = false } = {}) {
  return chromium.launch({
    executablePath: EXECUTABLE,
    args: [...FLAGS, ...flags],
    ignoreDefaultArgs: caching ? ["--disable-back-forward-cache"] : [],
  });
}

/** Chromium whose tabs hide each other. Under Playwright every page is seen, and Chromium freezes none that is. */
export async function launchHiding(t) {
  const { default: puppeteer } = await import("puppeteer-core");
  const browser = await puppeteer.launch({ executablePath: EXECUTABLE, args: FLAGS });
  t.after(() => browser.close());
  return browser;
}

/** Chromium for somebody who has told it to block all cookies, which blocks a page's storage as well. */
export async function launchBlocking(t) {
  const folder = await mkdtemp(join(tmpdir(), "twine-chromium-"));
  const settings = { profile: { default_content_setting_values: { cookies: 2 } } };
  await mkdir(join(folder, "Default"));
  await writeFile(join(folder, "Default/Preferences"), JSON.stringify(settings));
  const context = await chromium.launchPersistentContext(folder, { executablePath: EXECUTABLE, args: FLAGS });
  t.after(async () => {
    await context.close();
    // The browser's last processes may still write there.
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });
  return context;
}

/**
 * Notes what a page complains of: errors and warnings on its console, exceptions, requests that
 * failed or were refused.
 */
export class Complaints {
  #found = [];
  #away = new Set();

  constructor(page) {
    page.on("console", (line) => {
      if (["error", "warning"].includes(line.type())) this.#note(line.text(), line.location().url, line.text());
    });
    page.on("pageerror", (error) => this.#note(`exception: ${error.stack ?? error}`));
    page.on("requestfailed", (request) => {
      const why = request.failure()?.errorText;
      this.#note(`${request.method()} ${request.url()} failed: ${why}`, request.url());
    });
    page.on("response", (response) => {
      if (response.status() >= 400) this.#note(`${response.url()} answered ${response.status()}`, response.url());
    });
  }

  /** While a server is away on purpose, the browser's word that it is away is no complaint. */
  async whileAway(server, work) {
    const host = new URL(server).host;
    this.#away.add(host);
    try {
      await work();
    } finally {
      this.#away.delete(host);
    }
  }

  /** What was found; empty at the end of a good test. */
  get all() {
    return this.#found;
  }

  /** Takes out the one complaint that a test provokes. */
  take(pattern) {
    const index = this.#found.findIndex((text) => pattern.test(text));
    if (index < 0) throw new Error(`no complaint matches ${pattern}: ${JSON.stringify(this.#found)}`);
    this.#found.splice(index, 1);
  }

  #note(text, url = "", more = "") {
    for (const host of this.#away) if (url.includes(host) || more.includes(host)) return;
    this.#found.push(text);
  }
}
