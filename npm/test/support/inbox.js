/** A list that what a listener gets can be put into, and waited for. */
export class Inbox {
  #items = [];
  #waiting = [];

  /** A listener. */
  push = (item) => {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.#items.push(item);
  };

  /** The next item, now or when it comes. */
  next() {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async take(n) {
    const items = [];
    while (items.length < n) items.push(await this.next());
    return items;
  }
}

/** The next event of the client that fits. */
export function event(twine, type, fits = () => true) {
  return new Promise((resolve) => {
    const undo = twine.on(type, (value) => {
      if (!fits(value)) return;
      undo();
      resolve(value);
    });
  });
}
