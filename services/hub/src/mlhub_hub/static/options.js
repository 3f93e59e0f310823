// The options form: sliders beside numbers, rows of variables, and what is wrong with a name while it is typed.

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
  const parts = [
    value("cpu_limit") ? `${value("cpu_limit")} cores` : "",
    value("mem_limit") ? `${value("mem_limit")} GiB memory` : "",
    Number(value("days_to_live")) ? `${value("days_to_live")} ${value("days_to_live") === "1" ? "day" : "days"}` : "",
  ].filter(Boolean);
  summary.textContent = parts.length ? `You get: ${parts.join(", ")}.` : "You get what is usual here.";
}
form.addEventListener("input", summarise);
summarise();
