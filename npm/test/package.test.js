// The package as it is published: packed, installed, and run by what people build with.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build as esbuild } from "esbuild";
import { build as vite } from "vite";
import webpack from "webpack";
import { SHOW, launch, open, serve } from "./support/browser.js";
import { Hub } from "./support/hub.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const npm = (folder, ...options) => execFileSync("npm", options, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });

let browser;
let hub;
let home;
let packed;

before(async () => {
  // Inside the package's folder, so that its tools are found from there.
  await mkdir(join(root, ".fixtures"), { recursive: true });
  home = await mkdtemp(join(root, ".fixtures/"));
  [packed] = JSON.parse(npm(root, "pack", "--json", "--pack-destination", home));
  [hub, browser] = await Promise.all([Hub.start(), launch()]);
});
after(async () => {
  await browser.close();
  await hub.stop();
  await rm(home, { recursive: true });
});

/** A project that has the packed package installed, and nothing else. */
async function project(name, files) {
  const folder = join(home, name);
  await mkdir(folder);
  await writeFile(join(folder, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text);
  npm(folder, "install", "--offline", "--no-audit", "--no-fund", "--no-package-lock", join(home, packed.filename));
  return folder;
}

const main = () => `
  import { Twine } from "twine-client";
  window.twine = new Twine("${hub.url}");
  window.ready = (${SHOW})(window.twine);
`;
const html = (script) => `<!doctype html><link rel="icon" href="data:,"><script type="module" src="${script}"></script>`;

/** The built page gets a message, and has nothing to complain about. */
async function works(folder) {
  const site = await serve({ folder });
  const page = await open(browser, site.url);
  await page.evaluate(() => window.ready);
  await hub.publish("page", folder);
  await page.waitForFunction((expected) => window.got.at(-1) === expected, folder);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
  await site.close();
}

test("the package holds what is needed and nothing else", async () => {
  assert.deepEqual(packed.files.map(({ path }) => path).sort(), [
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "dist/slim.d.ts",
    "dist/slim.js",
    "dist/slim.js.map",
    "dist/twine.d.ts",
    "dist/twine.js",
    "dist/twine.js.map",
    "dist/twine.min.js",
    "dist/twine.min.js.map",
    "dist/twine.wasm",
    "package.json",
  ]);
  const { dependencies, scripts, jsdelivr, unpkg } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  assert.equal(dependencies, undefined);
  assert.deepEqual(Object.keys(scripts).filter((name) => /install|prepare|publish/.test(name)), []);
  assert.deepEqual([jsdelivr, unpkg], ["./dist/twine.min.js", "./dist/twine.min.js"]);
});

test("source maps lead back to the sources", async () => {
  for (const file of ["twine.js", "twine.min.js", "slim.js"]) {
    const text = await readFile(join(root, "dist", file), "utf8");
    assert(text.trimEnd().endsWith(`//# sourceMappingURL=${file}.map`), file);
    const { sources, sourcesContent } = JSON.parse(await readFile(join(root, "dist", `${file}.map`), "utf8"));
    assert(sources.some((source) => source.endsWith("src/twine.js")), file);
    assert.equal(sourcesContent.length, sources.length);
  }
});

test("Vite", async () => {
  const folder = await project("in-vite", { "index.html": html("./main.js"), "main.js": main() });
  await vite({ root: folder, logLevel: "error", configFile: false });
  await works(join(folder, "dist"));
});

test("webpack", async () => {
  const folder = await project("in-webpack", { "main.js": main() });
  const output = { path: join(folder, "dist"), filename: "main.js" };
  const compiler = webpack({ mode: "production", context: folder, entry: "./main.js", output });
  const stats = await new Promise((resolve, reject) =>
    compiler.run((error, result) => (error ? reject(error) : resolve(result))),
  );
  assert.deepEqual(stats.toJson({ errors: true }).errors, []);
  await writeFile(join(folder, "dist/index.html"), html("./main.js"));
  await works(join(folder, "dist"));
});

test("esbuild", async () => {
  const folder = await project("in-esbuild", { "main.js": main() });
  const outfile = join(folder, "dist/main.js");
  await esbuild({ absWorkingDir: folder, entryPoints: ["main.js"], bundle: true, format: "esm", outfile });
  await writeFile(join(folder, "dist/index.html"), html("./main.js"));
  await works(join(folder, "dist"));
});

test("Node, with the WebSocket of `ws`; importing opens nothing and holds nothing open", async () => {
  const folder = await project("in-node", {
    "import.js": `import { Twine } from "twine-client"; const twine = new Twine("${hub.url}"); console.log(twine.state);`,
    "main.js": `
      import { Twine } from "twine-client";
      import { WebSocket } from "ws";
      const twine = new Twine("${hub.url}", { WebSocket });
      twine.subscribe("node", (data) => { console.log(data); twine.disconnect(); }).then(() => console.log("ready"));
      twine.connect();
    `,
  });
  assert.equal(execFileSync("node", ["import.js"], { cwd: folder, encoding: "utf8" }), "idle\n");

  const running = spawn("node", ["main.js"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => running.once("exit", resolve));
  const lines = [];
  for await (const chunk of running.stdout.setEncoding("utf8")) {
    lines.push(chunk.trim());
    if (chunk.trim() === "ready") await hub.publish("node", "hello");
  }
  assert.deepEqual(lines, ["ready", "hello"]);
  assert.equal(await ended, 0);
});
