// The network between a page and its hub, which a test can cut.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Network {
  #server;
  #target;
  #sockets = new Set();
  #isCut = false;
  #waiting = [];

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
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }
}
