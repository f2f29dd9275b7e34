"""The exact judge: answers to eval/chat marked against the facts of the tinyworld, so its win rate has no judge noise.

    python -m tinyworld judge a=A/samples.jsonl b=B/samples.jsonl raw=out/demo/raw [out=results.jsonl]

marks.py marks each answer. The metrics are means over questions, and each question is the mean of its two turns:

    win_rate        1 if a's score is higher than b's, 1/2 if equal, 0 if lower
    right_language  share of answers in the requested language
    answer_score    mean score of all questions but fact questions
    stated_facts    share of correct facts in the fact questions
"""
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import language_table, load
from tinyworld.instructions import FACTS
from tinyworld.marks import mark_answer, score

METRICS = ("win_rate", "right_language", "answer_score", "stated_facts")
Key = tuple[str, int]  # (language, question id)


@dataclass(frozen=True)
class Judge:
    a: str                    # samples.jsonl: rows {"checkpoint", "task", "lang", "doc_id", "response": two texts}
    raw: str                  # the tinyworld's folder, for eval/chat
    b: str | None = None      # another checkpoint's answers to the same questions; None: no win rate
    out: str | None = None    # results.jsonl to append to; None: only print
    task: str = "chat"        # rows of other tasks are skipped
    draws: int = 2000         # bootstrap samples
    seed: int = 0             # of the bootstrap


def main(argv: list[str] | None = None) -> None:
    c, = load(Judge, argv=argv)
    questions = read_questions(Path(c.raw))
    name_a, weights, answers_a = read_answers(c.a, c.task, questions)
    name_b, answers_b = None, None
    if c.b:
        name_b, _, answers_b = read_answers(c.b, c.task, questions)
        if unmatched := set(answers_a) ^ set(answers_b):
            lang, i = min(unmatched)
            raise ValueError(f"{c.a} and {c.b}: only one of them answers {lang}, question {i}; both must answer all")
    rows = []
    for row in summarize(score_questions(questions, answers_a, answers_b), c.draws, c.seed):
        row |= {"checkpoint": name_a, "weights": weights, "task": c.task}
        if row["metric"] == "win_rate":
            row["against"] = name_b
        rows.append(row)
    print_table(rows, name_a, name_b)
    if c.out:
        Path(c.out).parent.mkdir(parents=True, exist_ok=True)
        with open(c.out, "a", encoding="utf-8") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---------------------------------------------------------------------- input

def read_questions(raw: Path) -> dict[Key, dict]:
    """Read the questions of eval/chat: {(language, question id): row}."""
    questions = {}
    for path in sorted((raw / "eval/chat").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                questions[path.stem, row["question_id"]] = row
    if not questions:
        raise ValueError(f"{raw}/eval/chat has no questions; set raw= to the folder that python -m tinyworld wrote")
    return questions


def read_answers(path: str, task: str, questions: dict) -> tuple[str, str | None, dict[Key, list[str]]]:
    """Read samples.jsonl: (checkpoint, its weights, {(language, question id): [answer, answer]}).

    Raises ValueError naming the line that does not fit.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file; eval.py writes samples.jsonl")
    answers, checkpoints = {}, set()
    for i, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        place = f"{path}, line {i}"
        try:
            row = json.loads(line) if line.strip() else {}
            if row.get("task") != task:
                continue
            key, turns = (row["lang"], row["doc_id"]), row.get("responses", row["response"])
            checkpoints.add((row["checkpoint"], row.get("weights")))
        except (ValueError, KeyError, AttributeError) as e:
            raise ValueError(f"{place}: not a sample ({e!r}); a row needs checkpoint, task, lang, doc_id and "
                             "response") from None
        if key not in questions:
            raise ValueError(f"{place}: eval/chat has no question {key[1]!r} in {key[0]!r}; set raw= to the folder "
                             "whose questions were answered")
        if key in answers:
            raise ValueError(f"{place}: second answer to question {key[1]} in {key[0]}; judge one run at a time")
        if not (isinstance(turns, list) and len(turns) == 2 and all(isinstance(text, str) for text in turns)):
            raise ValueError(f"{place}: response must be the texts of two turns, got {turns!r}")
        answers[key] = turns
    if len(checkpoints) != 1:
        names = sorted(name for name, _ in checkpoints)
        raise ValueError(f"{path}: rows of task {task!r} must be of one checkpoint, got {names or 'none'}")
    (name, weights), = checkpoints
    return name, weights, answers


# ---------------------------------------------------------------------- scores

def score_questions(questions: dict, answers_a: dict, answers_b: dict | None) -> dict[str, dict[str, dict[int, float]]]:
    """Score every question, as the mean of its turns: {metric: {language: {question id: value}}}."""
    table: dict[str, dict[str, dict[int, float]]] = {metric: {} for metric in METRICS}

    def record(metric, value):
        table[metric].setdefault(lang, {})[i] = value

    for lang, i in sorted(answers_a):
        question = questions[lang, i]
        marks = mark_turns(lang, question["check"], answers_a[lang, i])
        mean_score = mean([score(turn) for turn in marks])
        if question["category"] == FACTS:
            record("stated_facts", mean([turn["fact"] for turn in marks]))
        else:
            record("answer_score", mean_score)
        record("right_language", mean([turn["language"] for turn in marks]))
        if answers_b:
            mean_score_b = mean([score(turn) for turn in mark_turns(lang, question["check"], answers_b[lang, i])])
            record("win_rate", 0.5 + 0.5 * np.sign(round(mean_score - mean_score_b, 9)))
    return table


def mark_turns(lang, tasks, turns):
    return [mark_answer(lang, task, text, previous) for task, text, previous in zip(tasks, turns, ["", turns[0]])]


def mean(values):
    return sum(values) / len(values)


def summarize(table: dict[str, dict[str, dict[int, float]]], draws: int, seed: int) -> Iterator[dict]:
    """Yield a results row for every metric and language, and for the means over the paper's groups (lang "mean").

    n counts questions times languages.
    """
    for metric, by_language in table.items():
        groups: list[tuple[str, str | None, list[str]]] = [(lang, None, [lang]) for lang in by_language]
        for name in dict.fromkeys(map(language_table.group, by_language)):
            groups.append(("mean", name, [lang for lang in by_language if language_table.group(lang) == name]))
        for lang, group, members in groups:
            row = {"lang": lang, "metric": metric, **bootstrap([by_language[k] for k in members], draws, seed)}
            yield row | ({"group": group} if group else {})


def bootstrap(values_by_id: list[dict[int, float]], draws: int, seed: int) -> dict[str, float]:
    """Return score, n, standard error and 95 % interval of a mean, by a paired bootstrap over questions (Koehn 2004).

    values_by_id: {question id: value} of each language. A draw takes the same questions in all languages, because
    question i is the same in each.
    """
    ids = sorted({i for values in values_by_id for i in values})
    values = np.array([[by_id.get(i, np.nan) for i in ids] for by_id in values_by_id])  # (languages, questions)
    totals, counts = np.nansum(values, 0), np.isfinite(values).sum(0)
    picks = np.random.default_rng(seed).integers(len(ids), size=(draws, len(ids)))
    means = totals[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"score": round(totals.sum() / counts.sum(), 6), "n": int(counts.sum()),
            "stderr": round(float(means.std()), 6), "low": round(float(low), 6), "high": round(float(high), 6)}


def print_table(rows: list[dict], name: str, against: str | None) -> None:
    """Print a line for every language and group: the metrics with their 95 % intervals, in percent."""
    metrics = [metric for metric in METRICS if any(row["metric"] == metric for row in rows)]
    print(name + (f" against {against}" if against else "") + ", in % [95 % interval]")
    print(f"{'':12}" + "".join(f"{metric:>22}" for metric in metrics))
    for lang, group in dict.fromkeys((row["lang"], row.get("group")) for row in rows):
        cells = {row["metric"]: row for row in rows if (row["lang"], row.get("group")) == (lang, group)}
        label = lang if lang != "mean" else f"mean {group}"
        columns = []
        for metric in metrics:
            row = cells[metric]
            columns.append(f"{100 * row['score']:8.1f} [{100 * row['low']:5.1f}, {100 * row['high']:5.1f}]")
        print(f"{label:12}" + "".join(columns))
