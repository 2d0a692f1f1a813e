/** A storage in memory, like a tab's, that may be blocked or full. */
export class Storage {
  isBlocked = false;
  isFull = false;
  writes = 0;
  #items = new Map();

  getItem(key) {
    this.#check();
    return this.#items.get(key) ?? null;
  }

  setItem(key, text) {
    this.#check();
    if (this.isFull) throw new DOMException("full", "QuotaExceededError");
    this.writes += 1;
    this.#items.set(key, text);
  }

  removeItem(key) {
    this.#check();
    this.#items.delete(key);
  }

  /** What is stored, of all clients. */
  get all() {
    return [...this.#items.values()].map((text) => JSON.parse(text));
  }

  /** Puts something else in the place of what is stored. */
  spoil(text) {
    for (const key of this.#items.keys()) this.#items.set(key, text);
  }

  /** As a duplicated tab gets it. */
  copy() {
    const copy = new Storage();
    copy.#items = new Map(this.#items);
    return copy;
  }

  #check() {
    if (this.isBlocked) throw new DOMException("blocked", "SecurityError");
  }
}
