// What a client leaves to the next one of its tab. Pages that are really reloaded: `reload.test.js`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Twine } from "../dist/twine.js";
import { Line } from "./support/line.js";
import { Storage } from "./support/storage.js";

const at = (offset) => ({ epoch: "e", offset });

/** A client on a `Line`, of a hub that keeps sessions. */
async function client(storage, options) {
  const fetch = async () => new Response(null, { status: 204 });
  const twine = new Twine("http://hub.test", { WebSocket: Line, fetch, storage, ...options });
  twine.on("error", () => {});
  await twine.connect();
  return twine;
}

/** Subscribes, and gives what the hub was asked for. */
async function subscribe(twine, room, ...more) {
  const subscribed = twine.subscribe(room, ...more);
  const { after, stored, history } = Line.last.sent.at(-1);
  Line.last.agree();
  await subscribed;
  return { after, stored, history };
}

test.beforeEach(() => (Line.session = "s1"));

test("the next client of a tab goes on where this one was, in its session, and takes it over", async () => {
  const storage = new Storage();
  const first = await client(storage);
  assert.deepEqual(await subscribe(first, "chat", () => {}), { after: undefined, stored: undefined, history: undefined });
  Line.last.message("chat", 1, "one");
  const { session, prev, instance } = Line.last.greeting;
  assert.deepEqual([session, prev], [undefined, undefined]);
  first.disconnect();

  const second = await client(storage);
  assert.deepEqual([Line.last.greeting.session, Line.last.greeting.prev], ["s1", instance]);
  assert.notEqual(Line.last.greeting.instance, instance);
  // A copy of the tab, made now, would not take anything over.
  assert.deepEqual(storage.all.map(({ prev }) => prev), [undefined]);
  assert.deepEqual(await subscribe(second, "chat", { history: 3 }), { after: at(1), stored: true, history: 3 });
  second.disconnect();
});

test("a client that never got through leaves what it found", async () => {
  const storage = new Storage();
  const first = await client(storage);
  await subscribe(first, "chat");
  const { instance } = Line.last.greeting;
  first.disconnect();
  // As when a component is mounted twice: there is not even a driver.
  const second = new Twine("http://hub.test", { WebSocket: Line, storage });
  second.on("error", () => {});
  second.connect();
  const aborted = new AbortController();
  second.subscribe("chat", { signal: aborted.signal }).catch(() => {});
  aborted.abort();
  second.disconnect();

  const third = await client(storage);
  assert.deepEqual([Line.last.greeting.session, Line.last.greeting.prev], ["s1", instance]);
  assert.deepEqual((await subscribe(third, "chat")).after, at(0));
  third.disconnect();
});

test("another session takes the place of the one that is stored", async () => {
  const storage = new Storage();
  for (const session of ["s1", "s2", undefined]) {
    Line.session = session;
    const twine = await client(storage);
    twine.disconnect();
    // Without a session and without rooms there is nothing to leave.
    assert.deepEqual(storage.all.map((left) => left.session), session ? [session] : []);
  }
});

test("what is stored stays before the first callback that is not through", async () => {
  const storage = new Storage();
  const twine = await client(storage);
  let settle;
  await subscribe(twine, "chat", (data) => data === "slow" && new Promise((resolve) => (settle = resolve)));
  const stored = () => {
    twine.disconnect();
    return storage.all[0].cursors;
  };
  Line.last.message("chat", 1, "slow");
  Line.last.message("chat", 2, "quick");
  assert.deepEqual(stored(), [["chat", at(0)]]);
  settle();
  await new Promise(setImmediate);
  await twine.connect();
  assert.deepEqual(stored(), [["chat", at(2)]]);
});

test("many messages are one write", async (t) => {
  const storage = new Storage();
  const twine = await client(storage);
  await subscribe(twine, "chat", () => {});
  t.mock.timers.enable({ apis: ["setTimeout"] });
  t.mock.timers.tick(250);
  storage.writes = 0;
  // The timer that ran was not the mocked one: what was to be stored is stored with this.
  for (let offset = 1; offset <= 100; offset += 1) Line.last.message("chat", offset, offset);
  assert(storage.writes <= 1);
  twine.disconnect();
  assert.deepEqual(storage.all[0].cursors, [["chat", at(100)]]);
});

test("a room that was unsubscribed is not stored, and one that is not named stays", async () => {
  const storage = new Storage();
  const first = await client(storage);
  for (const room of ["a", "b", "c"]) await subscribe(first, room);
  first.disconnect();
  const second = await client(storage);
  await subscribe(second, "a");
  second.unsubscribe("a");
  second.unsubscribe("b");
  second.disconnect();
  assert.deepEqual(storage.all[0].cursors, [["c", at(0)]]);
});

test("a thousand rooms are stored, and those of earlier pages go first", async () => {
  const storage = new Storage();
  const rooms = (prefix, n) => Array.from({ length: n }, (_, index) => `${prefix}${index}`);
  const first = await client(storage);
  for (const room of rooms("old", 600)) await subscribe(first, room);
  first.disconnect();
  const second = await client(storage);
  for (const room of rooms("new", 600)) await subscribe(second, room);
  second.disconnect();
  const names = storage.all[0].cursors.map(([room]) => room);
  assert.equal(names.length, 1000);
  assert.deepEqual(rooms("new", 600).filter((room) => !names.includes(room)), []);
});

test("names that mean something to JavaScript are rooms like others", async () => {
  const storage = new Storage();
  const names = ["__proto__", "constructor", "12", 'a"\\b'];
  const first = await client(storage);
  for (const room of names) await subscribe(first, room);
  first.disconnect();
  const second = await client(storage);
  for (const room of names) assert.deepEqual((await subscribe(second, room)).after, at(0));
  second.disconnect();
});

test("two clients of one page don't share what is stored, unless they have names", async () => {
  const storage = new Storage();
  const first = await client(storage);
  await subscribe(first, "chat");
  const second = await client(storage);
  assert.deepEqual(Line.last.greeting.session, undefined);
  await subscribe(second, "chat");
  Line.last.message("chat", 1, "one");
  const named = await client(storage, { name: "other" });
  await subscribe(named, "news");
  second.disconnect();
  named.disconnect();
  first.disconnect();
  assert.deepEqual(storage.all.map(({ cursors }) => cursors), [[["news", at(0)]], [["chat", at(0)]]]);
});

test("a client that stores nothing, or elsewhere, keeps nobody from storing", async () => {
  const [storage, other] = [new Storage(), new Storage()];
  const clients = [await client("none"), await client(other), await client(storage)];
  await subscribe(clients.at(-1), "chat");
  for (const twine of clients) twine.disconnect();
  assert.deepEqual(storage.all.map(({ cursors }) => cursors), [[["chat", at(0)]]]);
});

test("where there is no page, a global storage is not a tab's: clients of one process start anew", async () => {
  globalThis.sessionStorage = new Storage();
  try {
    const first = await client();
    await subscribe(first, "chat", () => {});
    Line.last.message("chat", 1, "one");
    first.disconnect();
    const second = await client();
    assert.equal((await subscribe(second, "chat", () => {})).after, undefined);
    second.disconnect();
  } finally {
    delete globalThis.sessionStorage;
  }
});

test("a listener that disconnects and connects anew does not end the storing", async () => {
  const storage = new Storage();
  const twine = await client(storage);
  const back = new Promise((resolve) => twine.on("state", ({ state }) => state === "connected" && resolve()));
  await subscribe(twine, "chat", (data) => {
    if (data !== "anew") return;
    twine.disconnect();
    twine.connect();
  });
  Line.last.message("chat", 1, "anew");
  await back;
  Line.last.agree();
  const stored = storage.next();
  Line.last.message("chat", 1, "one");
  Line.last.message("chat", 2, "two");
  await stored;
  const [{ prev, cursors }] = storage.all;
  twine.disconnect();
  assert.deepEqual([prev, cursors], [undefined, [["chat", at(2)]]]);
});

test("what is stored and is not ours is ignored", async () => {
  const storage = new Storage();
  const first = await client(storage);
  await subscribe(first, "chat");
  first.disconnect();
  const position = (more) => JSON.stringify({ cursors: [["chat", { ...at(1), ...more }]] });
  const spoilt = ["", "{", "null", "7", '"text"', "[]", "{}", '{"cursors":7}', '{"cursors":[7]}', '{"cursors":[["chat"]]}'];
  spoilt.push('{"cursors":[["chat",null]]}', '{"session":{},"prev":[" "],"cursors":{}}', '{"session":"no id","prev":7.5}');
  spoilt.push(position({ epoch: "no epoch" }), position({ epoch: 7, offset: "x" }), position({ offset: -1 }), position({ offset: 2 ** 60 }));
  for (const text of spoilt) {
    storage.spoil(text);
    const twine = await client(storage);
    assert.equal(Line.last.greeting.session, undefined, text);
    assert.equal((await subscribe(twine, "chat")).after, undefined, text);
    twine.disconnect();
  }
});

test("a storage that is blocked or full is done without, and nothing old is left in it", async () => {
  for (const wrong of ["isBlocked", "isFull"]) {
    const storage = new Storage();
    const first = await client(storage);
    await subscribe(first, "chat", () => {});
    first.disconnect();
    await first.connect();
    Line.last.agree();
    storage[wrong] = true;
    Line.last.message("chat", 1, "one");
    first.disconnect();
    storage[wrong] = false;
    if (wrong === "isFull") assert.deepEqual(storage.all, []);
  }
  const without = await client("none");
  await subscribe(without, "chat");
  without.disconnect();
  for (const storage of ["local", null, {}, 7]) assert.throws(() => new Twine("http://hub.test", { storage }), TypeError);
});

test("who logs out leaves nothing, and whoever comes next starts anew", async () => {
  const storage = new Storage();
  const asked = [];
  const fetch = async (url, { method }) => {
    asked.push(method);
    return new Response(null, { status: 204 });
  };
  const twine = await client(storage, { fetch });
  const got = [];
  twine.listenOn("chat", (data) => got.push(data));
  await subscribe(twine, "chat");
  Line.last.message("chat", 1, "old");
  const before = Line.last;
  Line.session = "s2";
  const back = new Promise((resolve) => twine.on("state", ({ state }) => state === "connected" && resolve()));
  const early = twine.forget();
  // Not before the hub has forgotten who that was.
  assert.equal(twine.state, "closed");
  await Promise.all([early, twine.connect(), back]);
  assert.deepEqual(asked, ["GET", "DELETE", "GET"]);
  assert.notEqual(Line.last, before);
  assert.deepEqual([Line.last.greeting.session, Line.last.greeting.prev], [undefined, undefined]);
  assert.deepEqual(Line.last.sent, []);
  before.message("chat", 2, "late");
  assert.deepEqual(await subscribe(twine, "chat"), { after: undefined, stored: undefined, history: undefined });
  twine.disconnect();
  assert.deepEqual(got, ["old"]);
  assert.deepEqual(storage.all.map(({ session }) => session), ["s2"]);
});

test("who logs out while the hub is out of reach is told, forgotten here, and does not come back", async () => {
  const storage = new Storage();
  const offline = new TypeError("offline");
  let isOffline = false;
  const fetch = async () => {
    if (isOffline) throw offline;
    return new Response(null, { status: 204 });
  };
  const twine = await client(storage, { fetch });
  await subscribe(twine, "chat");
  isOffline = true;
  const forgotten = twine.forget();
  const connected = twine.connect();
  await assert.rejects(forgotten, { code: "forget_failed", retryable: true, cause: offline });
  await assert.rejects(connected, { code: "forget_failed" });
  assert.equal(twine.state, "closed");
  assert.deepEqual(storage.all, []);
  isOffline = false;
  // What it was before the first attempt counts: it comes back.
  await twine.forget();
  assert.equal(twine.state, "connecting");
  await twine.connect();
  assert.equal(Line.last.greeting.session, undefined);
  twine.disconnect();
});

test("a client may be told to forget before it is there, and to stay away meanwhile", async () => {
  const fetch = async () => new Response(null, { status: 204 });
  const twine = new Twine("http://hub.test", { WebSocket: Line, fetch, storage: "none" });
  twine.on("error", () => {});
  twine.connect();
  const subscribed = twine.subscribe("chat");
  const forgotten = twine.forget();
  twine.disconnect();
  await assert.rejects(subscribed, { code: "closed" });
  await forgotten;
  assert.equal(twine.state, "closed");
});

test("who disconnects while it is forgotten stays away", async () => {
  const twine = await client("none");
  const forgotten = twine.forget();
  const connected = twine.connect();
  twine.disconnect();
  await assert.rejects(connected, { code: "closed" });
  await forgotten;
  assert.equal(twine.state, "closed");
});

test("a listener may log out, and nothing is left", async () => {
  const storage = new Storage();
  const twine = await client(storage);
  let forgotten;
  await subscribe(twine, "chat", () => {
    twine.disconnect();
    forgotten = twine.forget();
  });
  Line.last.message("chat", 1, "one");
  await forgotten;
  assert.deepEqual(storage.all, []);
});

test("what one client of a page has forgotten no other writes back, or goes on from", async () => {
  const storage = new Storage();
  const earlier = await client(storage, { name: "other" });
  await subscribe(earlier, "chat");
  await subscribe(earlier, "news");
  earlier.disconnect();
  const other = await client(storage, { name: "other" });
  assert.deepEqual((await subscribe(other, "chat", () => {})).after, at(0));
  const atOther = Line.last;
  const twine = await client(storage);
  await twine.forget();
  await twine.connect();
  await subscribe(twine, "chat");
  Line.last = atOther;
  twine.disconnect();
  const { writes } = storage;
  assert.equal((await subscribe(other, "news")).after, undefined);
  other.disconnect();
  assert.equal(storage.writes, writes);
  const next = await client(storage, { name: "other" });
  assert.equal(Line.last.greeting.session, undefined);
  assert.equal((await subscribe(next, "chat")).after, undefined);
  next.disconnect();
});

test("a log-out that clears the whole storage as well does not end the storing", async () => {
  const storage = new Storage();
  const twine = await client(storage);
  await subscribe(twine, "chat");
  await twine.forget();
  storage.clear();
  await twine.connect();
  await subscribe(twine, "chat", () => {});
  Line.last.message("chat", 1, "one");
  // Whoever clears it later costs what was there, and no more.
  storage.clear();
  Line.last.message("chat", 2, "two");
  twine.disconnect();
  const next = await client(storage);
  assert.deepEqual(await subscribe(next, "chat"), { after: at(2), stored: true, history: undefined });
  next.disconnect();
});

test("two clients of one page that both log out both store what comes after", async () => {
  const storage = new Storage();
  const names = ["one", "other"];
  const clients = await Promise.all(names.map((name) => client(storage, { name })));
  for (const twine of clients) twine.disconnect();
  await Promise.all(clients.map((twine) => twine.forget()));
  for (const twine of clients) {
    await twine.connect();
    await subscribe(twine, "chat");
    twine.disconnect();
  }
  for (const name of names) {
    const next = await client(storage, { name });
    assert.deepEqual((await subscribe(next, "chat")).after, at(0), name);
    next.disconnect();
  }
});
