"use strict";
// Sortable tables, and one switch for all images of a section. Without this script the page shows
// the same.
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
for (const set of document.querySelectorAll("fieldset.all")) {
  set.hidden = false;
  set.addEventListener("change", (event) => {
    for (const input of set.closest("section").querySelectorAll(".shot input"))
      if (input.value === event.target.value) input.checked = true;
  });
}
