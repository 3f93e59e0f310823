// The machines, live. What is open stays open.
import { sayTimes } from "./mlhub.js";

const nodes = document.getElementById("nodes");
const offline = document.getElementById("nodes-offline");
const source = new EventSource(nodes.dataset.stream);

let waiting = "";

function show() {
  // A question that is being read is not taken from under the hand.
  if (!waiting || nodes.querySelector("details[open]")) return;
  const focused = nodes.contains(document.activeElement) ? document.activeElement.closest("[data-node]")?.dataset.node : undefined;
  nodes.innerHTML = waiting;
  waiting = "";
  if (focused !== undefined) (nodes.querySelector(`[data-node="${CSS.escape(focused)}"] summary`) || document.getElementById("main")).focus();
  sayTimes(nodes);
}

source.onmessage = (event) => {
  offline.hidden = true;
  waiting = JSON.parse(event.data).html;
  show();
};
nodes.addEventListener("toggle", show, true);
source.onopen = () => { offline.hidden = true; };
source.onerror = () => {
  offline.hidden = false;
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
};
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
