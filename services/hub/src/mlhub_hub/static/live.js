// A list that the hub draws anew whenever it changes. What is open stays open, and the focus where it is.
import { sayTimes } from "./mlhub.js";

const list = document.querySelector("[data-stream]");
const offline = document.getElementById("live-offline");
const source = new EventSource(list.dataset.stream);

let waiting = "";

function show() {
  // A question that is being read is not taken from under the hand.
  if (!waiting || list.querySelector("details[open]")) return;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  list.innerHTML = waiting;
  waiting = "";
  if (focused !== undefined) (list.querySelector(`[data-focus="${CSS.escape(focused)}"]`) || document.getElementById("main")).focus();
  sayTimes(list);
}

source.onmessage = (event) => {
  offline.hidden = true;
  waiting = JSON.parse(event.data).html;
  show();
};
list.addEventListener("toggle", show, true);
source.onopen = () => { offline.hidden = true; };
source.onerror = () => {
  offline.hidden = false;
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
};
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
