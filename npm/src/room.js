import { Listeners } from "./listeners.js";

/** What the app has of a room: its listeners, and the `subscribe` calls that hold it. */
export class Room {
  listeners;
  #holds = new Set();

  /** `onListening` is told whether there are listeners, when that changes. */
  constructor(onListening) {
    this.listeners = new Listeners(onListening);
  }

  get isUnused() {
    return this.listeners.size === 0 && this.#holds.size === 0;
  }

  /** Holds the subscription. The returned function lets go, and gives whether that was the last hold. */
  hold() {
    const hold = {};
    this.#holds.add(hold);
    return () => this.#holds.delete(hold) && this.#holds.size === 0;
  }

  /** The subscription ends for all that held it, and for listeners that were bound to it. */
  release() {
    this.#holds.clear();
    this.listeners.removeBound();
  }
}
