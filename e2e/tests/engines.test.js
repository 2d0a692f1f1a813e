// The client in the other engines: load, subscribe, receive, also what is compressed, reconnect.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ENGINES, missing } from "../support/engines.js";
import { Hub } from "../support/hub.js";
import { listening } from "../support/page.js";
import { Network } from "../support/proxy.js";
import { Site } from "../support/static.js";

for (const [name, engine] of Object.entries(ENGINES)) {
  test(`${name} receives, and misses nothing while the network is cut`, { skip: missing(engine) }, async (t) => {
    const hub = await Hub.start();
    t.after(() => hub.remove());
    const network = await Network.to(hub.url);
    t.after(() => network.remove());
    const pages = await Site.serve({ "/": listening(network.url) });
    t.after(() => pages.remove());
    const browser = await engine.launch();
    t.after(() => browser.close());

    await browser.goto(`${pages.at("127.0.0.1")}/`);
    await browser.evaluate(until(`state.textContent === "connected"`));
    await hub.curl("chat", "one");
    await browser.evaluate(until("messages.children.length === 1"));

    network.cut();
    await browser.evaluate(until(`state.textContent !== "connected"`));
    await hub.sdk("chat", ["two", LONG]);
    network.restore();
    await browser.evaluate(until(`state.textContent === "connected"`));
    await hub.curl("chat", "four");
    await browser.evaluate(until("messages.children.length >= 4"));

    const before = network.brought;
    await hub.curl("chat", LONG);
    await browser.evaluate(until("messages.children.length >= 5"));
    assert.ok(network.brought - before < LONG.length / 10, "it comes compressed");

    const texts = await browser.evaluate("Array.from(messages.children, (item) => JSON.parse(item.textContent))");
    assert.deepEqual(texts, ["one", "two", LONG, "four", LONG]);
    // Firefox notes that the socket was interrupted, which it was.
    assert.deepEqual(browser.complaints.filter((text) => !text.includes(new URL(network.url).host)), []);
  });
}

/** Long enough to be worth compressing. */
const LONG = "all work and no play ".repeat(1000);

/** A promise, as source text, that is there once `condition` holds in the page. */
const until = (condition) => `new Promise((resolve) => {
  const look = () => {
    if (!(${condition})) return;
    observer.disconnect();
    resolve(true);
  };
  const observer = new MutationObserver(look);
  observer.observe(document, { subtree: true, childList: true, characterData: true });
  look();
})`;
