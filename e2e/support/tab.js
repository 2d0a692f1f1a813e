// A tab of a browser, whose pages note what their client does: an exact ledger, over all reloads.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Complaints } from "./browser.js";
import { Site } from "./static.js";

/** The whole numbers from one to another. */
export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

/** How the hub said that each of a tab's connections got its session. */
export const how = ({ connections }) => connections.map(({ resumed, adopted }) => ({ resumed, adopted }));
export const NEW = { resumed: false, adopted: false };
export const RESUMED = { resumed: true, adopted: false };
export const ADOPTED = { resumed: false, adopted: true };

const LEDGER = await readFile(new URL("ledger.js", import.meta.url), "utf8");

/**
 * A site whose pages, by their path, use a hub's client: `watch(new Twine(HUB)); listen("chat")`.
 * `hub()` gives its address once somebody comes.
 */
export function apps(hub, scripts) {
  const page = (script) => `<!doctype html>
<link rel="icon" href="data:,">
<script src="${hub()}/twine.js"></script>
<script src="/ledger.js"></script>
<script type="module">const HUB = "${hub()}"; ${script}</script>`;
  const files = { "/ledger.js": LEDGER, "/empty": "<!doctype html>" };
  for (const [path, script] of Object.entries(scripts)) {
    files[path] = { get body() { return page(script); } };
  }
  return Site.serve(files);
}

export class Tab {
  /** What its clients said first on each connection. */
  greetings = [];
  /** What the hub answered to that. */
  connections = [];
  #acknowledged = new Map();
  #waiting = new Set();

  /** Opens a page in a tab of its own. */
  static async open(context, url) {
    const tab = new Tab(await context.newPage());
    await tab.page.goto(url);
    return tab;
  }

  /** A tab that somebody else has opened. */
  constructor(page) {
    this.page = page;
    page.setDefaultTimeout(120_000);
    this.complaints = new Complaints(page);
    page.on("websocket", (socket) => {
      // What a page says with its handshake comes before all else.
      const early = Buffer.from(new URL(socket.url()).searchParams.get("early") ?? "", "base64url").toString();
      for (const text of early.split("\n").filter(Boolean)) this.#sent(JSON.parse(text));
      socket.on("framereceived", ({ payload }) => this.#received(JSON.parse(payload)));
      socket.on("framesent", ({ payload }) => this.#sent(JSON.parse(payload)));
    });
  }

  /** The tab that its page opens. */
  async opens(url) {
    const opening = new Promise((resolve) => this.page.context().once("page", (page) => resolve(new Tab(page))));
    await this.page.evaluate((url) => void window.open(url), url);
    const opened = await opening;
    // At first it is an empty page.
    await opened.page.waitForFunction(() => window.noted);
    return opened;
  }

  /** Waits until the page that is there has noted this: `{ type: "message", data: 7 }`. */
  noted(entry) {
    return this.page.evaluate((entry) => noted(entry), entry);
  }

  /** Waits until a page of this tab has had the message, however often it is reloaded meanwhile. */
  reaches(data, room = "chat") {
    const isNoted = ([data, room]) => ledger().some((entry) => entry.data === data && entry.room === room);
    return this.page.waitForFunction(isNoted, [data, room], { polling: 20 });
  }

  /** Waits until the page that is there has the message. */
  has(data, room = "chat") {
    return this.noted({ type: "message", room, data });
  }

  /** Waits until the page that is there has so many messages. */
  hasSome(n, room = "chat") {
    const hasThem = ([n, room]) => {
      const entries = ledger();
      const own = entries.slice(entries.findLastIndex(({ type }) => type === "load"));
      return own.filter((entry) => entry.type === "message" && entry.room === room).length >= n;
    };
    return this.page.waitForFunction(hasThem, [n, room], { polling: 20 });
  }

  /** Waits until the page's client is subscribed. */
  ready(room = "chat") {
    return this.noted({ type: "subscribed", room });
  }

  /** All that was noted in this tab, by page. */
  async pages() {
    const pages = [];
    for (const entry of await this.page.evaluate(() => ledger())) {
      if (entry.type === "load") pages.push([]);
      else pages.at(-1).push(entry);
    }
    return pages.map((entries) => new Page(entries));
  }

  /** The messages of a room that the tab has had, over all its pages. */
  async got(room) {
    return (await this.pages()).flatMap((page) => page.got(room));
  }

  /** Waits until the hub was told that everything up to this message is there. */
  async acknowledged({ room, epoch, offset }) {
    const isTold = () => {
      const told = this.#acknowledged.get(room);
      return told?.epoch === epoch && told.offset >= offset;
    };
    await this.#until(isTold);
  }

  /** Waits until the hub has answered so many of the tab's connections, whether a page took notice or not. */
  connects(n) {
    return this.#until(() => this.connections.length >= n);
  }

  /** Waits until the tab has stored that it has everything up to this message. */
  stored({ epoch, offset }) {
    const position = JSON.stringify({ epoch, offset });
    const isStored = (position) => Object.values(sessionStorage).some((value) => value.includes(position));
    return this.page.waitForFunction(isStored, position, { polling: 20 });
  }

  /** There must be nothing to complain of. */
  fine() {
    assert.deepEqual(this.complaints.all, [], "complaints of the page");
  }

  #received(frame) {
    if (frame.type === "connected") this.connections.push(frame);
    this.#look();
  }

  #sent(frame) {
    if (frame.type === "connect") this.greetings.push(frame);
    if (frame.type !== "pong") return;
    for (const [room, position] of Object.entries(frame.cursors ?? {})) this.#acknowledged.set(room, position);
    this.#look();
  }

  async #until(isSo) {
    while (!isSo()) await new Promise((resolve) => this.#waiting.add(resolve));
  }

  #look() {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** What one page of a tab has noted. */
class Page {
  #entries;

  constructor(entries) {
    this.#entries = entries;
  }

  /** The messages of a room. */
  got(room = "chat") {
    return this.#of("message", room).map(({ data }) => data);
  }

  /** Those that were there before the page was. */
  recovered(room = "chat") {
    return this.#of("message", room).filter(({ recovered }) => recovered).map(({ data }) => data);
  }

  /** What the client was told when it subscribed a room: `recovered`. */
  subscribed(room = "chat") {
    return this.#of("subscribed", room).map(({ recovered }) => recovered);
  }

  /** What was announced as lost. */
  gaps(room = "chat") {
    return this.#of("gap", room).map(({ count, reason }) => ({ count, reason }));
  }

  get states() {
    return this.#entries.filter(({ type }) => type === "state").map(({ state }) => state);
  }

  get errors() {
    return this.#entries.filter(({ type }) => type === "error").map(({ code }) => code);
  }

  #of(kind, room) {
    return this.#entries.filter((entry) => entry.type === kind && entry.room === room);
  }
}
