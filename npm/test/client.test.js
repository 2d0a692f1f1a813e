// The client in Node against a real hub.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { Twine as Slim } from "../dist/slim.js";
import { Twine, TwineError } from "../dist/twine.js";
import { Hub } from "./support/hub.js";
import { Inbox, event } from "./support/inbox.js";
import { Line, connected } from "./support/line.js";

let hub;
const clients = [];

before(async () => (hub = await Hub.start()));
after(() => hub.stop());
test.afterEach(() => clients.splice(0).forEach((twine) => twine.disconnect()));

function client(options) {
  const twine = new Twine(hub.url, { WebSocket, ...options });
  clients.push(twine);
  return twine;
}

test("a message arrives with all that is known of it", async () => {
  const twine = client();
  twine.connect();
  const inbox = new Inbox();
  const { epoch, offset } = await twine.subscribe("news", (data, message) => inbox.push([data, message]));
  const published = await hub.publish("news", { text: "hello", tags: [1, null] });
  const [data, message] = await inbox.next();
  assert.deepEqual(data, { text: "hello", tags: [1, null] });
  assert.equal(message.room, "news");
  assert.deepEqual([message.epoch, message.offset], [published.epoch, published.offset]);
  assert.deepEqual([epoch, offset + 1], [published.epoch, published.offset]);
  assert.equal(message.recovered, false);
  assert.equal(typeof message.time, "number");
});

test("outside a page nothing happens before connect, and then calls that came early are made", async () => {
  const twine = client();
  assert.equal(twine.state, "idle");
  const inbox = new Inbox();
  const subscribed = twine.subscribe("early", inbox.push);
  assert.equal(twine.state, "idle");
  await twine.connect();
  assert.equal(twine.state, "connected");
  await subscribed;
  await hub.publish("early", 1);
  assert.equal(await inbox.next(), 1);
});

test("history comes first, and is marked as recovered", async () => {
  for (const n of [1, 2, 3]) await hub.publish("past", n);
  const twine = client();
  twine.connect();
  const inbox = new Inbox();
  await twine.subscribe("past", { history: 2 }, (data, { recovered }) => inbox.push([data, recovered]));
  await hub.publish("past", 4);
  assert.deepEqual(await inbox.take(3), [[2, true], [3, true], [4, false]]);
});

test("what was published while the hub was unreachable arrives once and in order", async () => {
  const own = await Hub.start();
  const twine = new Twine(own.url, { WebSocket });
  clients.push(twine);
  const inbox = new Inbox();
  twine.connect();
  await twine.subscribe("line", inbox.push);
  await own.publish("line", 1);
  assert.equal(await inbox.next(), 1);

  const lost = event(twine, "state", ({ state }) => state === "reconnecting");
  await own.kill();
  assert.equal(typeof (await lost).delay, "number");
  const back = event(twine, "state", ({ state }) => state === "connected");
  await own.again();
  await own.publish("line", 2);
  await own.publish("line", 3);
  await back;
  await own.publish("line", 4);
  assert.deepEqual(await inbox.take(3), [2, 3, 4]);
  twine.disconnect();
  await own.stop();
});

test("a listener that throws is reported, and the others run", async () => {
  const twine = client();
  twine.connect();
  const errors = new Inbox();
  const inbox = new Inbox();
  twine.on("error", errors.push);
  const fault = new Error("mine");
  twine.listenOn("faults", () => {
    throw fault;
  });
  twine.listenOn("faults", () => Promise.reject(fault));
  await twine.subscribe("faults", inbox.push);
  await hub.publish("faults", "x");
  assert.equal(await inbox.next(), "x");
  for (const error of await errors.take(2)) {
    assert(error instanceof TwineError);
    assert.deepEqual([error.code, error.room, error.cause], ["listener_failed", "faults", fault]);
  }
});

test("what a listener throws may have no text", async () => {
  const twine = client();
  twine.connect();
  const errors = new Inbox();
  const inbox = new Inbox();
  twine.on("error", errors.push);
  await twine.subscribe("mute", (data) => {
    inbox.push(data);
    throw data === 1 ? Object.create(null) : Symbol("mute");
  });
  for (const data of [1, 2, 3]) await hub.publish("mute", data);
  assert.deepEqual(await inbox.take(3), [1, 2, 3]);
  for (const { code, message } of await errors.take(3)) {
    assert.deepEqual([code, message], ["listener_failed", "a listener of room mute failed: what it threw has no text"]);
  }
  twine.once("state", () => {
    throw Object.create(null);
  });
  twine.disconnect();
  assert.equal((await errors.next()).code, "listener_failed");
  assert.equal(twine.state, "closed");
});

test("a hub that is down ends no process", async () => {
  const down = await Hub.start();
  await down.stop();
  const twine = new Twine(down.url, { WebSocket });
  clients.push(twine);
  const delays = new Inbox();
  twine.on("state", ({ state, delay }) => state === "reconnecting" && delays.push(delay));
  twine.connect();
  await delays.take(2);
  assert.equal(twine.state, "reconnecting");
});

test("a page with a path that is longer than a scope may be connects", async () => {
  globalThis.location = { pathname: `/${"%E4%B8%AD".repeat(200)}` };
  try {
    await client().connect();
  } finally {
    delete globalThis.location;
  }
});

test("a listener may unsubscribe, disconnect, connect and make another client", async () => {
  const twine = client();
  twine.connect();
  const seen = new Inbox();
  await twine.subscribe("busy", async (data) => {
    const left = twine.unsubscribe("busy");
    twine.disconnect();
    const other = client();
    await Promise.all([left, other.connect(), twine.connect()]);
    seen.push([data, other.state, twine.state]);
  });
  await hub.publish("busy", 1);
  assert.deepEqual(await seen.next(), [1, "connected", "connected"]);
});

test("nothing of a room is delivered after it was unsubscribed, and again after it was subscribed", async () => {
  const twine = client();
  twine.connect();
  const bound = [];
  const inbox = new Inbox();
  await twine.subscribe("door", (data) => bound.push(data));
  twine.listenOn("door", inbox.push);
  await twine.unsubscribe("door");
  await hub.publish("door", "unheard");
  await twine.subscribe("door");
  await hub.publish("door", "heard");
  assert.equal(await inbox.next(), "heard");
  assert.deepEqual(bound, []);
});

test("two clients are independent of each other", async () => {
  const [one, two] = [client(), client()];
  const inboxes = [new Inbox(), new Inbox()];
  await Promise.all([one.connect(), two.connect()]);
  await one.subscribe("twins", inboxes[0].push);
  await two.subscribe("twins", inboxes[1].push);
  one.disconnect();
  await hub.publish("twins", 7);
  assert.equal(await inboxes[1].next(), 7);
  assert.deepEqual([one.state, two.state], ["closed", "connected"]);
});

test("what rejects is an event too, and ends no process", async () => {
  const twine = client();
  const errors = new Inbox();
  twine.on("error", errors.push);
  twine.connect();
  twine.subscribe("");
  const error = await errors.next();
  assert.deepEqual([error.code, error.retryable], ["bad_room", false]);
  assert.match(error.message, /255 bytes/);
  await assert.rejects(twine.subscribe("x".repeat(256)), { code: "bad_room" });
  await assert.rejects(twine.subscribe("a", { after: { epoch: "no epoch", offset: 1 } }), { code: "bad_position" });
});

test("options that the hub could not be asked for are refused, not made into others", async () => {
  const twine = client();
  const errors = new Inbox();
  twine.on("error", errors.push);
  await twine.connect();
  const position = { epoch: "e", offset: 1 };
  for (const history of [-1, 2.7, "many", 2 ** 32, null]) {
    await assert.rejects(twine.subscribe("odd", { history }), { code: "bad_history", room: "odd" });
  }
  for (const after of [{ offset: 1 }, { epoch: "e" }, { ...position, offset: 1.5 }, { ...position, epoch: 7 }]) {
    await assert.rejects(twine.subscribe("odd", { after }), { code: "bad_position", room: "odd" });
  }
  await errors.take(9);
});

test("a listener that is none is refused, and nothing is left of it", async () => {
  const twine = client();
  await twine.connect();
  assert.throws(() => twine.subscribe("strict", {}, "listener"), TypeError);
  const controller = new AbortController();
  await twine.subscribe("strict", { signal: controller.signal });
  // Ended by its only hold: what comes now is another subscription, after the message.
  controller.abort();
  const { offset } = await hub.publish("strict", 1);
  assert.equal((await twine.subscribe("strict")).offset, offset);
});

test("an aborted subscription rejects with the signal's reason and takes its listener off", async () => {
  const twine = client();
  const controller = new AbortController();
  const heard = [];
  const subscribed = twine.subscribe("fleeting", { signal: controller.signal }, (data) => heard.push(data));
  const reason = new Error("changed my mind");
  controller.abort(reason);
  await assert.rejects(subscribed, reason);
  await assert.rejects(twine.subscribe("fleeting", { signal: controller.signal }), reason);
  await twine.connect();
  const inbox = new Inbox();
  await twine.subscribe("fleeting", inbox.push);
  await hub.publish("fleeting", 1);
  assert.equal(await inbox.next(), 1);
  assert.deepEqual(heard, []);
});

test("aborting one of two subscriptions of a room leaves the other in force", async () => {
  const twine = client();
  twine.connect();
  const controller = new AbortController();
  const inbox = new Inbox();
  const heard = [];
  await twine.subscribe("shared", { signal: controller.signal }, (data) => heard.push(data));
  await twine.subscribe("shared", inbox.push);
  controller.abort();
  await hub.publish("shared", 1);
  assert.equal(await inbox.next(), 1);
  assert.deepEqual(heard, []);
});

test("aborting a call for history repeats nothing for those who hold the room", async () => {
  const twine = await connected();
  const got = [];
  const held = twine.subscribe("chat", (data) => got.push(data));
  Line.last.agree();
  await held;
  Line.last.message("chat", 1, "one");
  const controller = new AbortController();
  const aborted = twine.subscribe("chat", { history: 20, signal: controller.signal });
  const { id } = Line.last.sent.at(-1);
  controller.abort();
  await assert.rejects(aborted, { name: "AbortError" });
  assert.deepEqual(Line.last.sent.at(-1).after, { epoch: "e", offset: 1 });
  assert.equal(Line.last.sent.at(-1).history, undefined);
  // The hub had answered the first request already.
  const at = { epoch: "e", offset: 0 };
  Line.last.receive(JSON.stringify({ type: "subscribed", id, room: "chat", ...at, head: at }));
  Line.last.message("chat", 1, "one");
  assert.deepEqual(got, ["one"]);
  twine.disconnect();
});

test("a call that is aborted before there is a client is never made", async () => {
  const twine = new Twine("http://hub.test", { WebSocket: Line, fetch: async () => new Response() });
  const controller = new AbortController();
  const aborted = twine.subscribe("chat", { history: 20, signal: controller.signal });
  const kept = twine.subscribe("chat");
  controller.abort();
  await assert.rejects(aborted, { name: "AbortError" });
  await twine.connect();
  assert.deepEqual(Line.last.sent.map(({ room, history }) => [room, history]), [["chat", undefined]]);
  Line.last.agree();
  await kept;
  twine.disconnect();
});

test("a module that can't be started is one error, told by the call and the event alike", async () => {
  const empty = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
  const twine = new Slim(hub.url, { WebSocket, wasm: empty });
  const errors = [];
  twine.on("error", (error) => errors.push(error));
  const calls = await Promise.allSettled([twine.connect(), twine.subscribe("chat")]);
  const [{ reason }] = calls;
  assert.equal(reason.code, "wasm_missing");
  assert.deepEqual(calls.map((call) => call.reason === reason), [true, true]);
  assert.deepEqual(errors, [reason]);
});

test("a client that was closed says so, and comes back", async () => {
  const twine = client();
  const closed = event(twine, "state", ({ state }) => state === "closed");
  const connecting = twine.connect();
  twine.disconnect();
  await assert.rejects(connecting, { code: "disconnected" });
  assert.equal((await closed).reason, "disconnected");
  await twine.connect();
  assert.equal(twine.state, "connected");
});

test("events and addresses that don't exist are refused at once", () => {
  assert.throws(() => new Twine("ftp://example.com"), TypeError);
  assert.throws(() => client({ scope: "é".repeat(513) }), TypeError);
  assert.throws(() => client().on("message", () => {}), TypeError);
  assert.throws(() => client().listenOn("room", undefined), TypeError);
  assert.throws(() => client().subscribe(7), TypeError);
});
