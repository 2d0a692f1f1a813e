// Checks the golden vectors against a small codec of its own: `node --test`. README.md has the format.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url), "utf8"));
const codes = read("codes.json");
const errorCodes = codes.errors.map((error) => error.code);

// What a value is: how it is decoded from parsed JSON, and encoded from decoded fields.
const plain = { decode: (value) => value, encode: JSON.stringify };
const known = (list, other) => ({ decode: (value) => (list.includes(value) ? value : other), encode: JSON.stringify });
const reason = known(codes.reasons, "unknown");
const code = known(errorCodes, "other");
const list = (of) => ({
  decode: (values) => values.map(of.decode),
  encode: (values) => `[${values.map(of.encode)}]`,
});
const optional = (of, absent = null) => ({
  decode: (value) => (value == null ? absent : of.decode(value)),
  encode: (value) => (JSON.stringify(value) === JSON.stringify(absent) ? undefined : of.encode(value)),
});
const object = (fields, type) => ({
  decode(value) {
    const decoded = type ? { type } : {};
    for (const [name, of] of Object.entries(fields)) {
      decoded[name === "data" ? "data_text" : name] = of.decode(value[name]);
    }
    return decoded;
  },
  encode(decoded) {
    const members = type ? [`"type":${JSON.stringify(type)}`] : [];
    for (const [name, of] of Object.entries(fields)) {
      const text = name === "data" ? decoded.data_text : of.encode(decoded[name]);
      if (text !== undefined) members.push(`${JSON.stringify(name)}:${text}`);
    }
    return `{${members}}`;
  },
});
const map = (of) => ({
  decode: (value) => Object.fromEntries(Object.entries(value).map(([key, item]) => [key, of.decode(item)])),
  encode(value) {
    const keys = Object.keys(value).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    return `{${keys.map((key) => `${JSON.stringify(key)}:${of.encode(value[key])}`)}}`;
  },
});

const maybe = optional(plain);
const position = object({ epoch: plain, offset: plain });
const lost = object({ from: position, to: position, count: maybe });

const clientFrames = {
  connect: { session: maybe, instance: maybe, prev: maybe, scope: maybe, token: maybe },
  subscribe: {
    id: plain,
    room: plain,
    after: optional(position),
    stored: optional(plain, false),
    history: maybe,
    token: maybe,
  },
  unsubscribe: { id: plain, room: plain },
  pong: { cursors: optional(map(position), {}) },
};

const hubFrames = {
  connected: { session: maybe, resumed: plain, adopted: plain, heartbeat: plain, rooms: list(plain) },
  subscribed: {
    id: plain,
    room: plain,
    epoch: plain,
    offset: plain,
    head: position,
    recovered: maybe,
    reason: optional(reason),
    lost: optional(lost),
  },
  unsubscribed: { id: plain, room: plain },
  message: { room: plain, offset: plain, time: plain, id: maybe, sender: maybe, data: plain },
  epoch: { room: plain, epoch: plain, prev: position },
  gap: { room: plain, from: position, to: position, count: maybe, reason },
  ping: {},
  error: { id: maybe, code, message: plain },
  disconnect: { code, retry: plain },
};

const publish = object({ room: maybe, rooms: maybe, data: plain, id: maybe, sender: maybe });
const published = object({ room: plain, epoch: plain, offset: plain, duplicate: plain });
const stored = object({ epoch: plain, offset: plain, time: plain, id: maybe, sender: maybe, data: plain });
const room = object({ room: plain, head: position, subscribers: plain });

const bodies = {
  publish,
  publish_batch: object({ messages: list(publish) }),
  published,
  published_list: object({ results: list(published) }),
  history: object({
    room: plain,
    epoch: plain,
    offset: plain,
    messages: list(stored),
    next: optional(position),
  }),
  room_info: room,
  room_list: object({ rooms: list(room), next: maybe }),
  problem: object({ type: maybe, title: plain, status: plain, code, detail: plain, index: maybe }),
};

// `data_text` of the vectors as the value that `data` decodes to.
const parsed = (value) => {
  if (Array.isArray(value)) return value.map(parsed);
  if (value === null || typeof value !== "object") return value;
  const entry = ([key, item]) => [key, key === "data_text" ? JSON.parse(item) : parsed(item)];
  return Object.fromEntries(Object.entries(value).map(entry));
};

const keys = (vector, ...names) => assert.deepEqual(Object.keys(vector).sort(), names.sort(), vector.name);

function named(vectors, name = (vector) => vector.name) {
  assert.ok(vectors.length > 0);
  assert.equal(new Set(vectors.map(name)).size, vectors.length, "names are unique");
}

function good(vector, codec) {
  assert.ok(codec, vector.name);
  assert.equal(codec.encode(vector.decoded), vector.canonical, vector.name);
  for (const text of [vector.text, vector.canonical]) {
    assert.deepEqual(codec.decode(JSON.parse(text)), parsed(vector.decoded), vector.name);
  }
}

for (const [file, frames] of [["client-frames.json", clientFrames], ["hub-frames.json", hubFrames]]) {
  test(`${file}: good frames decode and encode`, () => {
    const { format, good: vectors } = read(file);
    assert.equal(format, 1);
    named(vectors);
    for (const vector of vectors) {
      keys(vector, "name", "text", "canonical", "decoded");
      const { type } = JSON.parse(vector.text);
      good(vector, frames[type] && object(frames[type], type));
    }
    assert.deepEqual(new Set(vectors.map((vector) => vector.decoded.type)), new Set(Object.keys(frames)));
  });
}

test("client-frames.json: bad frames have a code", () => {
  const { bad } = read("client-frames.json");
  named(bad);
  for (const vector of bad) {
    keys(vector, "name", "text", "code", "id");
    assert.ok(errorCodes.includes(vector.code), vector.name);
    if (vector.code === "bad_frame") {
      assert.equal(vector.id, null, vector.name);
    } else {
      const { type, id, room } = JSON.parse(vector.text);
      assert.equal(Number.isSafeInteger(id) ? id : null, vector.id, vector.name);
      assert.equal(type in clientFrames, vector.code === "bad_room", vector.name);
      assert.equal(typeof room === "string" && type in clientFrames, vector.code === "bad_room", vector.name);
    }
  }
});

test("hub-frames.json: bad frames have an outcome", () => {
  const { bad } = read("hub-frames.json");
  named(bad);
  for (const vector of bad) {
    keys(vector, "name", "text", "outcome");
    assert.ok(["ignored", "refused"].includes(vector.outcome), vector.name);
    if (vector.outcome === "ignored") assert.ok(!(JSON.parse(vector.text).type in hubFrames), vector.name);
  }
});

test("bodies.json: good bodies decode and encode", () => {
  const { format, good: vectors } = read("bodies.json");
  assert.equal(format, 1);
  named(vectors, (vector) => `${vector.body}: ${vector.name}`);
  for (const vector of vectors) {
    keys(vector, "name", "body", "text", "canonical", "decoded");
    good(vector, bodies[vector.body]);
  }
  assert.deepEqual(new Set(vectors.map((vector) => vector.body)), new Set(Object.keys(bodies)));
});

test("bodies.json: bad bodies have a code, and only bad JSON is no JSON", () => {
  const { bad } = read("bodies.json");
  named(bad, (vector) => `${vector.body}: ${vector.name}`);
  for (const vector of bad) {
    keys(vector, "name", "body", "text", "code", "index");
    assert.ok(["publish", "publish_batch"].includes(vector.body), vector.name);
    assert.ok(errorCodes.includes(vector.code), vector.name);
    const parse = () => JSON.parse(vector.text);
    if (vector.code === "bad_json") assert.throws(parse, SyntaxError, vector.name);
    else assert.doesNotThrow(parse, vector.name);
  }
});

test("values.json: texts by kind, good and bad", () => {
  const { format, values } = read("values.json");
  assert.equal(format, 1);
  const bytes = (text) => Buffer.byteLength(text);
  const plainText = (text, max) => bytes(text) >= 1 && bytes(text) <= max && !/\p{Cc}/u.test(text);
  const valid = {
    room: (text) => plainText(text, 255),
    message_id: (text) => plainText(text, 128),
    session_id: (text) => /^[A-Za-z0-9_-]{1,64}$/.test(text),
    instance_id: (text) => /^[A-Za-z0-9_-]{1,64}$/.test(text),
    epoch: (text) => /^[A-Za-z0-9._-]{0,64}$/.test(text),
    offset: (number) => Number.isSafeInteger(number) && number >= 0,
  };
  assert.deepEqual(Object.keys(values), Object.keys(valid));
  for (const [kind, { good: accepted, bad: refused }] of Object.entries(values)) {
    for (const value of accepted) assert.ok(valid[kind](value), `${kind} ${JSON.stringify(value)}`);
    for (const value of refused) assert.ok(!valid[kind](value), `${kind} ${JSON.stringify(value)}`);
  }
});

test("codes.json: errors that end a connection name a close code of the list", () => {
  assert.equal(codes.format, 1);
  assert.equal(new Set(errorCodes).size, errorCodes.length);
  for (const error of codes.errors) {
    assert.ok(error.http >= 400 && error.http < 600, error.code);
    if (error.close !== null) assert.ok(codes.closes.some((close) => close.code === error.close), error.code);
  }
});

// The rules of PROTOCOL.md, "Cursors", in their shortest form.
class Client {
  cursor = null;
  state = "idle";
  then = [];

  ask() {
    this.state = "asked";
    this.then.push({ subscribe_after: this.cursor });
  }

  do(what) {
    if (what === "unsubscribe") {
      this.state = "idle";
      this.cursor = null;
    } else {
      this.ask();
    }
  }

  frame(frame) {
    if (frame.room !== "chat") return;
    if (frame.type === "subscribed" && this.state === "asked") return this.subscribed(frame);
    if (this.state === "live" && frame.type in this) this[frame.type](frame);
  }

  subscribed({ epoch, offset, head, recovered, reason, lost }) {
    this.state = "live";
    this.head = head;
    this.cursor = { epoch, offset };
    if (recovered === false) this.tell({ ...lost, reason });
  }

  message({ offset }) {
    if (offset <= this.cursor.offset) return;
    if (offset > this.cursor.offset + 1) return this.ask();
    this.cursor = { ...this.cursor, offset };
    const caughtUp = this.cursor.epoch === this.head?.epoch && offset > this.head.offset;
    if (caughtUp) this.head = undefined;
    this.then.push({ deliver: this.cursor, recovered: this.head !== undefined });
  }

  epoch({ epoch, prev }) {
    this.step(prev, { epoch, offset: 0 });
  }

  gap({ from, to, count, reason }) {
    if (same(this.cursor, to) || !this.step(from, to)) return;
    if (to.epoch !== from.epoch && to.epoch > this.head?.epoch) this.head = undefined;
    this.tell({ from, to, count, reason });
  }

  step(from, to) {
    if (!same(this.cursor, from)) return this.ask();
    if (to.epoch !== from.epoch && from.epoch === this.head?.epoch) this.head = undefined;
    this.cursor = to;
    return true;
  }

  tell({ from, to, count = null, reason: told }) {
    this.then.push({ lost: { from, to, count, reason: reason.decode(told) } });
  }
}

const same = (a, b) => a.epoch === b.epoch && a.offset === b.offset;

test("cursors.json: the rules of cursors", () => {
  const { format, scenarios } = read("cursors.json");
  assert.equal(format, 1);
  named(scenarios);
  for (const { name, steps } of scenarios) {
    const client = new Client();
    for (const [index, step] of steps.entries()) {
      if (step.do) client.do(step.do);
      else client.frame(step.frame);
      assert.deepEqual(client.then, step.then, `${name}, step ${index}`);
      assert.deepEqual(client.cursor, step.cursor, `${name}, step ${index}`);
      client.then = [];
    }
  }
});
