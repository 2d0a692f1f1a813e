// Runs in a page: notes what its client does, for a test to read.
//
// What is noted is in `localStorage` in the same step as the callback: a page that goes takes
// nothing of it along, and the next one of its tab (`?tab=`) goes on below it. Where that is
// blocked it is in memory.

(() => {
  const KEY = `ledger of ${new URLSearchParams(location.search).get("tab") ?? "the tab"}`;
  const looking = new Set();

  const storage = (() => {
    try {
      return localStorage;
    } catch {
      const memory = new Map();
      return { getItem: (key) => memory.get(key), setItem: (key, value) => memory.set(key, value) };
    }
  })();
  const read = () => JSON.parse(storage.getItem(KEY) ?? "[]");

  window.note = (entry) => {
    storage.setItem(KEY, JSON.stringify([...read(), entry]));
    for (const look of looking) look(entry);
  };

  note({ type: "load" });

  // A client connects without its cookie where that takes too long. A machine that stands still for that
  // long would make any test another one.
  AbortSignal.timeout = () => new AbortController().signal;

  /** All that was noted in this tab. */
  window.ledger = read;

  /** Notes what happens to a client. */
  window.watch = (twine) => {
    window.twine = twine;
    twine.on("state", ({ state, reason }) => note({ type: "state", state, reason }));
    twine.on("gap", ({ room, count, reason }) => note({ type: "gap", room, count, reason }));
    twine.on("error", ({ code }) => note({ type: "error", code }));
    return twine;
  };

  /** Subscribes a room, notes what comes, and does `more` with it. */
  window.listen = (room, options, more) =>
    subscribe(room, options, (data, message) => {
      take(room, data, message);
      return more?.(data, message);
    });

  /** Subscribes a room, and notes no more than that. */
  window.subscribe = async (room, ...more) => {
    const { recovered } = await twine.subscribe(room, ...more);
    note({ type: "subscribed", room, recovered });
  };

  /** Notes a message. */
  window.take = (room, data, { recovered, epoch, offset }) =>
    note({ type: "message", room, data, recovered, epoch, offset });

  /** Waits until something was noted that has all of this. */
  window.noted = (expected) =>
    new Promise((resolve) => {
      const look = (entry) => {
        if (Object.entries(expected).some(([name, value]) => entry[name] !== value)) return;
        looking.delete(look);
        resolve();
      };
      looking.add(look);
      // Of this page only: what earlier ones had is no event any more.
      const entries = read();
      entries.slice(entries.findLastIndex(({ type }) => type === "load")).forEach(look);
    });
})();
