import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** The installed Chromium; with its back/forward cache, or without. */
export function launch({ caching = false } = {}) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const ignoreDefaultArgs = caching ? ["--disable-back-forward-cache"] : [];
  return chromium.launch({ executablePath, args: FLAGS, ignoreDefaultArgs });
}

/** A site on a free port: `files` has its pages by path, `folder` the rest. */
export async function serve({ files = {}, folder, headers = {} }) {
  const server = createServer(async (request, response) => {
    const path = decodeURI(new URL(request.url, "http://localhost").pathname);
    try {
      const body = files[path] ?? (await readFile(join(folder, path === "/" ? "index.html" : path)));
      // Without a charset, as many servers send it.
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/html", ...headers });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://localhost:${server.address().port}`,
    close: () => new Promise((resolve) => server.close(resolve).closeAllConnections()),
  };
}

/** A page of its own context, whose errors and warnings are kept in `page.complaints`. */
export async function open(browser, url) {
  const page = await (await browser.newContext()).newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
  });
  await page.goto(url);
  return page;
}

/** What a page does in most tests: shows what a room gets, as a list that tests read. */
export const SHOW = `(twine) => {
  window.got = [];
  window.states = [];
  twine.on("state", (event) => states.push(event));
  return twine.subscribe("page", (data) => got.push(data));
}`;
