"""Tables of the demo's report: rows of cells, the header first. `c` are the settings of demo.py."""
import math
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from configs import language_table
from reports import published
from reports.gains import (
    BLEU,
    CHRF,
    DOCUMENTS,
    GROUPS,
    KEPT,
    LANGUAGES,
    SENTENCES,
    gain,
    gain_order,
    groups_of,
    mean_scores,
    measured,
    spearman,
    translation_directions,
)
from reports.scores import read_jsonl, read_training_log


class Ability(NamedTuple):
    name: str
    metric: tuple          # (task, metric)
    place: str = "{}"      # a language's row: "{}-en" is the pair into English
    unit: str = "%"


ABILITIES = [
    Ability("facts stated in its texts", ("mmmlu_stated", "acc")),
    Ability("facts stated only elsewhere", ("mmmlu_unstated", "acc")),
    Ability("reading", ("belebele", "acc")),
    Ability("cause and effect", ("xcopa", "acc")),
    Ability("translation into English", CHRF, "{}-en", "chrF++"),
    Ability("translation out of English", CHRF, "en-{}", "chrF++"),
    Ability("bits per byte", DOCUMENTS, "{}", "less is better"),
]
# Rows of the paper's Table 5: (its benchmark, our task and metric, the languages of Table 4)
TABLE5 = [("Belebele", ("belebele", "acc"), LANGUAGES[1:]),
          ("XCOPA", ("xcopa", "acc"), ["id", "it", "th", "tr", "vi", "zh"]),
          ("MMLU", ("mmmlu_unstated", "acc"), ["en"]), ("MMLU", ("mmmlu_stated", "acc"), ["en"])]
JUDGE_GROUPS = {"en": "English", "zh": "Chinese", "high": "other high-resource", "low": "low-resource"}


def choice_tasks(c, scores):
    """The multiple-choice tasks that were measured."""
    return [task for task in c.chance if measured(scores, (task, "acc"))]


def ability_scores(scores, ability, langs=LANGUAGES):
    """{language: [score of each checkpoint]} in the ability's unit, for the languages it was measured in."""
    scale = 100 if ability.unit == "%" else 1
    places = {lang: ability.place.format(lang) for lang in langs}
    have = measured(scores, ability.metric, places.values())
    return {lang: [scale * by[ability.metric][place]["score"] for by in scores.values()]
            for lang, place in places.items() if place in have}


def glance_rows(c, scores):
    """Every ability of the first and the last checkpoint, and of c.aligned where measured: means over the groups."""
    groups = list(groups_of(scores))
    first, *_, last = (name for name in scores if name != c.aligned)
    scores = {name: by for name, by in scores.items() if name in (first, last, c.aligned)}
    rows = [[" → ".join(scores), "chance", *groups]]
    for ability in ABILITIES:
        row = [f"{ability.name}, {ability.unit}", f"{c.chance[ability.metric[0]]:g}" if ability.unit == "%"
               and ability.metric[0] in c.chance else ""]
        for group in groups:
            row.append(change(ability, ability_scores(scores, ability, GROUPS[group]), range(len(scores))))
        if any(row[2:]):
            rows.append(row)
    return rows


def change(ability, values, checkpoints=(0, -1)):
    """The means over languages as text, of the first and the last checkpoint or of those given; empty without any."""
    if not values:
        return ""
    digits = 2 if ability.metric == DOCUMENTS else 0
    means = (fmean(scores[i] for scores in values.values()) for i in checkpoints)
    return " → ".join(f"{mean:.{digits}f}" for mean in means)


def judge_rows(run):
    """Conversations by the tinyworld's exact judge: every metric by group, with its 95 % interval; None without any."""
    cells, checkpoints = {}, {}
    for row in read_jsonl(Path(run) / "results.jsonl"):
        if row.get("lang") == "mean" and row.get("group") in JUDGE_GROUPS and "low" in row and "preset" not in row:
            name = row["metric"].replace("_", " ") + (f" against {row['against']}" if "against" in row else "")
            text = f"{100 * row['score']:.0f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
            cells[row["checkpoint"], name, row["group"]] = text
            checkpoints[row["checkpoint"], name] = None
    if not cells:
        return None
    groups = [group for group in JUDGE_GROUPS if any(key[2] == group for key in cells)]
    rows = [["judged exactly, %", "checkpoint", *(JUDGE_GROUPS[group] for group in groups)]]
    for checkpoint, name in sorted(checkpoints, key=lambda key: key[1]):
        rows.append([name, checkpoint, *(cells.get((checkpoint, name, group), "") for group in groups)])
    return rows


def language_rows(c, scores):
    """Every language and group: bits per byte, gain, accuracy of the multiple-choice tasks."""
    rows = [["bits per byte", *scores, "gain", "gain, %", *choice_tasks(c, scores)]]
    for group, langs in groups_of(scores).items():
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
    for task in choice_tasks(c, scores):
        members = measured(scores, (task, "acc"), langs)
        cell = "/".join(f"{100 * x:.0f}" for x, _ in mean_scores(scores, (task, "acc"), members)) if members else ""
        row.append(f"{cell} ± {100 * gain(scores, (task, 'acc'), members)[1]:.1f}" if errors and members else cell)
    return row


def retention(c, scores):
    """Sentences that say whether English and Chinese were kept, on documents and on parallel sentences."""
    out = []
    for metric, text in ((DOCUMENTS, "documents"), (SENTENCES, "parallel sentences")):
        for group in KEPT:
            if group not in groups_of(scores, metric):
                continue
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
    for group, langs in groups_of(scores).items():
        by_task = {task: measured(scores, (task, "acc"), langs) for task in choice_tasks(c, scores)}
        points = [100 * gain(scores, (task, "acc"), members)[0] for task, members in by_task.items() if members]
        points = points or [math.nan]
        row = [group, f"{gain(scores, DOCUMENTS, langs)[2]:+.1f} %", f"{fmean(points):+.1f}"]
        for table in (published.TABLE6, published.TABLE7):
            row.append(f"{fmean(table[x][1] - table[x][0] for x in langs):+.1f}")
        rows.append(row)
    return rows


def order_rows(scores):
    """Rank correlation of the first score with the gain, ours and the paper's."""
    ranks, langs = gain_order(scores), measured(scores, DOCUMENTS)
    for table in (published.TABLE6, published.TABLE7):
        ranks.append(spearman([100 - table[x][0] for x in langs], [table[x][1] - table[x][0] for x in langs]))
    return [["Spearman", "ours, gain in bits", "ours, gain in %", "paper 7B", "72B"],
            ["the worse before, the higher the gain", *(f"{rank:+.2f}" for rank in ranks)]]


def benchmark_rows(c, scores):
    """Rows of the paper's Tables 5 and 12 beside our tasks of the same kind."""
    first, *_, last = scores
    directions = translation_directions(scores)
    with_english = directions.get(("en to xx", "all"), []) + directions.get(("xx to en", "all"), [])
    table12 = measured(scores, BLEU, published.TABLE12)
    rows = [["benchmark", "Qwen2-7B", "Marco-7B", "gain", "ours", "mean of", first, last, "gain"]]
    for name, metric, places in [*TABLE5, ("Flores", BLEU, with_english), ("Table 12", BLEU, table12)]:
        places = measured(scores, metric, places)
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
