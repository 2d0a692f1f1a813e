import { Listeners } from "./listeners.js";

/** What the app has of a room: its listeners, and the `subscribe` calls that hold it. */
export class Room {
  listeners;
  /** What the driver knows it by: a number from 1. */
  handle;
  #holds = new Set();

  /** `onListening` is told whether there are listeners, when that changes. */
  constructor(onListening) {
    this.listeners = new Listeners(onListening);
  }

  get isUnused() {
    return this.listeners.size === 0 && this.#holds.size === 0;
  }

  /** Holds the subscription. The hold's signal aborts when it ends, with all that is bound to it. */
  hold() {
    const hold = new AbortController();
    this.#holds.add(hold);
    return hold;
  }

  /** Ends a hold, and gives whether that was the last one. */
  letGo(hold) {
    hold.abort();
    return this.#holds.delete(hold) && this.#holds.size === 0;
  }

  /** Ends all holds. */
  release() {
    for (const hold of this.#holds) this.letGo(hold);
  }
}
