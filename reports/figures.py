"""Figures 9 and 10 of the paper: benchmarks of a run's checkpoints by tokens seen, also as tables.

    for k in out/marco/stage1/checkpoints/step-*; do python eval.py $k out=out/marco/stage1 preset=paper ...; done
    python report.py run=out/marco/stage1 steps=True                                    # steps.md and figures in the run
    python report.py steps=True runs='["out/marco/stage1", "out/marco/stage2"]'         # stages laid end to end

train.py keeps the newest checkpoints only: raise its keep= before the run.
"""
import math
import re
from pathlib import Path
from statistics import fmean

from configs import language_table
from evaluation.results import GROUPS, benchmark_of, format_table, groups_of, language_code, read_rows
from reports.tables import alike, mean, read

MISSING = "No figure: it needs a package: pip install matplotlib"
COLORS = {"en": "#111111", "zh": "#00876a", "high": "#1f6fb4", "low": "#d0581a"}


def tokens_at(run, steps):
    """({step: tokens seen}, tokens of the whole run) by run/log.jsonl. Every step has as many, so what is not there is known."""
    file = Path(run) / "log.jsonl"
    log = [row for row in read_rows(file, ("step",)) if row.get("tokens")] if file.is_file() else []
    last = max(log, key=lambda row: row["step"], default=None)
    if last is None or last["step"] < max(steps):
        raise ValueError(f"{file} does not reach step {max(steps)}; run= must be the run that these checkpoints are of")
    return {step: step * last["tokens"] // last["step"] for step in steps}, last["tokens"]


def by_tokens(c):
    """Write steps.md and its figures: every benchmark of the checkpoints step-N over tokens seen, runs laid end to end."""
    runs, rows, seen, begin = c.runs or [c.run], [], {}, 0
    for run in runs:
        found = [row for row in read(Path(run) / "results.jsonl", c.checkpoints, shots=c.shots, preset=c.preset)
                 if re.fullmatch(r"step-\d+", row["checkpoint"])]
        if not found:
            raise ValueError(f"{run}/results.jsonl has no checkpoint named step-N; run eval.py on {run}/checkpoints/step-*")
        at, total = tokens_at(run, {int(row["checkpoint"].removeprefix("step-")) for row in found})
        for row in found:
            step, row["checkpoint"] = int(row["checkpoint"].removeprefix("step-")), f"{run}/{row['checkpoint']}"
            seen[row["checkpoint"]] = begin + at[step]
        rows, begin = rows + found, begin + total
    order, parts = sorted(seen, key=seen.get), {}
    for row in rows:
        parts.setdefault((benchmark_of(row["task"], row["lang"]), row["metric"]), []).append(row)
    text = ["# Benchmarks by tokens seen", f"Checkpoints of {', '.join(map(str, runs))}; means are unweighted."]
    for key, some in parts.items():
        alike(some, " ".join(key))
        here = [k for k in order if any(row["checkpoint"] == k for row in some)]
        curves = {lang: [mean([row for row in some if row["checkpoint"] == k and language_code(row["lang"]) == lang])[0] for k in here]
                  for lang in dict.fromkeys(language_code(row["lang"]) for row in some)}
        groups = {g: [curves[x] for x in curves if g in groups_of(x)] for g in GROUPS}
        means = {f"**{g}** ({len(v)})": list(map(fmean, zip(*v))) for g, v in groups.items() if len(v) > 1}
        head = [" ".join(key), *(f"{seen[k] / 1e6:,.2f} M" for k in here)]
        shown = format_table([head, *([name, *(f"{x:.2f}" for x in y)] for name, y in (curves | means).items())])
        file = Path(runs[0]) / f"steps-{'-'.join(key)}.png".replace("+", "p")
        text += [f"## {key[0]}, {key[1]}", shown, plot(file, [seen[k] / 1e6 for k in here], curves, means, head[0])]
    (Path(runs[0]) / "steps.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(*text, f"wrote {Path(runs[0]) / 'steps.md'}", sep="\n\n", flush=True)


def pyplot():
    """matplotlib.pyplot that draws into files, or None where it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return None
    plt.switch_backend("Agg")
    return plt


def plot(file, x, curves, means, title):
    """Draw the curves of the languages, and of group means thick; Markdown that shows the figure. Of many languages only the
    outermost get names."""
    if (plt := pyplot()) is None:
        return MISSING
    figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    colors = {f"**{name}**": COLORS[key] for name, key in zip(GROUPS, COLORS)}
    last = sorted(curves, key=lambda name: curves[name][-1])
    named, at = {*means, "en", "zh", *(last if len(last) < 12 else last[:1] + last[-1:])}, -math.inf
    low, high = min(map(min, curves.values())), max(map(max, curves.values()))
    for name, y in sorted((curves | means).items(), key=lambda item: item[1][-1]):
        color = COLORS[language_table.group(name)] if name in language_table.MARCO else colors.get(name.rsplit(" (", 1)[0], "#888888")
        ax.plot(x, y, lw=2.4 if name in means else 0.9, alpha=1 if name in means else 0.5, marker="o", ms=3, color=color)
        if name in named:
            at = max(y[-1], at + 0.045 * (high - low))  # a line of text above the name below
            ax.annotate(name.replace("**", ""), (x[-1], at), (5, 0), textcoords="offset points", fontsize=8, va="center",
                        color=color)
    ax.set(title=title, xlabel="training tokens, millions", xlim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return f"![{title}]({file.name})"
