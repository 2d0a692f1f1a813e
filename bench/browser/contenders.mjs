// Who is compared. Each has a page, a server that the page talks to, and what a page loads of it.

/** The one that the others are held against. */
export const BASE = "bare";

/** `servers` are those that run: `hub`, `socketio`. */
export function contenders({ hub, socketio }) {
  return {
    bare: { server: hub, scripts: [] },
    twine: { server: hub, scripts: ["twine.min.js"] },
    socketio: { server: socketio, scripts: ["socket.io.min.js"] },
  };
}

/** The pages of a site: those of the contenders, and one without any client. */
export function pages(all) {
  const page = (name, { server, scripts }) => ({ server: server.url, scripts: ["page.js", ...scripts, `${name}.js`] });
  const pages = Object.fromEntries(Object.entries(all).map(([name, contender]) => [name, page(name, contender)]));
  return { ...pages, empty: { server: "", scripts: ["page.js", "empty.js"] } };
}
