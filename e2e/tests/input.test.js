// What people write, and what may go wrong with it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Stage } from "../support/stage.js";

test("what looks like HTML is text", async (t) => {
  const stage = await Stage.set(t);
  const ada = await stage.person("<b>Ada</b>");
  const grace = await stage.person("Grace");
  const hostile = [
    "<script>globalThis.broken = true</script>",
    `<img src="x" onerror="globalThis.broken = true">`,
    "{{hub}} </textarea> &lt;b&gt; javascript:alert(1)",
  ];
  for (const text of hostile) {
    await ada.say(text);
    await grace.sees(text);
  }
  await stage.hub.curl("chat", { name: hostile[0], text: hostile[1] });
  await grace.say("the last one");
  await ada.sees("the last one");
  for (const { page } of [ada, grace]) {
    assert.equal(await page.evaluate(() => globalThis.broken), undefined);
    assert.equal(await page.locator("#messages :is(script, img, b)").count(), 0);
  }
  assert.equal(await grace.page.locator(".name").first().textContent(), "<b>Ada</b>");
});

test("two that have the same name and text are two", async (t) => {
  const stage = await Stage.set(t);
  const people = [await stage.person("Ada"), await stage.person("Ada")];
  for (const person of people) await person.say("same");
  await stage.hub.sdk("chat", ["the last one"]);
  for (const person of people) {
    await person.sees("the last one");
    assert.deepEqual(await person.texts(), ["same", "same", "the last one"]);
    assert.equal(await person.page.locator(".mine").count(), 1);
  }
});

test("lines stay lines, and an empty message is none", async (t) => {
  const stage = await Stage.set(t);
  const ada = await stage.person("Ada");
  const box = ada.page.getByLabel("Message");
  await box.press("Enter");
  await box.fill("   ");
  await box.press("Enter");
  await box.fill("one");
  await box.press("Shift+Enter");
  await box.pressSequentially("two");
  await box.press("Enter");
  await ada.page.locator(".message:not([data-state])").waitFor();
  assert.deepEqual(await ada.texts(), ["one\ntwo"]);
});

test("a message that can't be sent says so, and is sent once when it can", async (t) => {
  const stage = await Stage.set(t);
  const ada = await stage.person("Ada");
  const grace = await stage.person("Grace");
  // The backend is away, the hub is not.
  await ada.complaints.whileAway(stage.url, async () => {
    await stage.stopChat();
    await ada.say("not lost");
    await ada.page.getByText("Not sent: the server can't be reached").waitFor();
    await stage.startChat(stage.port);
    await ada.page.getByRole("button", { name: "Retry" }).click();
    await ada.sees("not lost");
  });
  await grace.say("the last one");
  for (const person of [ada, grace]) {
    await person.sees("the last one");
    assert.deepEqual(await person.texts(), ["not lost", "the last one"]);
  }
});

test("a page whose hub is away says so, and works when it is back", async (t) => {
  const stage = await Stage.set(t);
  await stage.hub.stop();
  const ada = await stage.visitor();
  await ada.page.getByText("The hub can't be reached.").waitFor();
  await ada.is("Offline");
  ada.complaints.take(/twine\.js failed/);
  ada.complaints.take(/ERR_CONNECTION_REFUSED/);

  await stage.hub.resume();
  await ada.page.getByRole("button", { name: "Reload" }).click();
  await ada.is("Connected");
});
