"""At which size does each ability appear? The same training behind base checkpoints of growing size, side by side.

    python report.py ladder out=out/ladder runs='{1e6: "out/ladder/1M", 4e6: "out/ladder/4M"}'
    python report.py ladder run=out/ladder    # folders step-N in out/ladder; log.jsonl there gives their tokens

Each folder has a results.jsonl of the base checkpoint and of what was trained from it; a list of folders are seeds,
which are averaged. Writes ladder.md, ladder.png and ladder.json (a row for each size, ability and group of languages).
"""
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from evaluation.results import format_table
from reports.curve import tokens_by_step
from reports.demo_tables import ABILITIES, JUDGE_GROUPS
from reports.figures import LIGHT, MISSING, pyplot, style
from reports.gains import CHANCE, GROUPS, mean_scores, measured, read_checkpoints
from reports.scores import read_jsonl, write_json

GROUP_COLORS = {"English": "en", "Chinese": "zh", "other high-resource": "high", "low-resource": "low"}
# metrics of the tinyworld's exact judge
JUDGED = {"stated_facts": "answers: right fact", "right_language": "answers: right language"}


@dataclass(frozen=True)
class Ladder:
    runs: dict | None = None  # {tokens of the base: folder with results.jsonl, or a list of folders, one per seed}
    run: str | None = None    # instead: a folder with a log.jsonl and folders step-N
    out: str | None = None    # folder of the report; None: run, or the first folder's parent
    checkpoints: list = field(default_factory=lambda: ["base", "stage1", "stage2"])  # in training order
    chance: dict = field(default_factory=lambda: dict(CHANCE))  # multiple-choice tasks: accuracy by chance in %

    def __post_init__(self):
        if (self.runs is None) == (self.run is None):
            raise ValueError("""set one of run=out/ladder and runs='{1e6: "out/ladder/1M", 4e6: "out/ladder/4M"}'""")


def write_ladder(c: Ladder) -> None:
    """Write ladder.md, ladder.png and ladder.json; print the table."""
    runs = folders_by_tokens(c)
    rows = [row for tokens, folders in runs.items() for row in rung_rows(c, tokens, folders)]
    check_alike(rows)
    out = Path(c.out or c.run or Path(next(iter(runs.values()))[0]).parent)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "ladder.json", rows)
    first, last = c.checkpoints[0], c.checkpoints[-1]
    table = table_rows(rows)
    text = ["# The ladder: abilities by the size of the base",
            f"Means over languages, {first} → {last}; columns are the tokens that {first} had seen. Appears: the "
            f"smallest size from which on {last} is above chance by more than 3 standard errors. Gain: from which on "
            f"{last} is better than {first} by more than 2 standard errors. Standard errors are over seeds where there "
            "are several, else over items and languages.",
            format_table(table), draw_ladder(out / "ladder.png", rows, first, last)]
    (out / "ladder.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print(format_table(table, terminal=True), f"wrote {out / 'ladder.md'}, ladder.png and ladder.json", sep="\n\n")


def folders_by_tokens(c):
    """{tokens of the base: its folders}, smallest first."""
    if c.runs is not None:
        bad = [tokens for tokens in c.runs if not isinstance(tokens, int | float) or tokens <= 0]
        if bad or not c.runs:
            raise ValueError(f"runs must map numbers of tokens to folders, got {c.runs}")
        found = {int(tokens): folders if isinstance(folders, list) else [folders] for tokens, folders in c.runs.items()}
    else:
        steps = {int(path.name.removeprefix("step-")): [str(path)] for path in Path(c.run).glob("step-*")
                 if re.fullmatch(r"step-\d+", path.name) and (path / "results.jsonl").is_file()}
        if not steps:
            raise ValueError(f"{c.run} has no folder step-N with a results.jsonl; run eval.py with out={c.run}/step-N")
        tokens, _ = tokens_by_step(c.run, list(steps))
        found = {tokens[step]: folders for step, folders in steps.items()}
    return dict(sorted(found.items()))


# ---------------------------------------------------------------------- scores of one size

def rung_rows(c, tokens, folders):
    """Rows of one size: for each ability and group the mean before and after, with standard errors."""
    seeds = [read_checkpoints(folder, c.checkpoints, c.chance) for folder in folders]
    rows = []
    for ability in ABILITIES:
        scale = 100 if ability.unit == "%" else 1
        for group in GROUP_COLORS:
            places = [ability.place.format(lang) for lang in GROUPS[group]]
            have = [measured(scores, ability.metric, places) for scores in seeds]
            if any(members != have[0] for members in have):
                raise ValueError(f"{', '.join(folders)} were not measured alike: {' '.join(ability.metric)} in "
                                 f"{[' '.join(members) for members in have]}")
            if not have[0]:
                continue
            means = [mean_scores(scores, ability.metric, have[0]) for scores in seeds]
            first_seed = [by[ability.metric][place] for by in seeds[0].values() for place in have[0]]
            known = all(row["stderr"] is not None for row in first_seed)
            before, after = (seed_mean([scale * x[i][0] for x in means], scale * means[0][i][1] if known else None)
                             for i in (0, -1))
            rows.append({"tokens": tokens, "ability": ability.name, "unit": ability.unit, "group": group,
                         "places": have[0], "chance": c.chance.get(ability.metric[0]) if ability.unit == "%" else None,
                         "before": before[0], "before_stderr": before[1], "after": after[0], "after_stderr": after[1],
                         "seeds": len(seeds)})
    return rows + judged_rows(tokens, folders)


def seed_mean(values, one_error):
    """(mean over seeds, its standard error: over seeds, or that of a single one, None if not known)."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else one_error


def judged_rows(tokens, folders):
    """The exact judge's share of right answers by group, of the last checkpoint that it judged; there is no before."""
    scores = {}  # {(metric, group): [(score, error) of each seed]}
    for folder in folders:
        newest = {}
        for row in read_jsonl(Path(folder) / "results.jsonl"):
            if row.get("lang") == "mean" and row.get("group") in JUDGE_GROUPS and row["metric"] in JUDGED:
                newest[row["metric"], row["group"]] = 100 * row["score"], 100 * row["stderr"]
        for key, value in newest.items():
            scores.setdefault(key, []).append(value)
    rows = []
    for (metric, group), values in scores.items():
        mean, error = seed_mean([score for score, _ in values], values[0][1])
        rows.append({"tokens": tokens, "ability": JUDGED[metric], "unit": "%", "group": JUDGE_GROUPS[group],
                     "places": [], "chance": None, "before": None, "before_stderr": None, "after": mean,
                     "after_stderr": error, "seeds": len(values)})
    return rows


def check_alike(rows):
    """ValueError if an ability was measured in other languages at another size."""
    first = {}
    for row in rows:
        key = row["ability"], row["group"]
        other = first.setdefault(key, row)
        if other["places"] != row["places"]:
            raise ValueError(f"{row['ability']}, {row['group']}: at {other['tokens']:,} tokens measured in "
                             f"{' '.join(other['places'])}, at {row['tokens']:,} in {' '.join(row['places'])}; "
                             "run eval.py with the same config")


# ---------------------------------------------------------------------- the table and the figure

def series(rows):
    """{(ability, group): its rows, smallest size first}."""
    found = {}
    for row in rows:
        found.setdefault((row["ability"], row["group"]), []).append(row)
    return found


def table_rows(rows):
    sizes = sorted({row["tokens"] for row in rows})
    table = [["ability", "languages", *(f"{tokens / 1e6:g} M" for tokens in sizes), "appears", "gain"]]
    for (ability, group), points in series(rows).items():
        digits = 2 if points[0]["unit"] == "less is better" else 0
        cells = {row["tokens"]: f"{row['after']:.{digits}f}" if row["before"] is None
                 else f"{row['before']:.{digits}f} → {row['after']:.{digits}f}" for row in points}
        table.append([f"{ability}, {points[0]['unit']}", group, *(cells.get(tokens, "") for tokens in sizes),
                      from_size(points, above_chance), from_size(points, gains)])
    return table


def above_chance(row):
    """Whether the score after beats that before by more than 2 standard errors; None without a before or error."""
    if row["chance"] is None or row["after_stderr"] is None:
        return None
    return row["after"] - row["chance"] > 3 * row["after_stderr"]


def gains(row):
    """Whether the score after beats that before by more than 2 standard errors; None without a before or an error."""
    if row["before"] is None or row["before_stderr"] is None:
        return None
    difference = row["after"] - row["before"]
    if row["unit"] == "less is better":
        difference = -difference
    return difference > 2 * math.hypot(row["before_stderr"], row["after_stderr"])


def from_size(points, holds):
    """The smallest size from which on a condition holds, as text."""
    verdicts = [holds(row) for row in points]
    if None in verdicts:
        return ""
    size = "no"
    for row, verdict in zip(reversed(points), reversed(verdicts)):
        if not verdict:
            break
        size = f"{row['tokens'] / 1e6:g} M"
    return size


def draw_ladder(file, rows, first, last):
    """One panel for each ability: scores over the tokens of the base, by group. Return Markdown that shows it."""
    plt = pyplot()
    if plt is None:
        return MISSING
    theme, abilities = LIGHT, list(dict.fromkeys(row["ability"] for row in rows))
    lines = round(math.sqrt(len(abilities)))
    columns = math.ceil(len(abilities) / lines)
    with plt.rc_context(style(theme)):
        figure, axes = plt.subplots(lines, columns, figsize=(0.6 + 2.7 * columns, 0.6 + 2.5 * lines), squeeze=False)
        for ax, ability in zip(axes.flat, abilities):
            draw_panel(ax, {group: points for (name, group), points in series(rows).items() if name == ability}, theme)
            ax.set_title(ability, fontweight="bold")
        for ax in axes.flat[len(abilities):]:
            ax.set_axis_off()
        for ax in axes[-1]:
            ax.set_xlabel("tokens of the base")
        handles = [plt.Line2D([], [], color=theme.colors[key], lw=2.2, label=group)
                   for group, key in GROUP_COLORS.items()]
        handles += [plt.Line2D([], [], color=theme.muted, lw=1.2, ls="--", label=first),
                    plt.Line2D([], [], color=theme.muted, lw=2.2, label=last),
                    plt.Line2D([], [], color=theme.muted, lw=1, ls=":", label="chance")]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
        figure.savefig(file, dpi=160)
        plt.close(figure)
    return f"![abilities by the size of the base]({file.name})"


def draw_panel(ax, by_group, theme):
    """Dashed before, solid after with its 95 % band, dotted chance; tokens on a log axis."""
    for group, points in by_group.items():
        color, x = theme.colors[GROUP_COLORS[group]], [row["tokens"] for row in points]
        after, half = [row["after"] for row in points], [1.96 * (row["after_stderr"] or 0) for row in points]
        ax.plot(x, after, color=color, lw=2.2, marker="o", ms=4)
        ax.fill_between(x, [y - h for y, h in zip(after, half)], [y + h for y, h in zip(after, half)], color=color,
                        alpha=0.15, lw=0)
        if points[0]["before"] is not None:
            ax.plot(x, [row["before"] for row in points], color=color, lw=1.2, ls="--", marker="o", ms=2.5)
    row = next(iter(by_group.values()))[0]
    if row["chance"] is not None:
        ax.axhline(row["chance"], color=theme.muted, lw=1, ls=":")
    sizes = sorted({row["tokens"] for points in by_group.values() for row in points})
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{tokens / 1e6:g} M" for tokens in sizes], fontsize=7)
    ax.minorticks_off()
    ax.set_ylabel(row["unit"])
    ax.set_ylim((0, 103) if row["unit"] == "%" else (0, None))
    ax.grid(axis="y", color=theme.grid, lw=0.8)
