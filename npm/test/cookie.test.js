import assert from "node:assert/strict";
import { test } from "node:test";
import { fetchCookie } from "../src/cookie.js";

test("the cookie is asked for with credentials, and not from a cache", async () => {
  const asked = [];
  await fetchCookie(async (...call) => asked.push(call), "http://hub.test/set-cookie");
  const [[url, { credentials, cache, signal }]] = asked;
  assert.deepEqual([url, credentials, cache], ["http://hub.test/set-cookie", "include", "no-store"]);
  assert(signal instanceof AbortSignal);
});

test("whatever is wrong with the fetch, the connection goes on", async () => {
  await fetchCookie(() => Promise.reject(new TypeError("offline")), "http://hub.test/");
  await fetchCookie(() => {
    throw new Error("not allowed");
  }, "http://hub.test/");
  await fetchCookie(undefined, "http://hub.test/");
});

test("an engine that is too old for a timeout connects without the cookie", async () => {
  const { timeout } = AbortSignal;
  AbortSignal.timeout = undefined;
  try {
    await fetchCookie(async () => assert.fail("asked without a limit"), "http://hub.test/");
  } finally {
    AbortSignal.timeout = timeout;
  }
});
