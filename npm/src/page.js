/** Whether this is a page or a web worker, and not, say, a page's rendering on a server. */
export function isPage() {
  const { WorkerGlobalScope, document } = globalThis;
  return !!document || (!!WorkerGlobalScope && globalThis instanceof WorkerGlobalScope);
}

/** Calls `wake` when the network may be back, or the page is seen again, until the returned undo. */
export function watchPage(wake) {
  const watched = new AbortController();
  const { signal } = watched;
  const { document } = globalThis;
  if (isPage()) {
    addEventListener("online", wake, { signal });
    addEventListener("pageshow", wake, { signal });
    document?.addEventListener("visibilitychange", () => document.hidden || wake(), { signal });
  }
  return () => watched.abort();
}
