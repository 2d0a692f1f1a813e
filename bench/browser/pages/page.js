// In every page: what is done with a message, and when the client was ready.

globalThis.bench = (() => {
  const MOST_FAULTS = 10;
  const faults = [];
  let next = 0;
  let goal = Infinity;
  let reached;
  let ready;
  const marks = {};
  const fault = (text) => faults.length < MOST_FAULTS && faults.push(text);

  addEventListener("error", ({ message }) => fault(message));
  addEventListener("unhandledrejection", ({ reason }) => fault(`${reason}`));

  return {
    fault,

    /** The callback of all clients: counts, and checks that nothing is lost, repeated or out of order. */
    take({ n }) {
      if (n !== next) fault(`message ${n} instead of ${next}`);
      next = n + 1;
      if (next === goal) reached();
    },

    /** Resolves with the last of so many messages, counted from the first that the page has had. */
    until(count) {
      goal = count;
      return new Promise((resolve) => (reached = resolve));
    },

    /** Notes when something has happened, in milliseconds since the navigation began. */
    mark(what) {
      marks[what] = performance.now();
      if (what === "subscribed") ready(marks);
    },

    /** Bytes of the memory of a WebAssembly module, where there is one. */
    moduleMemory: () => 0,

    ready: new Promise((resolve) => (ready = resolve)),

    /** What went wrong, and which message is next. */
    get state() {
      return { faults, next };
    },
  };
})();
