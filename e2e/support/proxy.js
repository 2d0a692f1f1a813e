// The network between a page and its hub, which a test can cut.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Network {
  #server;
  #target;
  #sockets = new Set();
  /** Each WebSocket that there is: what keeps from the hub all that it says from then on. */
  #muzzles = new Set();
  #isCut = false;
  #waiting = [];
  /** Bytes that pages have been sent. */
  brought = 0;

  /** A way to the hub at `url`, by another port. */
  static async to(url) {
    const network = new Network();
    network.#target = Number(new URL(url).port);
    network.#server = createServer((socket) => network.#take(socket)).listen(0, "127.0.0.1");
    await once(network.#server, "listening");
    return network;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** Breaks every connection. New ones get no answer before `restore`. */
  cut() {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  restore() {
    this.#isCut = false;
    for (const socket of this.#waiting.splice(0)) this.#pass(socket);
  }

  /** The hub hears nothing more of the WebSockets that there are, not even that they end. */
  mute() {
    for (const muzzle of this.#muzzles) muzzle();
  }

  async remove() {
    for (const socket of [...this.#sockets, ...this.#waiting]) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  #take(socket) {
    socket.on("error", () => {}); // `close` follows, and is what counts
    if (this.#isCut) this.#waiting.push(socket);
    else this.#pass(socket);
  }

  #pass(near) {
    const far = connect(this.#target, "127.0.0.1");
    far.on("data", (chunk) => (this.brought += chunk.length));
    let isMute = false;
    const muzzle = () => {
      isMute = true;
      near.unpipe(far).resume();
    };
    near.once("data", (head) => /^upgrade: websocket/im.test(head) && this.#muzzles.add(muzzle));
    near.once("close", () => this.#muzzles.delete(muzzle));
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        if (!isMute || from === far) to.destroy();
      });
      from.pipe(to);
    }
  }
}
