// People chat, and programs speak to them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Stage } from "../support/stage.js";

test("two people in two browsers chat both ways", async (t) => {
  const stage = await Stage.set(t);
  const ada = await stage.person("Ada");
  const grace = await stage.person("Grace");

  await ada.say("hello");
  await grace.sees("hello");
  await grace.say("hello, Ada");
  await ada.sees("hello, Ada");
  await ada.say("good to see you");
  await grace.sees("good to see you");

  for (const person of [ada, grace]) {
    assert.deepEqual(await person.texts(), ["hello", "hello, Ada", "good to see you"]);
  }
  assert.deepEqual(await ada.page.locator(".mine .text").allTextContents(), ["hello", "good to see you"]);
  assert.deepEqual(await grace.page.locator(".mine .text").allTextContents(), ["hello, Ada"]);
  assert.equal(await grace.page.locator(".message:not(.mine) .name").first().textContent(), "Ada");
});

test("a message from curl, from the SDK and from the hub's command reaches both", async (t) => {
  const { hub, ada, grace } = await withTwo(t);
  await hub.curl("chat", { name: "curl", text: "by HTTP" });
  await hub.sdk("chat", [{ name: "Rust", text: "by the SDK" }]);
  await hub.command("chat", { name: "shell", text: "by the command" });
  for (const person of [ada, grace]) {
    await person.sees("by the command");
    assert.deepEqual(await person.texts(), ["by HTTP", "by the SDK", "by the command"]);
  }
});

test("a message of another shape than the chat's is shown as what it is", async (t) => {
  const { hub, ada } = await withTwo(t);
  await hub.curl("chat", "a text alone");
  await hub.curl("chat", { temperature: 21.5 });
  await hub.curl("chat", { name: 7, text: "a number for a name" });
  await ada.sees("a number for a name");
  assert.deepEqual(await ada.texts(), ["a text alone", '{"temperature":21.5}', "a number for a name"]);
});

test("a page that is opened later shows what was said, and a reload shows it once", async (t) => {
  const { stage, hub, ada } = await withTwo(t);
  await ada.say("first");
  await ada.sees("first");
  await hub.sdk("chat", ["second", "third"]);

  const late = await stage.person("Alan");
  await late.sees("third");
  assert.deepEqual(await late.texts(), ["first", "second", "third"]);

  await ada.page.reload();
  await ada.sees("third");
  assert.deepEqual(await ada.texts(), ["first", "second", "third"]);
  assert.deepEqual(await ada.page.locator(".mine .text").allTextContents(), ["first"], "the tab knows its person");
});

test("who is typing is seen by the others, until the message is there", async (t) => {
  const { ada, grace } = await withTwo(t);
  // It is forgotten after a while: someone has to be looking.
  const seen = ada.page.getByText("Grace is typing").waitFor();
  await grace.page.getByLabel("Message").pressSequentially("hel");
  await seen;
  await grace.page.getByLabel("Message").press("Enter");
  await ada.sees("hel");
  await ada.page.getByText("Grace is typing").waitFor({ state: "hidden" });
  assert.equal(await grace.page.locator("#typing").isVisible(), false, "nobody is told of oneself");
  assert.deepEqual(await ada.texts(), ["hel"], "typing is no history");
});

/** A stage with Ada and Grace, both connected and joined. */
async function withTwo(t) {
  const stage = await Stage.set(t);
  return { stage, hub: stage.hub, ada: await stage.person("Ada"), grace: await stage.person("Grace") };
}
