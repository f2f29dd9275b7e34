"""Examples in a prompt: lines of "x = y" from which a model reads the task (LDP, arXiv 2306.11372).

Diverse examples come from several languages, so that they show the task and no language; the others from one list. All
choices are seeded.
"""
import random
from collections import Counter
from statistics import mean

from evaluation.client import load_model
from evaluation.metrics import is_looping
from evaluation.translation import translation_metrics
from generate import complete

SEPARATOR = " = "  # between a sentence and its translation; examples are lines


def fits_a_list(text) -> bool:
    """Whether a sentence can be a side of an example."""
    return bool(text.strip()) and "\n" not in text and SEPARATOR not in text


def icl_prompt(examples, x, t=None, max_length=None) -> str:
    """[(x, y), ...] and a new x -> lines "x = y" and the beginning of the last one.

    With a tokenizer and max_length, the oldest examples are left out until the prompt fits; the new x never is.
    ValueError for a sentence that would break a line.
    """
    for text in (x, *(side for pair in examples for side in pair)):
        if not fits_a_list(text):
            raise ValueError(f"a sentence must be one line with words and without {SEPARATOR!r}, got {text!r}")
    for first in range(len(examples) + 1):
        lines = [f"{a}{SEPARATOR}{b}" for a, b in examples[first:]] + [x + SEPARATOR.rstrip()]
        prompt = "\n".join(lines)
        if t is None or max_length is None or len(t.encode(prompt)) <= max_length:
            break
    return prompt


def diverse_examples(pools, exclude, k, key, x=None):
    """k examples in k different languages. pools: {language: [(x, y), ...]}; key: seed; x: a sentence not to show."""
    rng, languages = random.Random(key), sorted(set(pools) - {exclude})
    if len(languages) < k:
        raise ValueError(f"{k} examples in different languages, and {exclude} has only {languages} to choose from")
    return [rng.choice([pair for pair in pools[code] if x not in pair]) for code in rng.sample(languages, k)]


def same_examples(pool, k, key, x=None):
    """k examples from one list, without those that show x."""
    usable = [pair for pair in pool if x not in pair]
    if len(usable) < k:
        raise ValueError(f"{k} examples are needed, {len(usable)} are usable; set a larger n_mono or n_pool")
    return random.Random(key).sample(usable, k)


def filter_pairs(pairs, identify, max_ratio, code="en") -> tuple[list, Counter]:
    """Pairs (a model's translation into language `code`, the sentence) -> (those kept, {reason: number dropped})."""
    kept: list[tuple[str, str]] = []
    dropped: Counter = Counter()
    for made, x in pairs:
        ratio = len(made) / max(1, len(x))
        reason = ("empty" if not made.strip() else "copy" if made == x else
                  "separator" if SEPARATOR in made or SEPARATOR in x else
                  "loop" if is_looping(made) else
                  "length" if not 1 / max_ratio <= ratio <= max_ratio else
                  "language" if identify and identify(made) != code else None)
        if reason is None and any(made == other for other, _ in kept):
            reason = "repeated"
        if reason:
            dropped[reason] += 1
        else:
            kept.append((made, x))
    return kept, dropped


def make_episodes(tables, n, key, longest=8, questions=None):
    """Yield n texts: lists of two to eight examples of one hidden task. tables: {target: {language: [(x, y), ...]}}.

    The tasks, equally often: sentences of any languages into one of the targets, English into one language, a copy, and
    with questions {language: [(question, answer), ...]} answers in one language. A first sentence alone does not tell
    which task it is.
    """
    rng, tasks = random.Random(key), [*tables, "out of English", "copy"] + ["answer"] * bool(questions)
    for _ in range(n):
        task, english = rng.choice(tasks), tables["en"]
        pairs = questions if task == "answer" else tables.get(task, english)
        one = rng.choice(sorted(questions if task == "answer" else english))
        is_in_one = task in ("out of English", "answer")
        lines = []
        for _ in range(rng.randrange(2, longest + 1)):
            x, y = rng.choice(pairs[one if is_in_one else rng.choice(sorted(pairs))])
            lines.append((y, x) if task == "out of English" else (x, x) if task == "copy" else (x, y))
        yield "\n".join(a + SEPARATOR + b for a, b in lines if SEPARATOR not in a + b)


def read_pairs(path) -> list[tuple]:
    """(x, its translation) of a TSV whose first column is the translation."""
    return [tuple(line.split("\t")[1::-1]) for line in path.read_text(encoding="utf-8").splitlines()]


class Translator:
    """A model, and the prompts and answers of everything it was asked."""

    def __init__(self, folder: str, max_new_tokens: int, max_length: int, batch_size: int):
        self.model, self.t = load_model(folder, needs_template=False)
        self.rows: list[dict] = []
        self.max_new_tokens, self.max_length, self.batch_size = max_new_tokens, max_length, batch_size

    def answer(self, condition, code, ids, prompts):
        """First line of the answer to each prompt."""
        texts = complete(self.model, self.t, prompts, self.max_new_tokens, ["\n"], batch_size=self.batch_size)
        answers = [text.strip() for text in texts]
        self.rows += [{"condition": condition, "lang": code, "id": i, "prompt": prompt, "answer": text}
                      for i, prompt, text in zip(ids, prompts, answers)]
        return answers

    def by_examples(self, condition, code, ids, xs, choose):
        """Answers to xs after examples; choose(n, x) gives those of sentence n."""
        prompts = [icl_prompt(choose(n, x), x, self.t, self.max_length) for n, x in zip(ids, xs)]
        return self.answer(condition, code, ids, prompts)


def score_directions(out, low, identify) -> list[dict]:
    """A row for each condition and direction: means over the languages.

    out: {(condition, "low->en" or "en->low", language): (sentences, answers, references)}.
    """
    rows = []
    for condition, arrow in dict.fromkeys(key[:2] for key in out):
        cells = {code: out[condition, arrow, code] for code in low if (condition, arrow, code) in out}
        chrf, exact, right, copied = [], [], [], []
        for code, (xs, answers, wanted) in cells.items():
            target = "en" if arrow == "low->en" else code
            chrf.append(translation_metrics(target, custom=True)["chrf++"][0].corpus_score(answers, [wanted]).score)
            exact += [a == w for a, w in zip(answers, wanted)]
            copied += [a == x for a, x in zip(answers, xs)]
            right += [bool(a) and identify(a) == target for a in answers] if identify else []
        rows.append({"direction": arrow, "condition": condition, "chrf++": mean(chrf), "exact": 100 * mean(exact),
                     "right language": 100 * mean(right) if right else None, "copies": 100 * mean(copied)})
    return rows
