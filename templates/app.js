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
      .find((other) => other.name === box.name && other.value === box.value);
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
  if (op === "append" || op === "prepend") {
    const follow = there.scrollHeight - there.scrollTop - there.clientHeight < 40;
    if (piece.id && document.getElementById(piece.id)) return;
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
  const stream = new EventSource(`/stream?topic=${encodeURIComponent(topic)}`);
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

// Menus close when something else is meant.

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.who[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.who[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

listen();
clock();
setInterval(clock, 5000);
