// The package as it is in a real browser, against a real hub.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { SHOW, launch, open, serve } from "./support/browser.js";
import { Hub } from "./support/hub.js";

const folder = fileURLToPath(new URL("../dist", import.meta.url));
let browser;
/** With the back/forward cache. */
let caching;
let hub;
const sites = [];

before(async () => {
  [hub, browser, caching] = await Promise.all([Hub.start(), launch(), launch({ caching: true })]);
});
after(async () => {
  await Promise.all([browser.close(), caching.close()]);
  await Promise.all(sites.map((site) => site.close()));
  await hub.stop();
});

async function site(options) {
  const made = await serve({ folder, ...options });
  sites.push(made);
  return made.url;
}

/** Publishes, and waits until the page has it as its last. */
async function arrives(page, data, from = hub) {
  await from.publish("page", data);
  await page.waitForFunction((expected) => window.got?.at(-1) === expected, data);
}

const classic = (script) => `<!doctype html><title>t</title><link rel="icon" href="data:,">
<script src="${script}"></script>
<script>window.twine = new Twine("${hub.url}"); window.ready = (${SHOW})(twine);</script>`;

const module = (code) => `<!doctype html><title>t</title><link rel="icon" href="data:,">
<script type="module">${code}; window.twine = twine; window.ready = (${SHOW})(twine);</script>`;

test("a classic script, from the hub itself", async () => {
  const page = await open(browser, await site({ files: { "/": classic(`${hub.url}/twine.js`) } }));
  await page.evaluate(() => window.ready);
  await arrives(page, "hello");
  assert.deepEqual(page.complaints, []);
  const cookies = await page.context().cookies(hub.url);
  assert.deepEqual(cookies.map(({ name, httpOnly }) => [name, httpOnly]), [["twineid", true]]);
});

test("a classic script on a page in another encoding", async () => {
  // Neither the page nor the server says what it is in: then a browser takes windows-1252.
  const page = await open(browser, await site({ files: { "/": classic("/twine.min.js") } }));
  await page.evaluate(() => window.ready);
  assert.equal(await page.evaluate(() => document.characterSet), "windows-1252");
  await arrives(page, "latin");
  assert.deepEqual(page.complaints, []);
});

test("a module script, of which importing alone does nothing", async () => {
  const quiet = `<!doctype html><link rel="icon" href="data:,"><script type="module">
    import * as all from "/twine.js"; window.names = Object.keys(all).sort();</script>`;
  const code = `import { Twine } from "/twine.js"; const twine = new Twine("${hub.url}")`;
  const url = await site({ files: { "/": module(code), "/quiet.html": quiet } });
  const page = await open(browser, `${url}/quiet.html`);
  assert.deepEqual(await page.evaluate(() => window.names), ["Twine", "TwineError"]);
  await page.goto(url);
  await page.evaluate(() => window.ready);
  await arrives(page, "module");
  assert.deepEqual(page.complaints, []);
});

test("the slim entry, with the module from the page's own server", async () => {
  const code = `import { Twine } from "/slim.js"; const twine = new Twine("${hub.url}", { wasm: "/twine.wasm" })`;
  const page = await open(browser, await site({ files: { "/": module(code) } }));
  await page.evaluate(() => window.ready);
  await arrives(page, "slim");
  assert.deepEqual(page.complaints, []);
});

test("a web worker", async () => {
  const worker = `import { Twine } from "/twine.js"; const twine = new Twine("${hub.url}");
    twine.subscribe("page", (data) => postMessage(data)).then(() => postMessage("ready"));`;
  const html = `<!doctype html><link rel="icon" href="data:,"><script>
    window.got = []; const worker = new Worker("/worker.js", { type: "module" });
    window.ready = new Promise((resolve) => { worker.onmessage = ({ data }) => { got.push(data); resolve(); } });</script>`;
  const page = await open(browser, await site({ files: { "/": html, "/worker.js": worker } }));
  await page.evaluate(() => window.ready);
  await arrives(page, "worker");
  assert.deepEqual(page.complaints, []);
});

test("a page whose policy forbids WebAssembly is told what to add", async () => {
  const code = `import { Twine } from "/twine.js"; const twine = new Twine("${hub.url}");
    twine.on("error", () => {}); twine.on("state", (event) => (window.last = event)); twine.subscribe("page");`;
  const html = `<!doctype html><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>`;
  const policy = { "content-security-policy": "script-src 'self'" };
  const page = await open(browser, await site({ files: { "/": html, "/page.js": code }, headers: policy }));
  await page.waitForFunction(() => window.last?.state === "closed");
  const { reason, message } = await page.evaluate(() => window.last);
  assert.equal(reason, "wasm_blocked");
  assert.match(message, /'wasm-unsafe-eval'/);
});

test("a page with the policy that the message asks for works", async () => {
  const code = `import { Twine } from "/twine.js"; window.ready = (${SHOW})(new Twine("${hub.url}"));`;
  const html = `<!doctype html><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>`;
  const policy = { "content-security-policy": "script-src 'self' 'wasm-unsafe-eval'" };
  const page = await open(browser, await site({ files: { "/": html, "/page.js": code }, headers: policy }));
  await page.evaluate(() => window.ready);
});

// What tells that the network may be back, and where it is heard.
for (const [type, target] of [["online", "window"], ["pageshow", "window"], ["visibilitychange", "document"]]) {
  test(`${type} brings a client back at once, with what was published meanwhile`, async () => {
    const own = await Hub.start();
    const html = classic("/twine.min.js").replace(hub.url, own.url);
    const page = await open(browser, await site({ files: { "/": html } }));
    await page.evaluate(() => window.ready);
    await arrives(page, 1, own);
    // From here on no timer runs: nothing but the event brings the client back.
    await page.evaluate(() => (window.setTimeout = () => 0));
    await own.kill();
    await page.waitForFunction(() => window.states.at(-1).state === "reconnecting");
    await own.again();
    await own.publish("page", 2);
    await own.publish("page", 3);
    await page.evaluate(([type, target]) => window[target].dispatchEvent(new Event(type)), [type, target]);
    await page.waitForFunction(() => window.states.at(-1).state === "connected");
    await arrives(page, 4, own);
    assert.deepEqual(await page.evaluate(() => window.got), [1, 2, 3, 4]);
    await own.stop();
  });
}

test("a page that comes back from the back/forward cache goes on where it was", async () => {
  const url = await site({ files: { "/": classic("/twine.min.js"), "/away": "<!doctype html><title>away</title>" } });
  const page = await open(caching, url);
  await page.evaluate(() => window.ready);
  await page.evaluate(() => {
    window.seen = [];
    addEventListener("pageshow", ({ persisted }) => seen.push(persisted));
    document.addEventListener("freeze", () => seen.push("frozen"));
  });
  await arrives(page, "before");
  await page.goto(`${url}/away`);
  await hub.publish("page", "while frozen");
  // What comes out of the cache has been loaded already.
  await page.goBack({ waitUntil: "commit" });
  await page.waitForFunction(() => window.got.length === 2);
  await arrives(page, "after");
  assert.deepEqual(await page.evaluate(() => window.got), ["before", "while frozen", "after"]);
  assert.deepEqual(await page.evaluate(() => window.seen), ["frozen", true]);
});

test("two clients of a page, and one in a frame, each get everything", async () => {
  const frame = classic("/twine.min.js");
  const html = `<!doctype html><link rel="icon" href="data:,"><script src="/twine.min.js"></script><script>
    const twines = [new Twine("${hub.url}"), new Twine("${hub.url}")]; window.all = [[], []];
    window.ready = Promise.all(twines.map((twine, n) => twine.subscribe("page", (data) => all[n].push(data))));
    </script><iframe src="/frame.html"></iframe>`;
  const page = await open(browser, await site({ files: { "/": html, "/frame.html": frame } }));
  await page.evaluate(() => window.ready);
  await page.frames()[1].evaluate(() => window.ready);
  await hub.publish("page", "all");
  await page.waitForFunction(() => [...window.all, frames[0].got].every((got) => got.at(-1) === "all"));
  assert.deepEqual(page.complaints, []);
});
