"use strict";
// What pages do beside showing: the button of the theme, tables that sort by any column, and tables
// that say so when they scroll sideways. A page without scripts shows everything too.

const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");

// A page that is opened from a file may have no storage, which is then an exception.
function stored(theme) {
  try {
    if (theme) localStorage.setItem("theme", theme);
    return localStorage.getItem("theme");
  } catch {
    return theme;
  }
}

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
}

function startThemes(button) {
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored(root.dataset.theme);
    label();
  });
  systemDark.addEventListener("change", label);
  label();
  button.hidden = false;
}

// The number at the start of a cell: of "12.3 [11.0, 13.1]" the mean, of "1.25 M" 1,250,000, and of
// "> 40.0 s" 40. Other cells, such as "failed" and the version "3.11.7", have none.
const NUMBER = /^(?:> |at (?:least|most) )?(-?[\d,]*\.?\d+(?:e[-+]?\d+)?)(?: ?([kMG]))?(?![\w.])/;
const FACTOR = { k: 1e3, M: 1e6, G: 1e9 };

function numberOf(cell) {
  const found = NUMBER.exec(cell.textContent.trim());
  return found && Number(found[1].replaceAll(",", "")) * (FACTOR[found[2]] ?? 1);
}

// Rows by a column: numbers as numbers, then what is no number, in either direction.
function sorted(rows, column, direction) {
  const keyed = rows.map((row) => ({
    row, number: numberOf(row.cells[column]), text: row.cells[column].textContent,
  }));
  const [numbers, texts] = [keyed.filter((k) => k.number !== null), keyed.filter((k) => k.number === null)];
  numbers.sort((a, b) => direction * (a.number - b.number));
  texts.sort((a, b) => direction * a.text.localeCompare(b.text, undefined, { numeric: true }));
  return [...numbers, ...texts].map((k) => k.row);
}

const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

function makeSortable(table) {
  const [body] = table.tBodies;
  const [rows, heads] = [[...body.rows], [...table.tHead.rows[0].cells]];
  if (rows.length < 2) return;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = NEXT[head.getAttribute("aria-sort")];
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
      body.append(...(order === "none" ? rows : sorted(rows, column, order === "ascending" ? 1 : -1)));
    });
  });
}

// Only a table that is wider than its box has a hint, and a stop for the tabulator key.
const boxes = new ResizeObserver((changes) => changes.forEach(({ target }) => {
  const wide = target.scrollWidth > target.clientWidth;
  target.classList.toggle("wide", wide);
  target.tabIndex = wide ? 0 : -1;
}));

root.dataset.theme = ["light", "dark"].find((theme) => theme === stored()) ?? "";
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("button.theme").forEach(startThemes);
  document.querySelectorAll(".scroll > table").forEach(makeSortable);
  document.querySelectorAll(".scroll").forEach((box) => boxes.observe(box));
});
