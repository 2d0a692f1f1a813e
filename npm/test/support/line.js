import { Twine } from "../../dist/twine.js";

const CONNECTED = { type: "connected", resumed: false, adopted: false, heartbeat: 25000, rooms: [] };

/** What is said with the handshake of this address. */
function earlyFrames(address) {
  const text = Buffer.from(new URL(address).searchParams.get("early") ?? "", "base64url").toString();
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

/** A socket whose other end is the test: for what no hub sends, and for what needs no hub. */
export class Line {
  static last;
  /** The session that clients are given from now on. */
  static session;
  /** What the client said first. */
  greeting;
  sent = [];
  /** The types of the frames that came with its handshake. */
  early;
  closed;

  /** @param {string} address */
  constructor(address) {
    Line.last = this;
    this.address = address;
    // What comes with the handshake is heard first, and answered once the socket is open.
    this.early = earlyFrames(address).map((frame) => this.#hear(frame).type);
    queueMicrotask(() => {
      this.onopen();
      if (this.early.includes("connect")) this.#welcome();
    });
  }

  send(text) {
    if (this.#hear(JSON.parse(text)).type === "connect") this.#welcome();
  }

  #hear(frame) {
    if (frame.type === "connect") this.greeting = frame;
    else this.sent.push(frame);
    return frame;
  }

  #welcome() {
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
