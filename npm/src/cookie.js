/** The longest that a connection waits for its cookie, in milliseconds. */
const PATIENCE = 3000;

/**
 * Has the hub set or renew the cookie that proves a session (`GET`), or forget all sessions of the
 * cookie and set another (`DELETE`).
 *
 * Two tabs that open at once would each get an id, and the one that lost would hold a session that
 * nobody can prove; so one asks at a time, where the page may have locks.
 */
export async function askForCookie(fetch, url, method = "GET") {
  // Engines of before 2022 have no such function.
  const signal = AbortSignal.timeout(PATIENCE);
  let asked;
  const ask = () => (asked ??= fetch(url, { method, credentials: "include", cache: "no-store", signal }));
  try {
    await globalThis.navigator?.locks?.request(`twine-cookie ${url}`, { signal }, ask);
  } catch {
    // The page has no locks where its cookies are blocked, say.
    signal.throwIfAborted();
  }
  const answer = await ask();
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
}
