/** @throws TypeError where `listener` is no function. */
export function checkListener(listener) {
  if (typeof listener !== "function") throw new TypeError("a listener is a function");
}

/**
 * Functions to call, in the order they were added.
 *
 * The same function may be added twice: each addition has its own undo, as two components of a page
 * that share a callback expect. What is removed during a call is not called any more; what is added
 * during a call is called from the next one on.
 */
export class Listeners {
  /** Another list with each change: a call goes through the one that it began with. */
  #entries = [];
  #onChange;

  /** `onChange` is told whether there are any, when the first came or the last has gone. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  get size() {
    return this.#entries.length;
  }

  /** Adds `listener` until the returned undo is called or `signal` aborts. */
  add(listener, { signal, once } = {}) {
    checkListener(listener);
    if (signal?.aborted) return () => {};
    const entry = { listener, once, remove: () => this.#remove(entry, signal) };
    this.#entries = [...this.#entries, entry];
    signal?.addEventListener("abort", entry.remove);
    if (this.size === 1) this.#onChange?.(true);
    return entry.remove;
  }

  /** Removes every addition of `listener`. */
  remove(listener) {
    for (const entry of this.#entries) if (entry.listener === listener) entry.remove();
  }

  /**
   * Calls each listener. What one throws, or its promise rejects with, goes to `report`.
   *
   * Gives the promises that listeners returned; these never reject.
   */
  call(values, report) {
    const pending = [];
    for (const entry of this.#entries) {
      if (entry.isGone) continue;
      if (entry.once) entry.remove();
      try {
        const result = entry.listener(...values);
        if (typeof result?.then === "function") pending.push(Promise.resolve(result).catch(report));
      } catch (error) {
        report(error);
      }
    }
    return pending;
  }

  #remove(entry, signal) {
    if (entry.isGone) return;
    entry.isGone = true;
    signal?.removeEventListener("abort", entry.remove);
    this.#entries = this.#entries.filter((other) => other !== entry);
    if (this.size === 0) this.#onChange?.(false);
  }
}
