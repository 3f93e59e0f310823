// The steps of a start, live; on to the workspace as soon as it is ready.
import { sayTimes } from "./mlhub.js";

const steps = document.getElementById("steps");
const cancel = document.getElementById("cancel");
const said = document.getElementById("steps-said");
const source = new EventSource(steps.dataset.stream);

source.onmessage = (event) => {
  const data = JSON.parse(event.data);
  if (data.html !== undefined) {
    const open = [...steps.querySelectorAll("details")].map((details) => details.open);
    const hadFocus = steps.contains(document.activeElement);
    steps.innerHTML = data.html;
    [...steps.querySelectorAll("details")].forEach((details, index) => { details.open = Boolean(open[index]); });
    if (hadFocus) (steps.querySelector("summary") || document.getElementById("main")).focus();
    sayTimes(steps);
    const now = steps.querySelector("[data-state=now] .ml-step-title, .ml-failure p")?.textContent.trim() || "";
    if (said.textContent !== now) said.textContent = now;
  }
  if (data.end) {
    source.close();
    // The hub knows best where a workspace that is ready is to be found.
    if (data.ready) location.reload();
    else if (!data.over) location.assign(`${document.body.dataset.baseUrl}home`);
    else cancel.hidden = true;
  }
};
source.onerror = () => {
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 3000);
};
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
