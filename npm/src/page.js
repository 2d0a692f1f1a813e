/** Whether this is a page or a web worker, and not, say, a page's rendering on a server. */
export function isPage() {
  return !!(globalThis.document ?? globalThis.WorkerGlobalScope);
}

/**
 * Until the returned undo, calls `wake` when the network may be back, or the page is seen again, and
 * `leave` when the page is hidden or (`true`) about to go; it may come back from that.
 */
export function watchPage(wake, leave) {
  const watched = new AbortController();
  const { signal } = watched;
  const { document } = globalThis;
  // A page that goes is hidden after its `pagehide`.
  let going = false;
  if (isPage()) {
    addEventListener("online", wake, { signal });
    addEventListener("pagehide", () => leave((going = true)), { signal });
    addEventListener("pageshow", () => (leave((going = false)), wake()), { signal });
    document?.addEventListener("visibilitychange", () => (document.hidden ? leave(going) : wake()), { signal });
  }
  return () => watched.abort();
}
