// What is said with a socket's handshake, and what waits for its end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Twine } from "../dist/twine.js";
import { Line } from "./support/line.js";

const clients = [];

test.afterEach(() => clients.splice(0).forEach((twine) => twine.disconnect()));

function client(WebSocket, token) {
  const twine = new Twine("http://hub.test", { WebSocket, token, fetch: async () => new Response() });
  twine.on("error", () => {});
  clients.push(twine);
  return twine;
}

/** Connects with these rooms subscribed before. */
async function opened({ token, rooms }) {
  const twine = client(Line, token);
  for (const { room, ...options } of rooms) twine.subscribe(room, options, () => {}).catch(() => {});
  await twine.connect();
}

test("connect and the first rooms go with the handshake", async () => {
  await opened({ rooms: [{ room: "chat" }, { room: "a&b=ü+1" }] });
  assert.deepEqual(Line.last.early, ["connect", "subscribe", "subscribe"]);
  assert.deepEqual(Line.last.sent.map(({ room }) => room), ["a&b=ü+1", "chat"]);
});

test("what has no room in the address is said once the socket is open, in its order", async () => {
  const names = Array.from({ length: 30 }, (_, n) => `${n + 10}-${"x".repeat(100)}`);
  await opened({ rooms: names.map((room) => ({ room })) });
  const { address, early, sent } = Line.last;
  assert(early.length > 1 && early.length < 30, `${early.length} frames`);
  assert(new URL(address).search.length <= 2048);
  assert.deepEqual(sent.map(({ room }) => room), names);
});

test("no address has a token in it", async () => {
  await opened({ token: "secret", rooms: [{ room: "chat" }] });
  assert.equal(Line.last.address, "ws://hub.test/ws");
  assert.equal(Line.last.greeting.token, "secret");
  await opened({ rooms: [{ room: '"token":' }, { room: "chat", token: "secret" }, { room: "news" }] });
  assert(!Line.last.address.includes("secret"));
  assert.deepEqual(Line.last.early, ["connect", "subscribe"]);
  assert.deepEqual(Line.last.sent.map(({ room, token }) => [room, token]), [
    ['"token":', undefined],
    ["chat", "secret"],
    ["news", undefined],
  ]);
});

test("what was meant for a socket that never opened is not said on the next", async () => {
  const lines = [];
  class Closing extends Line {
    constructor(address) {
      super(address);
      lines.push(this);
      if (lines.length > 1) return;
      // It closes where another one opens.
      Object.defineProperty(this, "onopen", { set() {}, get: () => () => this.onclose({ code: 1006, reason: "" }) });
      this.receive = () => {};
    }
  }
  const twine = client(Closing);
  const names = Array.from({ length: 30 }, (_, n) => `${n + 10}-${"x".repeat(100)}`);
  for (const room of names) twine.subscribe(room, () => {}).catch(() => {});
  twine.connect();
  await new Promise((resolve) => twine.on("state", ({ state }) => state === "connected" && resolve()));
  assert.equal(lines.length, 2);
  assert(lines[0].early.length > 1);
  assert.equal(lines[1].address, "ws://hub.test/ws", "what was of no use is not tried again");
  assert.deepEqual(lines[1].sent.map(({ room }) => room), names);
});
