/** A storage in memory, like a tab's, that may be blocked or full. */
export class Storage {
  isBlocked = false;
  isFull = false;
  writes = 0;
  #items = new Map();
  #written = () => {};

  getItem(key) {
    this.#check();
    return this.#items.get(key) ?? null;
  }

  setItem(key, text) {
    this.#check();
    if (this.isFull) throw new DOMException("full", "QuotaExceededError");
    this.writes += 1;
    this.#items.set(key, text);
    this.#written();
  }

  removeItem(key) {
    this.#check();
    this.#items.delete(key);
  }

  clear() {
    this.#check();
    this.#items.clear();
  }

  /** What is stored, of all clients; without the mark of whoever forgot it. */
  get all() {
    return [...this.#items].filter(([key]) => !key.endsWith(" ")).map(([, text]) => JSON.parse(text));
  }

  /** Settles when something is stored next. */
  next() {
    return new Promise((resolve) => (this.#written = resolve));
  }

  /** Puts something else in the place of what is stored. */
  spoil(text) {
    for (const key of this.#items.keys()) this.#items.set(key, text);
  }

  #check() {
    if (this.isBlocked) throw new DOMException("blocked", "SecurityError");
  }
}
