"""SDRRL's transfer set: chats in four pairings of languages, from prompts, answers and their translations.

    LL, LT, TL, TT    language of the question, then of the answer: L the rich one, T each target
    switched LL, LT   the same, some words of the question in L replaced by T's
    parallel          sentences to translate, in both directions
    completion        the first half of a sentence of T, to complete

The system prompt names the answer's language (our addition): otherwise one question would have two right answers.
"""
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs import language_table
from corpus import code_switch
from evaluation import metrics, results

PAIRS = ("LL", "LT", "TL", "TT")
# what a translation must keep: role markers, control tokens, code, addresses
MARKERS = re.compile(r"```[\s\S]*?```|`[^`\n]*`|<[^<>\s]*>|\[/?[A-Z]+\]|https?://\S+|"
                     r"^\W*(?:User|Assistant|Human)\s*:", re.M)
LETTERS = re.compile(r"[^\W\d_]{2}")  # a word; numbers, choices and formulas are not translated


@dataclass(frozen=True)
class Transfer:
    targets: list                 # languages T, codes of configs/language_table.py
    rich: str = "en"              # L
    pairs: list = field(default_factory=lambda: list(PAIRS))
    switch_probability: float = 0.3  # of each word that is in the lexicon
    switch_answers: bool = False  # replace words of the answers in L, too
    n_parallel: int = 0           # sentences for each T, in both directions
    n_complete: int = 0           # sentences of T to complete
    system: str = "Answer in {language}."
    translate: str = "Translate into {language}: {text}"
    complete: str = "Complete the text: {text}"

    def __post_init__(self):
        problems = []
        if self.rich in self.targets:
            problems.append(f"targets contains the rich language, {self.rich}; take it out")
        if not self.pairs or set(self.pairs) - set(PAIRS):
            problems.append(f"pairs are some of {', '.join(PAIRS)}, got {self.pairs}")
        if not 0 <= self.switch_probability <= 1:
            problems.append(f"switch_probability must be from 0 to 1, got {self.switch_probability}")
        if min(self.n_parallel, self.n_complete) < 0:
            problems.append("n_parallel and n_complete must be at least 0")
        if problems:
            raise ValueError("Transfer: " + "; ".join(problems))


def chat(c, user, assistant, lang):
    """{"messages"}: a question and its answer, whose language the system prompt names."""
    return {"messages": [*prompt(c, user, lang), {"role": "assistant", "content": assistant}]}


def prompt(c, user, lang):
    system = c.system.format(language=language_table.NAMES.get(lang, lang))
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def translation_request(c, text, lang):
    """The conversation that asks for the translation of a text in L."""
    return [{"role": "user", "content": c.translate.format(language=language_table.NAMES.get(lang, lang), text=text)}]


# ---------------------------------------------------------------------- the transfer set

def build_transfer(c: Transfer, dialogs: Sequence[tuple], translators: dict, lexicons: dict, sentences: dict,
                   seed: int) -> tuple[list[dict], Counter]:
    """(chats, counts by kind and by reason for what was dropped) of dialogs, (question, answer) in L.

    translators: {T: function of a text in L -> its translation; ValueError says why there is none}. lexicons: {T:
    {word: translation}}, of languages with spaces. sentences: {T: [(sentence in L, translation)]}.
    """
    rows, counts, rng = [], Counter(), random.Random(f"{seed}/sdrrl")

    def add(kind, user, assistant, lang):
        rows.append(chat(c, user, assistant, lang))
        counts[kind] += 1

    for x, y in dialogs:
        if "LL" in c.pairs:
            add("LL", x, y, c.rich)
        for T in c.targets:
            try:
                sides = {"L": (x, y, c.rich), "T": (translators[T](x), translators[T](y), T)}
            except ValueError as e:
                counts[f"dropped, {T}: {e}"] += 1
                continue
            for pair in c.pairs:
                (user, _, _), (_, assistant, lang) = sides[pair[0]], sides[pair[1]]
                if pair != "LL":
                    add(pair, user, assistant, lang)
                if pair[0] == "L" and T in lexicons:
                    switched, answer = switch(c, user, assistant, pair, lexicons[T], rng)
                    if switched == user:
                        counts["no word switched"] += 1
                    else:
                        add(f"switched {pair}", switched, answer, lang)
    for T, pairs in sentences.items():
        chosen = rng.sample(pairs, min(len(pairs), c.n_parallel + c.n_complete))
        for x, y in chosen[:c.n_parallel]:
            for text, translation, lang in ((x, y, T), (y, x, c.rich)):
                name = language_table.NAMES.get(lang, lang)
                add("parallel", c.translate.format(language=name, text=text), translation, lang)
        for _, y in chosen[c.n_parallel:]:
            given, rest = split_sentence(y, T)
            if given and rest:
                add("completion", c.complete.format(text=given), rest, T)
    return rows, counts


def switch(c, user, assistant, pair, lexicon, rng):
    """A question in L, and its answer if that is in L and the settings say so, with words replaced."""
    switched = code_switch.switch_words(user, lexicon, c.switch_probability, rng)
    if c.switch_answers and pair == "LL":
        assistant = code_switch.switch_words(assistant, lexicon, c.switch_probability, rng)
    return switched, assistant


def split_sentence(text, lang):
    """The first half of a sentence, by words where there are spaces, and the rest."""
    if not code_switch.separates_words(lang):
        return text[:len(text) // 2], text[len(text) // 2:]
    words = text.split()
    return " ".join(words[:len(words) // 2]), " ".join(words[len(words) // 2:])


def read_pairs(path: Path, asked: set[str]) -> tuple[list[tuple[str, str]], Counter]:
    """([(sentence, translation)], what was dropped, by reason) of lines "sentence<TAB>translation[<TAB>more]".

    asked: questions of the evaluation, which may be on neither side.
    """
    pairs, dropped = [], Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        sides = tuple(side.strip() for side in line.split("\t")[:2])
        if len(sides) != 2 or not all(sides):
            dropped["a side is missing"] += bool(line.strip())
        elif asked & set(sides):
            dropped["the evaluation asks it"] += 1
        else:
            pairs.append(sides)
    return pairs, +dropped


def check_answer(reply: dict, identify: Callable | None, lang: str) -> str | None:
    """None, or why an answer of the teacher is unfit for training. identify: text -> language code, or None."""
    if not reply["text"].strip():
        return "empty"
    if metrics.is_looping(reply["text"] + " "):  # the space makes the last word count like the others
        return "looping"
    if reply["cut"]:  # it would teach stopping early
        return "cut at max_new_tokens"
    if identify and LETTERS.search(reply["text"]) and identify(reply["text"]) != lang:
        return "wrong language"
    return None


def check_translation(source: str, target: str) -> str:
    """The translation; ValueError says what is wrong. Text without a word (a number, a choice) is kept."""
    if not LETTERS.search(source):
        return source
    if not target.strip():
        raise ValueError("the translation is empty")
    if target.strip() == source.strip():
        raise ValueError("the translation equals the source")
    if sorted(MARKERS.findall(source)) != sorted(MARKERS.findall(target)):
        raise ValueError("the translation lost a role marker or code")
    return target


def file_translator(path: Path) -> Callable[[str], str]:
    """A function from text to translation, by JSON lines {"source", "target"}."""
    table = {row["source"]: row["target"] for row in results.read_rows(path, ("source", "target"))}

    def translate(text):
        if text not in table and LETTERS.search(text):
            raise ValueError("no translation")
        return check_translation(text, table.get(text, ""))
    return translate


def reply_translator(replies: dict[str, dict]) -> Callable[[str], str]:
    """The same, by a model's replies {text: {"text", "cut"}} to the request to translate it."""
    def translate(text):
        if reason := check_answer(replies[text], None, ""):
            raise ValueError(f"the translation is {reason}")
        return check_translation(text, replies[text]["text"])
    return translate
