// Replaces the contents of the page by current ones, every 15 s while the page is visible.
"use strict";
(() => {
  const interval = 15000;
  const timeout = 30000;
  const news = document.getElementById("news");
  const bar = document.getElementById("refresh");
  const verdict = () => [...document.querySelectorAll("main .verdict > *")].map((e) => e.textContent.trim()).join(" ");
  let paused = false;
  let busy = false;
  let last = Date.now(); // the last refresh or attempt

  // A screen reader reads this aloud, so it is only for what is new.
  const announce = (text) => { if (news.textContent !== text) news.textContent = text; };

  const refresh = async () => {
    busy = true;
    last = Date.now();
    const before = verdict();
    try {
      const response = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(timeout) });
      if (!response.ok) throw new Error("status " + response.status);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      if (!page.querySelector("main") || !page.getElementById("read-at")) throw new Error("the response is a different page");
      const keep = paused || isSelected(); // replacing the page would lose a selection
      if (!keep) show(page);
      announce(verdict() !== before ? "Changed: " + verdict() : "");
    } catch (err) {
      const failure = err instanceof Error ? err.message : String(err);
      announce("Not refreshed since " + document.getElementById("read-at").textContent + " UTC: " + failure + ". Trying again.");
    } finally {
      busy = false;
    }
  };

  const isSelected = () => {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && document.querySelector("main").contains(selection.anchorNode);
  };

  const links = (main) => [...main.querySelectorAll("a")];

  const show = (page) => {
    const old = document.querySelector("main");
    const next = document.adoptNode(page.querySelector("main"));
    const focused = links(old).indexOf(document.activeElement);
    const href = focused < 0 ? null : document.activeElement.getAttribute("href");
    // The page may have the same link more than once: prefer the one in the same section.
    const section = focused < 0 ? null : document.activeElement.closest("section")?.getAttribute("aria-labelledby");
    const wasMain = document.activeElement === old;
    const [x, y] = [window.scrollX, window.scrollY];
    old.replaceWith(next);
    document.title = page.title;
    const time = page.getElementById("read-at");
    document.getElementById("read-at").replaceWith(document.adoptNode(time));
    if (wasMain) next.focus({ preventScroll: true });
    if (href !== null) {
      const same = links(next).filter((a) => a.getAttribute("href") === href);
      const target = same.find((a) => a.closest("section")?.getAttribute("aria-labelledby") === section) ?? same[0];
      (target ?? next).focus({ preventScroll: true });
    }
    window.scrollTo({ left: x, top: y, behavior: "instant" });
  };

  const isDue = () => !paused && !busy && document.visibilityState === "visible" && Date.now() - last >= interval;
  const check = () => { if (isDue()) refresh(); };

  if (!document.getElementById("read-at")) return; // not a status page
  const button = document.createElement("button");
  button.type = "button";
  const label = () => { button.textContent = paused ? "Resume refreshing" : "Pause refreshing"; };
  button.addEventListener("click", () => {
    paused = !paused;
    label();
    if (!paused && !busy) refresh();
  });
  label();
  bar.append(button);
  setInterval(check, 1000);
  document.addEventListener("visibilitychange", check);
})();
