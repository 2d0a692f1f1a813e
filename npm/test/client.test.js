// The client in Node against a real hub.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { Twine, TwineError } from "../dist/twine.js";
import { Hub } from "./support/hub.js";
import { Inbox, event } from "./support/inbox.js";

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

test("two clients don't know of each other", async () => {
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

test("an aborted subscription rejects with the signal's reason and takes its listener off", async () => {
  const twine = client();
  const controller = new AbortController();
  const subscribed = twine.subscribe("fleeting", { signal: controller.signal }, assert.fail);
  const reason = new Error("changed my mind");
  controller.abort(reason);
  await assert.rejects(subscribed, reason);
  await assert.rejects(twine.subscribe("fleeting", { signal: controller.signal }), reason);
  await twine.connect();
  const marker = new Inbox();
  await hub.publish("fleeting", 1);
  await twine.subscribe("marker", marker.push);
  await hub.publish("marker", 2);
  assert.equal(await marker.next(), 2);
});

test("aborting one of two subscriptions of a room leaves the other in force", async () => {
  const twine = client();
  twine.connect();
  const controller = new AbortController();
  const inbox = new Inbox();
  await twine.subscribe("shared", { signal: controller.signal }, assert.fail);
  await twine.subscribe("shared", inbox.push);
  controller.abort();
  await hub.publish("shared", 1);
  assert.equal(await inbox.next(), 1);
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
  assert.throws(() => client().on("message", () => {}), TypeError);
  assert.throws(() => client().listenOn("room", undefined), TypeError);
  assert.throws(() => client().subscribe(7), TypeError);
});
