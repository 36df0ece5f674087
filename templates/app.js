// Keeps a page up to date. Everything it does is a convenience: without it pages show the same, and
// forms do the same.
"use strict";

// Newly drawn pieces of the page, in the place of the old ones.

function drawn(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return template.content.firstElementChild;
}

function keep(from, to) {
  // What the person at the screen has done to a piece outlives its new drawing.
  for (const box of from.querySelectorAll("input[type=checkbox]")) {
    const twin = [...to.querySelectorAll("input[type=checkbox]")]
      .find((other) => other.name === box.name && (box.id ? other.id === box.id : other.value === box.value));
    if (twin) twin.checked = box.checked;
  }
  for (const details of from.querySelectorAll("details[open][id]")) {
    const twin = to.querySelector(`#${CSS.escape(details.id)}`);
    if (twin) twin.open = true;
  }
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
    keep(there, piece);
    const focused = there.contains(document.activeElement) && document.activeElement;
    const path = focused && focused.name && [focused.tagName, focused.name, focused.value];
    if (there.dataset.state !== piece.dataset.state) piece.classList.add("changed");
    piece.hidden = there.hidden;
    there.replaceWith(piece);
    if (path) {
      const twin = [...piece.querySelectorAll(path[0])]
        .find((other) => other.name === path[1] && other.value === path[2]);
      if (twin) twin.focus({ preventScroll: true });
    }
  }
  document.dispatchEvent(new CustomEvent("patched", { detail: { id } }));
}

function listen() {
  const topic = document.body.dataset.topic;
  if (!topic || !window.EventSource) return;
  const lost = document.getElementById("connection");
  const since = document.body.dataset.drawn || "0";
  const stream = new EventSource(`/stream?topic=${encodeURIComponent(topic)}&since=${since}`);
  let open = false;
  stream.addEventListener("open", () => {
    // What changed while nobody listened is not told again: look at the whole page.
    if (open) window.location.reload();
    open = true;
    lost.hidden = true;
  });
  stream.addEventListener("error", () => { lost.hidden = false; });
  stream.addEventListener("patch", (event) => patch(JSON.parse(event.data)));
  stream.addEventListener("reload", () => window.location.reload());
  window.addEventListener("pagehide", () => stream.close());
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
listen();
clock();
setInterval(clock, 5000);
