import assert from "node:assert/strict";
import { test } from "node:test";
import { askForCookie } from "../src/cookie.js";
import { Twine } from "../dist/twine.js";
import { Line } from "./support/line.js";

test("the cookie is asked for with credentials, and not from a cache", async () => {
  const asked = [];
  const fetch = async (...call) => {
    asked.push(call);
    return new Response(null, { status: 204 });
  };
  await askForCookie(fetch, "http://hub.test/set-cookie");
  await askForCookie(fetch, "http://hub.test/set-cookie", "DELETE");
  const methods = asked.map(([url, { method, credentials, cache, signal }]) => {
    assert.deepEqual([url, credentials, cache], ["http://hub.test/set-cookie", "include", "no-store"]);
    assert(signal instanceof AbortSignal);
    return method;
  });
  assert.deepEqual(methods, ["GET", "DELETE"]);
});

test("whatever is wrong with the fetch, the connection goes on", async () => {
  const fetches = [
    () => Promise.reject(new TypeError("offline")),
    () => {
      throw new Error("not allowed");
    },
    async () => new Response(null, { status: 503 }),
  ];
  for (const fetch of fetches) {
    const twine = new Twine("http://hub.test", { WebSocket: Line, fetch });
    await twine.connect();
    twine.disconnect();
  }
});

test("who may have no locks asks without: an opaque origin, say, or a page without cookies", async () => {
  const request = async () => {
    throw new DOMException("denied", "SecurityError");
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
  try {
    const asked = [];
    const fetch = async (_, { method }) => {
      asked.push(method);
      return new Response(null, { status: 204 });
    };
    const twine = new Twine("http://hub.test", { WebSocket: Line, fetch });
    await twine.connect();
    await twine.forget();
    await twine.connect();
    twine.disconnect();
    assert.deepEqual(asked, ["GET", "DELETE", "GET"]);
  } finally {
    if (before) Object.defineProperty(globalThis, "navigator", before);
    else delete globalThis.navigator;
  }
});

test("an engine that is too old for a timeout connects without the cookie", async () => {
  const { timeout } = AbortSignal;
  AbortSignal.timeout = undefined;
  try {
    const twine = new Twine("http://hub.test", { WebSocket: Line, fetch: async () => assert.fail("asked without a limit") });
    await twine.connect();
    twine.disconnect();
  } finally {
    AbortSignal.timeout = timeout;
  }
});
