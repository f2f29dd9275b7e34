"""The paper's Tables 5 to 12 and 15 to 17 with our rows under the published ones.

    python report.py paper run=out/marco    # paper.md beside out/marco/results.jsonl

Scores share a table only if they were measured alike; a difference stops the program with its name. Our means are
unweighted over languages, directions or sets, as the paper's are.
"""
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from evaluation.results import NOT_PERCENT, benchmark_of, format_table, language_code
from reports import published
from reports.scores import check_comparable, read_scores

PIECE = 12  # cells of a table that stand side by side


@dataclass(frozen=True)
class Paper:
    run: str                         # folder with results.jsonl; paper.md is written into it
    checkpoints: list | None = None  # None: all
    tables: list = field(default_factory=list)  # numbers of the paper's tables; none: all
    shots: int | None = None         # scores with this many shots; None: as many as the paper used, where it says
    preset: str | None = None        # scores of this preset of eval.py; None: any, but only one

    def __post_init__(self):
        if unknown := [n for n in self.tables if n not in published.TABLES]:
            raise ValueError(f"tables={unknown}: the paper's result tables are {', '.join(map(str, published.TABLES))}")


def write_paper_tables(c: Paper) -> None:
    """Write paper.md: every published table for which we have a score. ValueError if scores are not comparable."""
    file = Path(c.run) / "paper.md"
    rows = read_scores(Path(c.run) / "results.jsonl", c.checkpoints, preset=c.preset)
    text, reasons = [], []
    for number in c.tables or published.TABLES:
        suite = published.BASE if number < 8 else published.CHAT
        chosen = {}  # {benchmark: its rows}
        for benchmark in benchmarks_of(number):
            chosen[benchmark], reason = select_rows(rows, benchmark, suite, c.shots)
            if reason and reason not in reasons:
                reasons.append(reason)
        scores = table_scores(number, rows, chosen)
        if not scores:
            continue
        title = f"## Table {number}: {published.TABLES[number]['title']}"
        text += [title, layout(number, scores, column_labels(number, suite, chosen))]
        if number in (6, 7):
            text.append("The paper does not say which benchmarks it averages; ours are these.")
        text += [describe(benchmark, suite, part) for benchmark, part in chosen.items() if part]
    if not text:
        problem = f"{c.run}/results.jsonl: no score for any of the published tables. {' '.join(reasons)}"
        raise ValueError(problem.strip())
    text = ["# Ours under the published scores (Marco-LLM, arXiv 2412.04003)",
            "±: half of the 95 % interval, errors of languages taken as independent; evaluation/compare.py tests "
            "whether two checkpoints differ.", *text, *reasons]
    file.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(*text, f"wrote {file}", sep="\n\n", flush=True)


# ---------------------------------------------------------------------- which rows belong to a benchmark

def benchmarks_of(number):
    """The benchmarks of a table. What Tables 6 and 7 average is not published: ours is Table 5 without translation."""
    single = {9: "MMMLU", 10: "Belebele", 11: "Flores", 12: "Flores", 15: "TyDiQA", 16: "CEval", 17: "AGIEval"}
    if number in single:
        return [single[number]]
    if number in (6, 7):
        return [name for name in published.TABLES[5]["cells"] if name not in ("Flores", "WMT16")]
    return published.TABLES[number]["cells"]


def select_rows(rows, benchmark, suite, shots):
    """(comparable rows of a benchmark with the suite's shots, or `shots`; why there are none, or None)."""
    tasks, _, metric, published_shots, langs = suite[benchmark]
    ours = [row for row in rows if benchmark_of(row["task"], row["lang"]) in tasks
            and (langs is None or language_code(row["lang"]) in langs.split())]
    if metric == "bleu" and any(row["metric"] == "spbleu" for row in ours):
        metric = "spbleu"  # one tokenizer for all languages
    ours = [row for row in ours if row["metric"] == metric]
    custom = [row["task"] for row in ours if row.get("preset") is None]
    if custom:
        return [], f"{benchmark} is left out: {custom[0]} is a custom test, of no preset of eval.py."
    wanted = published_shots if shots is None else shots
    with_shots = [row for row in ours if row["shots"] == wanted]
    if ours and not with_shots and wanted is not None:
        has = ours[0]["shots"]
        return [], f"{benchmark} is left out: ours has {has} shots, not {wanted}; shots={has} shows it."
    if places(with_shots) == places(ours):  # all were measured with these shots, some with others as well
        ours = with_shots
    check_comparable(ours, benchmark)
    return ours, None


def places(rows):
    return {(row["checkpoint"], row["task"], row["lang"]) for row in rows}


# ---------------------------------------------------------------------- scores: (mean, variance), in the paper's unit

def points(row):
    """(score, variance) in percent, which BLEU and chrF++ are already; bits per byte keep their unit."""
    scale = 1 if row["metric"] in NOT_PERCENT else 100
    return scale * row["score"], math.nan if row.get("stderr") is None else (scale * row["stderr"]) ** 2


def average(scores):
    """Mean of the (score, variance) pairs that are not None, errors taken as independent; None if there are none."""
    scores = [x for x in scores if x is not None]
    if not scores:
        return None
    return fmean(score for score, _ in scores), sum(variance for _, variance in scores) / len(scores) ** 2


def language_mean(rows):
    """Unweighted mean over languages, and within each over its tasks; None without rows."""
    by_language = {}
    for row in rows:
        by_language.setdefault(language_code(row["lang"]), []).append(points(row))
    return average(map(average, by_language.values()))


def set_mean(rows, names):
    """Unweighted mean over the named sets of AGIEval or C-Eval; None unless all are measured."""
    measured = {}
    for row in rows:
        name = re.sub(r"^[a-z]+(-valid|-test)?[_-]", "", row["task"]).replace("-", "_")
        measured[name] = points(row)
    return average([measured[name] for name in names]) if all(name in measured for name in names) else None


def cell_score(number, cell, chosen):
    """Our (score, variance) for a cell of a table, or None. chosen: {benchmark: rows of one checkpoint}."""
    def in_language(benchmark):
        return language_mean([row for row in chosen.get(benchmark, ()) if language_code(row["lang"]) == cell])

    if number in (5, 8):
        rows = chosen.get(cell, ())
        return average(map(points, rows)) if cell == "AGIEval" else language_mean(rows)  # AGIEval: a mean over its sets
    if number in (6, 7):
        return average(map(in_language, chosen))
    if number == 16:
        return set_mean(chosen.get("CEval", ()), published.CEVAL[cell])
    if number == 17:
        name = cell.lower().replace(" w/o ", "_without_").replace("-", "_")
        return set_mean(chosen.get("AGIEval", ()), published.AGIEVAL.get(cell, [name]))
    return in_language(*benchmarks_of(number))


def table_scores(number, rows, chosen):
    """{checkpoint: {cell: (score, variance)}} of a table, without checkpoints that have no score."""
    scores = {}
    for checkpoint in dict.fromkeys(row["checkpoint"] for row in rows):
        ours = {name: [row for row in part if row["checkpoint"] == checkpoint] for name, part in chosen.items()}
        cells = {cell: cell_score(number, cell, ours) for cell in published.TABLES[number]["cells"]}
        if any(score is not None for score in cells.values()):
            scores[checkpoint] = {cell: score for cell, score in cells.items() if score is not None}
    return scores


# ---------------------------------------------------------------------- layout

def coverage(benchmark, suite, rows):
    """(how many of a benchmark's languages or sets we have, how many there are or None if not published)."""
    sets = {"AGIEval": published.AGIEVAL["average"], "CEval": published.CEVAL["average"]}.get(benchmark)
    if sets:
        return len({row["task"] for row in rows}), len(sets)
    langs = suite[benchmark][4]
    return len({language_code(row["lang"]) for row in rows}), len(langs.split()) if langs else None


def column_labels(number, suite, chosen):
    """{cell: its label}, for the benchmarks of which we have only a part."""
    labels = {}
    for name, rows in chosen.items() if number in (5, 8) else ():
        have, total = coverage(name, suite, rows)
        if rows and total and have < total:
            labels[name] = f"{name} ({have} of {total})"
    return labels


def mean_columns(number, cells):
    """{label: cells} of the means that the paper prints: over all cells, or from and into English."""
    if number in (5, 8, 16, 17):
        return {}
    if number != 11:
        return {"mean": cells}
    return {"from English": [cell for cell in cells if cell.startswith("en-")],
            "into English": [cell for cell in cells if cell.endswith("-en")]}


def layout(number, scores, labels):
    """One published table with ours under it, as Markdown. Cells for which we have no score are left out.

    scores: {checkpoint: {cell: (score, variance)}}; labels: {cell: its label in the header}.
    """
    table = published.TABLES[number]
    cells = [cell for cell in table["cells"] if any(cell in row for row in scores.values())]
    rows = {}
    for model, printed in table["rows"].items():
        rows[model] = {cell: (score, math.nan) for cell, score in zip(table["cells"], printed)}
    rows |= scores
    for name, members in mean_columns(number, list(cells)).items():
        if not members:
            continue
        labels = labels | {name: f"{name} ({len(members)})"}
        cells.append(name)
        for row in rows.values():
            if all(cell in row for cell in members):
                row[name] = average([row[cell] for cell in members])
    lines = {}
    for name, row in rows.items():
        lines[f"**{name}**" if name in scores else name] = [f"{row[x][0]:.1f}" if x in row else "" for x in cells]
        if name in scores:
            known = [x in row and row[x][1] >= 0 for x in cells]  # nan is not
            lines[f"{name}, ±"] = [f"{1.96 * row[x][1] ** 0.5:.1f}" if ok else "" for x, ok in zip(cells, known)]
    first, last = list(scores)[0], list(scores)[-1]
    if first != last:
        a, b = scores[first], scores[last]
        lines[f"**{last} - {first}**"] = [f"{b[x][0] - a[x][0]:.1f}" if x in a and x in b else "" for x in cells]
    pieces = []
    for i in range(0, len(cells), PIECE):
        header = [f"Table {number}", *(labels.get(cell, cell) for cell in cells[i:i + PIECE])]
        pieces.append(format_table([header, *([name, *line[i:i + PIECE]] for name, line in lines.items())]))
    return "\n\n".join(pieces)


def describe(benchmark, suite, rows):
    """One line: how the paper measured a benchmark, and how we did."""
    _, split, metric, shots, _ = suite[benchmark]
    theirs = f"{split}, {metric}, {shots}-shot" if split else f"{metric}, split and shots not published"
    signatures = dict.fromkeys(row["signature"] for row in rows if row["signature"])
    items = {(row["task"], row["lang"]): row["n"] for row in rows}
    have, total = coverage(benchmark, suite, rows)
    share = f"{have} of {total} languages or sets, " if total else ""
    return (f"{benchmark}. Paper: {theirs}. Ours: {rows[0]['metric']}, {rows[0]['shots']}-shot, preset "
            f"{rows[0].get('preset')}; {share}{len(items)} tasks, {sum(items.values()):,} items"
            + "".join(f", `{signature}`" for signature in signatures) + ".")
