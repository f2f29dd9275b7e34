"""Figures of the demo's report: held-out loss over tokens, gains by language, translation as heat maps."""
import math
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from configs import language_table
from reports import published
from reports.figures import COLORS, pyplot
from reports.gains import CHRF, DOCUMENTS, GROUPS, LANGUAGES, gain, translation_directions
from reports.scores import read_training_log

STYLE = {"font.size": 9, "axes.titlelocation": "left", "figure.constrained_layout.use": True, "xtick.major.size": 0,
         "ytick.major.size": 0, **{f"axes.spines.{side}": False for side in ("top", "right", "bottom", "left")}}


def draw_figures(c, scores):
    """Write the figures; {name: path}. No curves without logs; only a message without matplotlib."""
    plt = pyplot()
    if plt is None:
        text = "No figures: they need a package: pip install matplotlib"
        print(text, flush=True)
        return {"gains": text}
    figures = {}
    with plt.rc_context(STYLE):
        figures["gains"], axes = plt.subplots(1, 2, figsize=(9, 6.4))
        draw_gains(figures["gains"], axes, scores)
        if ("any to any", "without English") in translation_directions(scores):
            figures["translation"], axes = plt.subplots(1, 2, figsize=(9, 4.7))
            best = max(row["score"] for by in scores.values() for row in by[CHRF].values())
            for ax, name in zip(axes, (c.checkpoints[0], list(scores)[-1])):
                draw_heat_map(ax, scores[name][CHRF], best, f"{name}: chrF++ from row to column")
        logs = {name: log for name in scores if (log := read_training_log(c.run, name, "bpb"))}
        if logs:
            figures["curves"], ax = plt.subplots(figsize=(9, 5.2))
            draw_loss_curves(ax, logs, c.heldout_source)
        paths = {name: Path(c.run) / f"{name}.png" for name in figures}
        for name, figure in figures.items():
            figure.savefig(paths[name], dpi=200)
            plt.close(figure)
    return paths


def draw_gains(figure, axes, scores):
    """Bars for every language: our gain in bits per byte beside the paper's in points."""
    saved = {x: gain(scores, DOCUMENTS, [x])[2] for x in LANGUAGES}
    published_gain = {x: after - before for x, (before, after) in published.TABLE6.items()}
    draw_bars(axes[0], saved, "Ours: bits per byte saved, %")
    draw_bars(axes[1], published_gain, "Paper: Qwen2-7B to Marco-7B (Table 6), points")
    for i, (group, color) in enumerate(zip(GROUPS, COLORS.values())):
        figure.text(0.98, 0.2 - 0.033 * i, group, color=color, fontweight="bold", ha="right")


def draw_bars(ax, values, title):
    """One bar for each language, the largest on top."""
    langs = sorted(LANGUAGES, key=values.get)
    colors = [COLORS[language_table.group(x)] for x in langs]
    bars = ax.barh([language_table.NAMES[x] for x in langs], [values[x] for x in langs], color=colors)
    ax.bar_label(bars, fmt="%+.1f", padding=3, fontsize=7.5)
    ax.set(title=title, xticks=[], ylim=(-0.6, len(langs) - 0.4), xmargin=0.14)


def draw_heat_map(ax, rows, best, title):
    """Scores of all translation pairs without English, from the row's language into the column's."""
    langs = [x for x in LANGUAGES if any(pair.startswith(f"{x}-") and not pair.endswith("-en") for pair in rows)]
    grid = [[rows[f"{a}-{b}"]["score"] if f"{a}-{b}" in rows else math.nan for b in langs] for a in langs]
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=best)
    for i, row in enumerate(grid):
        for j, score in enumerate(row):
            if not math.isnan(score):
                color = "white" if score > 0.6 * best else "black"
                ax.text(j, i, f"{score:.0f}", ha="center", va="center", color=color, fontsize=8)
    names = [language_table.NAMES[x] for x in langs]
    ax.set_xticks(range(len(langs)), names, rotation=45, ha="right")
    ax.set(title=title, yticks=range(len(langs)), yticklabels=names)


def draw_loss_curves(ax, logs, source):
    """Held-out bits per byte over tokens, runs laid end to end. On the log scale equal slopes are equal percentages.

    source: name of a language's held-out source in the logs, with {lang}.
    """
    starts = [*accumulate((log[-1]["tokens"] / 1e6 for log in logs.values()), initial=0)]
    x = [start + row["tokens"] / 1e6 for start, log in zip(starts, logs.values()) for row in log]
    rows = [row["bpb"] for log in logs.values() for row in log]
    y = {lang: [row.get(source.format(lang=lang), math.nan) for row in rows] for lang in LANGUAGES}
    labels = []  # (height, text, color, font size)
    for color, (group, langs) in zip(COLORS.values(), GROUPS.items()):
        by_step = list(zip(*(y[lang] for lang in langs)))
        ax.plot(x, by_step, color=color, lw=0.8, alpha=0.4)
        ax.plot(x, list(map(fmean, by_step)), color=color, lw=2.4)
        labels.append((fmean(by_step[-1]), group + " (mean)" * (len(langs) > 1), color, 9))
        if len(langs) > 1:  # only the lowest and the highest language get a name
            last = sorted((y[lang][-1], language_table.NAMES[lang], color, 7.5) for lang in langs)
            labels += last[:1] + last[-1:]
    height = 0
    for value, name, color, size in sorted(labels):
        height = max(value, height * 1.08)  # at least one line of text above the label below
        weight = "bold" if size == 9 else "normal"
        ax.text(x[-1] * 1.012, height, name, color=color, fontsize=size, fontweight=weight, va="center")
    for start, name in zip(starts, logs):
        ax.axvline(start, color="#bbbbbb", lw=0.8, zorder=0)
        ax.text(start, 1.01, name, transform=ax.get_xaxis_transform(), color="#666666")
    ax.set(yscale="log", xlim=(0, x[-1]), xlabel="training tokens, millions", ylabel="bits per byte of held-out text")
    ax.set_yticks([.25, .5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.grid(axis="y", color="#e4e4e4", lw=0.8)
