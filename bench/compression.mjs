#!/usr/bin/env node
// What compression costs a server, and what it saves on the wire: the hub, which compresses a message once for all who take
// it, beside Socket.IO, which does so once for each of them. See README.md.
//
//     compression.mjs [--bytes 1024,4096,16384] [--clients 100] [--messages 2000] [--rounds 5]

import { readFile, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { startHub, startSocketIo } from "./browser/servers.mjs";

// The `ws` that Socket.IO brings along.
const WebSocket = createRequire(new URL("browser/node_modules/socket.io/package.json", import.meta.url))("ws");

const { values } = parseArgs({
  options: {
    bytes: { type: "string", default: "1024,4096,16384" },
    clients: { type: "string", default: "100" },
    messages: { type: "string", default: "2000" },
    rounds: { type: "string", default: "5" },
  },
});
const CLIENTS = Number(values.clients);
const MESSAGES = Number(values.messages);
/** Messages of one request. */
const BATCH = 20;

/** How a client of each server takes a room. */
const TALKS = {
  twine: {
    path: "/ws",
    say: (socket) => {
      socket.send('{"type":"connect"}');
      socket.send('{"type":"subscribe","id":1,"room":"chat"}');
    },
    isReady: (text) => text.startsWith('{"type":"subscribed"'),
    isMessage: (text) => text.startsWith('{"type":"message"'),
    answer: (text) => (text.startsWith('{"type":"ping"') ? '{"type":"pong","cursors":{}}' : undefined),
  },
  socketio: {
    path: "/socket.io/?EIO=4&transport=websocket",
    say: () => {},
    isReady: (text) => text.startsWith("430"),
    isMessage: (text) => text.startsWith('42["message"'),
    answer: (text) => {
      if (text.startsWith("0")) return "40";
      if (text.startsWith("40")) return '420["join","chat"]';
      return text === "2" ? "3" : undefined;
    },
  },
};

/** A document of so many bytes, as an app might send it: names that come again, values that do not. */
function data(bytes, seed) {
  let random = seed * 2654435761 + 1;
  const next = (n) => ((random = (random * 1103515245 + 12345) & 0x7fffffff) >> 8) % n;
  const words = "order price volume user status pending shipped delivered message comment created updated hello world".split(" ");
  const items = [];
  while (JSON.stringify(items).length < bytes - 60) {
    items.push({ id: next(1e6), [words[next(14)]]: `${words[next(14)]} ${words[next(14)]}`, [words[next(14)]]: next(977) / 89 });
  }
  return items;
}

/** Seconds of CPU that a process has had, in all its threads. */
async function cpu(pid) {
  const tasks = await readdir(`/proc/${pid}/task`);
  const times = tasks.map((task) => readFile(`/proc/${pid}/task/${task}/schedstat`, "utf8").catch(() => "0"));
  return (await Promise.all(times)).reduce((sum, line) => sum + Number(line.split(" ")[0]), 0) / 1e9;
}

async function client(talk, url, takesCompressed, received) {
  const socket = new WebSocket(url.replace("http", "ws") + talk.path, {
    perMessageDeflate: takesCompressed && { serverNoContextTakeover: true, clientNoContextTakeover: true },
  });
  await new Promise((ready, failed) => {
    socket.on("error", failed);
    socket.on("open", () => talk.say(socket));
    socket.on("message", (bytes) => {
      const text = bytes.toString();
      if (talk.isMessage(text)) received();
      else if (talk.isReady(text)) ready();
      const answer = talk.answer(text);
      if (answer) socket.send(answer);
    });
  });
  return socket;
}

async function measure({ kind, compressed }, bytes, round) {
  const talk = TALKS[kind];
  const server =
    kind === "twine"
      ? await startHub("http://localhost", ["--compress-from", compressed ? "1KiB" : "off"])
      : await startSocketIo({ COMPRESS: compressed ? "1" : "" });
  try {
    let received = 0;
    let all;
    const done = new Promise((resolve) => (all = resolve));
    const count = () => ++received === CLIENTS * MESSAGES && all();
    const sockets = [];
    for (let n = 0; n < CLIENTS; n += 1) sockets.push(await client(talk, server.url, compressed, count));
    const wire = () => sockets.reduce((sum, socket) => sum + socket._socket.bytesRead, 0);
    const [before, read] = [await cpu(server.pid), wire()];
    for (let n = 0; n < MESSAGES; n += BATCH) {
      await server.publish("chat", Array.from({ length: BATCH }, (_, k) => data(bytes, round * MESSAGES + n + k)));
    }
    await done;
    const used = (await cpu(server.pid)) - before;
    const result = { cpu: (used * 1e6) / received, wire: (wire() - read) / received };
    for (const socket of sockets) socket.terminate();
    return result;
  } finally {
    await server.stop();
  }
}

const contenders = ["twine", "socketio"].flatMap((kind) => [false, true].map((compressed) => ({ kind, compressed })));
const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)];
console.log(`${CLIENTS} clients of one room, ${MESSAGES} messages; medians of ${values.rounds} rounds\n`);
console.log("| bytes | server | compressed | bytes a delivery on the wire | CPU a delivery, us |\n| --- | --- | --- | --- | --- |");
for (const bytes of values.bytes.split(",").map(Number)) {
  const results = contenders.map(() => []);
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const [index, contender] of contenders.entries()) results[index].push(await measure(contender, bytes, round));
  }
  for (const [index, { kind, compressed }] of contenders.entries()) {
    const [wire, used] = ["wire", "cpu"].map((name) => median(results[index].map((result) => result[name])));
    console.log(`| ${bytes} | ${kind} | ${compressed ? "yes" : "no"} | ${wire.toFixed(0)} | ${used.toFixed(1)} |`);
  }
}
