// Messages in which nothing is wrong take a shorter way into the driver: what comes of them is the same.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { isPlain } from "../src/plain.js";
import { Line, connected } from "./support/line.js";

const { good, bad } = JSON.parse(
  await readFile(new URL("../../twine-protocol/vectors/hub-frames.json", import.meta.url), "utf8"),
);

/** A frame that lacks nothing, with other fields. */
const message = (fields) => JSON.stringify({ type: "message", room: "chat", offset: 1, time: 1, data: "d", ...fields });

/** What is at the edge of a rule, or beyond it. */
const EDGES = {
  offset: [undefined, null, 0, 2, -1, 1.5, 2 ** 53 - 1, 2 ** 53, "1", true, [1], {}, { valueOf: 1, toString: 1 }],
  time: [undefined, null, 0, -1, 1.5, 2 ** 53 - 1, 2 ** 53, "1", true, [1], {}],
  id: [null, "", "i", "é", "a b~", "a\n", "\x7f", "x".repeat(128), "x".repeat(129), "é".repeat(65), 0, 7, ["i"], {}],
  sender: [null, "", "s", "\n", "s".repeat(1000), 0, 7, ["s"], {}],
  data: [undefined, null, 0, "", [], {}],
  room: [undefined, null, "", "other", 7, ["chat"], "chat\n"],
  type: ["Message", null, ["message"]],
  more: ["a field of a later version"],
};

const edges = Object.entries(EDGES).flatMap(([field, values]) => values.map((value) => message({ [field]: value })));

// Which can't be written with `JSON.stringify`.
const zeros = ["offset", "time"].map((field) => message({ [field]: 77 }).replace("77", "-0"));

/** What a client makes of a text that comes after this offset. */
async function outcome(text, offset) {
  const twine = await connected();
  const events = [];
  twine.on("error", ({ code, message }) => events.push({ code, message }));
  for (const name of ["chat", "r"]) {
    twine.subscribe(name, (...values) => events.push(values));
    const { id, room } = Line.last.sent.at(-1);
    const at = { epoch: "e", offset };
    Line.last.receive(JSON.stringify({ type: "subscribed", id, room, ...at, head: at }));
  }
  Line.last.sent = [];
  Line.last.receive(text);
  const { closed, sent } = Line.last;
  twine.disconnect();
  return { events, closed, sent };
}

/** The same where no frame is plain. */
async function generally(...values) {
  const { isSafeInteger } = Number;
  Number.isSafeInteger = () => false;
  try {
    return await outcome(...values);
  } finally {
    Number.isSafeInteger = isSafeInteger;
  }
}

test("both ways come to the same", async () => {
  const texts = [...good, ...bad].map(({ text }) => text);
  let plain = 0;
  for (const text of [...texts, ...edges, ...zeros]) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      continue;
    }
    plain += isPlain(frame ?? {});
    const before = Number.isSafeInteger(frame?.offset) && frame.offset > 0 ? frame.offset - 1 : 0;
    assert.deepEqual(await outcome(text, before), await generally(text, before), text);
  }
  assert.ok(plain > 30, `${plain} of them were plain`);
});

test("what the vectors have of messages is plain, but for the rarest", () => {
  const messages = good.filter(({ text }) => JSON.parse(text).type === "message");
  const others = messages.filter(({ text }) => !isPlain(JSON.parse(text))).map(({ name }) => name);
  assert.deepEqual(others, [
    "message, data first, white space around it",
    "message, null id and sender",
    "message, greatest offset, empty sender, id of 128 bytes",
  ]);
});

test("what is no frame is told apart from what is no text", async () => {
  for (const [data, detail] of [["hello", "JSON"], ["null", "JSON"], ["7", "JSON"], [new ArrayBuffer(8), "a binary frame"]]) {
    const { events, closed } = await outcome(data, 0);
    assert.equal(closed, 4400);
    assert.equal(events[0].code, "garbled");
    assert.ok(events[0].message.endsWith(`: ${detail}`), events[0].message);
  }
});

test("each message has its room's epoch, whichever way it and the one before it came", async () => {
  const twine = await connected();
  const got = [];
  for (const room of ["one", "two"]) {
    twine.subscribe(room, (_, { room, epoch, offset }) => got.push(`${room} ${epoch} ${offset}`));
    const at = { epoch: `of-${room}`, offset: 0 };
    Line.last.receive(JSON.stringify({ type: "subscribed", id: Line.last.sent.at(-1).id, room, ...at, head: at }));
  }
  const general = { id: "é" };
  Line.last.message("one", 1, "d");
  Line.last.message("one", 2, "d", general);
  Line.last.message("two", 1, "d", general);
  Line.last.message("one", 3, "d");
  Line.last.message("two", 2, "d");
  const prev = { epoch: "of-two", offset: 2 };
  Line.last.receive(JSON.stringify({ type: "epoch", room: "two", epoch: "later", prev }));
  Line.last.message("two", 1, "d");
  Line.last.message("one", 4, "d", general);
  twine.disconnect();
  const expected = ["one of-one 1", "one of-one 2", "two of-two 1", "one of-one 3", "two of-two 2", "two later 1", "one of-one 4"];
  assert.deepEqual(got, expected);
});

test("rooms that come and go get their own messages", async () => {
  const twine = await connected();
  const got = [];
  const listen = (room) => {
    twine.subscribe(room, (data) => got.push(`${room} ${data}`));
    Line.last.agree();
  };
  ["a", "b", "c"].forEach(listen);
  twine.unsubscribe("b");
  Line.last.message("b", 1, "late");
  listen("d");
  twine.unsubscribe("a");
  twine.unsubscribe("c");
  ["e", "b", "f"].forEach(listen);
  for (const room of ["a", "b", "c", "d", "e", "f"]) Line.last.message(room, 1, "x");
  twine.disconnect();
  assert.deepEqual(got, ["b x", "d x", "e x", "f x"]);
});
