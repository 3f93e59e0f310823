// The options form: sliders beside numbers, limits that follow the profile, rows of variables, and what is wrong with a
// name while it is typed.

const form = document.getElementById("options-form");

function pair(slider) {
  const number = document.getElementById(slider.dataset.slider);
  const show = () => { slider.value = number.value || slider.dataset.usual; };
  slider.hidden = false;
  slider.addEventListener("input", () => {
    number.value = Number(slider.value) ? slider.value : "";
    number.dispatchEvent(new Event("input", { bubbles: true }));
  });
  number.addEventListener("input", show);
  show();
}
form.querySelectorAll("[data-slider]").forEach(pair);

const profiles = [...form.querySelectorAll("input[name=profile]")];
const chosen = () => profiles.find((profile) => profile.checked);

// Without this the numbers end where the most generous profile does, and the hub refuses what is too much.
function limit() {
  const limits = JSON.parse(chosen().dataset.limits);
  for (const [key, field] of Object.entries(limits)) {
    const hint = document.getElementById(`${key}-hint`);
    if (hint) hint.textContent = field.hint;
    const number = document.getElementById(key);
    if (number?.type !== "number") continue;
    if (field.most === null) number.removeAttribute("max");
    else number.max = field.most;
    const slider = form.querySelector(`[data-slider="${key}"]`);
    if (!slider) continue;
    slider.max = field.top;
    slider.step = field.step;
    slider.dataset.usual = field.usual || 0;
    slider.value = number.value || slider.dataset.usual;
  }
}
if (profiles.length) {
  profiles.forEach((profile) => profile.addEventListener("input", limit));
  limit();
}

const gpus = document.getElementById("gpus");
form.querySelectorAll("[data-gpu]").forEach((button) => {
  const ids = () => gpus.value.split(",").filter((id) => /^\d+$/.test(id));
  const mark = () => button.setAttribute("aria-pressed", String(ids().includes(button.dataset.gpu) || gpus.value === "all"));
  button.addEventListener("click", () => {
    const { gpu } = button.dataset;
    const left = ids().filter((id) => id !== gpu);
    gpus.value = (ids().includes(gpu) ? left : [...left, gpu]).join(",");
    gpus.dispatchEvent(new Event("input", { bubbles: true }));
  });
  gpus.addEventListener("input", mark);
  button.hidden = false;
  mark();
});

const rows = document.getElementById("env-rows");
const add = document.getElementById("add-env");

function equip(row) {
  const value = row.querySelector("[name=env_value]");
  const kind = row.querySelector("[name=env_kind]");
  const remove = row.querySelector("[data-remove-env]");
  remove.hidden = false;
  kind.addEventListener("change", () => { value.type = kind.value === "secret" ? "password" : "text"; });
  remove.addEventListener("click", () => {
    const next = row.nextElementSibling || row.previousElementSibling;
    if (next) row.remove();
    else row.querySelectorAll("input").forEach((input) => { input.value = ""; });
    (next || row).querySelector("input").focus();
  });
}

add.hidden = false;
add.addEventListener("click", () => {
  const row = rows.lastElementChild.cloneNode(true);
  row.querySelectorAll("input").forEach((input) => { input.value = ""; });
  row.querySelector("[name=env_kind]").value = "plain";
  row.querySelector("[name=env_value]").type = "text";
  row.querySelector("[name=env_value]").placeholder = "value";
  rows.append(row);
  equip(row);
  row.querySelector("input").focus();
});
[...rows.children].forEach(equip);

const name = document.getElementById("name");
if (name) {
  const live = document.getElementById("name-live");
  const taken = new Set(name.dataset.taken.split(" "));
  name.addEventListener("input", () => {
    const lower = name.value.toLowerCase();
    if (lower !== name.value) name.value = lower;
    let wrong = "";
    if (name.value && name.validity.patternMismatch) wrong = "This does not follow the rule above.";
    else if (taken.has(name.value)) wrong = "There is a workspace of this name already.";
    // The browser's own bubble says less: let it only mark what is taken.
    name.setCustomValidity(taken.has(name.value) ? wrong : "");
    live.textContent = wrong;
    live.hidden = !wrong;
    name.toggleAttribute("aria-invalid", Boolean(wrong));
  });
}

const summary = document.getElementById("options-summary");
function summarise() {
  const value = (id) => (document.getElementById(id)?.validity.valid ? document.getElementById(id).value : "");
  // A profile's own numbers count where none is chosen; without a profile there may be no limit at all.
  const size = (id) => value(id) || (chosen() && Number(form.querySelector(`[data-slider="${id}"]`).dataset.usual)) || "";
  const cores = size("cpu_limit");
  const ids = value("gpus");
  const isCounted = Boolean(gpus) && "counted" in gpus.dataset;
  const count = `${Number(ids)} ${Number(ids) === 1 ? "GPU" : "GPUs"}`;
  const parts = [
    chosen()?.dataset.title || "",
    cores ? `${cores} ${Number(cores) === 1 ? "core" : "cores"}` : "",
    size("mem_limit") ? `${size("mem_limit")} GiB memory` : "",
    isCounted ? Number(ids) && count : ids && (ids === "all" ? "all GPUs" : `GPU ${ids}`),
    Number(value("days_to_live")) ? `${value("days_to_live")} ${value("days_to_live") === "1" ? "day" : "days"}` : "",
  ].filter(Boolean);
  summary.textContent = parts.length ? `You get: ${parts.join(", ")}.` : "You get what is usual here.";
}
form.addEventListener("input", summarise);
summarise();
