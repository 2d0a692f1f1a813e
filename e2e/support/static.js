// A web server of files, as anyone's own would be: it knows nothing of Twine.

import { once } from "node:events";
import { createServer } from "node:http";

const TYPES = { html: "text/html", js: "text/javascript", css: "text/css", wasm: "application/wasm" };

export class Site {
  #server;

  /** Serves `files`, a map of paths to their content, or to `{ body, type }`. */
  static async serve(files) {
    const site = new Site();
    site.#server = createServer(({ url }, answer) => {
      const [path] = url.split("?");
      const file = files[path];
      if (file === undefined) return answer.writeHead(path === "/favicon.ico" ? 204 : 404).end();
      const { body = file, type = TYPES[path.split(".").at(-1)] ?? TYPES.html } = file;
      answer.writeHead(200, { "Content-Type": type }).end(body);
    }).listen(0, "127.0.0.1");
    await once(site.#server, "listening");
    return site;
  }

  /** Its address under one of this machine's names. */
  at(host = "localhost") {
    return `http://${host}:${this.#server.address().port}`;
  }

  async remove() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}
