// The network breaks, the hub goes down; what was published meanwhile arrives once, in order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Network } from "../support/proxy.js";
import { Stage } from "../support/stage.js";

const numbered = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => `message ${from + n}`);

for (const signal of ["SIGTERM", "SIGKILL"]) {
  test(`a hub stopped by ${signal} and started again`, async (t) => {
    const stage = await Stage.set(t);
    const { hub } = stage;
    const people = [await stage.person("Ada"), await stage.person("Grace")];
    await hub.sdk("chat", numbered(1, 3));
    for (const person of people) await person.sees("message 3");

    await away(people, hub.url, async () => {
      await hub.stop(signal);
      for (const person of people) await person.is("Reconnecting");
      // They start while the hub is away, and get through when it is back.
      const published = hub.sdk("chat", numbered(4, 40));
      const [ada] = people;
      await ada.say("said while the hub was away");
      await hub.resume();
      await published;
      for (const person of people) await person.is("Connected");
    });
    await hub.sdk("chat", ["the last one"]);

    for (const person of people) {
      await person.sees("the last one");
      await person.sees("said while the hub was away");
      const texts = await person.texts();
      const own = texts.splice(texts.indexOf("said while the hub was away"), 1);
      assert.equal(own.length, 1);
      assert.deepEqual(texts, [...numbered(1, 40), "the last one"]);
    }
  });
}

test("a hub that is killed amid publishing loses nothing that it acknowledged", async (t) => {
  const stage = await Stage.set(t);
  const { hub } = stage;
  const ada = await stage.person("Ada");
  await ada.complaints.whileAway(hub.url, async () => {
    const published = hub.sdk("chat", numbered(1, 300));
    await ada.sees("message 20");
    await hub.stop("SIGKILL");
    await hub.resume();
    await published;
    await ada.sees("message 300");
    await ada.is("Connected");
  });
  assert.deepEqual(await ada.texts(), numbered(1, 300));
  const late = await stage.person("Grace");
  await late.sees("message 300");
  assert.deepEqual(await late.texts(), numbered(251, 300));
});

test("a hub that has lost its messages says so, and the page does", async (t) => {
  const stage = await Stage.set(t, { settings: ["--store", "memory"] });
  const { hub } = stage;
  const ada = await stage.person("Ada");
  await hub.sdk("chat", numbered(1, 3));
  await ada.sees("message 3");
  await ada.complaints.whileAway(hub.url, async () => {
    await hub.stop("SIGKILL");
    await ada.is("Reconnecting");
    await hub.resume();
    await ada.is("Connected");
  });
  await ada.page.getByText("Messages may be missing here").waitFor();
  await hub.sdk("chat", ["new"]);
  await ada.sees("new");
  assert.deepEqual(await ada.texts(), [...numbered(1, 3), "new"]);
});

test("a network that is cut and comes back", async (t) => {
  const { stage, network } = await behindNetwork(t);
  const { hub } = stage;
  const people = [await stage.person("Ada"), await stage.person("Grace")];
  await hub.sdk("chat", numbered(1, 3));
  for (const person of people) await person.sees("message 3");

  for (const [from, to] of [[4, 60], [61, 90]]) {
    await away(people, stage.publicHub, async () => {
      network.cut();
      for (const person of people) await person.is("Reconnecting");
      await hub.sdk("chat", numbered(from, to));
      network.restore();
      for (const person of people) await person.is("Connected");
    });
    for (const person of people) {
      await person.sees(`message ${to}`);
      assert.deepEqual(await person.texts(), numbered(1, to));
      await person.page.getByText(`While you were away: ${to - from + 1} messages`).waitFor();
    }
  }
});

test("a page that is reloaded in mid-conversation shows each line once, also those that were said meanwhile", async (t) => {
  const stage = await Stage.set(t);
  const { hub } = stage;
  const ada = await stage.person("Ada");
  await hub.sdk("chat", numbered(1, 10));
  await ada.sees("message 10");
  await ada.page.reload();
  await ada.sees("message 10");
  await ada.page.goto("about:blank");
  // More than the page asks for as history.
  await hub.sdk("chat", numbered(11, 80));
  await ada.page.goto(stage.url);
  await ada.sees("message 80");
  await hub.sdk("chat", ["the last one"]);
  await ada.sees("the last one");
  assert.deepEqual(await ada.texts(), [...numbered(11, 80), "the last one"]);
});

test("what is written while the network is cut is sent once", async (t) => {
  const { stage, network } = await behindNetwork(t);
  const ada = await stage.person("Ada");
  const grace = await stage.person("Grace");
  await away([ada, grace], stage.publicHub, async () => {
    network.cut();
    await ada.is("Reconnecting");
    await ada.say("posted, but not heard yet");
    await ada.page.locator("[data-state=sending]").waitFor();
    network.restore();
    await ada.sees("posted, but not heard yet");
  });
  await grace.say("the last one");
  for (const person of [ada, grace]) {
    await person.sees("the last one");
    assert.deepEqual(await person.texts(), ["posted, but not heard yet", "the last one"]);
  }
});

test("a page that waits to try again is told how long, and tries at once when asked", async (t) => {
  const stage = await Stage.set(t);
  const ada = await stage.person("Ada");
  await away([ada], stage.hub.url, async () => {
    // From here on the page's time stands still: by itself it never tries again.
    // It is stopped a little ahead, for it runs on until the word arrives and can't go back.
    await ada.page.clock.install();
    await ada.page.clock.pauseAt(Date.now() + 10_000);
    await stage.hub.stop();
    await ada.page.getByText(/Next attempt in \d+ s\./).waitFor();
    await stage.hub.resume();
    await ada.page.getByRole("button", { name: "Retry now" }).click();
    await ada.is("Connected");
  });
  await ada.page.locator("#banner").waitFor({ state: "hidden" });
});

/** A stage whose pages reach the hub by a network that can be cut. */
async function behindNetwork(t) {
  let network;
  const stage = await Stage.set(t, { reach: async (hub) => (network = await Network.to(hub.url)).url });
  stage.before(() => network.remove());
  return { stage, network };
}

/** Does what takes the hub away from everyone. */
function away(people, url, work) {
  return people.reduceRight((work, person) => () => person.complaints.whileAway(url, work), work)();
}
