/** The longest that a connection waits for its cookie, in milliseconds. */
const PATIENCE = 3000;

/**
 * Has the hub set or renew the cookie that proves a session.
 *
 * Never fails: without the cookie (blocked, hub down) the client still connects, and recovers by its
 * own cursors. Two tabs that open at once would each get an id, and the one that lost would hold a
 * session that nobody can prove; so one asks at a time, where the browser has locks.
 */
export async function fetchCookie(fetch, url) {
  const locks = globalThis.navigator?.locks;
  try {
    // Inside, since engines of before 2022 have no such function.
    const signal = AbortSignal.timeout(PATIENCE);
    const ask = () => fetch(url, { credentials: "include", cache: "no-store", signal });
    await (locks ? locks.request(`twine-cookie ${url}`, { signal }, ask) : ask());
  } catch {
    // Whoever can't have the cookie connects without.
  }
}
