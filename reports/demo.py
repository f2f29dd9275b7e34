"""What continual pretraining did: languages, translation, the paper's numbers beside ours, speed. Writes report.md.

    python report.py demo run=out/demo

Reads run/results.jsonl (eval.py) and run/<checkpoint>/log.jsonl (train.py). A gain compares the last checkpoint with
the first.
"""
import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from configs import language_table
from evaluation.results import format_table
from reports import published
from reports.demo_figures import draw_figures
from reports.gains import (
    BLEU,
    CHANCE,
    CHRF,
    DOCUMENTS,
    GROUPS,
    LANGUAGES,
    SENTENCES,
    gain,
    gain_order,
    mean_scores,
    read_checkpoints,
    spearman,
    translation_directions,
)
from reports.scores import read_training_log

# Rows of the paper's Table 5: (its benchmark, our task and metric, the languages of Table 4)
TABLE5 = [("Belebele", ("belebele", "acc"), LANGUAGES[1:]),
          ("XCOPA", ("xcopa", "acc"), ["id", "it", "th", "tr", "vi", "zh"]),
          ("MMLU", ("mmmlu_unstated", "acc"), ["en"]), ("MMLU", ("mmmlu_stated", "acc"), ["en"])]


@dataclass(frozen=True)
class Demo:
    run: str                             # folder with results.jsonl; the report is written into it
    checkpoints: list = field(default_factory=lambda: ["base", "stage1", "stage2"])  # in training order
    chance: dict = field(default_factory=lambda: dict(CHANCE))  # multiple-choice tasks: accuracy by chance in %
    heldout_source: str = "web-{lang}"   # name of a language's held-out source in the training logs
    max_rise: float = 0.01               # English and Chinese count as kept up to this rise of their bits per byte


def write_report(c: Demo) -> None:
    """Write report.md and the figures; print the main table."""
    scores = read_checkpoints(c.run, c.checkpoints, c.chance)
    languages, kept = language_rows(c, scores), retention(c, scores)
    blocks = report_blocks(c, scores, languages, kept, draw_figures(c, scores))
    file = Path(c.run) / "report.md"
    file.write_text("\n\n".join(map(to_markdown, blocks)) + "\n", encoding="utf-8")
    print(format_table(languages, terminal=True), "", *kept, f"wrote {file}", sep="\n", flush=True)


def report_blocks(c, scores, languages, kept, figures):
    """The report as a list of blocks: a string is a paragraph or heading, a list a table, a Path a figure."""
    first = c.checkpoints[0]
    signatures = sorted({row["signature"] for metric in (CHRF, BLEU) for row in scores[first][metric].values()})
    chance = ", ".join(f"{task} {x:g} %" for task, x in c.chance.items())
    return [
        "# What continual pretraining did",
        "**Toy scale**: a tiny model, and texts about a small invented world in 29 real languages. Absolute scores say "
        "nothing about Qwen2 or Marco-LLM; only directions and orders can be compared with theirs.",
        f"Checkpoints found: {', '.join(scores)}; requested: {', '.join(c.checkpoints)}.",
        "## Languages",
        "Bits per byte of held-out documents: lower is better. A gain compares the last checkpoint with the first; "
        f"positive is better. Then accuracy in %, {'/'.join(scores)}; chance: {chance}. ± is the standard error of the "
        "gain as if languages and checkpoints were independent; they share items, so it is rough.",
        languages, *kept, *(figures[name] for name in ("curves", "gains") if name in figures),
        "## Translation", "Means over pairs.", translation_rows(scores), f"Signatures: `{'`, `'.join(signatures)}`.",
        *(figures[name] for name in ("translation",) if name in figures),
        "## Beside the paper",
        "Tables 6 and 7, Qwen2 to Marco. Gains in bits per byte are percentages of the base, the others points.",
        group_rows(c, scores),
        "Does the least served language gain most? +1: in exactly that order, 0: no order; the paper's by 100 - score. "
        "The score before is part of the gain, which alone raises this, and bytes differ by script: read both of ours.",
        order_rows(scores),
        "Rows of Table 5, and the directions of Table 12 that we also ran; ours are other tests of the same kind.",
        benchmark_rows(c, scores),
        "## Speed and cost", "From the training logs, without validation and saving.", cost_rows(c, scores)]


def to_markdown(block):
    if isinstance(block, Path):
        return f"![{block.stem}]({block.name})"
    return format_table(block) if isinstance(block, list) else block


# ---------------------------------------------------------------------- tables: rows of cells, the header first

def language_rows(c, scores):
    """Every language and group: bits per byte, gain, accuracy of the multiple-choice tasks."""
    rows = [["bits per byte", *scores, "gain", "gain, %", *c.chance]]
    for group, langs in GROUPS.items():
        if group.endswith("resource"):
            rows += [language_row(c, scores, language_table.NAMES[lang], [lang], errors=False) for lang in langs]
        name = f"**{group}** ({len(langs)})" if len(langs) > 1 else f"**{group}**"
        rows.append(language_row(c, scores, name, langs, errors=True))
    return rows


def language_row(c, scores, name, langs, errors):
    """One row of that table; errors: add the standard errors of the gains."""
    difference, error, percent = gain(scores, DOCUMENTS, langs)
    row = [name, *(f"{x:.3f}" for x, _ in mean_scores(scores, DOCUMENTS, langs))]
    row += [f"{difference:+.3f} ± {error:.3f}" if errors else f"{difference:+.3f}", f"{percent:+.1f}"]
    for task in c.chance:
        cell = "/".join(f"{100 * x:.0f}" for x, _ in mean_scores(scores, (task, "acc"), langs))
        row.append(f"{cell} ± {100 * gain(scores, (task, 'acc'), langs)[1]:.1f}" if errors else cell)
    return row


def retention(c, scores):
    """Sentences that say whether English and Chinese were kept, on documents and on parallel sentences."""
    out = []
    for metric, text in ((DOCUMENTS, "documents"), (SENTENCES, "parallel sentences")):
        for group in ("English", "Chinese"):
            rise = round(0 - gain(scores, metric, GROUPS[group])[2] / 100, 8)
            verdict = "lost" if rise > c.max_rise else "kept"
            out.append(f"{group} {verdict} on {text}: bits per byte {rise:+.1%}, bound {c.max_rise:+.1%}.")
    return out


def translation_rows(scores):
    """chrF++ and BLEU of each direction and group of languages."""
    rows = [["direction", "pairs", *(f"{name} {k}" for name in ("chrF++", "BLEU") for k in (*scores, "gain"))]]
    for key, pairs in translation_directions(scores).items():
        row = [", ".join(key), len(pairs)]
        for metric in (CHRF, BLEU):
            row += [f"{x:.1f}" for x, _ in mean_scores(scores, metric, pairs)]
            row.append(f"{gain(scores, metric, pairs)[0]:+.1f}")
        rows.append(row)
    return rows


def group_rows(c, scores):
    """Mean gain of each group of languages, beside the paper's Tables 6 and 7."""
    rows = [["mean gain", "ours, bits per byte", "ours, choice tasks", "paper 7B", "72B"]]
    for group, langs in GROUPS.items():
        points = [100 * gain(scores, (task, "acc"), langs)[0] for task in c.chance] or [math.nan]
        row = [group, f"{gain(scores, DOCUMENTS, langs)[2]:+.1f} %", f"{fmean(points):+.1f}"]
        for table in (published.TABLE6, published.TABLE7):
            row.append(f"{fmean(table[x][1] - table[x][0] for x in langs):+.1f}")
        rows.append(row)
    return rows


def order_rows(scores):
    """Rank correlation of the first score with the gain, ours and the paper's."""
    ranks = gain_order(scores)
    for table in (published.TABLE6, published.TABLE7):
        ranks.append(spearman([100 - table[x][0] for x in LANGUAGES], [table[x][1] - table[x][0] for x in LANGUAGES]))
    return [["Spearman", "ours, gain in bits", "ours, gain in %", "paper 7B", "72B"],
            ["the worse before, the higher the gain", *(f"{rank:+.2f}" for rank in ranks)]]


def benchmark_rows(c, scores):
    """Rows of the paper's Tables 5 and 12 beside our tasks of the same kind."""
    first, *_, last = scores
    directions = translation_directions(scores)
    with_english = directions.get(("en to xx", "all"), []) + directions.get(("xx to en", "all"), [])
    table12 = [pair for pair in published.TABLE12 if pair in scores[first][BLEU]]
    rows = [["benchmark", "Qwen2-7B", "Marco-7B", "gain", "ours", "mean of", first, last, "gain"]]
    for name, metric, places in [*TABLE5, ("Flores", BLEU, with_english), ("Table 12", BLEU, table12)]:
        if not places or metric[0] not in (*c.chance, "translation"):
            continue
        if name == "Table 12":
            theirs = [fmean(column) for column in zip(*(published.TABLE12[pair] for pair in places))]
        else:
            column = published.BENCHMARKS.index(name)
            theirs = [published.TABLE5[model][column] for model in ("Qwen2-7B", "Marco-7B")]
        ours = [x * (1 if metric == BLEU else 100) for x, _ in mean_scores(scores, metric, places)]
        left, right = ([f"{x[0]:.1f}", f"{x[-1]:.1f}", f"{x[-1] - x[0]:+.1f}"] for x in (theirs, ours))
        rows.append([name, *left, " ".join(metric), len(places), *right])
    return rows


def cost_rows(c, scores):
    """Tokens, tokens per second and minutes of each training run, by its log."""
    costs = {}  # checkpoint: (tokens, seconds)
    for name in scores:
        log = [{"tokens": 0}, *read_training_log(c.run, name, "tokens_per_s")]
        seconds = sum((b["tokens"] - a["tokens"]) / b["tokens_per_s"] for a, b in pairwise(log))
        costs[name] = log[-1]["tokens"], seconds
    costs["together"] = [sum(column) for column in zip(*costs.values())]
    rows = [["run", "tokens", "tokens/s", "minutes"]]
    for name, (tokens, seconds) in costs.items():
        cells = [f"{tokens:,}", f"{tokens / seconds:,.0f}", f"{seconds / 60:.1f}"] if seconds else ["no log", "", ""]
        rows.append([name, *cells])
    return rows
