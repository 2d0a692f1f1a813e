// Someone in front of the chat's page.

import assert from "node:assert/strict";
import { Complaints } from "./browser.js";

export class Visitor {
  #context;

  /** Opens the chat in a browser context of its own. */
  static async arrive(browser, url, options) {
    const visitor = new Visitor();
    visitor.#context = await browser.newContext({ viewport: { width: 900, height: 700 }, locale: "en-GB", ...options });
    visitor.page = await visitor.#context.newPage();
    visitor.page.setDefaultTimeout(30_000);
    visitor.complaints = new Complaints(visitor.page);
    await visitor.page.goto(url);
    return visitor;
  }

  async join(name) {
    await this.page.getByLabel("Your name").fill(name);
    await this.page.getByRole("button", { name: "Join" }).click();
  }

  async say(text) {
    await this.page.getByLabel("Message").fill(text);
    await this.page.getByRole("button", { name: "Send" }).click();
  }

  /** Waits until the connection stands so: `Connected`, `Reconnecting`, `Offline`. */
  async is(state) {
    await this.page.locator("#badge", { hasText: state }).waitFor();
  }

  /** Waits until a message with this text is there and has come from the room. */
  async sees(text) {
    await this.page.locator(".message:not([data-state]) .text").getByText(text, { exact: true }).last().waitFor();
  }

  /** The texts of the messages, from the first to the last. */
  texts() {
    return this.page.locator(".message .text").allTextContents();
  }

  /** Leaves; there must be nothing to complain of. */
  async leave() {
    // The page goes first: what it still asks for is its own to give up.
    const complaints = [...this.complaints.all];
    await this.#context.close();
    assert.deepEqual(complaints, [], "complaints of the page");
  }
}
