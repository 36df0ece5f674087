// Keeps a page up to date. Everything it does is a convenience: without it pages show the same, and
// forms do the same.
"use strict";

// Newly drawn pieces of the page, in the place of the old ones.

function drawn(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return template.content.firstElementChild;
}

// Makes a piece what it is drawn as now, in place: what somebody is clicking on stays the element that it
// is, and what they have done to it (chosen, opened, focused, searched away) stays done.

function become(from, to) {
  const same = from.nodeName === to.nodeName && (from.nodeName !== "DETAILS" || from.id === to.id);
  if (!same) {
    from.replaceWith(to);
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  const theirs = { DETAILS: "open", TR: "hidden" }[from.nodeName];
  for (const { name } of [...from.attributes]) {
    if (name !== theirs && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (name !== theirs && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  const [had, has] = [[...from.childNodes], [...to.childNodes]];
  for (const [at, child] of has.entries()) {
    if (at < had.length) become(had[at], child);
    else from.append(child);
  }
  for (const child of had.slice(has.length)) child.remove();
}

function patch({ op, id, html }) {
  const there = document.getElementById(id);
  if (!there) return;
  if (op === "remove") {
    there.remove();
    return;
  }
  const piece = drawn(html);
  if (!piece) return;
  // With it the page has more to show than a piece of it.
  if ("reload" in piece.dataset && !("reload" in there.dataset)) {
    window.location.reload();
    return;
  }
  if (op === "append" || op === "prepend") {
    const follow = there.scrollHeight - there.scrollTop - there.clientHeight < 40;
    if (piece.id && document.getElementById(piece.id)) return;
    if (there.dataset.first === "reload") {
      window.location.reload();
      return;
    }
    there[op](piece);
    if (op === "append" && follow) there.scrollTop = there.scrollHeight;
  } else {
    const news = there.dataset.state !== piece.dataset.state;
    become(there, piece);
    if (news) there.classList.add("changed");
  }
  document.dispatchEvent(new CustomEvent("patched", { detail: { id } }));
}

function listen() {
  const topic = document.body.dataset.topic;
  if (!topic || !window.EventSource) return;
  const lost = document.getElementById("connection");
  const since = document.body.dataset.drawn || "0";
  let stream;
  let heard = false;
  function begin() {
    stream = new EventSource(`/stream?topic=${encodeURIComponent(topic)}&since=${since}`);
    stream.addEventListener("open", opened);
    stream.addEventListener("error", broken);
    stream.addEventListener("patch", (event) => patch(JSON.parse(event.data)));
    stream.addEventListener("reload", () => window.location.reload());
  }
  function opened() {
    // What changed while nobody listened is not told again: look at the whole page.
    if (heard) window.location.reload();
    heard = true;
    lost.hidden = true;
  }
  async function broken() {
    lost.hidden = false;
    // Browsers try again by themselves, unless they were refused.
    if (stream.readyState !== EventSource.CLOSED) return;
    if (await isOut()) window.location.reload();
    else setTimeout(begin, 5000);
  }
  begin();
  window.addEventListener("pagehide", () => stream.close());
  // Browsers keep six connections to a server (HTTP/1.1): a tab that nobody looks at leaves its own to
  // those that somebody does, and catches up when it is looked at again.
  let left;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(left);
    if (document.hidden) left = setTimeout(() => stream.close(), 30000);
    else if (stream.readyState === EventSource.CLOSED) begin();
  });
}

// Whether the login has ended: pages then lead to the one where somebody logs in, and back.

async function isOut() {
  try {
    const answer = await fetch("/account", { method: "HEAD", redirect: "manual" });
    return answer.type === "opaqueredirect";
  } catch {
    return false;
  }
}

// "2 min ago", kept true. The words are those of the server.

function ago(seconds) {
  const size = Math.abs(seconds);
  if (size < 10) return "just now";
  const said = size < 60 ? `${size} s`
    : size < 3600 ? `${Math.floor(size / 60)} min`
    : size < 172800 ? `${Math.floor(size / 3600)} h`
    : `${Math.floor(size / 86400)} days`;
  return seconds < 0 ? `in ${said}` : `${said} ago`;
}

function clock() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = Date.parse(time.dateTime);
    const said = ago(Math.round((now - at) / 1000));
    if (time.textContent !== said) time.textContent = said;
    const exact = new Date(at).toLocaleString();
    if (time.title !== exact) time.title = exact;
  }
}

// The room: rows are searched while somebody types, and the bar shows what is chosen.

function room() {
  const find = document.getElementById("find");
  const act = document.querySelector("form.chosen");
  const rows = () => [...document.querySelectorAll("tr[data-find]")];
  const boxes = () => rows().filter((row) => !row.hidden).map((row) => row.querySelector("input[name=pick]"));

  function search() {
    if (!find || !find.dataset.filters) return;
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows()) {
      row.hidden = !words.every((word) => row.dataset.find.includes(word));
      if (!row.hidden) shown += 1;
      // What cannot be seen is not acted upon.
      if (row.hidden) row.querySelector("input[name=pick]").checked = false;
    }
    const told = document.getElementById("shown");
    if (words.length && told) told.textContent = `${shown} of ${told.dataset.of} clients`;
    if (!words.length && told) told.textContent = told.dataset.said;
    for (const link of document.querySelectorAll("a[data-keep]")) {
      const to = new URL(link.href);
      if (find.value.trim()) to.searchParams.set("q", find.value.trim());
      else to.searchParams.delete("q");
      link.href = to.href;
    }
  }

  function chosen() {
    if (!act) return;
    const number = rows().filter((row) => row.querySelector("input[name=pick]").checked).length;
    act.hidden = number === 0;
    document.getElementById("picked").textContent = `${number} chosen`;
    const all = document.getElementById("pick-all");
    const every = boxes();
    all.textContent = every.length && every.every((box) => box.checked) ? "Select none" : "Select all shown";
  }

  if (find && find.dataset.filters) {
    const told = document.getElementById("shown");
    if (told) told.dataset.said = told.textContent;
    find.addEventListener("input", () => { search(); chosen(); });
    // Browsers fill the field again when somebody comes back.
    if (find.value) search();
  }
  if (!act) return;
  document.getElementById("pick-all").addEventListener("click", (event) => {
    event.preventDefault();
    const every = boxes();
    const on = !every.every((box) => box.checked);
    for (const box of every) box.checked = on;
    chosen();
  });
  document.addEventListener("change", (event) => { if (event.target.name === "pick") chosen(); });
  // A thousand rows may change at once, and are looked at together.
  let waits = false;
  document.addEventListener("patched", () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => { waits = false; search(); chosen(); });
  });
  chosen();
}

// Long lists are searched while somebody types; the button of their form does the same.

function lists() {
  for (const find of document.querySelectorAll("input[data-searches]")) {
    const rows = [...document.querySelectorAll(`#${CSS.escape(find.dataset.searches)} > [data-find]`)];
    find.addEventListener("input", () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => row.dataset.find.toLowerCase().includes(word));
    });
  }
}

// What is to be typed on the server, or given to somebody, is copied by a button, where browsers let
// pages do that: over TLS, and on this very host.

function copies() {
  if (!navigator.clipboard) return;
  for (const shown of document.querySelectorAll("pre.copy")) {
    const text = shown.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    shown.prepend(button);
  }
}

// A list that says what is shown needs no button.

function submits() {
  for (const list of document.querySelectorAll("select[data-submits]")) {
    list.addEventListener("change", () => list.form.requestSubmit());
  }
}

// Menus close when something else is meant.

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.who[open], details.more[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.who[open], details.more[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

room();
lists();
copies();
submits();
listen();
clock();
setInterval(clock, 5000);
