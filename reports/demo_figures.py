"""Figures of the demo's report: abilities by language, held-out loss over tokens, gains, translation as heat maps."""
import io
import math
from itertools import accumulate
from statistics import fmean

from configs import language_table
from reports import published
from reports.demo_tables import ABILITIES, ability_scores, change
from reports.figures import pyplot, style
from reports.gains import CHRF, DOCUMENTS, GROUPS, LANGUAGES, gain, groups_of, measured, translation_directions
from reports.scores import read_training_log


def draw_figures(c, scores, theme):
    """{name: PNG} of every figure that the scores and logs give, in a theme's colors; None without matplotlib."""
    plt = pyplot()
    if plt is None:
        return None
    pictures = {}
    with plt.rc_context(style(theme)):
        for name, figure in build_figures(plt, c, scores, theme).items():
            png = io.BytesIO()
            figure.savefig(png, dpi=200, format="png")
            plt.close(figure)
            pictures[name] = png.getvalue()
    return pictures


def build_figures(plt, c, scores, theme):
    """{name: matplotlib figure}: no curves without logs, no heat map without translation."""
    langs, figures = measured(scores, DOCUMENTS), {}
    figures["abilities"] = draw_abilities(plt, c, scores, theme)
    logs = {name: log for name in scores if (log := read_training_log(c.run, name, "bpb"))}
    if logs:
        figures["curves"], ax = plt.subplots(figsize=(9, 5.2))
        draw_loss_curves(ax, logs, c.heldout_source, groups_of(scores), theme)
    first, *_, last = scores
    if ("any to any", "without English") in translation_directions(scores):
        figures["translation"], axes = plt.subplots(1, 2, figsize=(9, 4.7))
        for ax, name in zip(axes, (first, last)):
            pairs = [x for x in LANGUAGES if any(pair.startswith(f"{x}-") and not pair.endswith("-en")
                                                 for pair in scores[name][CHRF])]
            grid = [[chrf_score(scores[name], f"{a}-{b}") for b in pairs] for a in pairs]
            image = draw_heat_map(ax, grid, pairs, pairs, best_chrf(scores), theme)
            ax.set_title(f"{name}: chrF++ from row to column")
        figures["translation"].colorbar(image, ax=axes, shrink=0.6, pad=0.01).outline.set_visible(False)
    elif translation_directions(scores):
        figures["translation"], ax = plt.subplots(figsize=(2.2 + 0.42 * len(langs), 2.9))
        rows = {f"{way} English, {name}": [chrf_score(scores[name], pattern.format(x)) for x in langs[1:]]
                for way, pattern in (("into", "{}-en"), ("out of", "en-{}")) for name in (first, last)}
        image = draw_heat_map(ax, list(rows.values()), langs[1:], list(rows), best_chrf(scores), theme)
        ax.set_title("Translation, chrF++")
        figures["translation"].colorbar(image, ax=ax, shrink=0.8, pad=0.01).outline.set_visible(False)
    figures["gains"], axes = plt.subplots(1, 2, figsize=(9, 0.9 + 0.19 * len(langs)))
    saved = {x: gain(scores, DOCUMENTS, [x])[2] for x in langs}
    draw_bars(axes[0], saved, "Ours: bits per byte saved, %", theme)
    paper = {x: published.TABLE6[x][1] - published.TABLE6[x][0] for x in langs}
    draw_bars(axes[1], paper, "Paper: Qwen2-7B to Marco-7B (Table 6), points", theme)
    return figures


def draw_abilities(plt, c, scores, theme):
    """One row per language, one panel per ability: a ring before, a dot after, a dotted line at chance."""
    groups = {group: langs for group, langs in groups_of(scores).items() if group != "all"}
    heights, height = {}, 0.0
    for langs in groups.values():
        for lang in langs:
            heights[lang] = height
            height += 1
        height += 0.7  # space between groups
    panels = [(ability, values) for ability in ABILITIES if (values := ability_scores(scores, ability))]
    size = (1.6 + 1.55 * len(panels), 1.4 + 0.19 * height)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (ability, values) in zip(axes[0], panels):
        for lang, (before, *_, after) in values.items():
            color = theme.colors[language_table.group(lang)]
            ax.plot([before, after], [heights[lang]] * 2, color=color, lw=2, alpha=0.45, zorder=1)
            ax.scatter(before, heights[lang], s=26, facecolor=theme.background, edgecolor=color, lw=1.3, zorder=2)
            ax.scatter(after, heights[lang], s=28, color=color, zorder=3)
        if ability.unit == "%" and ability.metric[0] in c.chance:
            ax.axvline(c.chance[ability.metric[0]], color=theme.muted, lw=1, ls=":", zorder=0)
        low = {lang: y for lang, y in values.items() if lang in GROUPS["low-resource"]}
        means = change(ability, low or values)
        ax.set_title(f"{ability.name}\n{'low-resource' if low else 'mean'} {means}", fontsize=8)
        top = max(max(y) for y in values.values())
        ax.set(xlim=(-3, 103) if ability.unit == "%" else (-0.03 * top, 1.06 * top), ylim=(height - 0.2, -0.8),
               xlabel=ability.unit)
        ax.grid(axis="x", color=theme.grid, lw=0.8)
        ax.set_axisbelow(True)
    axes[0][0].set_yticks(list(heights.values()), [language_table.NAMES[lang] for lang in heights])
    for label, lang in zip(axes[0][0].get_yticklabels(), heights):
        label.set_color(theme.colors[language_table.group(lang)])
    first, *_, last = scores
    figure.suptitle(f"ring: {first}, dot: {last}, dotted: chance", fontsize=8, color=theme.muted, x=0.99, ha="right")
    return figure


def draw_bars(ax, values, title, theme):
    """One bar for each language, the largest on top."""
    langs = sorted(values, key=values.get)
    colors = [theme.colors[language_table.group(x)] for x in langs]
    bars = ax.barh([language_table.NAMES[x] for x in langs], [values[x] for x in langs], color=colors)
    ax.bar_label(bars, fmt="%+.1f", padding=3, fontsize=7.5)
    ax.set(title=title, xticks=[], ylim=(-0.6, len(langs) - 0.4), xmargin=0.14)


def best_chrf(scores):
    return max(row["score"] for by in scores.values() for row in by[CHRF].values())


def chrf_score(by_metric, pair):
    """chrF++ of a pair; nan if it was not measured."""
    row = by_metric[CHRF].get(pair)
    return math.nan if row is None else row["score"]


def draw_heat_map(ax, grid, columns, rows, best, theme):
    """A grid of scores with their numbers; columns and rows are language codes or labels. Returns the image."""
    aspect = "equal" if rows == columns else "auto"
    image = ax.imshow(grid, cmap=theme.heat, vmin=0, vmax=max(best, 1), aspect=aspect)
    for i, row in enumerate(grid):
        for j, score in enumerate(row):
            if not math.isnan(score):
                red, green, blue, _ = image.to_rgba(score)
                color = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
                ax.text(j, i, f"{score:.0f}", ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(len(columns)), [language_table.NAMES.get(x, x) for x in columns], rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), [language_table.NAMES.get(x, x) for x in rows])
    return image


def draw_loss_curves(ax, logs, source, groups, theme):
    """Held-out bits per byte over tokens, runs laid end to end. On the log scale equal slopes are equal percentages.

    source: name of a language's held-out source in the logs, with {lang}; groups: {name: languages}.
    """
    starts = [*accumulate((log[-1]["tokens"] / 1e6 for log in logs.values()), initial=0)]
    x = [start + row["tokens"] / 1e6 for start, log in zip(starts, logs.values()) for row in log]
    rows = [row["bpb"] for log in logs.values() for row in log]
    y = {lang: [row.get(source.format(lang=lang), math.nan) for row in rows] for lang in groups["all"]}
    labels = []  # (height, text, color, font size)
    for group, langs in groups.items():
        if group == "all":
            continue
        color = theme.colors[language_table.group(langs[0])]
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
        ax.axvline(start, color=theme.muted, lw=0.8, zorder=0)
        ax.text(start, 1.01, name, transform=ax.get_xaxis_transform(), color=theme.muted)
    ax.set(yscale="log", xlim=(0, x[-1]), xlabel="training tokens, millions", ylabel="bits per byte of held-out text")
    ax.set_yticks([.25, .5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.grid(axis="y", color=theme.grid, lw=0.8)
