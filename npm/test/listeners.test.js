import assert from "node:assert/strict";
import { test } from "node:test";
import { Listeners } from "../src/listeners.js";

test("the same function may be added twice, each with its own undo", () => {
  const listeners = new Listeners();
  const calls = [];
  const listener = (value) => calls.push(value);
  const undo = listeners.add(listener);
  listeners.add(listener);
  listeners.call([1], assert.fail);
  undo();
  undo();
  listeners.call([2], assert.fail);
  assert.deepEqual(calls, [1, 1, 2]);
});

test("what is removed during a call is not called any more, what is added is called from the next", () => {
  const listeners = new Listeners();
  const calls = [];
  listeners.add(() => {
    undo();
    listeners.add(() => calls.push("added"));
  }, { once: true });
  const undo = listeners.add(() => calls.push("removed"));
  listeners.call([], assert.fail);
  assert.deepEqual(calls, []);
  listeners.call([], assert.fail);
  assert.deepEqual(calls, ["added"]);
});

test("the first and the last are told of", () => {
  const changes = [];
  const listeners = new Listeners((any) => changes.push(any));
  const undo = [listeners.add(() => {}), listeners.add(() => {})];
  undo.forEach((remove) => remove());
  const { signal } = { signal: AbortSignal.abort() };
  listeners.add(() => {}, { signal });
  assert.deepEqual(changes, [true, false]);
});

test("a signal removes, and one that has aborted adds nothing", () => {
  const listeners = new Listeners();
  const controller = new AbortController();
  listeners.add(() => {}, { signal: controller.signal });
  controller.abort();
  assert.equal(listeners.size, 0);
});

test("what a listener throws, or its promise rejects with, is reported and stops no other", async () => {
  const listeners = new Listeners();
  const reported = [];
  listeners.add(() => {
    throw "thrown";
  });
  listeners.add(() => Promise.reject("rejected"));
  listeners.add(() => Promise.resolve("fine"));
  const pending = listeners.call([], (error) => reported.push(error));
  assert.equal(pending.length, 2);
  await Promise.all(pending);
  assert.deepEqual(reported, ["thrown", "rejected"]);
});
