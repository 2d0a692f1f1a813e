/** The hub's addresses, from the one that the app gave. */
export function addresses(given) {
  const url = new URL(given, globalThis.location?.href);
  const secure = /^(https|wss):$/.test(url.protocol);
  if (!secure && !/^(http|ws):$/.test(url.protocol)) {
    throw new TypeError(`a hub's address begins with https: or http:, not with ${url.protocol}`);
  }
  const base = `://${url.host}${url.pathname.replace(/\/*$/, "/")}`;
  return {
    socket: `${secure ? "wss" : "ws"}${base}ws`,
    cookie: `${secure ? "https" : "http"}${base}set-cookie`,
  };
}
