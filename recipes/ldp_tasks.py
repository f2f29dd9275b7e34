"""Few-shot prompts to train on, and tasks in X, for recipes/ldp.py.

The model answers questions in X, a language without data, after examples of the same task in X, which it translated
from English itself with the prompts for English -> X. Controls: no examples, the English examples untranslated, and
true examples in X (supervised). A translated question that is empty, copied, repeated, looping, of implausible length
or in another language is dropped and counted, as is one without an answer.
"""
import json
import random
from pathlib import Path

from evaluation import icl, results
from evaluation.programs import run_step
from recipes.pipeline import locate, score_answer, write_rows
from training.estimate import describe_passes


def read_tasks(c, pattern, code) -> list[dict]:
    return list(results.read_rows(locate(c, pattern, code), ("instruction", "response")))


def as_pairs(rows) -> list[tuple[str, str]]:
    return [(row["instruction"], row["response"]) for row in rows]


def write_episodes(c, count) -> None:
    """OUT/raw/episodes.jsonl: few-shot prompts, each of one task, in the high-resource languages.

    Texts to translate include questions: otherwise the model would answer every question, whatever the examples
    show.
    """
    raw = Path(c.out, "raw")
    tables = {target: {k: icl.read_pairs(raw / f"bitext/{target}-{k}.tsv") for k in c.high if k != target}
              for target in ("en", "zh")}
    shots = {k: as_pairs(read_tasks(c, c.shots, k)) for k in ("en", *c.high)} if c.shots else {}
    for target, pairs_of in tables.items():
        for code in pairs_of if target in shots else ():
            pairs_of[code] += [(x, y) for (x, _), (y, _) in zip(shots[code], shots[target], strict=True)]
    write_rows(raw / "episodes.jsonl", ({"text": text} for text in icl.make_episodes(
        tables, count, f"{c.seed} episodes", questions=shots)))


def answer_questions(c, translator, back, identify) -> list[dict]:
    """Rows {"task", "language", "n", "correct", "right language"}, in %, and counts of the translated examples.

    back: {language: back-translated pairs (English, X)}. OUT/task_ids.json has the row numbers of questions and shots.
    """
    out, ids = [], {}
    for code in c.low:
        english, true, asked = (read_tasks(c, pattern, k) for pattern, k in (
            (c.shots, "en"), (c.shots, code), (c.questions, code)))
        if len(english) != len(true):
            raise ValueError(f"{c.shots}: en has {len(english)} rows and {code} {len(true)}; they must be the same "
                             "tasks, row by row")
        rng = random.Random(f"{c.seed} tasks {code}")
        ids[code] = {"shots": rng.sample(range(len(true)), min(c.n_shots, len(true))),
                     "questions": rng.sample(range(len(asked)), min(c.n_questions, len(asked)))}
        english, true = ([rows[i] for i in ids[code]["shots"]] for rows in (english, true))
        own, dropped = translate_shots(c, translator, code, ids[code]["shots"], as_pairs(english), back[code], identify)
        out += [{"translated shots": code, "of": len(english), "kept": len(own), "dropped": str(dict(dropped))}]
        for name, shots in (("zero-shot", []), ("English shots", as_pairs(english)), ("supervised", as_pairs(true)),
                            ("translated", own)):
            if name == "zero-shot" or len(shots) >= c.k:
                out.append(score(c, translator, name, code, [(i, asked[i]) for i in ids[code]["questions"]], shots))
    Path(c.out, "task_ids.json").write_text(json.dumps(ids))
    return out


def translate_shots(c, translator, code, ids, pairs, back, identify):
    """(pairs of X that are kept, {reason: number dropped}) of English pairs: question and answer are each translated
    after examples from back."""
    if len(back) <= c.k:
        return [], {"too few back-translated pairs": len(pairs)}

    def choose(n, x):
        return icl.same_examples(back, c.k, f"{c.seed} {n}", x)

    questions, answers = (translator.by_examples(f"task {what} into X", code, ids, texts, choose)
                          for what, texts in zip(("questions", "answers"), zip(*pairs)))
    answer_of = dict(reversed(list(zip(questions, answers))))  # of duplicate questions the first is kept
    kept, dropped = icl.filter_pairs(list(zip(questions, (q for q, _ in pairs))), identify, c.max_ratio, code)
    whole = [(q, answer_of[q]) for q, _ in kept if answer_of[q] and icl.SEPARATOR not in answer_of[q]]
    dropped["no answer"] += len(kept) - len(whole)
    return whole, +dropped


def score(c, translator, name, code, asked, shots) -> dict:
    """The accuracy of answers after k of the shots."""
    def choose(n, x):
        return icl.same_examples(shots, c.k, f"{c.seed} {n}", x) if shots else []

    numbers, rows = zip(*asked)
    answers = translator.by_examples(f"task {name}", code, numbers, [row["instruction"] for row in rows], choose)
    marks = [score_answer(row, answer, code) for row, answer in zip(rows, answers)]
    return {"task": name, "language": code, "n": len(marks)} | {
        label: 100 * sum(mark[key] for mark in marks) / len(marks)
        for label, key in (("correct", "correct"), ("right language", "language"))}


def describe_translations(c) -> str:
    """What all translations of recipes/ldp.py need if every sentence and answer has c.estimate tokens."""
    of_test = [0, c.k, *c.sweep, *c.sweep, *[c.k] * (c.orders - 1), 0, c.k, c.k, c.k]  # examples of each condition
    batches = [(c.n_test, k) for k in of_test * len(c.low)] + [(c.n_mono, c.k)] * len(c.low)
    batches += [(c.n_pool, 0)] * len(c.high) * c.synthetic
    tokens = sum(n * min(c.max_length, c.estimate * (2 * k + 1)) for n, k in batches)
    steps = sum(-(-n // c.batch) for n, _ in batches) * min(c.estimate, c.max_new)
    return describe_passes(c.model, tokens, steps=steps)


def measure_english(c, name, model) -> float | None:
    """Bits per byte of the tinyworld's English; None with files of one's own."""
    if c.texts:
        return None
    out = f"{c.out}/eval/{name}"
    run_step(c.out, f"eval-{name}", "eval.py", dict(
        model=model, data=f"{c.out}/raw/benchmarks", out=out, languages=["en"], threads=1,
        tasks=[dict(name="heldout", kind="bpb", path="heldout/{lang}.jsonl")]))
    return json.loads(Path(out, "results.jsonl").read_text().splitlines()[0])["score"]
