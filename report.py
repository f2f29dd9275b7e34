"""Results -> the paper's tables and figures in small, beside the paper's own numbers (Marco-LLM, arXiv 2412.04003).

    python report.py run=out/demo                                                 # report.md and figures in out/demo
    python report.py claims=True runs='["out/claims/seed0", "out/claims/seed1"]'  # claims.md in out/claims

Reads run/results.jsonl (eval.py) and run/<checkpoint>/log.jsonl (train.py). A gain is the last checkpoint against the first, plus
is better. Every word of judgement is computed from the numbers it stands beside.
"""
import json
import math
import sys
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import correlation, fmean, stdev

from configs import load
from configs.marco import paper

LANGS = list(paper.LANGUAGES)  # the paper's order: English, Chinese, 8 other high-resource, 19 low-resource
GROUPS = {"English": ["en"], "Chinese": ["zh"], "other high-resource": paper.HIGH[2:], "low-resource": paper.LOW, "all": LANGS}
COLORS = {"en": "#111111", "zh": "#00876a", "high": "#1f6fb4", "low": "#d0581a"}
BPB, BLEU, CHRF = ("flores", "bits_per_byte"), ("translation", "bleu"), ("translation", "chrf++")
# Rows of Table 5, our task, and the languages there (Table 4): Belebele all but English, XCOPA six, MMLU English
TABLE5 = [("Belebele", ("belebele", "acc"), LANGS[1:]), ("XCOPA", ("xcopa", "acc"), ["id", "it", "th", "tr", "vi", "zh"]),
          ("MMLU", ("mmmlu_unstated", "acc"), ["en"]), ("MMLU", ("mmmlu_stated", "acc"), ["en"])]


@dataclass(frozen=True)
class Report:
    run: str | None = None      # folder with results.jsonl; the report is written into it
    checkpoints: list = field(default_factory=lambda: ["base", "stage1", "stage2"])  # in the order of training, base first
    choices: dict = field(default_factory=lambda: dict(belebele=.25, xcopa=.5, mmmlu_unstated=.25, mmmlu_stated=.25))  # task: chance
    curve: str = "web-{lang}"   # name of a language's held-out source in the training logs
    bound: float = 0.01         # English and Chinese are kept while their bits per byte rise by no more than this share
    claims: bool = False        # instead: test the claims over several runs
    runs: list = field(default_factory=list)  # their folders, one per seed

    def __post_init__(self):
        if self.claims and not self.runs or not self.claims and self.run is None:
            raise ValueError("""nothing to report: set run=out/demo, or claims=True runs='["out/claims/seed0", ...]'""")


def read_results(run, c):
    """{checkpoint: {(task, metric): {lang: row}}}, in the order of training. Of two rows for one thing the later counts, and only
    rows of a checkpoint's newest weights. ValueError names what is missing or cannot be compared."""
    file = Path(run) / "results.jsonl"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run eval.py on the checkpoints with out={file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    weights = {row["checkpoint"]: row["weights"] for row in rows}
    found = {k: {} for k in c.checkpoints if k in weights}
    if list(found)[:1] != c.checkpoints[:1] or len(found) < 2:
        raise ValueError(f"{file}: a gain needs checkpoint {c.checkpoints[0]} and one of {', '.join(c.checkpoints[1:])}; "
                         f"there is {', '.join(found) or 'none'}. Run eval.py on the others or set checkpoints=")
    for row in rows:
        if row["checkpoint"] in found and row["weights"] == weights[row["checkpoint"]]:
            found[row["checkpoint"]].setdefault((row["task"], row["metric"]), {})[row["lang"]] = row
    need = {BPB: LANGS, **{(task, "acc"): LANGS for task in c.choices}}
    need |= {what: sorted({x for k in found for x in found[k].get(what, {})}) or ["en-zh"] for what in (CHRF, BLEU)}
    for k, what in ((k, what) for k in found for what in need):
        here, first = found[k].get(what, {}), found[c.checkpoints[0]].get(what, {})
        gap = [x for x in need[what] if x not in here]
        other = [x for x in here if x in first and any(first[x][name] != here[x][name] for name in ("n", "prompt", "signature"))]
        if gap or other:
            problem = "no results" if gap else f"another n, prompt or signature than {c.checkpoints[0]}"
            raise ValueError(f"{file}: checkpoint {k} has {problem} for {what[1]} of task {what[0]} in {', '.join((gap or other)[:9])} "
                             f"({len(gap or other)} of {len(need[what])}); run eval.py on every checkpoint with the same config")
    return found


def read_log(run, k, key):
    """Rows of a run's log with that key, by step; none where there is no log, as for a downloaded base."""
    file = Path(run) / k / "log.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return list({row["step"]: row for row in sorted(rows, key=lambda row: row["step"]) if key in row}.values())  # a resumed step once


def levels(found, what, langs):
    """Per checkpoint the mean over langs and its standard error, the languages' errors taken as independent."""
    rows = [[results[what][x] for x in langs] for results in found.values()]
    return [(fmean(r["score"] for r in some), math.hypot(*(r["stderr"] or 0 for r in some)) / len(some)) for some in rows]


def gain(found, what, langs):
    """Last checkpoint against first, plus is better: (gain, its standard error as if scored on different items, gain in percent)."""
    (a, da), *_, (b, db) = levels(found, what, langs)
    up = a - b if what == BPB else b - a
    return up, math.hypot(da, db), 100 * up / a if a else math.nan


def spearman(x, y):
    """Rank correlation; ties share their mean rank; nan when one side is constant."""
    x, y = ([sum(b < a for b in v) + sum(b == a for b in v) / 2 for a in v] for v in (x, y))
    return correlation(x, y) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def orders(found):
    """Spearman of the first bits per byte with the gain, in bits and in percent: +1 when the least served language gains most."""
    return [spearman([levels(found, BPB, [x])[0][0] for x in LANGS], [gain(found, BPB, [x])[i] for x in LANGS]) for i in (0, 2)]


def directions(found):
    """{(direction, group): pairs} of the translations that were run."""
    done, ways = next(iter(found.values()))[CHRF], {"en to xx": "en-{}", "xx to en": "{}-en"}
    out = {(way, group): [p for p in map(ways[way].format, langs) if p in done] for way in ways for group, langs in GROUPS.items()}
    out["any to any", "without English"] = [pair for pair in done if "en" not in pair.split("-")]
    return {key: pairs for key, pairs in out.items() if pairs}


def table(rows, terminal=False):
    """Rows of cells, the first one the header, as an aligned Markdown table; as plain columns for the terminal."""
    rows = [[str(cell).replace("**", "") if terminal else str(cell) for cell in row] for row in rows]
    width = [max(map(len, column)) for column in zip(*rows)]
    lines = [[row[0].ljust(width[0]), *(cell.rjust(w) for cell, w in zip(row[1:], width[1:]))] for row in rows]
    if not terminal:
        lines.insert(1, ["-" * width[0], *("-" * (w - 1) + ":" for w in width[1:])])
    return "\n".join("  ".join(line) if terminal else f"| {' | '.join(line)} |" for line in lines)


def main_rows(c, found):
    rows = [["bits per byte", *found, "gain", "gain, %", *c.choices]]
    for group, langs in GROUPS.items():
        members = [(paper.NAMES[x], [x], 0) for x in langs] if group.endswith("resource") else []
        for name, codes, end in [*members, (f"**{group}**" + f" ({len(langs)})" * (len(langs) > 1), langs, 1)]:
            up, error, percent = gain(found, BPB, codes)  # standard errors where a group ends
            cells = [*(f"{x:.3f}" for x, _ in levels(found, BPB, codes)), f"{up:+.3f}" + f" ± {error:.3f}" * end, f"{percent:+.1f}"]
            for what in ((task, "acc") for task in c.choices):
                three = "/".join(f"{100 * x:.0f}" for x, _ in levels(found, what, codes))
                cells.append(three + f" ± {100 * gain(found, what, codes)[1]:.1f}" * end)
            rows.append([name, *cells])
    return rows


def translation_rows(found):
    rows = [["direction", "pairs", *(f"{name} {k}" for name in ("chrF++", "BLEU") for k in (*found, "gain"))]]
    for key, pairs in directions(found).items():
        rows.append([", ".join(key), len(pairs)])
        for what in (CHRF, BLEU):
            rows[-1] += [*(f"{x:.1f}" for x, _ in levels(found, what, pairs)), f"{gain(found, what, pairs)[0]:+.1f}"]
    return rows


def beside(c, found):
    """Gain by group, who gains most, and rows of Tables 5 and 12: three tables of ours beside the paper's."""
    groups, tables = [["mean gain", "ours, bits per byte, %", "ours, choice tasks", "paper 7B", "paper 72B"]], (paper.TABLE6, paper.TABLE7)
    for group, langs in GROUPS.items():
        ours = gain(found, BPB, langs)[2], 100 * fmean([gain(found, (task, "acc"), langs)[0] for task in c.choices] or [math.nan])
        groups.append([group, *(f"{x:+.1f}" for x in (*ours, *(fmean(t[x][1] - t[x][0] for x in langs) for t in tables)))])
    theirs = [spearman([100 - t[x][0] for x in LANGS], [t[x][1] - t[x][0] for x in LANGS]) for t in tables]
    names = "ours, gain in bits per byte", "ours, gain in %", "paper 7B", "paper 72B"
    order = [["the worse before, the higher the gain", "Spearman"], *([k, f"{r:+.2f}"] for k, r in zip(names, [*orders(found), *theirs]))]
    (first, *_, last), tested = found, directions(found)
    centric = tested.get(("en to xx", "all"), []) + tested.get(("xx to en", "all"), [])
    lines = [(name, what, langs, [paper.TABLE5[m][paper.BENCHMARKS.index(name)] for m in ("Qwen2-7B", "Marco-7B")])
             for name, what, langs in (*TABLE5, ("Flores", BLEU, centric)) if langs and what[0] in (*c.choices, "translation")]
    both = [pair for pair in paper.TABLE12 if pair in found[first][BLEU]]
    lines += [("Table 12", BLEU, both, [fmean(column) for column in zip(*(paper.TABLE12[x] for x in both))])] if both else []
    scores = [["benchmark", "Qwen2-7B", "Marco-7B", "gain", "ours", "mean of", first, last, "gain"]]
    for name, what, langs, theirs in lines:
        ours = [x * (1 if what == BLEU else 100) for x, _ in levels(found, what, langs)]
        left, right = ([f"{x[0]:.1f}", f"{x[-1]:.1f}", f"{x[-1] - x[0]:+.1f}"] for x in (theirs, ours))
        scores.append([name, *left, " ".join(what), len(langs), *right])
    return groups, order, scores


def cost_rows(c, found):
    rows, total = [["run", "tokens", "tokens/s", "minutes"]], (0, 0.0)
    for k in [*found, "together"]:
        log = [{"tokens": 0}, *read_log(c.run, k, "tokens_per_s")]
        cost = log[-1]["tokens"], sum((b["tokens"] - a["tokens"]) / b["tokens_per_s"] for a, b in pairwise(log))
        n, s = cost if k in found else total
        rows.append([k, *((f"{n:,}", f"{n / s:,.0f}", f"{s / 60:.1f}") if s else ("no log", "", ""))])
        total = total[0] + n, total[1] + s
    return rows


def curves(ax, logs, pattern):
    """Held-out bits per byte over the tokens of all runs laid end to end; log scale: equal slopes are equal shares."""
    ends, labels, at = [*accumulate((log[-1]["tokens"] / 1e6 for log in logs.values()), initial=0)], [], 0
    x = [begin + row["tokens"] / 1e6 for begin, log in zip(ends, logs.values()) for row in log]
    y = {lang: [row["bpb"].get(pattern.format(lang=lang), math.nan) for log in logs.values() for row in log] for lang in LANGS}
    for color, (group, langs) in zip(COLORS.values(), GROUPS.items()):
        each = list(zip(*(y[lang] for lang in langs)))
        ax.plot(x, each, color=color, lw=0.8, alpha=0.4)
        ax.plot(x, list(map(fmean, each)), color=color, lw=2.4)
        labels.append((fmean(each[-1]), group + " (mean)" * (len(langs) > 1), color, 9))
        last = sorted((y[lang][-1], paper.NAMES[lang], color, 7.5) for lang in langs[1:] and langs)
        labels += last[:1] + last[-1:]  # the outermost lines of a group have names too
    for value, name, color, size in sorted(labels):
        at = max(value, at * 1.08)  # no lower than one line of text above the label below
        ax.text(x[-1] * 1.012, at, name, color=color, fontsize=size, fontweight="bold" if size == 9 else "normal", va="center")
    for begin, k in zip(ends, logs):
        ax.axvline(begin, color="#bbbbbb", lw=0.8, zorder=0)
        ax.text(begin, 1.01, k, transform=ax.get_xaxis_transform(), color="#666666")
    ax.set(yscale="log", xlim=(0, x[-1]), xlabel="training tokens, millions", ylabel="bits per byte of held-out text (lower is better)")
    ax.set_yticks([.25, .5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.grid(axis="y", color="#e4e4e4", lw=0.8)


def bars(ax, values, title):
    """Gain per language, sorted."""
    langs = sorted(LANGS, key=values.get)
    drawn = ax.barh([paper.NAMES[x] for x in langs], [values[x] for x in langs], color=[COLORS[paper.group(x)] for x in langs])
    ax.bar_label(drawn, fmt="%+.1f", padding=3, fontsize=7.5)
    ax.set(title=title, xticks=[], ylim=(-0.6, len(langs) - 0.4), xmargin=0.14)
    ax.legend([plt.Rectangle((0, 0), 1, 1, color=x) for x in COLORS.values()], list(GROUPS)[:4], loc="lower right", frameon=False)


def heat(ax, scores, top, title):
    """Score from every source language (row) to every target language (column)."""
    langs = [x for x in LANGS if any(pair.startswith(f"{x}-") and not pair.endswith("-en") for pair in scores)]
    grid = [[scores.get(f"{a}-{b}", {"score": math.nan})["score"] for b in langs] for a in langs]
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=top)
    for i, j in ((i, j) for i in range(len(langs)) for j in range(len(langs)) if not math.isnan(grid[i][j])):
        ax.text(j, i, f"{grid[i][j]:.0f}", ha="center", va="center", color="white" if grid[i][j] > 0.6 * top else "#222222", fontsize=8)
    ax.set_xticks(range(len(langs)), [paper.NAMES[x] for x in langs], rotation=45, ha="right")
    ax.set_yticks(range(len(langs)), [paper.NAMES[x] for x in langs])
    ax.set(title=title)


def draw(c, found):
    """Write the figures; {name: Markdown to show it}. None without matplotlib, no curves without logs."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return {"gains": "No figures: they need a package: pip install matplotlib"}
    plt.rcParams |= {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "figure.constrained_layout.use": True,
                     "xtick.major.size": 0, "ytick.major.size": 0, **{f"axes.spines.{x}": False for x in ("top", "right", "bottom", "left")}}
    ...
