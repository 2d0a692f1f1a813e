// Socket.IO as its documentation sets it up, with what costs CPU on the wire switched off, and a way to
// publish many messages with one request, as the hub has it.

import { createServer } from "node:http";
import { Server } from "socket.io";

const server = createServer((request, answer) => {
  // Socket.IO answers what is its own.
  if (request.method !== "POST") return;
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    for (const { room, data } of JSON.parse(Buffer.concat(parts)).messages) io.to(room).emit("message", data);
    answer.end("{}");
  });
});

// As the hub does it: from 1 KiB on, each message by itself.
const perMessageDeflate = process.env.COMPRESS ? { threshold: 1024, serverNoContextTakeover: true } : false;
const io = new Server(server, { cors: { origin: "*" }, perMessageDeflate, transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.on("join", (room, joined) => {
    socket.join(room);
    joined();
  });
});

server.listen(0, "127.0.0.1", () => console.log(`listening address=127.0.0.1:${server.address().port}`));
