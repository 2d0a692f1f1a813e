const socket = io(SERVER, { transports: ["websocket"] });
socket.on("connect", () => {
  bench.mark("connected");
  socket.emit("join", ROOM, () => bench.mark("subscribed"));
});
socket.on("message", bench.take);
