"""The exact judge: answers to eval/chat against what is true in the tinyworld, so a win rate has no noise of a judge.

    python -m tinyworld judge a=A/samples.jsonl b=B/samples.jsonl raw=out/demo/raw [out=results.jsonl]

Each answer gets marks of 0 or 1, by rule, and a score: half for the fact, half for the mean of the others.

    fact        it says the right filler and none that contradicts (of a translation: all fillers, in the right pattern)
    language    it is in the language asked for: parse.speaks()
    constraint  short, a full sentence, so many items: where one was set
    concise     at most two sentences, none twice, and at most twice as long as the right reply in full
"""
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import load
from configs import language_table
from tinyworld import chat, parse
from tinyworld import world as w
from tinyworld.grammar import ASKS, language

METRICS = ("win_rate", "right_language", "answer_score", "stated_facts")


@dataclass(frozen=True)
class Judge:
    a: str                    # samples.jsonl: rows {"checkpoint", "task", "lang", "doc_id", "responses": [turn 1, turn 2]}
    raw: str                  # the tinyworld's folder, for eval/chat
    b: str | None = None      # another checkpoint's answers to the same questions; None: no win rate
    out: str | None = None    # results.jsonl to append to; None: only print
    task: str = "chat"        # rows of other tasks are passed over
    draws: int = 2000         # of the paired bootstrap
    seed: int = 0             # of the draws


def main(argv=None):
    c, = load(Judge, argv=argv)
    asked = questions(Path(c.raw))
    (name, weights), a = answers(c.a, c.task, asked)
    (against, _), b = answers(c.b, c.task, asked) if c.b else ((None, None), None)
    if b and set(a) != set(b):
        lang, i = min(set(a) ^ set(b))
        raise ValueError(f"{c.a} and {c.b}: only one of them answers {lang}, question {i}; let both answer all")
    table = scored(asked, a, b)
    rows = [row | {"checkpoint": name, "weights": weights, "task": c.task} | ({"against": against} if row["metric"] == "win_rate" else {})
            for row in summary(c, table)]
    show(rows, name, against)
    if c.out:
        Path(c.out).parent.mkdir(parents=True, exist_ok=True)
        with open(c.out, "a", encoding="utf-8") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def questions(raw):
    """{(language, question id): question} of the folder."""
    found = {}
    for path in sorted((raw / "eval/chat").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                found[path.stem, row["question_id"]] = row
    if not found:
        raise ValueError(f"{raw}/eval/chat holds no questions; raw= is the folder that python -m tinyworld out= wrote")
    return found


def answers(path, task, asked):
    """(The checkpoint's name, its weights) and {(language, question id): [answer, answer]}; ValueError names a line that does not fit."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file; eval.py writes samples.jsonl")
    out, names = {}, set()
    for i, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        place = f"{path}, line {i}"
        try:
            row = json.loads(line) if line.strip() else {}
            if row.get("task") != task:
                continue
            key, said = (row["lang"], row["doc_id"]), row.get("responses", row["response"])
            names.add((row["checkpoint"], row.get("weights")))
        except (ValueError, KeyError, AttributeError) as e:
            raise ValueError(f"{place}: no sample ({e!r}); a row has checkpoint, task, lang, doc_id, response") from None
        if key not in asked:
            raise ValueError(f"{place}: eval/chat has no question {key[1]!r} in {key[0]!r}; is raw= another world's?")
        if key in out:
            raise ValueError(f"{place}: a second answer to question {key[1]} in {key[0]}; judge one run at a time")
        if not (isinstance(said, list) and len(said) == 2 and all(isinstance(s, str) for s in said)):
            raise ValueError(f"{place}: response must be the two turns' texts, got {said!r}")
        out[key] = said
    if len(names) != 1:
        raise ValueError(f"{path}: rows of task {task!r} must be of one checkpoint, found {sorted(n for n, _ in names) or 'none'}")
    return *names, out


# ---------------------------------------------------------------------- one answer

def marks(code, task, text, before=""):
    """{"fact", "language", "constraint", "concise"}: True, False, or None where no constraint was set.

    before: the answer of the turn before, whose items a further list may not repeat. An empty answer has no mark.
    """
    lang, target = language(code), chat.reply_language(code, task)
    full = chat.reply(lang, task | {"form": None})
    got, right = parse.read(text, target)[0], parse.read(full, target)[0]
    return {"fact": fact(lang, target, task, text, got, right, before), "language": parse.speaks(text, target),
            "constraint": constraint(lang, target, task, text, got, right),
            "concise": concise(lang, target, task, text, full)}


def fact(lang, target, task, text, got, right, before):
    """Whether the answer is what was asked, and true. got, right: what it and the right reply in full mention."""
    kind = task["task"]
    if kind == "list":
        repeated = parse.read(before, target)[0].get(task["class"], set()) if task["more"] else set()
        return set(got) == {task["class"]} and not got[task["class"]] & repeated
    if kind == "refuse":
        said, phrase = (" ".join(["", *parse.tokens(s, target), ""]) for s in (text, lang["chat"]["unknown"]))
        return phrase in said and ASKS[task["message"][0]] not in parse.read(said.replace(phrase, " "), target)[0]
    if kind in ("answer", "rewrite"):
        asked = ASKS[task["message"][0]]
        short = parse.read(chat.short(lang, task["message"]), target)[0]
        true = all(got[name] <= right.get(name, set()) | short.get(name, set()) for name in got)
        return true and got.get(asked) in (short[asked], right[asked])
    return got == right and pattern(task) in parse.closest(text, target)


def pattern(task):
    """The pattern that the right reply is said with."""
    if task["task"] == "headline":
        return f"title.{task['title'][0]}"
    if task["task"] == "reason":
        return f"{ {'why': 'cause', 'then': 'effect'}[task['ask']]}.{task['key']}"
    return f"sentence.{task['message'][0]}"


def constraint(lang, target, task, text, got, right):
    """Whether the answer has the form that was asked for; None where none was."""
    if task["task"] == "list":
        return len(got.get(task["class"], ())) == len(task["items"])
    if task["task"] == "headline":  # one line, no more than half of the text
        told = w.paragraph(lang, [w.say(lang, m) for m in task["told"]])
        return "\n" not in text.strip() and 0 < 2 * len(text.strip()) <= len(told)
    form = task.get("form")
    if form == "brief":  # nothing but what was asked, and no whole sentence
        full = w.say(lang, task["message"])
        return set(got) == {ASKS[task["message"][0]]} and len(text.strip()) < len(full)
    if form == "full" or task["task"] == "rewrite":
        return set(got) >= set(right) and pattern(task) in parse.closest(text, target)
    return None


def concise(lang, target, task, text, full):
    """Whether the answer does not ramble. Thai has no full stop: its parts between spaces are compared, not counted."""
    parts = [s.strip() for s in re.split(r"[.!?;।。！？؟۔\n]+" if target != "th" else r"\s+", text) if s.strip()]
    longest = max(len(full), len(w.say(lang, task["message"])) if task["task"] == "refuse" else 0)  # if invented, false but not long
    return 0 < len(text.strip()) <= 2 * longest and len(set(parts)) == len(parts) and (len(parts) <= 2 or target == "th")


def score(given):
    """0 to 1: half for the fact, half for the mean of the marks for form."""
    form = [v for k, v in given.items() if k != "fact" and v is not None]
    return given["fact"] / 2 + sum(form) / len(form) / 2


# ---------------------------------------------------------------------- many answers

def scored(asked, a, b):
    """{metric: {language: {question id: value}}}: of each question the mean of its turns; a win is 1, a tie 1/2.

    stated_facts: the share of right facts among the fact questions; answer_score is of all other questions.
    """
    table = {metric: {} for metric in METRICS}
    for lang, i in sorted(a):
        tasks = asked[lang, i]["check"]
        given = [[marks(lang, task, text, before) for task, text, before in zip(tasks, said, ["", said[0]])]
                 for said in ([a[lang, i]] + ([b[lang, i]] if b else []))]
        mean = [sum(map(score, turns)) / len(turns) for turns in given]
        if asked[lang, i]["category"] == chat.FACTS:
            table["stated_facts"].setdefault(lang, {})[i] = sum(m["fact"] for m in given[0]) / len(given[0])
        else:
            table["answer_score"].setdefault(lang, {})[i] = mean[0]
        table["right_language"].setdefault(lang, {})[i] = sum(m["language"] for m in given[0]) / len(given[0])
        if b:
            table["win_rate"].setdefault(lang, {})[i] = 0.5 + 0.5 * np.sign(round(mean[0] - mean[1], 9))
    return table


def summary(c, table):
    """A results row for every metric and language, and for the means over the paper's groups (lang "mean").

    Interval and standard error: a paired bootstrap over questions (Koehn 2004); in a group the same questions are drawn for all
    its languages, as question i means the same in each. n: questions times languages.
    """
    for metric, by_language in table.items():
        if not by_language:
            continue
        groups = [(lang, None, [lang]) for lang in by_language]
        for name in dict.fromkeys(map(language_table.group, by_language)):
            groups.append(("mean", name, [k for k in by_language if language_table.group(k) == name]))
        for lang, group, members in groups:
            ids = sorted({i for k in members for i in by_language[k]})
            values = np.array([[by_language[k].get(i, np.nan) for i in ids] for k in members])  # (languages, questions)
            each, n = np.nansum(values, 0), np.isfinite(values).sum(0)
            picks = np.random.default_rng(c.seed).integers(len(ids), size=(c.draws, len(ids)))
            drawn = each[picks].sum(1) / n[picks].sum(1)
            yield {"lang": lang, "metric": metric, "score": round(each.sum() / n.sum(), 6), "n": int(n.sum()),
                   "stderr": round(float(drawn.std()), 6), "low": round(float(np.quantile(drawn, 0.025)), 6),
                   "high": round(float(np.quantile(drawn, 0.975)), 6)} | ({"group": group} if group else {})


def show(rows, name, against):
    """A table: a line for every language and group, the metrics with their 95 % intervals in percent."""
    metrics = [m for m in METRICS if any(row["metric"] == m for row in rows)]
    print(f"{name}" + (f" against {against}" if against else "") + ", in % [95 % interval]")
    print(f"{'':12}" + "".join(f"{m:>22}" for m in metrics))
    for key in dict.fromkeys((row["lang"], row.get("group")) for row in rows):
        cells = {row["metric"]: row for row in rows if (row["lang"], row.get("group")) == key}
        label = key[0] if key[0] != "mean" else f"mean {key[1]}"
        print(f"{label:12}" + "".join(f"{100 * r['score']:8.1f} [{100 * r['low']:5.1f}, {100 * r['high']:5.1f}]"
                                      for r in (cells[m] for m in metrics)))
