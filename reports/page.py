"""A report as Markdown, and as one self-contained HTML page: pictures inline, tables sortable, light and dark.

A report is a list of blocks: a string is a heading ("# ", "## ") or a paragraph; a list a table, its header first; a
Picture a figure; a tuple of Numbers the key figures.
"""
import base64
import html
import re
from typing import NamedTuple

from evaluation.results import format_table


class Picture(NamedTuple):
    name: str      # of the file NAME.png
    alt: str
    light: bytes   # PNG
    dark: bytes


class Number(NamedTuple):
    label: str
    before: str
    after: str


def to_markdown(blocks: list) -> str:
    """The report as Markdown; pictures are files beside it."""
    return "\n\n".join(map(markdown_block, blocks)) + "\n"


def markdown_block(block):
    if isinstance(block, Picture):
        return f"![{block.alt}]({block.name}.png)"
    if isinstance(block, tuple):
        return "; ".join(f"{x.label} **{x.before} → {x.after}**" for x in block) + "."
    return format_table(block) if isinstance(block, list) else block


def to_html(blocks: list) -> str:
    """The report as one page that needs nothing else: no server, no other file, no network."""
    title = next(block.removeprefix("# ") for block in blocks if isinstance(block, str) and block.startswith("# "))
    sections = [block.removeprefix("## ") for block in blocks if isinstance(block, str) and block.startswith("## ")]
    links = " ".join(f'<a href="#{anchor(name)}">{html.escape(name)}</a>' for name in sections)
    body = "\n".join(map(html_block, blocks)).replace("</h1>", f"</h1>\n<nav>{links}</nav>", 1)
    return PAGE.format(title=html.escape(title), style=STYLE, body=body, script=SCRIPT)


def html_block(block):
    if isinstance(block, Picture):
        light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (block.light, block.dark))
        return (f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
                f'<img src="{light}" alt="{html.escape(block.alt)}"></picture></figure>')
    if isinstance(block, tuple):
        cards = [f"<div><span>{html.escape(x.label)}</span><b>{x.before} <i>→</i> {x.after}</b></div>" for x in block]
        return f'<section class="numbers">{"".join(cards)}</section>'
    if isinstance(block, list):
        header, *rows = block
        head = "".join(f"<th><button>{inline(cell)}</button></th>" for cell in header)
        lines = ["<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    for mark, tag in (("## ", "h2"), ("# ", "h1")):
        if block.startswith(mark):
            text = block.removeprefix(mark)
            return f'<{tag} id="{anchor(text)}">{inline(text)}</{tag}>'
    return f"<p>{inline(block)}</p>"


def inline(cell):
    """A cell or paragraph as HTML: bold type and code are the only Markdown in it."""
    text = html.escape(str(cell))
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def anchor(heading):
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
:root { --ink: #1b1b1b; --muted: #666; --line: #e4e4e4; --back: #fff; --raised: #f6f7f8; --accent: #b04a14; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --muted: #9aa0a6; --line: #33383f; --back: #14171c; --raised: #1d2127; --accent: #f28c50; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 1rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .8rem 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p { max-width: 75ch; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
code { font-size: .85em; background: var(--raised); padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.numbers div { background: var(--raised); border-radius: 6px; padding: .6rem .8rem; }
.numbers span { display: block; color: var(--muted); font-size: .8rem; line-height: 1.3; }
.numbers b { font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.numbers i { color: var(--muted); font-style: normal; font-weight: 400; }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 820px; height: auto; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--back); text-align: left; }
th { border-bottom: 2px solid var(--line); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort=descending] button::after { content: " \\2193"; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
tbody tr:hover td { background: var(--raised); }
@media (max-width: 600px) { th:first-child, td:first-child { white-space: normal; max-width: 9rem; } }
"""

SCRIPT = """
// A click on a header sorts its table: by the newest number of each cell (the last one before an error or interval).
function value(cell) {
  const text = cell.textContent.split(/\\u00b1|\\[/)[0].replace(/,/g, "");
  const numbers = text.match(/[-+]?\\d+(\\.\\d+)?/g);
  return numbers && !/^[a-z]{2}/i.test(text.trim()) ? parseFloat(numbers[numbers.length - 1].replace(/^\\+/, "")) : NaN;
}
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("th")], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...body.rows].map(row => [row, value(row.cells[column]), row.cells[column].textContent]);
    rows.sort(([, a, s], [, b, t]) => {
      if (isNaN(a) && isNaN(b)) return descending ? s.localeCompare(t) : t.localeCompare(s);
      if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
      return descending ? b - a : a - b;
    });
    body.append(...rows.map(([row]) => row));
  }));
}
"""
