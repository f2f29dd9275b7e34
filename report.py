"""Results -> the paper's tables and figures in small, beside the paper's own numbers (Marco-LLM, arXiv 2412.04003).

    python report.py run=out/demo                                                 # report.md and figures in out/demo
    python report.py data=out/demo/tokens                                         # funnel and data card of what prepare.py made
    python report.py claims=True runs='["out/claims/seed0", "out/claims/seed1"]'  # claims.md in out/claims
    python report.py run=out/marco paper=True       # the paper's tables; steps=True: scores by tokens seen

Reads run/results.jsonl (eval.py) and run/<checkpoint>/log.jsonl (train.py). A gain is the last checkpoint against the first.
"""
import json
import math
import sys
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import correlation, fmean, stdev

from reports import datacard
from configs import load
from configs import language_table
from reports import published as results
from reports.figures import COLORS, by_tokens
from evaluation.results import format_table
from reports.tables import published

LANGS = list(language_table.MARCO)  # the paper's order: English, Chinese, 8 other high-resource, 19 low-resource
GROUPS = {"English": ["en"], "Chinese": ["zh"], "other high-resource": language_table.HIGH[2:], "low-resource": language_table.LOW, "all": LANGS}
whole = lambda line: line.count("{") == line.count("}") > 0  # not blank, not cut by a program's sudden end
BPB, LINES = ("heldout", "bits_per_byte"), ("flores", "bits_per_byte")
BLEU, CHRF = ("translation", "bleu"), ("translation", "chrf++")
# Rows of Table 5, our task, and the languages there (Table 4): Belebele all but English, XCOPA six, MMLU English
TABLE5 = [("Belebele", ("belebele", "acc"), LANGS[1:]), ("XCOPA", ("xcopa", "acc"), ["id", "it", "th", "tr", "vi", "zh"]),
          ("MMLU", ("mmmlu_unstated", "acc"), ["en"]), ("MMLU", ("mmmlu_stated", "acc"), ["en"])]


@dataclass(frozen=True)
class Report:
    run: str | None = None      # folder with results.jsonl; the report is written into it
    data: str | None = None     # instead: a folder of prepare.py, see reports/datacard.py
    checkpoints: list | None = None  # in the order of training, base first; None: base, stage1, stage2 (paper, steps: all)
    choices: dict = field(default_factory=lambda: dict(belebele=25, xcopa=50, mmmlu_unstated=25, mmmlu_stated=25))  # chance in %
    curve: str = "web-{lang}"   # name of a language's held-out source in the training logs
    bound: float = 0.01         # English and Chinese are kept while their bits per byte rise by no more than this share
    plain: bool = False         # instead: one table per task of whatever was measured, in any languages
    claims: bool = False        # instead: test the claims over several runs
    ablation: str | None = None  # instead: "without,with": checkpoints NAME-without and NAME-with of several runs, side by side
    runs: list = field(default_factory=list)  # their folders, one per seed; of steps: one per stage, in order
    paper: bool = False         # instead: the paper's tables with our rows under the published ones
    tables: list = field(default_factory=list)  # ... of these numbers; none: all
    shots: int | None = None    # ... of scores with so many shots; None: the paper's, where it says
    preset: str | None = None   # ... of scores of this preset of eval.py; None: any, but one
    steps: bool = False         # instead: benchmarks of the checkpoints step-N by tokens seen

    def __post_init__(self):
        if strange := [n for n in self.tables if n not in results.TABLES]:
            raise ValueError(f"tables={strange}: the paper's result tables are {', '.join(map(str, results.TABLES))}")
        several, one = self.claims or self.ablation, self.run or self.data or self.steps and self.runs
        if len(self.runs) < 2 if several else not one:
            raise ValueError("""set run=out/demo, or claims=True and two or more runs='["out/seed0", "out/seed1"]'""")


def read_results(run, c):
    """{checkpoint: {(task, metric): {lang: row}}}, in the order of training. Of two rows for one thing the later counts, and only
    rows of a checkpoint's newest weights. ValueError names what is missing or cannot be compared."""
    file = Path(run) / "results.jsonl"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run eval.py on the checkpoints with out={file}")
    rows = [json.loads(line) for line in file.read_text().splitlines() if whole(line)]
    weights = {row["checkpoint"]: row["weights"] for row in rows}
    found = {k: {} for k in c.checkpoints if k in weights}
    if list(found)[:1] != c.checkpoints[:1] or len(found) < 2:
        raise ValueError(f"{file}: a gain needs checkpoint {c.checkpoints[0]} and one of {', '.join(c.checkpoints[1:])}; "
                         f"there is {', '.join(found) or 'none'}. Run eval.py on the others or set checkpoints=")
    for row in rows:
        if row["checkpoint"] in found and row["weights"] == weights[row["checkpoint"]]:
            found[row["checkpoint"]].setdefault((row["task"], row["metric"]), {})[row["lang"]] = row
    need = {BPB: LANGS, LINES: LANGS, **{(task, "acc"): LANGS for task in c.choices}}
    need |= {what: sorted({x for k in found for x in found[k].get(what, {})}) or ["en-zh"] for what in (CHRF, BLEU)}
    for k, what in ((k, what) for k in found for what in need):
        here, first = found[k].get(what, {}), found[c.checkpoints[0]].get(what, {})
        gap = [x for x in need[what] if x not in here]
        other = [x for x in here if x in first and any(first[x][name] != here[x][name] for name in ("n", "prompt", "signature"))]
        if gap or other:
            problem, some = ("has nothing", gap) if gap else (f"and {c.checkpoints[0]} differ in n, prompt or signature", other)
            raise ValueError(f"{file}: checkpoint {k} {problem} for {what[1]} of task {what[0]} in {', '.join(some[:9])} "
                             f"({len(some)} of {len(need[what])}); run eval.py on every checkpoint with the same config")
    return found


def read_log(run, k, key):
    """Rows of a run's log with that key, by step; none where there is no log, as for a downloaded base."""
    file = Path(run) / k / "log.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines() if whole(line)] if file.is_file() else []
    once = {row["step"]: row for row in rows if key in row}  # a resumed run does some steps again
    return [once[step] for step in sorted(once)]


def levels(found, what, langs):
    """Per checkpoint the mean over langs and its standard error, the languages' errors taken as independent."""
    rows = [[results[what][x] for x in langs] for results in found.values()]
    return [(fmean(r["score"] for r in some), math.hypot(*(r["stderr"] or 0 for r in some)) / len(some)) for some in rows]


def gain(found, what, langs):
    """Last checkpoint against first, plus is better: (gain, its standard error if they were independent, gain in percent)."""
    (a, da), *_, (b, db) = levels(found, what, langs)
    up = a - b if what[1] == "bits_per_byte" else b - a
    return up, math.hypot(da, db), 100 * up / a if a else math.nan


def spearman(x, y):
    """Rank correlation; ties share their mean rank; nan when one side is constant."""
    x, y = ([sum(b < a - 1e-9 for b in v) + sum(abs(b - a) <= 1e-9 for b in v) / 2 for a in v] for v in (x, y))
    return correlation(x, y) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def orders(found):
    """Spearman of the first bits per byte with the gain, in bits and in percent: +1 when the least served language gains most."""
    served, gains = [levels(found, BPB, [x])[0][0] for x in LANGS], [gain(found, BPB, [x]) for x in LANGS]
    return [spearman(served, [g[i] for g in gains]) for i in (0, 2)]


def directions(found):
    """{(direction, group): pairs} of the translations that were run."""
    done, ways = next(iter(found.values()))[CHRF], {"en to xx": "en-{}", "xx to en": "{}-en"}
    out = {(way, g): [x for x in map(ways[way].format, langs) if x in done] for way in ways for g, langs in GROUPS.items()}
    out["any to any", "without English"] = [pair for pair in sorted(done) if "en" not in pair.split("-")]
    return {key: pairs for key, pairs in out.items() if pairs}


def main_rows(c, found):
    rows = [["bits per byte", *found, "gain", "gain, %", *c.choices]]
    for group, langs in GROUPS.items():
        members = [(language_table.NAMES[x], [x], 0) for x in langs] if group.endswith("resource") else []
        for name, codes, end in [*members, (f"**{group}**" + f" ({len(langs)})" * (len(langs) > 1), langs, 1)]:
            up, error, percent = gain(found, BPB, codes)  # standard errors where a group ends
            bits = [f"{x:.3f}" for x, _ in levels(found, BPB, codes)]
            rows.append([name, *bits, f"{up:+.3f}" + f" ± {error:.3f}" * end, f"{percent:+.1f}"])
            for what in ((task, "acc") for task in c.choices):
                cell = "/".join(f"{100 * x:.0f}" for x, _ in levels(found, what, codes))
                rows[-1].append(cell + f" ± {100 * gain(found, what, codes)[1]:.1f}" * end)
    return rows


def beside(c, found):
    """Gain by group, who gains most, and rows of Tables 5 and 12: three tables of ours beside the paper's."""
    tables, groups = (results.TABLE6, results.TABLE7), [["mean gain", "ours, bits per byte", "ours, choice tasks", "paper 7B", "72B"]]
    for group, langs in GROUPS.items():
        points = 100 * fmean([gain(found, (task, "acc"), langs)[0] for task in c.choices] or [math.nan])
        theirs = [fmean(t[x][1] - t[x][0] for x in langs) for t in tables]
        groups.append([group, f"{gain(found, BPB, langs)[2]:+.1f} %", *(f"{x:+.1f}" for x in (points, *theirs))])
    ranks = orders(found) + [spearman([100 - t[x][0] for x in LANGS], [t[x][1] - t[x][0] for x in LANGS]) for t in tables]
    order = [["Spearman", "ours, gain in bits", "ours, gain in %", "paper 7B", "72B"],
             ["the worse before, the higher the gain", *(f"{r:+.2f}" for r in ranks)]]
    (first, *_, last), way = found, directions(found)
    ours5 = [*TABLE5, ("Flores", BLEU, way.get(("en to xx", "all"), []) + way.get(("xx to en", "all"), []))]
    scores = [["benchmark", "Qwen2-7B", "Marco-7B", "gain", "ours", "mean of", first, last, "gain"]]
    for name, what, langs in [*ours5, ("Table 12", BLEU, [pair for pair in results.TABLE12 if pair in found[first][BLEU]])]:
        if langs and what[0] in (*c.choices, "translation"):
            theirs = [fmean(x) for x in zip(*map(results.TABLE12.get, langs))] if name == "Table 12" else \
                [results.TABLE5[m][results.BENCHMARKS.index(name)] for m in ("Qwen2-7B", "Marco-7B")]
            ours = [x * (1 if what == BLEU else 100) for x, _ in levels(found, what, langs)]
            left, right = ([f"{x[0]:.1f}", f"{x[-1]:.1f}", f"{x[-1] - x[0]:+.1f}"] for x in (theirs, ours))
            scores.append([name, *left, " ".join(what), len(langs), *right])
    return groups, order, scores


def cost_rows(c, found):
    costs = {}  # checkpoint: (tokens, seconds)
    for k in found:
        log = [{"tokens": 0}, *read_log(c.run, k, "tokens_per_s")]
        costs[k] = log[-1]["tokens"], sum((b["tokens"] - a["tokens"]) / b["tokens_per_s"] for a, b in pairwise(log))
    costs["together"] = [sum(column) for column in zip(*costs.values())]
    rows = [[k, f"{n:,}", f"{n / s:,.0f}", f"{s / 60:.1f}"] if s else [k, "no log", "", ""] for k, (n, s) in costs.items()]
    return [["run", "tokens", "tokens/s", "minutes"], *rows]


def curves(ax, logs, pattern):
    """Held-out bits per byte over the tokens of all runs laid end to end; log scale: equal slopes are equal shares."""
    ends, labels, at = [*accumulate((log[-1]["tokens"] / 1e6 for log in logs.values()), initial=0)], [], 0
    x = [begin + row["tokens"] / 1e6 for begin, log in zip(ends, logs.values()) for row in log]
    y = {lang: [row["bpb"].get(pattern.format(lang=lang), math.nan) for log in logs.values() for row in log] for lang in LANGS}
    for color, (group, langs) in zip(COLORS.values(), GROUPS.items()):
        each = list(zip(*(y[lang] for lang in langs)))
        ax.plot(x, each, color=color, lw=0.8, alpha=0.4)
        ax.plot(x, list(map(fmean, each)), color=color, lw=2.4)
        last = sorted((y[lang][-1], language_table.NAMES[lang], color, 7.5) for lang in langs[1:] and langs)  # outermost get names
        labels += [(fmean(each[-1]), group + " (mean)" * (len(langs) > 1), color, 9), *last[:1], *last[-1:]]
    for value, name, color, size in sorted(labels):
        at = max(value, at * 1.08)  # no lower than one line of text above the label below
        ax.text(x[-1] * 1.012, at, name, color=color, fontsize=size, fontweight="bold" if size == 9 else "normal", va="center")
    for begin, k in zip(ends, logs):
        ax.axvline(begin, color="#bbbbbb", lw=0.8, zorder=0)
        ax.text(begin, 1.01, k, transform=ax.get_xaxis_transform(), color="#666666")
    ax.set(yscale="log", xlim=(0, x[-1]), xlabel="training tokens, millions", ylabel="bits per byte of held-out text")
    ax.set_yticks([.25, .5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.grid(axis="y", color="#e4e4e4", lw=0.8)


def bars(ax, values, title):
    langs = sorted(LANGS, key=values.get)
    drawn = ax.barh([language_table.NAMES[x] for x in langs], [values[x] for x in langs], color=[COLORS[language_table.group(x)] for x in langs])
    ax.bar_label(drawn, fmt="%+.1f", padding=3, fontsize=7.5)
    ax.set(title=title, xticks=[], ylim=(-0.6, len(langs) - 0.4), xmargin=0.14)


def heat(ax, rows, top, title):
    langs = [x for x in LANGS if any(pair.startswith(f"{x}-") and not pair.endswith("-en") for pair in rows)]
    grid = [[rows.get(f"{a}-{b}", {"score": math.nan})["score"] for b in langs] for a in langs]
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=top)
    for i, j, x in ((i, j, x) for i, row in enumerate(grid) for j, x in enumerate(row) if not math.isnan(x)):
        ax.text(j, i, f"{x:.0f}", ha="center", va="center", color="white" if x > 0.6 * top else "black", fontsize=8)
    ax.set_xticks(range(len(langs)), [language_table.NAMES[x] for x in langs], rotation=45, ha="right")
    ax.set(title=title, yticks=range(len(langs)), yticklabels=[language_table.NAMES[x] for x in langs])


def draw(c, found):
    """Write the figures; {name: Markdown to show it}. No curves without logs, nothing without matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print(text := "No figures: they need a package: pip install matplotlib", flush=True)
        return {"gains": text}
    plt.switch_backend("Agg")
    plt.rcParams |= {"font.size": 9, "axes.titlelocation": "left", "figure.constrained_layout.use": True, "xtick.major.size": 0,
                     "ytick.major.size": 0, **{f"axes.spines.{x}": False for x in ("top", "right", "bottom", "left")}}
    pages = {"gains": plt.subplots(1, 2, figsize=(9, 6.4))}
    bars(pages["gains"][1][0], {x: gain(found, BPB, [x])[2] for x in LANGS}, "Ours: bits per byte saved, %")
    bars(pages["gains"][1][1], {x: b - a for x, (a, b) in results.TABLE6.items()}, "Paper: Qwen2-7B to Marco-7B (Table 6), points")
    for i, (group, color) in enumerate(zip(GROUPS, COLORS.values())):
        pages["gains"][0].text(0.98, 0.2 - 0.033 * i, group, color=color, fontweight="bold", ha="right")
    if ("any to any", "without English") in directions(found):
        top = max(row["score"] for results in found.values() for row in results[CHRF].values())
        pages["translation"] = plt.subplots(1, 2, figsize=(9, 4.7))
        for ax, k in zip(pages["translation"][1], (c.checkpoints[0], list(found)[-1])):
            heat(ax, found[k][CHRF], top, f"{k}: chrF++ from row to column")
    if logs := {k: log for k in found if (log := read_log(c.run, k, "bpb"))}:
        pages["curves"] = plt.subplots(figsize=(9, 5.2))
        curves(pages["curves"][1], logs, c.curve)
    for name, (figure, _) in pages.items():
        figure.savefig(Path(c.run) / f"{name}.png", dpi=200)
        plt.close(figure)
    return {name: f"![{name}]({name}.png)" for name in pages}


def report(c):
    """Write report.md and the figures; print the main table."""
    found = read_results(c.run, c)
    rows, figures, (groups, order, scores) = main_rows(c, found), draw(c, found), beside(c, found)
    kept = []
    for what, text in ((BPB, "documents"), (LINES, "parallel sentences")):
        for group in ("English", "Chinese"):
            rise = round(0 - gain(found, what, GROUPS[group])[2] / 100, 8)
            verdict = "lost" if rise > c.bound else "kept"
            kept.append(f"{group} {verdict} on {text}: bits per byte {rise:+.1%}, bound {c.bound:+.1%}.")
    translation = [["direction", "pairs", *(f"{name} {k}" for name in ("chrF++", "BLEU") for k in (*found, "gain"))]]
    for key, pairs in directions(found).items():
        translation.append([", ".join(key), len(pairs)])
        for what in (CHRF, BLEU):
            translation[-1] += [*(f"{x:.1f}" for x, _ in levels(found, what, pairs)), f"{gain(found, what, pairs)[0]:+.1f}"]
    signatures = sorted({row["signature"] for what in (CHRF, BLEU) for row in found[c.checkpoints[0]][what].values()})
    text = [
        "# What continual pretraining did", "**Toy scale**: a tiny model, and texts about a small invented world in 29 real "
        "languages. Levels say nothing about Qwen2 or Marco-LLM; only directions and orders can be laid beside theirs.",
        f"Checkpoints found: {', '.join(found)}; asked for: {', '.join(c.checkpoints)}.", "## Languages",
        "Bits per byte of held-out documents: lower is better. A gain is the last checkpoint against the first, plus is "
        f"better. Then right answers in %, {'/'.join(found)}; chance: {', '.join(f'{k} {x:g} %' for k, x in c.choices.items())}. "
        "± is the gain's standard error as if languages and checkpoints were independent; they share items, so it is rough.",
        format_table(rows), *kept, figures.get("curves"), figures["gains"], "## Translation", "Means over pairs.", format_table(translation),
        f"Signatures: `{'`, `'.join(signatures)}`.", figures.get("translation"), "## Beside the paper",
        "Tables 6 and 7, Qwen2 to Marco. Gains in bits per byte are shares of the base, the others points.", format_table(groups),
        "Does the least served language gain most? +1: in that very order, 0: no order; the paper's by 100 - score. The level "
        "before is part of the gain, which alone pulls this up, and bytes differ by script: read both of ours.", format_table(order),
        "Rows of Table 5, and the directions of Table 12 that we ran too; ours are other tests of the same kind.", format_table(scores),
        "## Speed and cost", "From the training logs, without validation and saving.", format_table(cost_rows(c, found))]
    (Path(c.run) / "report.md").write_text("\n\n".join(filter(None, text)) + "\n", encoding="utf-8")
    print(format_table(rows, terminal=True), "", *kept, f"wrote {Path(c.run) / 'report.md'}", sep="\n", flush=True)


def plain(c):
    """Scores of every task, language and checkpoint in results.jsonl as they stand, with the change; report.md beside them."""
    file = Path(c.run) / "results.jsonl"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run eval.py on the checkpoints with out={file}")
    scores = {}  # {(task, metric): {lang: {checkpoint: score}}}; of two rows for one thing the later counts
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        scores.setdefault((row["task"], row["metric"]), {}).setdefault(row["lang"], {})[row["checkpoint"]] = row["score"]
    for what, langs in scores.items():
        names = list(dict.fromkeys(k for row in langs.values() for k in row))
        lines = [[" ".join(what), *names, "change"]]
        for lang, row in [*langs.items(), ("mean", {k: fmean(row[k] for row in langs.values() if k in row) for k in names})]:
            change = f"{row[names[-1]] / row[names[0]] - 1:+.1%}" if row.get(names[0]) and names[-1] in row else ""
            lines.append([lang, *(f"{row[k]:.3f}" if k in row else "" for k in names), change])
        print(format_table(lines, terminal=True), "", sep="\n", flush=True)
        with open(Path(c.run) / "report.md", "a" if what != next(iter(scores)) else "w", encoding="utf-8") as f:
            f.write(format_table(lines) + "\n\n")


def claims(c):
    """Gains over runs that differ only in their seed: mean, standard error over the runs, verdict; claims.md beside the runs."""
    every = [read_results(run, c) for run in c.runs]
    if any((list(found), directions(found)) != (list(every[0]), directions(every[0])) for found in every):
        raise ValueError(f"{', '.join(c.runs)} differ in checkpoints or translation pairs; finish them or set checkpoints=")
    each = lambda what, langs, scale=1, i=0: [0 + scale * gain(found, what, langs)[i] for found in every]  # 0 + -0.0 is 0.0
    texts = (("documents", BPB), ("parallel sentences", LINES))
    cases = [(f"bits per byte saved, {text}", g, each(what, langs), 3) for text, what in texts for g, langs in GROUPS.items()]
    cases += [(f"chrF++ {way}", group, each(CHRF, pairs), 2) for (way, group), pairs in directions(every[0]).items()]
    cases += [(f"{k}, points", group, each((k, "acc"), langs, 100), 1) for k in c.choices for group, langs in GROUPS.items()]
    cases += [("least served gains most", x, [orders(found)[i] for found in every], 2) for i, x in enumerate(("in bits", "in %"))]
    cases += [(f"bits per byte up at most {100 * c.bound:g} %, {text}", x, each(what, GROUPS[x], -1, 2), 1)
              for text, what in texts for x in ("English", "Chinese")]
    rows = [["claim", "group", "mean ± standard error", "each run", "holds"]]
    for name, group, values, digits in cases:
        mean, error = fmean(values), stdev(values) / math.sqrt(len(values))
        holds = round(mean, 6) <= 100 * c.bound if "at most" in name else mean > 2 * error
        shown = [f"{x:+.{digits}f}" for x in (mean, *values)]
        rows.append([name, group, f"{shown[0]} ± {error:.{digits}f}", " ".join(shown[1:]), "yes" if holds else "no"])
    file = Path(c.runs[0]).parent / "claims.md"
    file.write_text(f"# Claims over {len(every)} runs\n\n**Toy scale.** Last checkpoint against first. A gain holds when it is "
                    f"more than 2 standard errors over the runs, a mild test of few runs.\n\n{format_table(rows)}\n", encoding="utf-8")
    print(format_table(rows, terminal=True), f"wrote {file}", sep="\n", flush=True)


def ablation(c):
    """What one change does, by model, metric and group of languages: both means, their difference and its standard error.
    Checkpoints are named MODEL-without and MODEL-with."""
    without, with_ = c.ablation.split(",")
    found = {}
    for i, run in enumerate(c.runs):
        for row in map(json.loads, filter(whole, (Path(run) / "results.jsonl").read_text().splitlines())):
            name, _, kind = row["checkpoint"].rpartition("-")
            group = language_table.group(row["lang"]) if row["lang"] in language_table.NAMES else "pairs" if "-" in row["lang"] else None
            if group:
                found.setdefault((name, row["task"], row["metric"], group), {}).setdefault((kind, i), []).append(row["score"])
    rows = [["model", "task", "metric", "languages", without, with_, "difference", "each run"]]
    for what, scores in found.items():
        runs = range(len(c.runs))
        if all((with_, i) in scores and (without, i) not in scores for i in runs):  # one against the other, such as a win rate
            each = [fmean(scores[with_, i]) for i in runs]
            error = stdev(each) / len(each) ** 0.5
            rows.append([*what, "", f"{fmean(each):.3f} ± {error:.3f}", "", " ".join(f"{x:.2f}" for x in each)])
        if all((kind, i) in scores for kind in (without, with_) for i in runs):
            a, b = ([fmean(scores[kind, i]) for i in range(len(c.runs))] for kind in (without, with_))
            each = [y - x for x, y in zip(a, b)]
            error = stdev(each) / len(each) ** 0.5
            rows.append([*what, f"{fmean(a):.3f}", f"{fmean(b):.3f}", f"{fmean(each):+.3f} ± {error:.3f}",
                         " ".join(f"{x:+.2f}" for x in each)])
    if len(rows) == 1:
        raise ValueError(f"no result of both a checkpoint NAME-{without} and NAME-{with_} in every one of {', '.join(c.runs)}")
    print(format_table(rows, terminal=True), flush=True)


def main(argv=None):
    c, = load(Report, argv=argv)
    if c.ablation:
        return ablation(c)
    if c.data:
        return print(datacard.card(c.data))
    if c.paper or c.steps:
        return (published if c.paper else by_tokens)(c)
    c = replace(c, checkpoints=c.checkpoints or ["base", "stage1", "stage2"])
    (claims if c.claims else plain if c.plain else report)(c)


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
