// Pages that are reloaded, duplicated and blocked, in a real browser and against a real hub.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, open, serve } from "./support/browser.js";
import { Hub } from "./support/hub.js";

const folder = fileURLToPath(new URL("../dist", import.meta.url));
let browser;
let hub;
let site;

before(async () => {
  [hub, browser] = await Promise.all([Hub.start(), launch()]);
  site = await serve({ folder, files: { "/": page(), "/blocked": page("block();"), "/history": page("", ", { history: 2 }") } });
});
after(async () => {
  await browser.close();
  await site.close();
  await hub.stop();
});

/** A page that keeps all it ever got where reloads don't reach it; a copy of it starts anew. */
function page(first = "", options = "") {
  return `<!doctype html><title>t</title><link rel="icon" href="data:,"><script src="/twine.min.js"></script><script>
    function block() {
      Object.defineProperty(window, "sessionStorage", { get() { throw new DOMException("blocked", "SecurityError"); } });
    }
    ${first}
    window.got = opener ? [] : JSON.parse(localStorage.getItem(location.hash) ?? "[]");
    window.complaints = [];
    window.twine = new Twine("${hub.url}");
    twine.on("gap", (gap) => complaints.push(gap));
    window.ready = twine.subscribe(location.hash${options}, (data, { recovered }) => {
      got.push(data);
      localStorage.setItem(location.hash, JSON.stringify(got));
    });
  </script>`;
}

async function arrive(page, room, data) {
  await hub.publish(`#${room}`, data);
  await page.waitForFunction((last) => window.got?.at(-1) === last, data);
}

test("a page that is reloaded in the middle of a burst loses and repeats nothing", async () => {
  const page = await open(browser, `${site.url}/#burst`);
  await page.evaluate(() => window.ready);
  const total = 400;
  const burst = (async () => {
    for (let n = 1; n <= total; n += 1) await hub.publish("#burst", n);
  })();
  for (const n of [40, 120, 250]) {
    await page.waitForFunction((n) => window.got?.length >= n, n);
    await page.reload();
  }
  await burst;
  await page.waitForFunction((n) => window.got?.at(-1) === n, total);
  assert.deepEqual(await page.evaluate(() => window.got), Array.from({ length: total }, (_, n) => n + 1));
  assert.deepEqual(await page.evaluate(() => window.complaints), []);
});

test("a page that asks for history gets its last messages again, and all that it missed", async () => {
  const page = await open(browser, `${site.url}/history#history`);
  await page.evaluate(() => window.ready);
  for (const n of [1, 2, 3]) await arrive(page, "history", n);
  await page.goto("about:blank");
  for (const n of [4, 5, 6]) await hub.publish("#history", n);
  await page.goBack();
  await arrive(page, "history", 7);
  assert.deepEqual(await page.evaluate(() => window.got), [1, 2, 3, 4, 5, 6, 7]);
  await page.reload();
  await page.evaluate(() => window.ready);
  await arrive(page, "history", 8);
  assert.deepEqual(await page.evaluate(() => window.got), [1, 2, 3, 4, 5, 6, 7, 6, 7, 8]);
});

test("a duplicated tab goes on from where it was copied, and neither takes from the other", async () => {
  const page = await open(browser, `${site.url}/#twin`);
  await page.evaluate(() => window.ready);
  await arrive(page, "twin", 1);
  // What was delivered is stored by then.
  await page.waitForFunction(() => Object.values(sessionStorage).some((left) => left.includes('"offset":1')));
  const [twin] = await Promise.all([
    page.context().waitForEvent("page"),
    page.evaluate(() => void window.open(location.href)),
  ]);
  await twin.evaluate(() => window.ready);
  assert.equal(await twin.evaluate(() => Object.values(sessionStorage).some((left) => left.includes("prev"))), false);
  await arrive(twin, "twin", 2);
  await arrive(page, "twin", 3);
  await twin.waitForFunction(() => window.got.at(-1) === 3);
  assert.deepEqual(await page.evaluate(() => window.got), [1, 2, 3]);
  assert.deepEqual(await twin.evaluate(() => window.got), [2, 3]);
});

test("a page that is reloaded while nothing comes goes on after the message that it got last", async () => {
  const page = await open(browser, `${site.url}/#quiet`);
  await page.evaluate(() => window.ready);
  for (const n of [1, 2]) await arrive(page, "quiet", n);
  await page.reload();
  await arrive(page, "quiet", 3);
  assert.deepEqual(await page.evaluate(() => window.got), [1, 2, 3]);
});

test("a hidden page stores at once: a browser may discard it without a word", async () => {
  const page = await open(browser, `${site.url}/#hidden`);
  await page.evaluate(() => window.ready);
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { get: () => true });
    document.dispatchEvent(new Event("visibilitychange"));
    // From here on no timer runs.
    window.setTimeout = () => 0;
  });
  const { offset } = await hub.publish("#hidden", 1);
  await page.waitForFunction(() => window.got.at(-1) === 1);
  assert.equal(await page.evaluate((last) => Object.values(sessionStorage)[0].includes(last), `"offset":${offset}`), true);
});

test("a page whose storage is blocked goes on where its session was, and misses nothing", async () => {
  const page = await open(browser, `${site.url}/blocked#blocked`);
  await page.evaluate(() => window.ready);
  await arrive(page, "blocked", 1);
  await page.goto("about:blank");
  await hub.publish("#blocked", 2);
  await page.goto(`${site.url}/blocked#blocked`);
  await page.evaluate(() => window.ready);
  await arrive(page, "blocked", 3);
  // What was not acknowledged in time comes twice: a session is only as exact as that.
  assert.deepEqual([...new Set(await page.evaluate(() => window.got))], [1, 2, 3]);
  assert.deepEqual(page.complaints, []);
});

test("a page that gets no cookie goes on by what it has stored", async () => {
  const page = await open(browser, "about:blank");
  await page.route(`${hub.url}/set-cookie`, (route) => route.abort());
  await page.goto(`${site.url}/#cookieless`);
  await page.evaluate(() => window.ready);
  await arrive(page, "cookieless", 1);
  await page.goto("about:blank");
  await hub.publish("#cookieless", 2);
  await page.goBack();
  await arrive(page, "cookieless", 3);
  assert.deepEqual(await page.evaluate(() => window.got), [1, 2, 3]);
  assert.deepEqual((await page.context().cookies(hub.url)).length, 0);
});

test("two tabs that are opened at once get one cookie", async () => {
  const context = await browser.newContext();
  // However long a busy machine takes.
  await context.addInitScript(() => (AbortSignal.timeout = () => new AbortController().signal));
  const tabs = await Promise.all([context.newPage(), context.newPage()]);
  const answers = tabs.map((tab) => tab.waitForResponse((response) => response.url().endsWith("/set-cookie")));
  await Promise.all(tabs.map((tab) => tab.goto(`${site.url}/#tabs`)));
  const asked = (await Promise.all(answers)).map((answer) => answer.request());
  const sent = await Promise.all(asked.map(async (request) => "cookie" in (await request.allHeaders())));
  assert.deepEqual(sent.sort(), [false, true]);
  await context.close();
});

test("what is forgotten is not written back by a page that the browser has kept", async (t) => {
  const browser = await launch({ caching: true });
  t.after(() => browser.close());
  const page = await open(browser, `${site.url}/#kept`);
  await page.evaluate(() => window.ready);
  await arrive(page, "kept", 1);
  await page.evaluate(() => (window.isKept = true));
  const left = () => page.evaluate(() => Object.keys(sessionStorage).filter((key) => key.includes('["/",')).length);
  const goOn = () => page.goto(`${site.url}/history#elsewhere`);
  await goOn();
  assert.equal(await left(), 1);
  await page.evaluate(() => window.twine.forget());
  assert.equal(await left(), 0);
  await page.goBack({ waitUntil: "commit" });
  await page.waitForFunction(() => window.isKept);
  await goOn();
  assert.equal(await left(), 0);
});
