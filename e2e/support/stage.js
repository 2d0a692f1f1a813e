// What a test plays on: a hub, the chat, a browser. All of it ends with the test.

import { Hub } from "./hub.js";
import { launch } from "./browser.js";
import { Program, built } from "./program.js";
import { Visitor } from "./visitor.js";

export class Stage {
  #browser;
  #chat;
  #visitors = [];
  #ends = [];

  /**
   * Starts everything. `reach(hub)` may put something between pages and hub, and gives its address
   * for pages; `settings` are the hub's flags.
   */
  static async set(t, { reach, settings } = {}) {
    const stage = new Stage();
    t.after(() => stage.#strike(t));
    stage.hub = await Hub.start(settings);
    stage.#ends.push(() => stage.hub.remove());
    stage.publicHub = (await reach?.(stage.hub)) ?? stage.hub.url;
    await stage.startChat();
    stage.#ends.push(() => stage.stopChat());
    stage.#browser = await launch();
    stage.#ends.push(() => stage.#browser.close());
    return stage;
  }

  /** Starts the chat's backend; with a port, again where it was. */
  async startChat(on = 0) {
    const where = ["--listen", `127.0.0.1:${on}`, "--hub", this.hub.url, "--public-hub", this.publicHub];
    const { program, port } = await Program.listening(built("chat"), [...where, "--api-key-file", this.hub.keyFile], {
      env: { NO_PROXY: "127.0.0.1" },
    });
    this.#chat = program;
    this.port = port;
  }

  /** Stops the chat's backend. */
  stopChat() {
    return this.#chat.stop();
  }

  /** The address of the chat. */
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Someone opens the chat. */
  async visitor(options, url = this.url) {
    const visitor = await Visitor.arrive(this.#browser, url, options);
    this.#visitors.push(visitor);
    return visitor;
  }

  /** Someone opens the chat, is connected and gives a name. */
  async person(name, options) {
    const visitor = await this.visitor(options);
    await visitor.is("Connected");
    await visitor.join(name);
    return visitor;
  }

  /** Whatever ends with the test, before hub and browser do. */
  before(end) {
    this.#ends.push(end);
  }

  async #strike(t) {
    const failures = [];
    const attempt = async (work) => {
      try {
        await work();
      } catch (error) {
        failures.push(error);
      }
    };
    for (const visitor of this.#visitors) await attempt(() => visitor.leave());
    for (const end of this.#ends.reverse()) await attempt(end);
    if (failures.length > 0) {
      t.diagnostic(`hub:\n${this.hub?.log}\nchat:\n${this.#chat?.log}`);
      throw failures[0];
    }
  }
}
