// What the client keeps, and for how long.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Line, connected } from "./support/line.js";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");

/** Collects until `done`, or for as often as shows that it will not be. */
async function collected(done) {
  for (let round = 0; round < 50 && !done(); round += 1) {
    await setImmediate();
    collect();
  }
}

test("a client that was disconnected and let go of is collected", async () => {
  const clients = [];
  const use = async () => {
    const twine = await connected();
    const subscribed = twine.subscribe("chat", () => {});
    Line.last.agree();
    await subscribed;
    twine.disconnect();
    clients.push(new WeakRef(twine));
  };
  for (let n = 0; n < 5; n += 1) await use();
  const alive = () => clients.filter((client) => client.deref()).length;
  await collected(() => alive() === 0);
  assert.equal(alive(), 0);
});

test("a client that is connected goes on, whoever has let go of it", async () => {
  const got = [];
  const use = async () => {
    const twine = await connected();
    twine.subscribe("chat", (data) => got.push(data));
    Line.last.agree();
    return new WeakRef(twine);
  };
  const client = await use();
  await collected(() => !client.deref());
  Line.last.message("chat", 1, "here");
  assert.deepEqual(got, ["here"]);
  client.deref().disconnect();
});

test("a signal that outlives subscriptions does not keep them", async () => {
  const twine = await connected();
  const { signal } = new AbortController();
  let listeners = 0;
  const { addEventListener } = signal;
  signal.addEventListener = (type, listener, options) => {
    listeners += 1;
    options.signal.addEventListener("abort", () => (listeners -= 1));
    addEventListener.call(signal, type, listener, options);
  };
  for (let n = 0; n < 3; n += 1) {
    twine.subscribe("chat", { signal }, () => {});
    assert.equal(listeners, 1);
    twine.unsubscribe("chat");
  }
  await assert.rejects(twine.subscribe("", { signal }), { code: "bad_room" });
  assert.equal(listeners, 0);
  twine.disconnect();
});
