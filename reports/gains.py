"""Scores of a run's checkpoints in Marco-LLM's 29 languages, and the gain of the last checkpoint over the first.

`scores` is {checkpoint: {(task, metric): {language or pair: row of results.jsonl}}}, in the order of training. Every
checkpoint has the same tasks and languages; a run may have fewer than the 29.
"""
import math
from pathlib import Path
from statistics import correlation, fmean

from configs import language_table
from reports.scores import read_jsonl

LANGUAGES = list(language_table.MARCO)  # in the paper's order: English, Chinese, 8 other high-resource, 19 low-resource
GROUPS = {"English": ["en"], "Chinese": ["zh"], "other high-resource": language_table.HIGH[2:],
          "low-resource": language_table.LOW, "all": LANGUAGES}
KEPT = ("English", "Chinese")  # the groups that continual pretraining must not harm
DOCUMENTS, SENTENCES = ("heldout", "bits_per_byte"), ("flores", "bits_per_byte")
BLEU, CHRF = ("translation", "bleu"), ("translation", "chrf++")
CHANCE = dict(belebele=25, xcopa=50, mmmlu_unstated=25, mmmlu_stated=25)  # {multiple-choice task: chance accuracy, %}


def read_checkpoints(run, checkpoints, choice_tasks):
    """The scores of a run. Only each checkpoint's newest weights count, and of two rows for one score the later.

    choice_tasks: names of the multiple-choice tasks. ValueError names what is missing or not comparable.
    """
    file = Path(run) / "results.jsonl"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run eval.py on the checkpoints with out={file}")
    rows = read_jsonl(file, ("checkpoint", "weights", "task", "lang", "metric", "score"))
    weights = {row["checkpoint"]: row["weights"] for row in rows}
    scores = {name: {} for name in checkpoints if name in weights}
    if list(scores)[:1] != checkpoints[:1] or len(scores) < 2:
        raise ValueError(f"{file}: a gain needs checkpoint {checkpoints[0]} and one of {', '.join(checkpoints[1:])}; "
                         f"there is {', '.join(scores) or 'none'}. Run eval.py on the others or set checkpoints=")
    for row in rows:
        known = row["lang"] in LANGUAGES or set(row["lang"].split("-")) <= set(LANGUAGES)
        if row["checkpoint"] in scores and row["weights"] == weights[row["checkpoint"]] and known:
            scores[row["checkpoint"]].setdefault((row["task"], row["metric"]), {})[row["lang"]] = row
    check_complete(file, scores, choice_tasks)
    return scores


def check_complete(file, scores, choice_tasks):
    """ValueError if a checkpoint lacks a score that another has, or was measured differently from the first one."""
    first = next(iter(scores))
    for metric in (DOCUMENTS, SENTENCES, *((task, "acc") for task in choice_tasks), CHRF, BLEU):
        places = sorted({place for by in scores.values() for place in by.get(metric, {})}, key=place_order)
        if metric == DOCUMENTS and not places:
            raise ValueError(f"{file} has no {metric[1]} of task {metric[0]} in any of Marco-LLM's languages; "
                             "run eval.py on every checkpoint with that task, or use report.py tables")
        for name in scores:
            here, before = (scores[k].get(metric, {}) for k in (name, first))
            missing = [x for x in places if x not in here]
            different = [x for x in here if x in before
                         and any(before[x].get(key) != here[x].get(key) for key in ("n", "prompt", "signature"))]
            if missing or different:
                problem = "has nothing" if missing else f"and {first} differ in n, prompt or signature"
                bad = missing or different
                raise ValueError(f"{file}: checkpoint {name} {problem} for {metric[1]} of task {metric[0]} in "
                                 f"{', '.join(bad[:9])} ({len(bad)} of {len(places)}); run eval.py on every checkpoint "
                                 "with the same config")


def place_order(place):
    """Sort key of a language or pair: the paper's order of the languages."""
    return [LANGUAGES.index(lang) for lang in place.split("-")]


def measured(scores, metric, places=LANGUAGES):
    """Those of the languages or pairs that a metric was measured in."""
    have = next(iter(scores.values())).get(metric, {})
    return [place for place in places if place in have]


def groups_of(scores, metric=DOCUMENTS):
    """GROUPS, as far as the metric was measured in their languages."""
    groups = {group: measured(scores, metric, langs) for group, langs in GROUPS.items()}
    return {group: langs for group, langs in groups.items() if langs}


def mean_scores(scores, metric, places):
    """[(mean over languages or pairs, its standard error)] for each checkpoint; errors are taken as independent."""
    means = []
    for by in scores.values():
        rows = [by[metric][place] for place in places]
        error = math.hypot(*(row["stderr"] or 0 for row in rows)) / len(rows)
        means.append((fmean(row["score"] for row in rows), error))
    return means


def gain(scores, metric, places):
    """(gain, its standard error, gain in % of the first) of the last checkpoint over the first; positive is better."""
    (first, first_error), *_, (last, last_error) = mean_scores(scores, metric, places)
    difference = first - last if metric[1] == "bits_per_byte" else last - first
    return difference, math.hypot(first_error, last_error), 100 * difference / first if first else math.nan


def spearman(x: list[float], y: list[float]) -> float:
    """Rank correlation; ties share their mean rank; nan if one side is constant."""
    def ranks(values):
        return [sum(b < a - 1e-9 for b in values) + sum(abs(b - a) <= 1e-9 for b in values) / 2 for a in values]

    x, y = ranks(x), ranks(y)
    return correlation(x, y) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def gain_order(scores):
    """Spearman correlation of the first bits per byte with the gain in bits, and with the gain in percent.

    +1: the least served language gains most.
    """
    langs = measured(scores, DOCUMENTS)
    before = [mean_scores(scores, DOCUMENTS, [x])[0][0] for x in langs]
    gains = [gain(scores, DOCUMENTS, [x]) for x in langs]
    return [spearman(before, [g[i] for g in gains]) for i in (0, 2)]


def translation_directions(scores):
    """{(direction, group of languages): the pairs that were evaluated}, without empty ones."""
    directions = {}
    pairs = next(iter(scores.values())).get(CHRF, {})
    for direction, pattern in (("en to xx", "en-{}"), ("xx to en", "{}-en")):
        for group, langs in GROUPS.items():
            directions[direction, group] = [pair for pair in map(pattern.format, langs) if pair in pairs]
    directions["any to any", "without English"] = [pair for pair in sorted(pairs) if "en" not in pair.split("-")]
    return {key: members for key, members in directions.items() if members}
