// How the page looks in each of its states: pictures in `test-artifacts/`, for people to look at, and
// what a program can tell of it.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { ROOT } from "../support/program.js";
import { Stage } from "../support/stage.js";

const PICTURES = `${ROOT}test-artifacts/chat`;
const DESKTOP = { viewport: { width: 900, height: 680 }, deviceScaleFactor: 2 };
const PHONE = { viewport: { width: 390, height: 720 }, deviceScaleFactor: 2, hasTouch: true };
const VARIANTS = {
  light: { ...DESKTOP, colorScheme: "light" },
  dark: { ...DESKTOP, colorScheme: "dark" },
  mobile: { ...PHONE, colorScheme: "light" },
  "mobile-dark": { ...PHONE, colorScheme: "dark" },
};

const TALK = [
  ["Grace", "Morning! The new build is on staging."],
  ["Grace", "It publishes every price change to a room of its own now."],
  ["Ada", "Saw it. I closed my laptop on the train, opened it at the office, and everything I had missed was there, in order."],
  ["Alan", "Even with the tunnel?"],
  ["Ada", "Even with the tunnel."],
  ["deploy", "v0.1.0 is live"],
];

test("every state of the page has its picture", async (t) => {
  await mkdir(PICTURES, { recursive: true });
  const stage = await Stage.set(t);
  const { hub } = stage;
  const ada = await stage.person("Ada", VARIANTS.light);
  for (const [name, text] of TALK) {
    if (name === "Ada") await ada.say(text);
    else await hub.curl("chat", { name, text });
    await ada.sees(text);
  }

  const visitors = { light: ada };
  for (const [name, options] of Object.entries(VARIANTS)) {
    const visitor = (visitors[name] ??= await stage.visitor(options));
    await visitor.sees(TALK.at(-1)[1]);
    if (visitor !== ada) {
      await noOverflow(visitor);
      await picture(visitor, `${name}-before-joining`);
      await visitor.join("Grace Hopper");
    }
    await noOverflow(visitor);
  }

  const { light, dark, mobile } = visitors;
  const typing = light.page.getByText("Grace Hopper is typing").waitFor();
  await dark.page.getByLabel("Message").pressSequentially("On my way");
  await typing;
  for (const [name, visitor] of Object.entries(visitors)) await picture(visitor, name);

  const all = Object.values(visitors);
  const away = all.reduce(
    (work, visitor) => () => visitor.complaints.whileAway(hub.url, work),
    async () => {
      await hub.stop();
      for (const [name, visitor] of Object.entries(visitors)) {
        await visitor.page.getByText(/Next attempt in/).waitFor();
        await picture(visitor, `${name}-reconnecting`);
        await noOverflow(visitor);
      }
      await mobile.say("Can you hear me?");
      await mobile.page.getByText("Sending").waitFor();
      const published = hub.sdk("chat", [{ name: "Alan", text: "Missed me?" }]);
      await hub.resume();
      await published;
      for (const visitor of all) await visitor.sees("Missed me?");
    },
  );
  await away();
  for (const [name, visitor] of Object.entries(visitors)) await picture(visitor, `${name}-caught-up`);
  await together(ada.page.context().browser());
});

test("one can chat by keyboard alone, and hear how the connection stands", async (t) => {
  const stage = await Stage.set(t);
  const { page } = await stage.visitor();
  await page.locator("#badge", { hasText: "Connected" }).waitFor();
  assert.equal(await page.getByRole("status").textContent(), "Connected");
  await page.keyboard.press("Tab"); // the conversation, which scrolls
  await page.keyboard.press("Tab");
  await page.keyboard.type("Ada");
  await page.keyboard.press("Enter");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Enter");
  await page.getByRole("log").getByText("by keyboard").waitFor();
  await page.getByRole("main", { name: "Conversation" }).waitFor();
});

test("a long conversation follows its end, unless one reads further up", async (t) => {
  const stage = await Stage.set(t);
  const ada = await stage.person("Ada");
  await stage.hub.sdk("chat", Array.from({ length: 40 }, (_, n) => `line ${n}`));
  await ada.sees("line 39");
  await ada.page.getByText("line 39", { exact: true }).isVisible();
  assert.equal(await fromEnd(ada), 0);

  await ada.page.locator("#scroller").evaluate((scroller) => scroller.scrollTo(0, 0));
  await stage.hub.sdk("chat", ["news"]);
  const newer = ada.page.getByRole("button", { name: "New messages" });
  await newer.waitFor();
  assert.notEqual(await fromEnd(ada), 0, "whoever reads is left alone");
  await newer.click();
  assert.equal(await fromEnd(ada), 0);
  await newer.waitFor({ state: "hidden" });
});

function picture({ page }, name) {
  return page.screenshot({ path: `${PICTURES}/${name}.png`, animations: "disabled" });
}

/** The picture of the README: a window, and before it a phone that has lost its connection. */
async function together(browser) {
  const image = async (name) => {
    const png = await readFile(`${PICTURES}/${name}.png`);
    return `<img class="${name}" src="data:image/png;base64,${png.toString("base64")}">`;
  };
  const page = await browser.newPage({ viewport: { width: 1240, height: 740 } });
  await page.setContent(`<style>
    body { margin: 0 }
    img { position: absolute; border-radius: 14px; box-shadow: 0 0 0 1px #8884, 0 6px 24px #0003 }
    .light { left: 20px; top: 50px; width: 840px }
    .mobile-dark-reconnecting { right: 20px; top: 20px; height: 700px; border-radius: 26px }
  </style>${await image("light")}${await image("mobile-dark-reconnecting")}`);
  await page.screenshot({ path: `${PICTURES}/readme.png`, omitBackground: true });
  await page.close();
}

async function noOverflow({ page }) {
  const { scrollWidth, clientWidth } = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return { scrollWidth, clientWidth };
  });
  assert.ok(scrollWidth <= clientWidth, `the page is ${scrollWidth - clientWidth} pixels too wide`);
}

function fromEnd({ page }) {
  return page
    .locator("#scroller")
    .evaluate(({ scrollHeight, scrollTop, clientHeight }) => Math.round(scrollHeight - scrollTop - clientHeight));
}
