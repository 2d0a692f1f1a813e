// What the pages talk to: each server a process of its own on a free port, and the site that serves them.

import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Program } from "../../e2e/support/program.js";
import { need } from "./need.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** A server that messages are published to by HTTP. */
class Server {
  #program;
  #path;
  #headers;

  constructor({ program, port }, path, headers = {}) {
    this.#program = program;
    this.#path = path;
    this.#headers = { "Content-Type": "application/json", ...headers };
    this.url = `http://127.0.0.1:${port}`;
  }

  /** Publishes messages to a room, in this order, with one request. */
  async publish(room, list) {
    const body = JSON.stringify({ messages: list.map((data) => ({ room, data })) });
    const answer = await fetch(this.url + this.#path, { method: "POST", headers: this.#headers, body });
    if (!answer.ok) throw new Error(`publishing to ${this.url}: ${answer.status} ${await answer.text()}`);
    // To its end, so that the connection is used again.
    await answer.arrayBuffer();
  }

  /** The process that its CPU is counted of. */
  get pid() {
    return this.#program.pid;
  }

  stop() {
    return this.#program.stop();
  }
}

const KEY = "bench-key-0123456789abcdef";

/** The hub; messages stay in memory, for what its disk costs is none of the browser's business. */
export async function startHub(origin, more = []) {
  const binary = need(process.env.TWINE_HUB ?? here("../../target/release/twine-hub"), "make hub, or TWINE_HUB");
  const folder = await mkdtemp(join(tmpdir(), "bench-browser-"));
  const settings = ["--store", "memory", "--data-dir", folder, "--allowed-origins", origin];
  const started = await Program.listening(binary, ["serve", "--listen", "127.0.0.1:0", ...settings, ...more], {
    env: { TWINE_API_KEY: KEY },
  });
  const hub = new Server(started, "/api/publish/batch", { Authorization: `Bearer ${KEY}` });
  const stop = hub.stop.bind(hub);
  hub.stop = async () => {
    await stop();
    await rm(folder, { recursive: true, force: true });
  };
  return hub;
}

export async function startSocketIo(env = {}) {
  need(here("node_modules/socket.io"), "npm ci in bench/browser");
  const started = await Program.listening(process.execPath, [here("socketio-server.mjs")], {
    env: { NODE_ENV: "production", ...env },
  });
  return new Server(started, "/");
}

/** The scripts that pages load, by name: the two clients as people get them, and the pages' own. */
export async function scripts(hub) {
  const files = {
    "socket.io.min.js": await readFile(need(here("node_modules/socket.io/client-dist/socket.io.min.js"), "npm ci in bench/browser")),
    "twine.min.js": await twineClient(hub),
  };
  for (const name of ["page", "twine", "socketio", "bare", "empty"]) files[`${name}.js`] = await readFile(here(`pages/${name}.js`));
  return files;
}

/** The hub's own `/twine.js`, or the bundle that TWINE_CLIENT names: to compare one that is being worked on. */
async function twineClient(hub) {
  if (process.env.TWINE_CLIENT) return readFile(need(process.env.TWINE_CLIENT, "it is what TWINE_CLIENT names"));
  const answer = await fetch(`${hub.url}/twine.js`);
  if (!answer.ok) throw new Error(`${hub.url}/twine.js answered ${answer.status}: ${await answer.text()}`);
  return Buffer.from(await answer.arrayBuffer());
}

/**
 * Serves pages and their scripts, all under the same rules: which server a client's script comes from
 * in production, and what that says of caching, is not its cost.
 */
export class Site {
  #server;
  #files = {};
  #pages = {};

  static async serve() {
    const site = new Site();
    site.#server = createServer((request, answer) => site.#answer(new URL(request.url, "http://site"), answer));
    site.#server.listen(0, "127.0.0.1");
    await once(site.#server, "listening");
    return site;
  }

  get origin() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** `pages` says, by name, which scripts a page has, and the server it talks to. */
  show(files, pages) {
    this.#files = files;
    this.#pages = pages;
  }

  async remove() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #answer({ pathname, searchParams }, answer) {
    const name = pathname.slice(1);
    const file = this.#files[name];
    const page = this.#pages[name];
    if (file) {
      answer.writeHead(200, { "Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "public, max-age=300" });
      answer.end(file);
    } else if (page) {
      answer.writeHead(200, { "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store" });
      answer.end(html(page, searchParams.get("room")));
    } else {
      answer.writeHead(404).end();
    }
  }
}

function html({ scripts, server }, room) {
  const settings = `const SERVER = ${JSON.stringify(server)}, ROOM = ${JSON.stringify(room)};`;
  const tags = scripts.map((name) => `<script src="/${name}"></script>`);
  return `<!doctype html><title>bench</title><link rel="icon" href="data:,"><script>${settings}</script>${tags.join("")}`;
}
