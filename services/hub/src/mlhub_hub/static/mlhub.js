// On every page: words for times, dialogs, menus, copying. Each works on what the server rendered; without it, pages work plainly.

const UNITS = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 0, ""]];

export function inWords(seconds) {
  for (const [size, unit, smaller, smallerUnit] of UNITS) {
    if (seconds >= size) {
      const rest = smaller ? Math.floor((seconds % size) / smaller) : 0;
      return `${Math.floor(seconds / size)} ${unit}` + (rest ? ` ${rest} ${smallerUnit}` : "");
    }
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

function wordsFor(element, now) {
  const at = new Date(element.dateTime);
  const past = (now - at) / 1000;
  switch (element.dataset.words) {
    case "left": return past < 0 ? `in ${inWords(-past)}` : "now";
    case "for": return inWords(past);
    case "clock": return at.toLocaleTimeString();
    default: return past < 45 ? "just now" : `${inWords(past).split(" ").slice(0, 2).join(" ")} ago`;
  }
}

export function sayTimes(root = document) {
  const now = new Date();
  for (const element of root.querySelectorAll("time[data-words]")) {
    const words = wordsFor(element, now);
    if (element.textContent !== words) element.textContent = words;
    element.title = new Date(element.dateTime).toLocaleString();
  }
}

export function say(message) {
  const toast = document.getElementById("ml-toast");
  toast.textContent = message;
  toast.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { toast.hidden = true; }, 8000);
}

// Forms whose effect shows by itself on a live page: no need to load it anew.
export async function send(form) {
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json" },
    });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      say(problem.message || "That did not work. Load the page anew and try again.");
    }
  } catch {
    say("The hub does not answer just now. Try again in a moment.");
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

async function openDialog(link) {
  const url = new URL(link.href);
  url.searchParams.set("fragment", "1");
  let answer;
  try {
    answer = await fetch(url);
  } catch {
    answer = null;
  }
  if (!answer || !answer.ok || answer.redirected) {
    location.assign(link.href);
    return;
  }
  const dialog = document.createElement("dialog");
  dialog.className = "ml-dialog";
  dialog.innerHTML = await answer.text();
  const close = document.createElement("button");
  close.className = "btn-close ml-dialog-close";
  close.setAttribute("aria-label", "Close");
  close.dataset.close = "";
  dialog.append(close);
  const title = dialog.querySelector(".ml-dialog-title");
  if (title) {
    title.id = "ml-dialog-title";
    dialog.setAttribute("aria-labelledby", title.id);
  }
  const focus = link.dataset.focus;
  dialog.addEventListener("close", () => {
    dialog.remove();
    const menu = document.querySelector(`[data-focus="${CSS.escape(focus ? focus.replace(/-[a-z]+$/, "-menu") : "")}"]`);
    (menu || document.getElementById("main")).focus();
  });
  document.body.append(dialog);
  enhance(dialog);
  dialog.showModal();
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Only secure pages may use the clipboard: select it, so that Ctrl-C does.
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    document.execCommand("copy");
  }
  const before = button.innerHTML;
  button.textContent = "Copied";
  setTimeout(() => { button.innerHTML = before; }, 1500);
}

function reveal(button) {
  const input = document.getElementById(button.dataset.reveal);
  const shown = input.type === "password";
  input.type = shown ? "text" : "password";
  button.setAttribute("aria-pressed", String(shown));
  button.textContent = shown ? "Hide" : "Show";
}

function enhance(root) {
  for (const button of root.querySelectorAll("[data-copy][hidden], [data-reveal][hidden]")) button.hidden = false;
  sayTimes(root);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-dialog], [data-close], [data-copy], [data-reveal]");
  for (const menu of document.querySelectorAll("details.ml-menu[open]")) {
    if (!menu.contains(event.target) || target) menu.open = false;
  }
  if (!target || event.defaultPrevented || event.ctrlKey || event.metaKey) return;
  if (target.matches("[data-dialog]")) {
    event.preventDefault();
    openDialog(target);
  } else if (target.matches("[data-close]")) {
    const dialog = target.closest("dialog");
    if (dialog) {
      event.preventDefault();
      dialog.close();
    }
  } else if (target.matches("[data-copy]")) {
    copy(target);
  } else {
    reveal(target);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.ml-menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// A form that takes a while is sent once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!("once" in form.dataset)) return;
  if (form.dataset.once === "sent") event.preventDefault();
  form.dataset.once = "sent";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-once]")) form.dataset.once = "";
});

enhance(document);
setInterval(sayTimes, 1000);
