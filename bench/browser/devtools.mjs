// The browser's own protocol, over a pipe. Playwright and Puppeteer have each page's process report every
// frame of its WebSockets to them, which costs more than what any client does with it.

/** Commands that a browser gets no answer for in this time have failed, in milliseconds. */
const PATIENCE = 120_000;

export class Devtools {
  #to;
  #id = 0;
  #waiting = new Map();

  /** `to` and `from` are the pipes of a browser that was started with `--remote-debugging-pipe`. */
  constructor(to, from) {
    this.#to = to;
    let rest = "";
    from.setEncoding("utf8").on("data", (text) => {
      const parts = (rest + text).split("\0");
      rest = parts.pop();
      for (const part of parts) this.#answered(JSON.parse(part));
    });
    from.on("close", () => this.#fail(new Error("the browser has ended")));
    // Whoever waits for an answer hears of it by `close`.
    to.on("error", () => {});
  }

  /** Sends a command, to a page if there is a `sessionId`; gives its result. */
  send(method, params = {}, sessionId) {
    const id = (this.#id += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#answered({ id, error: { message: "no answer" } }), PATIENCE);
      this.#waiting.set(id, { method, resolve, reject, timer });
      this.#to.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  #answered({ id, result, error }) {
    const call = this.#waiting.get(id);
    if (!call) return; // an event
    this.#waiting.delete(id);
    clearTimeout(call.timer);
    if (error) call.reject(new Error(`${call.method}: ${error.message}`));
    else call.resolve(result);
  }

  #fail(error) {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
  }
}
