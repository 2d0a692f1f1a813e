// Several tabs of one browser, one after the other and at once: each gets what is its own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "../support/browser.js";
import { Hub } from "../support/hub.js";
import { ADOPTED, NEW, RESUMED, Tab, apps, how, range } from "../support/tab.js";

let hub, site, other, browser;

before(async () => {
  const scripts = {
    "/copied": `watch(new Twine(HUB)); listen("copied");`,
    "/closed": `watch(new Twine(HUB)); ["red", "green", "blue"].forEach((room) => listen(room));`,
    "/inbox": `watch(new Twine(HUB)); listen("mail");`,
    "/archive": `watch(new Twine(HUB)); listen("mail");`,
    "/at-once": `watch(new Twine(HUB)); listen("at-once");`,
    "/app": `watch(new Twine(HUB)); listen("shared");`,
    "/user": `watch(new Twine(HUB)); listen("private");`,
    "/log-out": `watch(new Twine(HUB, { autoConnect: false }));
      twine.forget().then(() => note({ type: "forgotten" }));`,
  };
  [site, other] = await Promise.all([apps(() => hub.url, scripts), apps(() => hub.url, scripts)]);
  [hub, browser] = await Promise.all([Hub.start(), launch()]);
});
after(() => Promise.all([hub.remove(), browser.close(), site.remove(), other.remove()]));

/** A browser of somebody's own. */
async function someone(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return context;
}

/** The same one, started again the next morning: cookies are there, and nothing else. */
async function nextMorning(t, context) {
  const cookies = await context.cookies();
  await context.close();
  const next = await someone(t);
  await next.addCookies(cookies);
  return next;
}

const sessions = ({ connections }) => connections.map(({ session }) => session);

test("a tab duplicated by `window.open`, and one by the browser, go on by themselves", async (t) => {
  const context = await someone(t);
  const tab = await Tab.open(context, `${site.at()}/copied?tab=first`);
  await tab.ready("copied");
  const last = await hub.count("copied", 1, 3);
  await tab.has(3, "copied");
  await tab.stored(last);

  // A page that it opens gets a copy of its `sessionStorage`.
  const opened = await tab.opens("?tab=opened");
  await opened.ready("copied");
  // And what "Duplicate" does.
  const stored = await tab.page.evaluate(() => Object.entries(sessionStorage));
  const duplicate = new Tab(await context.newPage());
  await duplicate.page.addInitScript((stored) => {
    if (sessionStorage.length === 0) for (const [key, value] of stored) sessionStorage.setItem(key, value);
  }, stored);
  await duplicate.page.goto(`${site.at()}/copied?tab=duplicate`);
  await duplicate.ready("copied");

  await hub.count("copied", 4, 6);
  for (const one of [tab, opened, duplicate]) await one.has(6, "copied");
  assert.deepEqual(await tab.got("copied"), range(1, 6));
  for (const copy of [opened, duplicate]) {
    const [page] = await copy.pages();
    assert.deepEqual([page.got("copied"), page.subscribed("copied")], [range(4, 6), [true]]);
  }
  assert.deepEqual([tab, opened, duplicate].map(how), [[NEW], [RESUMED], [RESUMED]]);

  // Each has its own from now on, over reloads.
  const before = [tab, opened, duplicate].flatMap(sessions);
  assert.equal(new Set(before).size, 3);
  for (const one of [tab, opened, duplicate]) {
    await one.page.goto(`${site.at()}/empty`);
  }
  await hub.publish("copied", 7);
  for (const one of [tab, opened, duplicate]) {
    await one.page.goBack();
    await one.has(7, "copied");
    assert.deepEqual(how(one).at(-1), RESUMED);
    one.fine();
  }
  assert.deepEqual([tab, opened, duplicate].map((one) => sessions(one).at(-1)), before);
});

test("a browser that is opened the next morning gets in every room what it has missed", async (t) => {
  const rooms = ["red", "green", "blue"];
  const evening = await someone(t);
  const tab = await Tab.open(evening, `${site.at()}/closed`);
  for (const room of rooms) await tab.ready(room);
  for (const room of rooms) await tab.acknowledged(await hub.count(room, 1, 3));
  const [session] = sessions(tab);

  const morning = await nextMorning(t, evening);
  await hub.count("red", 4, 6);
  await hub.count("green", 4, 5);
  const reopened = await Tab.open(morning, `${site.at()}/closed`);
  await reopened.has(6, "red");
  await reopened.has(5, "green");
  await reopened.ready("blue");
  for (const room of rooms) await hub.publish(room, "live");
  for (const room of rooms) await reopened.has("live", room);

  const [page] = await reopened.pages();
  assert.deepEqual(rooms.map((room) => page.got(room)), [[4, 5, 6, "live"], [4, 5, "live"], ["live"]]);
  assert.deepEqual(rooms.map((room) => page.recovered(room)), [[4, 5, 6], [4, 5], []]);
  for (const room of rooms) assert.deepEqual([page.subscribed(room), page.gaps(room)], [[true], []]);
  assert.deepEqual([how(reopened), sessions(reopened)], [[ADOPTED], [session]]);
  tab.fine();
  reopened.fine();
});

test("who closes a tab without a word misses nothing, and of what was not acknowledged some may come twice", async (t) => {
  const evening = await someone(t);
  const tab = await Tab.open(evening, `${site.at()}/inbox`);
  await tab.ready("mail");
  await tab.acknowledged(await hub.count("mail", 1, 3));
  await hub.count("mail", 4, 6);
  await tab.has(6, "mail");
  const morning = await nextMorning(t, evening);
  await hub.subscribers("mail", 0);
  await hub.publish("mail", 7);

  // Of another path: that is a session of its own, which starts where the other one was.
  const reopened = await Tab.open(morning, `${site.at()}/archive`);
  await reopened.has(7, "mail");
  const got = await reopened.got("mail");
  assert(got.length <= 4, `what was acknowledged came again: ${got}`);
  assert.deepEqual(got, range(8 - got.length, 7));
  assert.deepEqual(how(reopened), [NEW]);
  reopened.fine();
});

test("two tabs that are opened at once have one cookie, and each a session that it can prove", async (t) => {
  const context = await someone(t);
  const given = [];
  context.on("response", (answer) => {
    if (answer.url().endsWith("/set-cookie")) given.push(answer.headerValue("set-cookie"));
  });
  const urls = ["one", "two"].map((name) => `${site.at()}/at-once?tab=${name}`);
  const tabs = await Promise.all(urls.map((url) => Tab.open(context, url)));
  for (const tab of tabs) await tab.ready("at-once");
  const ids = (await Promise.all(given)).map((cookie) => /^twineid=([^;]+)/.exec(cookie)[1]);
  assert.equal(ids.length, 2);
  const [cookie, ...more] = await context.cookies(hub.url);
  assert.deepEqual([ids, more], [[cookie.value, cookie.value], []]);

  for (const tab of tabs) await tab.page.goto(`${site.at()}/empty`);
  await hub.publish("at-once", 1);
  for (const [n, tab] of tabs.entries()) {
    await tab.page.goto(urls[n]);
    await tab.has(1, "at-once");
    assert.deepEqual(how(tab), [NEW, RESUMED]);
    tab.fine();
  }
  assert.notEqual(sessions(tabs[0])[0], sessions(tabs[1])[0]);
});

test("two apps on two origins that share a hub have nothing of each other's", async (t) => {
  const evening = await someone(t);
  const [one, two] = [await Tab.open(evening, `${site.at()}/app`), await Tab.open(evening, `${other.at()}/app`)];
  for (const tab of [one, two]) await tab.ready("shared");
  const first = await hub.publish("shared", 1);
  for (const tab of [one, two]) await tab.acknowledged(first);
  await two.page.close();
  // The second has gone before this, and the first has it.
  await hub.subscribers("shared", 1);
  await one.acknowledged(await hub.publish("shared", 2));
  const expected = [sessions(one), sessions(two)];

  const morning = await nextMorning(t, evening);
  const tabs = [await Tab.open(morning, `${site.at()}/app`), await Tab.open(morning, `${other.at()}/app`)];
  for (const tab of tabs) await tab.ready("shared");
  await hub.publish("shared", 3);
  for (const tab of tabs) await tab.has(3, "shared");
  assert.deepEqual([await tabs[0].got("shared"), await tabs[1].got("shared")], [[3], [2, 3]]);
  assert.deepEqual(tabs.map(how), [[ADOPTED], [ADOPTED]]);
  assert.deepEqual(tabs.map(sessions), expected);
  for (const tab of tabs) tab.fine();
});

test("after a log-out the next user of the browser gets nobody's messages", async (t) => {
  const context = await someone(t);
  const twineid = async () => (await context.cookies(hub.url))[0].value;
  const tab = await Tab.open(context, `${site.at()}/user?tab=of the first user`);
  await tab.ready("private");
  await tab.acknowledged(await hub.publish("private", "read by the first user"));
  const earlier = [sessions(tab)[0], await twineid()];

  await tab.page.goto(`${site.at()}/log-out`);
  await tab.noted({ type: "forgotten" });
  await hub.publish("private", "for the first user");
  assert.notEqual(await twineid(), earlier[1]);

  // In the same tab, and in another one.
  for (const [n, next] of [tab, new Tab(await context.newPage())].entries()) {
    await next.page.goto(`${site.at()}/user?tab=${n}`);
    await next.ready("private");
    const own = `for whoever sits there now: ${n}`;
    await hub.publish("private", own);
    await next.has(own, "private");
    const [page] = await next.pages();
    assert.deepEqual([page.got("private"), page.subscribed("private")], [[own], [undefined]]);
    assert.deepEqual(how(next).at(-1), NEW);
    assert.notEqual(sessions(next).at(-1), earlier[0]);
    next.fine();
  }
});
