// Checks the status page in a browser: node check.mjs BASE HOST DIRECTORY. It prints "arrive" when an archive
// should arrive, and failures on stderr. Screenshots go to DIRECTORY.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.env.CIS490_PAGE, "x.js"));
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [base, host, shots] = process.argv.slice(2);
const waitOptions = { timeout: 120_000, polling: 200 };

let failures = 0;
const fail = (...what) => { failures++; console.error("FAIL", ...what); };
const check = (ok, ...what) => { if (!ok) fail(...what); };

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM, headless: true, timeout: 120_000, protocolTimeout: 300_000,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"], // root has no sandbox
});

// open opens a page, and reports what no page may do: cause an error, violate the policy, use another origin.
async function open(url, { width = 1280, scheme = "light", script = true, quiet = false } = {}) {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.setViewport({ width, height: 800 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
  await page.setJavaScriptEnabled(script);
  const errors = (what) => { if (!page.offline) fail(url, what); };
  page.on("console", (m) => { if (["error", "warn", "warning"].includes(m.type())) { if (!quiet) errors("console: " + m.text()); } });
  page.on("pageerror", (err) => errors("error: " + err));
  page.on("requestfailed", (r) => errors("failed: " + r.url()));
  page.on("response", (r) => { if (r.status() >= 400 && !quiet) errors(r.status() + ": " + r.url()); });
  page.on("request", (r) => { if (new URL(r.url()).origin !== new URL(base).origin) fail(url, "asks for", r.url()); });
  await page.goto(url, { waitUntil: "load" });
  return page;
}

const focused = (page) => page.evaluate(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const style = getComputedStyle(e), r = e.getBoundingClientRect();
  return {
    name: e.textContent.trim(), outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: r.width > 0 && r.left >= 0 && r.right <= innerWidth + 1 && r.top >= 0 && r.bottom <= innerHeight + 1,
  };
});

async function looks() {
  for (const [name, where] of [["overview", "/"], ["host", "/hosts/" + host]]) {
    for (const scheme of ["light", "dark"]) {
      for (const width of [360, 1280]) {
        const what = `${name}-${scheme}-${width}`;
        const page = await open(base + where, { width, scheme });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        check(wide <= width, what, "is", wide, "pixels wide");
        await page.evaluate(axe);
        const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
        for (const v of found.violations) fail(what, v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary).join("\n"));
        check(found.passes.length > 10, what, "axe-core tried only", found.passes.length, "rules");
        await page.screenshot({ path: path.join(shots, what + ".png"), fullPage: true });
        await page.screenshot({ path: path.join(shots, what + "-top.png"), clip: { x: 0, y: 0, width, height: 1600 }, captureBeyondViewport: true });
        await page.close();
      }
    }
  }
  console.error("looks: done");
}

async function withoutScript() {
  const page = await open(base + "/", { script: false });
  const text = await page.evaluate(() => document.body.innerText);
  check(text.includes(host) && !text.includes("Pause"), "without a script it says", text);
  await Promise.all([page.waitForNavigation(), page.click(`a[href="hosts/${host}"]`)]);
  check((await page.evaluate(() => document.querySelector("h1").textContent)) === host, "without a script the link of the host leads elsewhere");
  await Promise.all([page.waitForNavigation(), page.click("nav a")]);
  check(new URL(page.url()).pathname === "/", "the way back leads to", page.url());
  await page.close();
  const none = await open(base + "/hosts/none", { quiet: true, script: false });
  check((await none.evaluate(() => document.querySelector("h1").textContent)) === "Not found", "an unknown host has a page");
  await none.close();
  console.error("without a script: done");
}

async function keyboard() {
  for (const width of [360, 1280]) {
    for (const where of ["/", "/hosts/" + host]) {
      const page = await open(base + where, { width });
      const want = await page.evaluate(() => [...document.querySelectorAll("a, button")].map((e) => e.textContent.trim()));
      const got = [];
      for (const name of want) {
        await page.keyboard.press("Tab");
        const now = await focused(page);
        got.push(now?.name);
        if (now?.name === name) check(now.outline && now.seen, where, width, "the focus on", name, "is not seen", JSON.stringify(now));
      }
      check(JSON.stringify(got) === JSON.stringify(want), where, width, "by keyboard", got, "want", want);
      await page.close();
    }
  }
  const page = await open(base + "/");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter"); // the skip link
  check((await page.evaluate(() => document.activeElement.id)) === "main", "the skip link does not lead to the contents");
  await page.close();
  console.error("keyboard: done");
}

// due moves the page's clock so that the next refresh is due.
const due = (page) => page.evaluate(() => { const now = Date.now; Date.now = () => now() + 20_000; });

async function refreshes() {
  const page = await open(base + "/", { width: 800 });
  await page.evaluate((host) => {
    window.unchanged = true;
    document.querySelector(`#hosts ~ table a[href="hosts/${host}"]`).focus();
    window.scrollTo(0, 300);
  }, host);
  const scrolled = await page.evaluate(() => scrollY);
  console.log("arrive");
  const began = Date.now();
  const arrived = () => page.evaluate(() => document.body.innerText.includes("run-of-the-refresh"));
  while (!(await arrived()) && Date.now() - began < 120_000) {
    await due(page);
    await new Promise((done) => setTimeout(done, 1000));
  }
  check(await arrived(), "the arrival is not shown");
  const after = await page.evaluate(() => ({ unchanged: window.unchanged, focus: document.activeElement.getAttribute("href"), y: scrollY, news: document.getElementById("news").textContent }));
  check(after.unchanged && after.focus === "hosts/" + host && after.y === scrolled, "after a refresh", JSON.stringify(after), "scrolled", scrolled);

  page.offline = true; // errors are expected
  await page.setOfflineMode(true);
  await due(page);
  await page.waitForFunction(() => document.getElementById("news").textContent.startsWith("Not refreshed since"), waitOptions);
  await page.screenshot({ path: path.join(shots, "overview-offline.png") });
  await page.setOfflineMode(false);
  await due(page);
  await page.waitForFunction(() => document.getElementById("news").textContent === "", waitOptions);
  page.offline = false;

  let requests = 0;
  page.on("request", () => requests++);
  await page.click("#refresh button");
  check((await page.$eval("#refresh button", (b) => b.textContent)) === "Resume refreshing", "the button does not say what it does");
  await due(page);
  await new Promise((done) => setTimeout(done, 3000)); // the script looks at the clock every second
  check(requests === 0, "it refreshes while it is paused");
  await page.click("#refresh button");
  await page.waitForFunction(() => document.querySelector("#refresh button").textContent === "Pause refreshing", waitOptions);
  await page.waitForNetworkIdle();
  requests = 0;
  await page.evaluate(() => Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true }));
  await due(page);
  await new Promise((done) => setTimeout(done, 3000));
  check(requests === 0, "it refreshes while it is hidden");
  await page.close();
  console.error("refreshes: done");
}

try {
  await looks();
  await withoutScript();
  await keyboard();
  await refreshes();
} catch (err) {
  fail(err.stack);
} finally {
  await browser.close();
}
process.exit(failures === 0 ? 0 : 1);
