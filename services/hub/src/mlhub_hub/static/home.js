// The rows of the home page, live. Focus and open menus stay where they are.
import { sayTimes, send } from "./mlhub.js";

const list = document.getElementById("workspaces");
const said = document.getElementById("workspaces-said");
const offline = document.getElementById("workspaces-offline");
const empty = document.getElementById("workspaces-empty");

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return template.content.firstElementChild;
}

function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  const open = [...old.querySelectorAll("details")].map((details) => details.open);
  const before = old.querySelector(".ml-status").textContent.trim();
  old.replaceWith(fresh);
  [...fresh.querySelectorAll("details")].forEach((details, index) => { details.open = Boolean(open[index]); });
  if (focused !== undefined) {
    const same = fresh.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
    (same || fresh.querySelector("[data-focus]") || document.getElementById("main")).focus();
  }
  const now = fresh.querySelector(".ml-status").textContent.trim();
  if (before.replace(/\d.*/, "") !== now.replace(/\d.*/, "")) said.textContent = `${fresh.querySelector("h2").textContent}: ${now}`;
}

function update({ order, rows }) {
  const present = new Map([...list.children].map((row) => [row.id, row]));
  for (const [key, html] of Object.entries(rows)) {
    const fresh = parse(html);
    if (present.has(key)) replace(present.get(key), fresh);
    present.set(key, fresh);
  }
  for (const [key, row] of present) if (!order.includes(key)) row.remove();
  order.forEach((key, index) => {
    if (list.children[index]?.id !== key) list.insertBefore(document.getElementById(key) || present.get(key), list.children[index] || null);
  });
  empty.hidden = order.length > 0;
  sayTimes(list);
}

const source = new EventSource(list.dataset.events);
source.onmessage = (event) => {
  const data = JSON.parse(event.data);
  offline.hidden = true;
  if (data.end) location.reload();
  else update(data);
};
source.onopen = () => { offline.hidden = true; };
source.onerror = () => {
  offline.hidden = false;
  // A browser gives up for good when it is answered with an error, such as that the session has ended.
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
};
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

list.addEventListener("submit", (event) => {
  if (event.target.dataset.live !== "yes") return;
  event.preventDefault();
  send(event.target);
});
