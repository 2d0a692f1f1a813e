// Pages that are away without being closed: offline, asleep, in the back/forward cache, or with a hub that
// is gone; and one that may store nothing.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, launchBlocking, launchHiding } from "../support/browser.js";
import { Hub } from "../support/hub.js";
import { Network } from "../support/proxy.js";
import { NEW, RESUMED, Tab, apps, how, range } from "../support/tab.js";

let hub, network, site, browser;

before(async () => {
  [hub, browser] = await Promise.all([Hub.start(), launch([], { caching: true })]);
  network = await Network.to(hub.url);
  site = await apps(() => network.url, {
    "/offline": `watch(new Twine(HUB)); listen("offline");`,
    "/cached": `watch(new Twine(HUB)); listen("cached");
      addEventListener("pageshow", ({ persisted }) => note({ type: "shown", persisted }));`,
    "/asleep": `watch(new Twine(HUB)); listen("asleep");`,
    "/frozen": `watch(new Twine(HUB)); listen("frozen");
      for (const type of ["visibilitychange", "freeze", "resume"]) {
        document.addEventListener(type, () => note({ type }));
      }`,
    "/blocked": `watch(new Twine(HUB)); listen("blocked");`,
    "/stopped": `watch(new Twine(HUB)); listen("stopped by " + location.search.slice(1));`,
  });
});
after(() => Promise.all([browser.close(), network.remove(), hub.remove(), site.remove()]));

/** A tab in a browser of its own. */
async function open(t, path) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return Tab.open(context, site.at() + path);
}

/** Each message once and in order, nothing announced as lost, and nothing went wrong. */
async function assertOnce(tab, room, expected) {
  const pages = await tab.pages();
  assert.deepEqual(pages.flatMap((page) => page.got(room)), expected);
  for (const page of pages) assert.deepEqual([page.gaps(room), page.errors], [[], []]);
  tab.fine();
}

/** The session of the first connection went on with the second. */
function assertResumed(tab) {
  assert.deepEqual(how(tab), [NEW, RESUMED]);
  const [first, second] = tab.connections;
  assert.equal(second.session, first.session);
}

test("a browser that goes offline and online again", async (t) => {
  const tab = await open(t, "/offline");
  const context = tab.page.context();
  await tab.ready("offline");
  await hub.count("offline", 1, 3);
  await tab.has(3, "offline");
  await tab.complaints.whileAway(network.url, async () => {
    await context.setOffline(true);
    network.cut();
    await tab.noted({ type: "state", state: "reconnecting" });
    await hub.count("offline", 4, 60);
    network.restore();
    await context.setOffline(false);
    await tab.has(60, "offline");
  });
  await hub.publish("offline", 61);
  await tab.has(61, "offline");
  await assertOnce(tab, "offline", range(1, 61));
  assertResumed(tab);
});

test("a page in the back/forward cache, while another page of its tab goes on", async (t) => {
  const tab = await open(t, "/cached?page=1");
  await tab.ready("cached");
  await hub.count("cached", 1, 3);
  await tab.has(3, "cached");

  // The same app once more: it goes on where the first page is, in the same session.
  await tab.page.goto(`${site.at()}/cached?page=2`);
  await tab.ready("cached");
  await hub.count("cached", 4, 6);
  await tab.has(6, "cached");
  // The first page comes back with a memory of its own.
  await tab.page.goBack({ waitUntil: "commit" });
  await tab.page.waitForFunction(() => location.search === "?page=1" && ledger().at(-1).data === 6);
  await hub.publish("cached", 7);
  await tab.reaches(7, "cached");
  const pages = await tab.pages();
  assert.deepEqual(pages.map((page) => page.got("cached")), [range(1, 3), [...range(4, 6), ...range(4, 7)]]);
  const shown = await tab.page.evaluate(() => ledger().filter(({ type }) => type === "shown"));
  assert.deepEqual(shown.map(({ persisted }) => persisted), [false, false, true]);
  tab.complaints.take(/Page entered Back-Forward Cache/);
  tab.fine();
});

test("a laptop that sleeps until its connection is gone", async (t) => {
  const tab = await open(t, "/asleep");
  await tab.ready("asleep");
  await hub.count("asleep", 1, 3);
  await tab.has(3, "asleep");

  // Nothing of the browser runs, not a timer and not a socket.
  const devtools = await browser.newBrowserCDPSession();
  const { processInfo: processes } = await devtools.send("SystemInfo.getProcessInfo");
  t.after(() => send(processes, "SIGCONT"));
  await tab.complaints.whileAway(network.url, async () => {
    send(processes, "SIGSTOP");
    await hub.count("asleep", 4, 30);
    network.cut();
    await hub.subscribers("asleep", 0);
    await hub.count("asleep", 31, 60);
    network.restore();
    send(processes, "SIGCONT");
    await tab.has(60, "asleep");
  });
  await hub.publish("asleep", 61);
  await tab.has(61, "asleep");
  await assertOnce(tab, "asleep", range(1, 61));
  assertResumed(tab);
});

function send(processes, signal) {
  for (const { id } of processes) {
    try {
      process.kill(id, signal);
    } catch (error) {
      // One that showed an earlier page may have ended by itself.
      if (error.code !== "ESRCH") throw error;
    }
  }
}

test("a tab in the background that the browser has frozen until its connection is gone", async (t) => {
  const background = await launchHiding(t);
  const page = await background.newPage();
  const ledger = () => page.evaluate(() => ledger());
  const noted = (entry) => page.evaluate((entry) => noted(entry), entry);
  const has = (data) => noted({ type: "message", room: "frozen", data });
  await page.goto(`${site.at()}/frozen`);
  await noted({ type: "subscribed" });
  await hub.count("frozen", 1, 3);
  await has(3);

  await (await background.newPage()).bringToFront();
  await noted({ type: "visibilitychange" });
  const devtools = await page.createCDPSession();
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  await noted({ type: "freeze" });
  await hub.count("frozen", 4, 30);
  network.cut();
  await hub.subscribers("frozen", 0);
  await hub.count("frozen", 31, 60);
  network.restore();
  assert.equal((await ledger()).at(-1).type, "freeze", "nothing runs in a frozen page");

  await page.bringToFront();
  await has(60);
  await hub.publish("frozen", 61);
  await has(61);
  const entries = await ledger();
  const of = (kind) => entries.filter(({ type }) => type === kind);
  assert.deepEqual(of("message").map(({ data }) => data), range(1, 61));
  assert.deepEqual([of("gap"), of("error"), of("resume").length], [[], [], 1]);
});

test("where all cookies and storage are blocked a page goes on for as long as it is there", async (t) => {
  const tab = await Tab.open(await launchBlocking(t), `${site.at()}/blocked`);
  await tab.ready("blocked");
  await hub.count("blocked", 1, 3);
  await tab.has(3, "blocked");
  await tab.complaints.whileAway(network.url, async () => {
    network.cut();
    await tab.noted({ type: "state", state: "reconnecting" });
    await hub.count("blocked", 4, 6);
    network.restore();
    await tab.has(6, "blocked");
  });
  await assertOnce(tab, "blocked", range(1, 6));

  // After that nobody knows that it was there: nothing is missed, and nothing is said to be lost.
  await tab.page.goto(`${site.at()}/empty`);
  await hub.publish("blocked", 7);
  await tab.page.goto(`${site.at()}/blocked`);
  await tab.ready("blocked");
  await hub.publish("blocked", 8);
  await tab.has(8, "blocked");
  await assertOnce(tab, "blocked", [8]);
  assert.deepEqual((await tab.pages()).map((page) => page.subscribed("blocked")), [[undefined]]);
  for (const { session, resumed, adopted } of tab.connections) {
    assert.deepEqual({ session, resumed, adopted }, { session: undefined, ...NEW });
  }
});

for (const signal of ["SIGTERM", "SIGKILL"]) {
  test(`a page that is reloaded while its hub is stopped by ${signal} and started again`, async (t) => {
    const room = `stopped by ${signal}`;
    const tab = await open(t, `/stopped?${signal}`);
    await tab.ready(room);
    await hub.count(room, 1, 3);
    await tab.has(3, room);
    await tab.page.goto(`${site.at()}/empty`);
    await hub.publish(room, 4);
    await hub.stop(signal);
    await hub.resume();
    await hub.count(room, 5, 6);
    await tab.page.goto(`${site.at()}/stopped?${signal}`);
    await tab.has(6, room);
    await assertOnce(tab, room, range(1, 6));
    // A kill may come before the session is stored. The tab has cursors of its own.
    if (signal === "SIGTERM") assertResumed(tab);
  });
}
