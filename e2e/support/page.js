// Pages of our own that use the client, for what the chat does not show.

import assert from "node:assert/strict";
import { Complaints, launch } from "./browser.js";
import { Hub } from "./hub.js";
import { Site } from "./static.js";

/** A page that lists what it gets in the room `chat`, and how the connection stands. */
export const listening = (hub, { script = `<script src="${hub}/twine.js"></script>`, before = "" } = {}) => `<!doctype html>
${before}
<p id="state"></p>
<ol id="messages"></ol>
${script}
<script type="module">
  const twine = new Twine("${hub}");
  twine.on("state", ({ state }) => (document.getElementById("state").textContent = state));
  twine.on("error", (error) => { throw error; });
  twine.subscribe("chat", (data) => {
    const item = document.createElement("li");
    item.textContent = JSON.stringify(data);
    document.getElementById("messages").append(item);
  });
</script>`;

/** A hub, a site of `files(hub)` and a browser, for as long as a test. */
export async function site(t, files, { flags } = {}) {
  const hub = await Hub.start();
  t.after(() => hub.remove());
  const pages = await Site.serve(files(hub));
  t.after(() => pages.remove());
  const browser = await launch(flags);
  t.after(() => browser.close());
  return { hub, pages, open: (url) => open(browser, url) };
}

async function open(browser, url) {
  const page = await browser.newPage();
  const complaints = new Complaints(page);
  await page.goto(url);
  return {
    page,
    complaints,
    is: (state) => page.locator("#state", { hasText: state }).waitFor(),
    /** Waits for the n-th message, and gives the texts of all. */
    async messages(n) {
      await page.locator("#messages li").nth(n - 1).waitFor();
      return page.locator("#messages li").allTextContents();
    },
    fine: () => assert.deepEqual(complaints.all, [], "complaints of the page"),
  };
}
