// The least that a page can do with a hub: no cursor, no check of a frame, no session, and no coming back.

const socket = new WebSocket(`${SERVER.replace("http", "ws")}/ws`, "twine.v1.json");
const send = (frame) => socket.send(JSON.stringify(frame));

socket.onopen = () => {
  send({ type: "connect" });
  send({ type: "subscribe", id: 1, room: ROOM });
};
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "message") bench.take(frame.data);
  else if (frame.type === "ping") send({ type: "pong" });
  else bench.mark(frame.type); // `connected` and `subscribed`
};
