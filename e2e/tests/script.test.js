// The script that a hub serves, on pages of other origins.

import assert from "node:assert/strict";
import { test } from "node:test";
import { listening, site } from "../support/page.js";
import { run } from "../support/program.js";

test("a classic script tag defines Twine, whatever the page's encoding", async (t) => {
  const latin = { body: "", type: "text/html; charset=windows-1252" };
  const { hub, pages, open } = await site(t, ({ url }) => ({
    "/": listening(url),
    "/latin": { ...latin, body: listening(url) },
    "/deferred": listening(url, { script: `<script defer src="${url}/twine.js"></script>` }),
  }));
  for (const path of ["/", "/latin", "/deferred"]) {
    const page = await open(pages.at() + path);
    await page.is("connected");
    await hub.curl("chat", `hello ${path} ✓`);
    assert.deepEqual(await page.messages(1), [JSON.stringify(`hello ${path} ✓`)]);
    page.fine();
    await page.page.close();
  }
});

test("Chromium takes long messages compressed", async (t) => {
  const { hub, pages, open } = await site(t, ({ url }) => ({ "/": listening(url) }));
  const page = await open(`${pages.at()}/`);
  const devtools = await page.page.context().newCDPSession(page.page);
  await devtools.send("Network.enable");
  let extensions;
  devtools.on("Network.webSocketHandshakeResponseReceived", ({ response }) => {
    extensions = new Headers(response.headers).get("sec-websocket-extensions");
  });
  // A request that the reload cuts off would be a complaint of the page.
  await page.is("connected");
  await page.page.reload();
  await page.is("connected");
  const long = "all work and no play ".repeat(1000);
  await hub.curl("chat", long);
  assert.deepEqual(await page.messages(1), [JSON.stringify(long)]);
  assert.equal(extensions, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
  page.fine();
});

test("the script is served to be cached, and for what it is", async (t) => {
  const { hub } = await site(t, () => ({}));
  const head = await run("curl", ["--silent", "--head", "--noproxy", "*", `${hub.url}/twine.js`]);
  assert.match(head, /^HTTP\/1.1 200/);
  assert.match(head, /content-type: (text|application)\/javascript/i);
  assert.match(head, /cache-control: /i);
});

test("a page under a strict policy needs only what the documentation says", async (t) => {
  const policy = (hub, wasm) =>
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src ${hub} ${wasm} 'nonce-x'; connect-src ${hub} ${hub.replace("http", "ws")}">`;
  const page = (hub, wasm) =>
    listening(hub, { before: policy(hub, wasm) }).replace(`<script type="module">`, `<script type="module" nonce="x">`);
  const { pages, open } = await site(t, ({ url }) => ({ "/": page(url, "'wasm-unsafe-eval'"), "/without": page(url, "") }));
  const allowed = await open(`${pages.at()}/`);
  await allowed.is("connected");
  allowed.fine();

  const blocked = await open(`${pages.at()}/without`);
  await blocked.is("closed");
  blocked.complaints.take(/'wasm-unsafe-eval'/);
});

test("page and hub on two names of this machine share a cookie, which scripts can't read", async (t) => {
  const { hub, pages, open } = await site(t, ({ url }) => ({ "/": listening(url) }));
  for (const host of ["localhost", "127.0.0.1"]) {
    const page = await open(`${pages.at(host)}/`);
    await page.is("connected");
    const cookies = await page.page.context().cookies(hub.url);
    assert.deepEqual(cookies.map(({ name, httpOnly }) => ({ name, httpOnly })), [{ name: "twineid", httpOnly: true }], host);
    const [request] = await Promise.all([
      page.page.waitForRequest((request) => request.url().endsWith("/set-cookie")),
      page.page.reload(),
    ]);
    assert.match((await request.allHeaders()).cookie ?? "", /^twineid=/, `${host}: the cookie comes back`);
    await page.is("connected");
    assert.equal(await page.page.evaluate(() => document.cookie), "");
    page.fine();
    await page.page.close();
  }
});

test("a page of a foreign origin is refused, and the log names the setting", async (t) => {
  const flags = ["--host-resolver-rules=MAP evil.test 127.0.0.1"];
  const { hub, pages, open } = await site(t, ({ url }) => ({ "/": listening(url) }), { flags });
  const page = await open(`${pages.at("evil.test")}/`);
  await page.is("reconnecting");
  await hub.logged(/allowed_origins/);
  assert.equal(page.complaints.all.some((text) => /evil\.test.*CORS|403/s.test(text)), true, page.complaints.all.join("\n"));
});

test("a page of an origin that is allowed by name is let in, and others are not any more", async (t) => {
  const flags = ["--host-resolver-rules=MAP app.test 127.0.0.1"];
  const { hub, pages, open } = await site(t, ({ url }) => ({ "/": listening(url) }), { flags });
  // The origin has a port that is known only now.
  await hub.stop();
  hub.settings = ["--allowed-origins", pages.at("app.test")];
  await hub.resume();
  const allowed = await open(`${pages.at("app.test")}/`);
  await allowed.is("connected");
  await hub.curl("chat", 1);
  assert.deepEqual(await allowed.messages(1), ["1"]);
  allowed.fine();

  const refused = await open(`${pages.at("localhost")}/`);
  await refused.is("reconnecting");
});
