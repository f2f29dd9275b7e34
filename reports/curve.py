"""Benchmarks by tokens seen, as in the paper's Figures 9 and 10: tables and figures of a run's checkpoints.

    for k in out/marco/stage1/checkpoints/step-*; do python eval.py $k out=out/marco/stage1 preset=paper ...; done
    python report.py curve runs='["out/marco/stage1"]'                           # steps.md and figures in the run
    python report.py curve runs='["out/marco/stage1", "out/marco/stage2"]'       # stages laid end to end

train.py keeps only the newest checkpoints: raise its keep= before the run.
"""
import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from configs import language_table
from evaluation.results import GROUPS, benchmark_of, format_table, groups_of, language_code
from reports.figures import COLORS, MISSING, pyplot
from reports.paper import language_mean
from reports.scores import check_comparable, read_jsonl, read_scores


@dataclass(frozen=True)
class Curve:
    runs: list                 # folders with results.jsonl and log.jsonl, one per stage, in training order
    checkpoints: list | None = None  # None: every checkpoint named step-N
    shots: int | None = None   # only scores with this many shots
    preset: str | None = None  # only scores of this preset of eval.py

    def __post_init__(self):
        if not self.runs:
            raise ValueError("""runs must name a folder, got []; set runs='["out/marco/stage1"]'""")


def write_curve(c: Curve) -> None:
    """Write steps.md and its figures into the first run."""
    rows, tokens = read_steps(c)
    in_order = sorted(tokens, key=tokens.get)
    parts: dict = {}  # {(benchmark, metric): rows}
    for row in rows:
        parts.setdefault((benchmark_of(row["task"], row["lang"]), row["metric"]), []).append(row)
    text = ["# Benchmarks by tokens seen", f"Checkpoints of {', '.join(map(str, c.runs))}; means are unweighted."]
    for (benchmark, metric), part in parts.items():
        check_comparable(part, f"{benchmark} {metric}")
        measured = {row["checkpoint"] for row in part}
        checkpoints = [k for k in in_order if k in measured]
        languages, means = curves_of(part, checkpoints)
        millions, title = [tokens[k] / 1e6 for k in checkpoints], f"{benchmark} {metric}"
        table = [[title, *(f"{x:,.2f} M" for x in millions)]]
        table += [[name, *(f"{score:.2f}" for score in y)] for name, y in (languages | means).items()]
        file = Path(c.runs[0]) / f"steps-{benchmark}-{metric}.png".replace("+", "p")
        text += [f"## {benchmark}, {metric}", format_table(table), plot(file, millions, languages, means, title)]
    file = Path(c.runs[0]) / "steps.md"
    file.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(*text, f"wrote {file}", sep="\n\n", flush=True)


def read_steps(c):
    """(rows of all checkpoints step-N, named run/step-N; {checkpoint: tokens seen}). Runs are laid end to end."""
    rows, tokens, start = [], {}, 0
    for run in c.runs:
        found = [row for row in read_scores(Path(run) / "results.jsonl", c.checkpoints, shots=c.shots, preset=c.preset)
                 if re.fullmatch(r"step-\d+", row["checkpoint"])]
        if not found:
            raise ValueError(f"{run}/results.jsonl has no checkpoint named step-N; "
                             f"run eval.py on {run}/checkpoints/step-*")
        steps = {row["checkpoint"]: int(row["checkpoint"].removeprefix("step-")) for row in found}
        tokens_at, total = tokens_by_step(run, steps.values())
        for row in found:
            name = f"{run}/{row['checkpoint']}"
            tokens[name] = start + tokens_at[steps[row["checkpoint"]]]
            rows.append(row | {"checkpoint": name})
        start += total
    return rows, tokens


def tokens_by_step(run, steps):
    """({step: tokens seen}, tokens of the whole run), from run/log.jsonl. All steps have the same number of tokens."""
    file = Path(run) / "log.jsonl"
    log = [row for row in read_jsonl(file, ("step",)) if row.get("tokens")] if file.is_file() else []
    last = max(log, key=lambda row: row["step"], default=None)
    if last is None or last["step"] < max(steps):
        raise ValueError(f"{file} does not reach step {max(steps)}; "
                         "runs= must name the run that wrote these checkpoints")
    return {step: step * last["tokens"] // last["step"] for step in steps}, last["tokens"]


def curves_of(rows, checkpoints):
    """({language: its scores over the checkpoints}, {name of a group: the mean scores of its languages})."""
    scores = {}
    for row in rows:
        scores.setdefault(language_code(row["lang"]), {}).setdefault(row["checkpoint"], []).append(row)
    languages = {lang: [language_mean(by[k])[0] for k in checkpoints] for lang, by in scores.items()}
    means = {}
    for group in GROUPS:
        members = [y for lang, y in languages.items() if group in groups_of(lang)]
        if len(members) > 1:
            means[f"**{group}** ({len(members)})"] = [fmean(column) for column in zip(*members)]
    return languages, means


def plot(file, x, languages, means, title):
    """Draw thin curves for the languages and thick ones for the means; return Markdown that shows the figure.

    Of twelve languages or more only the lowest, the highest, English and Chinese get a name.
    """
    plt = pyplot()
    if plt is None:
        return MISSING
    figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    group_colors = {f"**{name}**": COLORS[key] for name, key in zip(GROUPS, COLORS)}
    by_last = sorted(languages, key=lambda name: languages[name][-1])
    labeled = {*means, "en", "zh", *(by_last if len(by_last) < 12 else by_last[:1] + by_last[-1:])}
    low, high = min(map(min, languages.values())), max(map(max, languages.values()))
    height = -math.inf
    for name, y in sorted((languages | means).items(), key=lambda item: item[1][-1]):
        if name in language_table.MARCO:
            color = COLORS[language_table.group(name)]
        else:
            color = group_colors.get(name.rsplit(" (", 1)[0], "#888888")
        width, alpha = (2.4, 1) if name in means else (0.9, 0.5)
        ax.plot(x, y, lw=width, alpha=alpha, marker="o", ms=3, color=color)
        if name in labeled:
            height = max(y[-1], height + 0.045 * (high - low))  # at least one line of text above the label below
            ax.annotate(name.replace("**", ""), (x[-1], height), (5, 0), textcoords="offset points", fontsize=8,
                        va="center", color=color)
    ax.set(title=title, xlabel="training tokens, millions", xlim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return f"![{title}]({file.name})"
