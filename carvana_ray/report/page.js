"use strict";
// Sortable tables, and a layer for a single image. Without this script the page shows the same.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent;
      const numbers = head.classList.contains("number");
      const order = (a, b) => numbers ? parseFloat(key(a)) - parseFloat(key(b))
        : key(a).localeCompare(key(b));
      body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
    });
  });
}
// Each image gets a button that steps through its layers; the bar's choice takes it back.
const bar = document.querySelector(".layers");
if (bar) {
  const labels = new Map([...bar.querySelectorAll("input")]
    .map((input) => [input.value, input.parentElement.textContent]));
  const images = [...document.querySelectorAll(".main")].map((main) => {
    const layers = [...main.querySelectorAll(".layer")].map((layer) => layer.dataset.key);
    const keys = [...layers, "photo"];
    const button = document.createElement("button");
    button.type = "button";
    const show = () => {
      const all = bar.querySelector(":checked").value;
      const key = main.dataset.layer || (keys.includes(all) ? all : layers[0]);
      button.textContent = labels.get(key);
      button.setAttribute("aria-label", `Layer of ${main.dataset.name}: ${labels.get(key)}`);
      return key;
    };
    main.addEventListener("click", () => {
      main.dataset.layer = keys[(keys.indexOf(show()) + 1) % keys.length];
      show();
    });
    main.append(button);
    show();
    return () => { delete main.dataset.layer; show(); };
  });
  bar.addEventListener("change", () => images.forEach((reset) => reset()));
}
