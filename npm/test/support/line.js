import { Twine } from "../../dist/twine.js";

const CONNECTED = { type: "connected", resumed: false, adopted: false, heartbeat: 25000, rooms: [] };

/** A socket whose other end is the test: for what no hub sends, and for what needs no hub. */
export class Line {
  static last;
  /** The session that clients are given from now on. */
  static session;
  /** What the client said first. */
  greeting;
  sent = [];
  closed;

  constructor() {
    Line.last = this;
    queueMicrotask(() => this.onopen());
  }

  send(text) {
    const frame = JSON.parse(text);
    if (frame.type !== "connect") return void this.sent.push(frame);
    this.greeting = frame;
    this.receive(JSON.stringify({ ...CONNECTED, session: Line.session }));
  }

  close(code) {
    this.closed ??= code ?? 1000;
  }

  receive(data) {
    this.onmessage?.({ data });
  }

  /** Agrees to what was asked last: to subscribe a room. */
  agree() {
    const { id, room } = this.sent.at(-1);
    const at = { epoch: "e", offset: 0 };
    this.receive(JSON.stringify({ type: "subscribed", id, room, ...at, head: at }));
  }

  message(room, offset, data, more) {
    this.receive(JSON.stringify({ type: "message", room, offset, time: 1, data, ...more }));
  }
}

/** A client that is connected by a `Line`. */
export async function connected() {
  const twine = new Twine("http://hub.test", { WebSocket: Line, fetch: async () => new Response() });
  twine.on("error", () => {});
  await twine.connect();
  return twine;
}
