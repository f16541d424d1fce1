// Uses every control of the losses page in a real Chromium, in both languages, at desktop and phone width.
//
//     npm install playwright-core            # in a folder of its own, from which the next line is run
//     node REPOSITORY/tools/losses_page/browser_check.mjs REPOSITORY/src/ptarmigan/assets/losses.html [FOLDER]
//
// Screenshots go into FOLDER.  CHROMIUM names the browser; by default the `chromium` on the path is used.  The first
// failed check ends it with an error.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const { chromium } = createRequire(resolve("package.json"))("playwright-core");
const address = pathToFileURL(resolve(process.argv[2])).href;
const folder = process.argv[3];
const SIZES = { desk: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
const TITLES = { en: "The losses of DCGAN and ACGAN, exactly", zh: "DCGAN 与 ACGAN 的损失函数：准确的说法" };
const complaints = [];
let used = 0;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || execFileSync("which", ["chromium"], { encoding: "utf8" }).trim(),
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic"],
});

async function open(settings, query = "") {
  const page = await browser.newPage(settings);
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(error.stack));
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) complaints.push(`requested ${request.url()}`);
  });
  await page.goto(address + query);
  await page.waitForTimeout(500);
  return page;
}

const number = async (place) => Number((await place.textContent()).replace("−", "-"));

async function densities(page, language) {
  const lab = page.locator(`main#${language} [data-lab="densities"]`);
  const out = (key) => number(lab.locator(`[data-out="${key}"]`));
  const press = (action) => lab.locator(`[data-do="${action}"]`).click();
  await lab.scrollIntoViewIfNeeded();
  const handles = lab.locator(".handle");
  assert.equal(await handles.count(), 4);
  for (let i = 0; i < 4; i++) { // every handle, by arrow and by pointer
    const handle = handles.nth(i);
    assert.ok(await handle.getAttribute("aria-label"));
    const before = Number(await handle.getAttribute("aria-valuenow"));
    await handle.focus();
    await page.keyboard.press("ArrowRight");
    await page.waitForTimeout(60);
    const after = Number(await handle.getAttribute("aria-valuenow"));
    assert.notEqual(after, before);
    const box = await handle.locator(".dot").boundingBox();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x + (i % 2 ? 12 : 30), y, { steps: 4 });
    await page.mouse.up();
    await page.waitForTimeout(60);
    assert.notEqual(Number(await handle.getAttribute("aria-valuenow")), after);
    used += 2;
  }
  await press("reset");
  await page.waitForTimeout(60);
  const names = await lab.locator("option").allTextContents();
  const start = {};
  for (const name of names) {
    await lab.locator("select").selectOption(name);
    await page.waitForTimeout(80);
    start[name] = await out("d");
    for (const key of ["d", "g", "mean", "width"]) assert.ok(Number.isFinite(await out(key)), `${name} ${key}`);
    used++;
  }
  for (const row of await page.locator(`main#${language} tbody tr`).all()) { // the figure begins where the table says
    const name = await row.locator("th").textContent();
    assert.ok(Math.abs(start[name] - (await number(row.locator("td").nth(3)))) < 0.003, name);
  }
  await handles.nth(2).focus(); // q's mean, far to the right: the one saturates, the other does not
  for (let i = 0; i < 10; i++) await page.keyboard.press("Shift+ArrowRight");
  const push = {};
  for (const name of ["minimax", "non_saturating"]) {
    await lab.locator("select").selectOption(name);
    await page.waitForTimeout(80);
    push[name] = Math.abs(await out("mean"));
  }
  assert.ok(push.non_saturating > 20 * push.minimax, JSON.stringify(push));
  const before = await out("mean");
  await press("step");
  assert.notEqual(await out("mean"), before);
  await press("reset");
  await press("run");
  await page.waitForFunction(
    (place) => document.querySelector(place).getAttribute("aria-pressed") === "false",
    `main#${language} [data-do="run"]`,
    { timeout: 20_000 },
  );
  assert.ok(Math.abs((await out("d")) - 2 * Math.log(2)) < 2e-3); // G has found p
  await press("run");
  await press("run"); // and it can be stopped
  await press("reset");
  used += 5;
}

async function dirac(page, language) {
  const lab = page.locator(`main#${language} [data-lab="dirac"]`);
  const out = (key) => number(lab.locator(`[data-out="${key}"]`));
  const slide = async (key, value) => {
    await lab.locator(`[data-in="${key}"]`).fill(String(value));
    await page.waitForTimeout(80);
    used++;
  };
  await lab.scrollIntoViewIfNeeded();
  for (const name of await lab.locator("option").allTextContents()) {
    await lab.locator("select").selectOption(name);
    for (const key of ["r1", "r2"]) await slide(key, 0);
    const free = await out("after");
    assert.ok(free > 0.2, `${name} converged without a penalty: ${free}`);
    for (const key of ["r1", "r2"]) {
      await slide(key, 0.5);
      assert.ok((await out("after")) < 0.01, `${name} with ${key}`);
      await slide(key, 0);
    }
    used++;
  }
  await slide("rate", 0.1);
  assert.equal(await lab.locator('[data-of="rate"]').textContent(), "0.10");
  const picture = lab.locator("svg.plane");
  await picture.scrollIntoViewIfNeeded();
  const box = await picture.boundingBox();
  await picture.click({ position: { x: box.width * 0.3, y: box.height * 0.3 } });
  await page.waitForTimeout(80);
  assert.ok(Math.abs((await out("before")) - 1.5) > 0.05);
  const clicked = await out("before");
  await lab.locator(".handle").focus();
  await page.keyboard.press("ArrowUp");
  await page.waitForTimeout(80);
  assert.ok((await out("before")) > clicked);
  const dot = await lab.locator(".handle .dot").boundingBox();
  await page.mouse.move(dot.x + 7, dot.y + 7);
  await page.mouse.down();
  await page.mouse.move(dot.x + 60, dot.y + 60, { steps: 5 });
  await page.mouse.up();
  await page.waitForTimeout(1500);
  assert.ok((await out("before")) < clicked);
  used += 3;
}

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const language of ["en", "zh"]) {
    const other = language === "en" ? "zh" : "en";
    const page = await open({ viewport, reducedMotion: size === "phone" ? "reduce" : "no-preference" }, `?lang=${language}`);
    assert.equal(await page.title(), TITLES[language]);
    assert.equal(await page.evaluate(() => document.documentElement.lang.slice(0, 2)), language);
    assert.ok(!(await page.locator(`main#${other}`).isVisible()));
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0, "scrolls sideways");
    await densities(page, language);
    await dirac(page, language);
    for (const link of await page.locator(`main#${language} a[href^="#"]`).all()) {
      const name = (await link.getAttribute("href")).slice(1);
      await link.click();
      await page.waitForTimeout(size === "phone" ? 30 : 500);
      assert.ok((await page.locator(`#${name}`).boundingBox()).y < viewport.height, name);
      used++;
    }
    await page.evaluate((name) => document.getElementById(name).scrollIntoView({ behavior: "instant" }), `${language}-hinge`);
    const there = await page.locator(`[data-show="${other}"]`).boundingBox();
    await page.mouse.click(there.x + 9, there.y + 9); // the other language, at the same place
    assert.equal(await page.title(), TITLES[other]);
    assert.ok((await page.locator(`#${other}-hinge`).boundingBox()).y < 200);
    assert.ok(page.url().endsWith(`?lang=${other}#${other}-hinge`), page.url());
    await page.reload();
    assert.equal(await page.title(), TITLES[other]);
    await page.locator(`[data-show="${language}"]`).click();
    used += 2;
    if (folder) {
      mkdirSync(folder, { recursive: true });
      const height = await page.evaluate(() => document.documentElement.scrollHeight);
      for (let top = 0, i = 0; top < height; top += viewport.height - 60, i++) {
        await page.evaluate((y) => scrollTo({ top: y, behavior: "instant" }), top);
        await page.screenshot({ path: `${folder}/${language}-${size}-${String(i).padStart(2, "0")}.png` });
      }
    }
    await page.close();
  }
}
for (const [locale, query, language] of [["zh-TW", "", "zh"], ["de", "", "en"], ["de", "#zh-hinge", "zh"], ["zh", "?lang=en", "en"]]) {
  const page = await open({ locale, viewport: SIZES.desk }, query);
  assert.equal(await page.title(), TITLES[language], `${locale} ${query}`);
  await page.close();
}
assert.deepEqual(complaints, []);
console.log(`used ${used} controls; nothing on the console, no network requests`);
await browser.close();
