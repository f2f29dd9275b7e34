"""Results as tables: the paper's Tables 5 to 12 and 15 to 17 with our rows under the published ones.

    python report.py run=out/marco paper=True  # paper.md beside out/marco/results.jsonl

Scores stand in one table only when they were measured alike; what differs is named and stops the program. Our means are
unweighted, over languages, directions or sets, as the paper's are.
"""
import math
import re
from pathlib import Path
from statistics import fmean

from evaluation.results import NOT_PERCENT, benchmark_of, format_table, language_code, read_rows
from reports import published as results


# ---------------------------------------------------------------------- results that may stand together

def read(path, checkpoints, **only):
    """Rows of results.jsonl but those of groups: of a checkpoint's newest weights, of two for one measurement the later. only:
    values that fields must have, None for any. ValueError where nothing is left."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing; run eval.py on the checkpoints with out= its folder")
    need = ("checkpoint", "weights", "task", "lang", "metric", "score", "n", "shots", "prompt", "signature")
    rows = list(read_rows(path, need))
    newest, found = {row["checkpoint"]: row["weights"] for row in rows}, {}
    for row in rows:
        if row["weights"] == newest[row["checkpoint"]] and row["lang"] != "mean" \
                and (checkpoints is None or row["checkpoint"] in checkpoints) \
                and all(value is None or row.get(k) == value for k, value in only.items()):
            found[tuple(row.get(k) for k in ("checkpoint", "task", "lang", "metric", "shots", "preset"))] = row
    if not found:
        wanted = [f"{k}={value}" for k, value in {"checkpoints": checkpoints, **only}.items() if value is not None]
        raise ValueError(f"{path} has no row with {', '.join(wanted) or 'a score'}; its checkpoints: {', '.join(newest)}")
    return list(found.values())


def alike(rows, name):
    """ValueError that names two rows of one benchmark and metric that were not measured alike. All have the same shots and
    preset, and the same signature but for its tokenizer, which is the target language's; all checkpoints have the same tasks
    and languages, and in each the same items, prompt and signature."""
    first, places = {}, {}
    plain = lambda row: "|".join(x for x in (row["signature"] or "").split("|") if not x.startswith("tok:"))
    for row in rows:
        at = row["task"], row["lang"]
        places.setdefault(row["checkpoint"], {})[at] = row
        facts = {("", what): row.get(what) for what in ("shots", "preset")} | {("", "signature"): plain(row)}
        facts |= {(at, what): row[what] for what in ("n", "prompt", "signature")}
        for key, value in facts.items():
            other, before = first.setdefault(key, (row, value))
            if before != value:
                a, b = (f"{r['task']} ({r['lang']}) of {r['checkpoint']} has {key[1]} {x!r}"
                        for r, x in ((other, before), (row, value)))
                raise ValueError(f"{name}: {a}, {b}: not one measurement. Run eval.py on every checkpoint with the same "
                                 "settings, or choose with checkpoints=, shots= or preset=")
    for a, b in ((a, b) for a in places for b in places):
        if lacking := [" ".join(at) for at in places[a] if at not in places[b]]:
            raise ValueError(f"{name}: {a} has {', '.join(lacking[:6])} ({len(lacking)} in all), {b} has not: their means are "
                             "of other tests. Run eval.py on both, or choose with checkpoints=")


def select(rows, name, suite, shots):
    """(rows of a benchmark, measured alike and with the suite's shots or `shots`; None, or why there are none)."""
    tasks, _, metric, published, langs = suite[name]
    mine = [row for row in rows if benchmark_of(row["task"], row["lang"]) in tasks
            and (langs is None or language_code(row["lang"]) in langs.split())]
    if metric == "bleu" and any(row["metric"] == "spbleu" for row in mine):
        metric = "spbleu"  # one tokenizer for all languages
    mine, wanted = [row for row in mine if row["metric"] == metric], published if shots is None else shots
    if own := [row["task"] for row in mine if row.get("preset") is None]:
        return [], f"{name} is left out: {own[0]} is a test of one's own, of no preset of eval.py."
    same = [row for row in mine if row["shots"] == wanted]
    if mine and not same and wanted is not None:
        has = mine[0]["shots"]
        return [], f"{name} is left out: ours has {has} shots, not {wanted}; shots={has} shows it."
    place = lambda some: {(row["checkpoint"], row["task"], row["lang"]) for row in some}
    if place(same) == place(mine):  # all of it was measured so, and some of it otherwise too
        mine = same
    alike(mine, name)
    return mine, None


# ---------------------------------------------------------------------- Tables 5 to 12 and 15 to 17

def points(row):
    """(score, variance) in the paper's unit: percent, which BLEU and chrF++ are already; bits per byte stay what they are."""
    scale = 1 if row["metric"] in NOT_PERCENT else 100
    return scale * row["score"], math.nan if row.get("stderr") is None else (scale * row["stderr"]) ** 2


def average(scores):
    """The mean of (score, variance)s that are not None, errors taken as independent; None of nothing."""
    scores = [x for x in scores if x is not None]
    return (fmean(x for x, _ in scores), sum(v for _, v in scores) / len(scores) ** 2) if scores else None


def mean(rows):
    """Unweighted over languages, and within each over its tasks; None of nothing."""
    by = {}
    for row in rows:
        by.setdefault(language_code(row["lang"]), []).append(points(row))
    return average(map(average, by.values()))


def sets(rows, names):
    """Unweighted mean over the named sets of AGIEval or C-Eval; None unless all are there."""
    found = {re.sub(r"^[a-z]+(-valid|-test)?[_-]", "", row["task"]).replace("-", "_"): points(row) for row in rows}
    return average([found[x] for x in names]) if all(x in found for x in names) else None


def ours(number, cell, chosen):
    """Our (score, variance) for a cell of a table, or None. chosen {benchmark: rows of one checkpoint}."""
    one = lambda name: mean([row for row in chosen.get(name, ()) if language_code(row["lang"]) == cell])
    if number in (5, 8):  # AGIEval: over its sets, whatever their language
        return average(map(points, chosen.get(cell, ()))) if cell == "AGIEval" else mean(chosen.get(cell, ()))
    if number in (6, 7):
        return average(map(one, chosen))
    if number == 16:
        return sets(chosen.get("CEval", ()), results.CEVAL[cell])
    if number == 17:
        name = cell.lower().replace(" w/o ", "_without_").replace("-", "_")
        return sets(chosen.get("AGIEval", ()), results.AGIEVAL.get(cell, [name]))
    return one(*used(number))


def used(number):
    """The benchmarks of a table. What Tables 6 and 7 average is not published: ours, all of Table 5 but translation."""
    one = {9: "MMMLU", 10: "Belebele", 11: "Flores", 12: "Flores", 15: "TyDiQA", 16: "CEval", 17: "AGIEval"}
    all_but = [name for name in results.TABLES[5]["cells"] if name not in ("Flores", "WMT16")]
    return [one[number]] if number in one else all_but if number in (6, 7) else results.TABLES[number]["cells"]


def part(name, suite, rows):
    """(how many of a benchmark's languages or sets ours has, how many there are or None where that is not said)."""
    langs, subjects = suite[name][4], {"AGIEval": results.AGIEVAL["average"], "CEval": results.CEVAL["average"]}.get(name)
    if subjects:
        return len({row["task"] for row in rows}), len(subjects)
    return len({language_code(row["lang"]) for row in rows}), len(langs.split()) if langs else None


def lay(number, scores, labels):
    """One published table with ours under it, as Markdown, twelve cells in a piece; cells where none of ours has a score are left
    out. scores {checkpoint: {cell: ours}}, labels {cell: its name in the head}."""
    t = results.TABLES[number]
    cells = [cell for cell in t["cells"] if any(cell in row for row in scores.values())]
    rows = {model: {x: (y, math.nan) for x, y in zip(t["cells"], row)} for model, row in t["rows"].items()} | scores
    ends = {"from English": ("en-", None), "into English": (None, "-en")} if number == 11 else {"mean": ("", "")}
    for name, (begin, end) in ends.items() if number not in (5, 8, 16, 17) else ():
        of = [x for x in cells if (x.startswith(begin) if begin is not None else x.endswith(end))]
        labels = labels | {name: f"{name} ({len(of)})"}
        for row in rows.values():
            row |= {name: average([row[x] for x in of])} if of and all(x in row for x in of) else {}
        cells += [name] if of else []
    lines = {k: [f"{row[x][0]:.1f}" if x in row else "" for x in cells] for k, row in rows.items() if k not in scores}
    for k, row in scores.items():
        lines[f"**{k}**"] = [f"{row[x][0]:.1f}" if x in row else "" for x in cells]
        lines[f"{k}, ±"] = [f"{1.96 * row[x][1] ** 0.5:.1f}" if x in row and row[x][1] >= 0 else "" for x in cells]
    (a, first), (b, last) = list(scores.items())[0], list(scores.items())[-1]
    if a != b:
        lines[f"**{b} - {a}**"] = [f"{last[x][0] - first[x][0]:.1f}" if x in first and x in last else "" for x in cells]
    pieces = [slice(i, i + 12) for i in range(0, len(cells), 12)]
    return "\n\n".join(format_table([[f"Table {number}", *(labels.get(x, x) for x in cells[some])],
                              *([k, *line[some]] for k, line in lines.items())]) for some in pieces)


def told(name, suite, rows):
    """How a benchmark was measured in the paper, and how ours was, in a line."""
    _, split, metric, shots, _ = suite[name]
    theirs = f"{split}, {metric}, {shots}-shot" if split else f"{metric}, split and shots not published"
    signatures = dict.fromkeys(row["signature"] for row in rows if row["signature"])
    items = {(row["task"], row["lang"]): row["n"] for row in rows}
    share = "".join(f"{a} of {b} languages or sets, " for a, b in [part(name, suite, rows)] if b)
    return (f"{name}. Paper: {theirs}. Ours: {rows[0]['metric']}, {rows[0]['shots']}-shot, preset {rows[0].get('preset')}; "
            f"{share}{len(items)} tasks, {sum(items.values()):,} items" + "".join(f", `{x}`" for x in signatures) + ".")


def published(c):
    """Write paper.md: every published table for which there is a score of ours. ValueError where scores do not go together."""
    rows, file = read(Path(c.run) / "results.jsonl", c.checkpoints, preset=c.preset), Path(c.run) / "paper.md"
    text, reasons = [], {}
    for number in c.tables or results.TABLES:
        suite, scores, chosen = results.BASE if number < 8 else results.CHAT, {}, {}
        for name in used(number):
            chosen[name], why = select(rows, name, suite, c.shots)
            reasons |= {why: None} if why else {}
        for k in dict.fromkeys(row["checkpoint"] for row in rows):
            mine = {name: [row for row in some if row["checkpoint"] == k] for name, some in chosen.items()}
            found = {cell: x for cell in results.TABLES[number]["cells"] if (x := ours(number, cell, mine)) is not None}
            scores |= {k: found} if found else {}
        shares = {name: part(name, suite, some) for name, some in chosen.items() if number in (5, 8) and some}
        labels = {name: f"{name} ({of[0]} of {of[1]})" for name, of in shares.items() if of[1] and of[0] < of[1]}
        if scores:
            text += [f"## Table {number}: {results.TABLES[number]['title']}", lay(number, scores, labels)]
            text += ["The paper does not say which benchmarks it averages; ours are these."] if number in (6, 7) else []
            text += [told(name, suite, some) for name, some in chosen.items() if some]
    if not text:
        raise ValueError(f"{c.run}/results.jsonl: no score for any of the published tables. {' '.join(reasons)}".strip())
    text = ["# Ours under the published scores (Marco-LLM, arXiv 2412.04003)",
            "±: half of the 95 % interval, errors of languages taken as independent; compare.py tells whether two differ.",
            *text, *reasons]
    file.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(*text, f"wrote {file}", sep="\n\n", flush=True)
