"""How the page looks, and the script that sorts and filters its tables. Nothing here depends on the data."""

import base64
import hashlib

from patchflow.quality.picture import COLOURS

_CSS = """
:root { --paper: #fff; --ink: #1c2126; --faint: #626b75; --line: #dfe3e8; --soft: #f5f7f9; --bar: #3b7dbd;
  --error: #b3261e; --warning: #8a5a00; --note: #3f5f8a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --faint: #9aa4ae; --line: #31373d; --soft: #1c2024;
  --bar: #6aa9e6; --error: #ff8a80; --warning: #f2b84b; --note: #8fb6ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 24px 28px 80px; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 10px; } h3 { font-size: 15px; margin: 26px 0 8px; }
p { margin: 4px 0; } .faint, figcaption, th { color: var(--faint); } a { color: inherit; }
nav a { margin-right: 16px; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0 10px; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; min-width: 96px; background: var(--soft); }
.tile b { display: block; font-size: 22px; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
.bar { display: flex; flex-wrap: wrap; gap: 10px; align-items: center; margin: 8px 0; position: sticky; top: 0; z-index: 2;
  background: var(--paper); padding: 8px 0; }
input, select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  padding: 5px 8px; }
input[type=search] { min-width: 260px; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; } th { font-weight: 600; white-space: nowrap; }
.data thead th { position: sticky; top: 50px; z-index: 1; background: var(--paper); box-shadow: inset 0 -1px var(--line); }
.box { max-height: 75vh; overflow: auto; border-bottom: 1px solid var(--line); } .box thead th { top: 0; }
.rows, .rows thead, .rows tbody { display: block; } .rows thead { position: sticky; top: 50px; z-index: 1; }
.rows tr { display: grid; grid-template-columns: minmax(220px, 386px) minmax(100px, 1fr) 130px 120px 132px 76px 94px minmax(200px, 2fr); }
.rows td.number { white-space: normal; }
.rows tbody tr { content-visibility: auto; contain-intrinsic-size: auto 150px; }
.chips { display: flex; flex-wrap: wrap; gap: 8px; margin: 10px 0 4px; }
.chip { font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--line); border-radius: 99px; padding: 2px 12px;
  cursor: pointer; } .chip[aria-pressed=true] { border-color: var(--ink); } .chip b { font-weight: 600; }
table.plain { width: auto; } table.plain td { padding-right: 24px; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; } th[aria-sort=descending] button::after { content: " \\2193"; }
td.check { white-space: nowrap; }
td.level { font-weight: 600; white-space: nowrap; } td.name { min-width: 128px; } td.number { white-space: nowrap; }
td img { display: block; background: #000; border-radius: 4px; max-width: 100%; height: auto; }
.caption { font-size: 11.5px; }
tr { scroll-margin-top: 90px; } tr:target td { background: var(--soft); } [hidden] { display: none !important; }
.charts { display: flex; flex-wrap: wrap; gap: 14px; margin: 8px 0; } figure { margin: 0; }
.chart { border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px 4px; } .chart figcaption { font-size: 12px; }
svg { display: block; } svg rect, svg polygon { fill: var(--bar); } svg line { stroke: var(--line); }
svg text { fill: var(--faint); font-size: 11px; }
.spark { display: inline-block; vertical-align: middle; } .image { margin-bottom: 6px; }
.none { padding: 12px 0; } ul.found { margin: 0; padding: 0; list-style: none; white-space: nowrap; }
@media print { .bar, .chips, nav { display: none; } .box { max-height: none; } }
.swatch { font-style: normal; }
"""
CSS = _CSS + "".join(f".c{place} {{ color: #{colour}; }}\n" for place, colour in enumerate(COLOURS))

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0], rows = Array.from(body.rows);
  const bar = document.querySelector('.bar[data-for="' + table.id + '"]');
  const words = rows.map(row => row.textContent.toLowerCase());
  const value = (row, column) => {
    const cell = row.cells[column], key = cell.dataset.key;
    return key === undefined ? cell.textContent.trim() : key === "" ? null : isNaN(key) ? key : Number(key);
  };
  table.querySelectorAll("th[data-sort]").forEach(head => {
    head.querySelector("button").addEventListener("click", () => {
      const column = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = Array.from(body.rows, row => [value(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number" ? a - b
          : String(a).localeCompare(String(b), undefined, {numeric: true});
        return down ? -order : order;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
  if (!bar) continue;
  const search = bar.querySelector("input"), selects = Array.from(bar.querySelectorAll("select"));
  const told = bar.querySelector(".told"), chips = Array.from(document.querySelectorAll('.chip[data-for="' + table.id + '"]'));
  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\\s+/).filter(word => word);
    let shown = 0;
    rows.forEach((row, number) => {
      const fits = wanted.every(word => words[number].includes(word))
        && selects.every(select => !select.value || (" " + row.dataset[select.name] + " ").includes(" " + select.value + " "));
      row.hidden = !fits;
      shown += fits;
    });
    for (const chip of chips) {
      chip.setAttribute("aria-pressed", selects.every(select => select.value === (chip.dataset[select.name] || "")));
    }
    told.textContent = shown === rows.length ? rows.length + " shown" : shown + " of " + rows.length + " shown";
  };
  bar.hidden = false;
  for (const chip of chips) {
    chip.parentElement.hidden = false;
    chip.addEventListener("click", () => {
      const off = chip.getAttribute("aria-pressed") === "true";
      for (const select of selects) select.value = off ? "" : chip.dataset[select.name] || "";
      filter();
    });
  }
  [search, ...selects].forEach(part => part.addEventListener("input", filter));
  filter();
}
document.addEventListener("click", event => {
  const link = event.target.closest && event.target.closest('a[href^="#s"]');
  const row = link && document.getElementById(link.getAttribute("href").slice(1));
  if (row) row.hidden = false;
});
"""


def policy() -> str:
    """A content security policy that lets nothing run or load but what is above, and pictures within the page."""
    script, style = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (SCRIPT, CSS))
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
    )
