// Pages that are reloaded: each message reaches one of them, once and in order.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "../support/browser.js";
import { Hub } from "../support/hub.js";
import { Network } from "../support/proxy.js";
import { ADOPTED, NEW, RESUMED, Tab, apps, how, range } from "../support/tab.js";

let hub, site, browser;

before(async () => {
  site = await apps(() => hub.url, {
    "/plain": `watch(new Twine(HUB)); listen("plain");`,
    // It reloads itself in the midst of a callback, and what has arrived by then goes on arriving.
    "/restless": `watch(new Twine(HUB)); listen("restless", {}, (n) => n % 40 === 0 && location.reload());`,
    "/history": `watch(new Twine(HUB)); listen("history", { history: 20 });`,
    "/throws": `watch(new Twine(HUB));
      listen("throws", {}, (n) => { if (n === 2) throw new Error("of the listener"); });
      twine.listenOn("throws", (n, message) => take("beside", n, message));`,
    "/async": `watch(new Twine(HUB));
      const isFirst = ledger().filter(({ type }) => type === "load").length === 1;
      listen("async", {}, (n) => n === 2 && new Promise((resolve) => isFirst || (window.settle = resolve)));`,
    "/late": `watch(new Twine(HUB)); subscribe("late");
      window.attach = () => twine.listenOn("late", (n, message) => take("late", n, message));`,
    // The second load hears nothing, so that its client never learns that it is connected.
    "/deaf": `const nth = ledger().filter(({ type }) => type === "load").length;
      const Deaf = class extends WebSocket { set onmessage(_) {} };
      const network = new URLSearchParams(location.search).get("network");
      watch(new Twine(network, nth === 2 ? { WebSocket: Deaf } : {})); listen("deaf");`,
    // The hub by another name, on another site, for which a browser takes no cookie without TLS.
    "/other-site": `watch(new Twine(HUB.replace("127.0.0.1", "hub.test"))); listen("other-site");`,
  });
  const origins = [site.at(), site.at("app.test")].join();
  const flags = ["--host-resolver-rules=MAP *.test 127.0.0.1"];
  [hub, browser] = await Promise.all([Hub.start(["--allowed-origins", origins]), launch(flags)]);
});
after(() => Promise.all([hub.remove(), browser.close(), site.remove()]));

/** A tab in a browser of its own. */
async function open(t, path, { host, init } = {}) {
  const context = await browser.newContext();
  t.after(() => context.close());
  if (init) await context.addInitScript(init);
  return Tab.open(context, site.at(host) + path);
}

/** Nothing is announced as lost, and nothing went wrong. */
function fine(tab, pages, room) {
  for (const page of pages) assert.deepEqual([page.gaps(room), page.errors], [[], []]);
  tab.fine();
}

test("a page that is reloaded in mid-burst", async (t) => {
  const tab = await open(t, "/plain");
  await tab.ready("plain");
  let isOver = false;
  const burst = (async () => {
    let n = 0;
    while (!isOver) await hub.publish("plain", (n += 1));
    return n;
  })();
  for (let reloads = 0; reloads < 3; reloads += 1) {
    await tab.ready("plain");
    await tab.hasSome(30, "plain");
    await tab.page.reload();
  }
  await tab.ready("plain");
  isOver = true;
  const last = await burst;
  await tab.reaches(last, "plain");
  const pages = await tab.pages();
  assert.deepEqual(pages.flatMap((page) => page.got("plain")), range(1, last));
  // The first had nothing to recover; the others were told that nothing is lost.
  assert.deepEqual(pages.map((page) => page.subscribed("plain")), [[undefined], [true], [true], [true]]);
  assert.deepEqual(how(tab), [NEW, RESUMED, RESUMED, RESUMED]);
  assert.equal(new Set(tab.connections.map(({ session }) => session)).size, 1);
  fine(tab, pages, "plain");
});

test("a reloaded page names the one before it, whose session it takes over while that is still connected", async (t) => {
  const tab = await open(t, "/plain");
  for (let loads = 0; loads < 3; loads += 1) {
    if (loads > 0) await tab.page.reload();
    await tab.ready("plain");
  }
  const [first, second, third] = tab.greetings;
  assert.deepEqual([first.prev, second.prev, third.prev], [undefined, first.instance, second.instance]);
  const [{ session }] = tab.connections;
  assert.deepEqual([second.session, third.session], [session, session]);
});

test("a page that is gone before the hub's answer leaves its session to the next, also where it still seems connected", async (t) => {
  const network = await Network.to(hub.url);
  t.after(() => network.remove());
  const tab = await open(t, `/deaf?network=${encodeURIComponent(network.url)}`);
  await tab.ready("deaf");
  await hub.publish("deaf", 1);
  await tab.has(1, "deaf");
  await tab.page.reload();
  await tab.connects(2);
  network.mute();
  await hub.publish("deaf", 2);
  await tab.page.reload();
  await tab.ready("deaf");
  await hub.publish("deaf", 3);
  await tab.has(3, "deaf");
  const [first, second, third] = tab.greetings;
  assert.deepEqual([second.prev, third.prev], [first.instance, first.instance]);
  const [{ session }] = tab.connections;
  assert.deepEqual(tab.connections.map((connected) => connected.session), [session, session, session]);
  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("deaf")), [[1], [], [2, 3]]);
  fine(tab, pages, "deaf");
});

test("a page that reloads itself within a callback", async (t) => {
  const tab = await open(t, "/restless");
  await tab.ready("restless");
  await hub.count("restless", 1, 200);
  await tab.reaches(200, "restless");
  // It may be about to reload itself once more: what is asked of a page that goes is never answered.
  await tab.page.goto(`${site.at()}/restless`);
  await tab.ready("restless");
  await hub.publish("restless", "the last one");
  await tab.has("the last one", "restless");
  const pages = await tab.pages();
  assert(pages.length > 1, "it did reload");
  assert.deepEqual(pages.flatMap((page) => page.got("restless")), [...range(1, 200), "the last one"]);
  fine(tab, pages, "restless");
});

test("a page that is reloaded with `history: 20`", async (t) => {
  await hub.count("history", 1, 30);
  const tab = await open(t, "/history");
  await tab.has(30, "history");
  await hub.count("history", 31, 32);
  await tab.has(32, "history");

  await tab.page.reload();
  await tab.has(32, "history");
  await hub.publish("history", 33);
  await tab.has(33, "history");

  // More is missed than it asks for: what was missed comes, all of it.
  await tab.page.goto(`${site.at()}/empty`);
  await hub.count("history", 34, 63);
  await tab.page.goto(`${site.at()}/history`);
  await tab.has(63, "history");

  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("history")), [range(11, 32), range(13, 33), range(34, 63)]);
  assert.deepEqual(pages.map((page) => page.recovered("history")), [range(11, 30), range(13, 32), range(34, 63)]);
  assert.deepEqual(how(tab), [NEW, RESUMED, RESUMED]);
  fine(tab, pages, "history");
});

test("a listener that throws has had its message", async (t) => {
  const tab = await open(t, "/throws");
  await tab.ready("throws");
  await hub.count("throws", 1, 3);
  await tab.has(3, "beside");
  await tab.page.reload();
  await tab.ready("throws");
  await hub.publish("throws", 4);
  await tab.has(4, "beside");
  const pages = await tab.pages();
  for (const room of ["throws", "beside"]) {
    assert.deepEqual(pages.map((page) => page.got(room)), [[1, 2, 3], [4]], room);
  }
  assert.deepEqual(pages.map((page) => page.errors), [["listener_failed"], []]);
  tab.complaints.take(/exception: .*of the listener/);
  tab.fine();
});

test("a message whose promise is unsettled at the reload comes again, with all after it", async (t) => {
  const tab = await open(t, "/async");
  await tab.ready("async");
  await hub.count("async", 1, 3);
  await tab.has(3, "async");
  await tab.page.reload();
  await tab.has(3, "async");
  await tab.page.evaluate(() => window.settle());
  await tab.page.reload();
  await tab.ready("async");
  await hub.publish("async", 4);
  await tab.has(4, "async");
  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("async")), [[1, 2, 3], [2, 3], [4]]);
  fine(tab, pages, "async");
});

test("a listener that comes late gets what has come meanwhile, on the next page too", async (t) => {
  const tab = await open(t, "/late");
  const attach = () => tab.page.evaluate(() => void attach());
  await tab.ready("late");
  await hub.count("late", 1, 3);
  await attach();
  await tab.has(3, "late");
  await tab.page.reload();
  await tab.ready("late");
  await hub.count("late", 4, 5);
  // Nobody listens on this page, and nothing is taken for read.
  await tab.page.reload();
  await hub.publish("late", 6);
  await attach();
  await tab.has(6, "late");
  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("late")), [[1, 2, 3], [], [4, 5, 6]]);
  fine(tab, pages, "late");
});

test("where `sessionStorage` is blocked a reload is an adoption", async (t) => {
  const tab = await open(t, "/plain?tab=blocked", { init: blockStorage });
  await tab.ready("plain");
  await hub.publish("plain", "first");
  const last = await hub.publish("plain", "second");
  await tab.acknowledged(last);
  await tab.page.goto(`${site.at()}/empty`);
  await hub.publish("plain", "third");
  await tab.page.goto(`${site.at()}/plain?tab=blocked`);
  await tab.has("third", "plain");
  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("plain")), [["first", "second"], ["third"]]);
  assert.deepEqual(pages.map((page) => page.subscribed("plain")), [[undefined], [true]]);
  assert.deepEqual(how(tab), [NEW, ADOPTED]);
  fine(tab, pages, "plain");
});

test("where cookies are blocked a tab goes on by its own cursors", async (t) => {
  const tab = await open(t, "/other-site", { host: "app.test" });
  await tab.ready("other-site");
  await hub.count("other-site", 1, 3);
  await tab.has(3, "other-site");
  await tab.page.goto(`${site.at("app.test")}/empty`);
  await hub.publish("other-site", 4);
  await tab.page.goto(`${site.at("app.test")}/other-site`);
  await tab.has(4, "other-site");
  assert.deepEqual(await tab.page.context().cookies(), []);
  assert.deepEqual(tab.connections.map(({ session }) => session), [undefined, undefined]);
  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("other-site")), [[1, 2, 3], [4]]);
  assert.deepEqual(pages.map((page) => page.subscribed("other-site")), [[undefined], [true]]);
  fine(tab, pages, "other-site");
});

/** In a page, before anything else. */
function blockStorage() {
  Object.defineProperty(window, "sessionStorage", {
    get() {
      throw new DOMException("The operation is insecure.", "SecurityError");
    },
  });
}
