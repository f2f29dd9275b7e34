"""Multilingual self-instruct: tasks that a model writes after three examples, and which of them are kept.

PolyLM's recipe (arXiv 2307.06018, Section 4.1) after Wang et al. (arXiv 2212.10560). A task is {"instruction", "input",
"output"}; an empty input is "". One pool for each language: a new task joins it when its instruction is unlike every
other one of the pool.

ROUGE-L is the F1 of the longest common subsequence of words. The paper cuts words with an analyzer for each language;
here, as in corpus/synthesize.py, each character of a script without spaces (zh, ja, th) is a word.
"""
import random
import re

from corpus.synthesize import lcs_length, split_words

INPUT_ROUGE = {"default": 0.5, "ko": 0.3, "vi": 0.3, "ar": 0.2}  # an input as like its instruction as this is no input
PROMPT = (
    "Write a list of {last} varied tasks in {language}, for a test of an assistant. Each has an instruction of one or "
    "two sentences, an input and the answer. Some need no input: write <noinput> there. Vary the verb, the kind of "
    "task and its length; ask for nothing that needs a picture, a sound or the internet.\n\n{examples}{next}. "
    "Instruction:")
EXAMPLE = "{n}. Instruction: {instruction}\n{n}. Input: {input}\n{n}. Output: {output}\n###\n"
FIELDS = ("instruction", "input", "output")
HEAD = re.compile(r"^[ \t]*(\d+)[ \t]*[.)．、][ \t]*(Instruction|Input|Output)[ \t]*[:：][ \t]*", re.I | re.M)
LINK = re.compile(r"https?://|www\.|\S+\.(?:com|org|net)\b", re.I)
NO_INPUT = re.compile(r"<?\s*no\s*input\s*>?|none|n/?a|null|-", re.I)


def make_prompt(seeds: list[dict], pool: list[dict], language: str, key: str, shown=(2, 1), last=20) -> str:
    """A prompt with example tasks, `shown` = (of seeds, of pool), asking for the next numbers up to `last`.

    language: its English name. key: the seed of the choice. While the pool is empty, more seeds take its place.
    """
    rng = random.Random(key)
    n_seeds, n_pool = shown[0] + max(0, shown[1] - len(pool)), min(shown[1], len(pool))
    if len(seeds) < n_seeds:
        raise ValueError(f"a prompt shows {n_seeds} seed tasks, there are {len(seeds)}; give more")
    tasks = rng.sample(seeds, n_seeds) + rng.sample(pool, n_pool)
    rng.shuffle(tasks)
    examples = "".join(EXAMPLE.format(n=n, **task | {"input": task["input"] or "<noinput>"})
                       for n, task in enumerate(tasks, 1))
    return PROMPT.format(last=last, language=language, examples=examples, next=len(tasks) + 1)


def parse_tasks(text: str, first: int = 4, cut: bool = False) -> tuple[list[dict], list[str]]:
    """The answer to a prompt -> (tasks, why others are rejected). It continues after "4. Instruction:", or repeats
    that.

    A task is what follows one head "N. Instruction:" up to the next one, wherever the numbers begin or begin again.
    cut: the answer ended for its length, so its last task is dropped.
    """
    repeats = HEAD.match(text.lstrip())
    pieces = HEAD.split(text if repeats else f"{first}. Instruction:{text}")[1:]  # number, field, content, number, ...
    found: list[dict] = []
    for field, content in zip(pieces[1::3], pieces[2::3]):
        field = field.lower()
        if field == "instruction" or not found or field in found[-1]:
            found.append({})  # a second input or output belongs to a task whose head is lost
        found[-1][field] = content.split("###")[0].strip()
    tasks, reasons = [], []
    if cut and found:
        found.pop()
        reasons.append("cut: last task of an answer that was cut off")
    for task in found:
        missing = next((name for name in ("instruction", "output") if not task.get(name)), None)
        if missing:
            reasons.append(f"unparsable: no {missing}")
            continue
        no_input = NO_INPUT.fullmatch(task.get("input", "")) or not task.get("input")
        tasks.append({name: "" if name == "input" and no_input else task[name] for name in FIELDS})
    if not found and not reasons:
        reasons.append("unparsable: no task in the answer")
    return tasks, reasons


def rouge_l(a: str, b: str) -> float:
    """F1 of ROUGE-L on words: 2 LCS / (m + n). 0 where both have no words."""
    x, y = split_words(a), split_words(b)
    return 2 * lcs_length(x, y) / (len(x) + len(y)) if x or y else 0.0


class Pool:
    """The tasks of one language. `add` takes a new one, or returns why not."""

    def __init__(self, language: str, seeds: list[dict], max_rouge: float = 0.7, input_rouge: dict | None = None):
        thresholds = INPUT_ROUGE | (input_rouge or {})
        self.max_rouge = max_rouge
        self.input_rouge = float(thresholds[language if language in thresholds else "default"])
        self.tasks: list[dict] = []
        self.words = [split_words(task["instruction"]) for task in seeds]  # of the seeds, too

    def add(self, task: dict) -> str | None:
        """Add a task and return None, or return the reason to drop it. An input that only repeats is blanked."""
        if any(LINK.search(task[name]) for name in FIELDS):
            return "link"
        words = split_words(task["instruction"])
        if not words or not split_words(task["output"]):
            return "empty: no words"
        task = dict(task)
        if task["input"] and task["input"] in task["instruction"]:
            task["input"] = ""
        elif task["input"] and rouge_l(task["instruction"], task["input"]) > self.input_rouge:
            return "input: too like its instruction"
        for others in self.words:
            # LCS <= min(m, n): most comparisons end here
            if 2 * min(len(words), len(others)) < self.max_rouge * (len(words) + len(others)):
                continue
            if 2 * lcs_length(words, others) >= self.max_rouge * (len(words) + len(others)):
                return "novelty: too like an instruction of the pool"
        self.words.append(words)
        self.tasks.append(task)
        return None
