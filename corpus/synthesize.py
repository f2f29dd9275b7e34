"""Synthetic and knowledge text: Marco-LLM's three prompts (Table 14, own words), and filters.

A filter takes a Document (text: the answer; more: what `requests` gave, and "finish") and returns None (keep) or the reason to drop it.
"""
import functools
import itertools
import random
import unicodedata

import numpy as np
import regex

from configs.refusals import REFUSALS  # noqa: F401

TEMPLATES = {
    "explanation": "You are {role_1}, and your field is {subject}. Explain these keywords to {role_2}: {keywords}.\nGive each "
    "at least three sentences; a short story may help. Close with a summary, then a list of the keywords. Be correct, useful and "
    "easy to understand, and do not put everything in the same way.\nWrite in {language}.",
    "story": "You are {role_1}, and your field is {subject}. You are about to teach new words to {role_2}. First write "
    "{type_passage} in which every one of these words occurs: {keywords}.\nIt is set {scene}. It has {length[0]} to {length[1]} "
    "words, its style is {style}, and it ends with {ending}.\nWrite in {language}.",
    "sample": "You make samples for a collection. These are some of it:\n\n{samples}\n\nMake one more, of the same field but on "
    "something rarer. It should be about as long and as difficult as these, and sensible to a human reader. Do not mention that "
    "there is a given sample or a created sample: the answer is the new sample and nothing else.\nWrite in {language}.",
}
SLOTS = {  # what fills the other slots, unless the caller brings lists of its own
    "subject": ["everyday life", "history", "geography", "biology", "physics", "mathematics", "medicine", "law", "economics"],
    "role_2": ["primary school pupils", "secondary school students", "university students", "adults at evening school"],
    "type_passage": ["a short story", "a dialogue", "a diary entry", "a fable", "a letter", "a newspaper report"],
    "scene": ["at home", "at school", "at a market", "in a village", "in a big city", "on a journey", "long ago"],
    "style": ["plain", "humorous", "lively", "thoughtful", "poetic", "factual"], "length": [[80, 150], [150, 250], [250, 400]],
    "ending": ["a surprise", "a lesson learned", "an open question", "a reconciliation", "a plan for tomorrow"],
}


def deal(name, items, count, r):
    """Endless hands of `count` different items from a deck that is shuffled anew when used up, so that all are used alike."""
    if not 0 < count <= len(items):
        raise ValueError(f"{name}: a prompt takes {count}, there are {len(items)}; give more or ask for fewer")
    while True:
        deck = r.sample(items, len(items))
        yield from (deck[i:i + count] for i in range(0, len(deck) - count + 1, count))


def requests(kinds, seed, language, keywords=(), personas=(), seeds=(), each=3, shots=3, slots={}):
    """Endless requests, the kinds in turn: {"prompt", "prompt_kind", "keyword", "persona", and what else fills the prompt}; the
    same for the same seed and lists. personas: "role" or "role<TAB>subject". language: its English name."""
    piles = {name: (name, pile, 1) for name, pile in (SLOTS | slots).items()}
    piles |= {"keywords": ("keywords", keywords, each), "role_1": ("personas", personas, 1), "samples": ("seeds", seeds, shots)}
    decks = [{name: deal(*pile, random.Random(f"{seed} {n} {name}")) for name, pile in piles.items()
              if "{" + name in TEMPLATES[kind]} for n, kind in enumerate(kinds)]
    for kind, deck in itertools.cycle(zip(kinds, decks)):
        hands = {name: next(hand) for name, hand in deck.items()}
        fill = {name: hand[0] for name, hand in hands.items()}
        fill["keywords"] = ", ".join(hands.get("keywords", []))
        fill["samples"] = "\n\n".join(f"({n}) {text}" for n, text in enumerate(hands.get("samples", []), 1))
        fill["role_1"], _, own = fill.get("role_1", "").partition("\t")
        fill |= {"subject": own} if own else {}
        row = {"prompt_kind": kind, "keyword": fill["keywords"], "persona": fill["role_1"]}
        yield row | {k: v for k, v in fill.items() if k in SLOTS} | {"prompt": TEMPLATES[kind].format(language=language, **fill)}


# ---------------------------------------------------------------------- knowledge

PAIRS = (("question", "answer"), ("instruction", "output"), ("problem", "solution"), ("prompt", "completion"))
NO_TEXT = ("id", "source", "url", "subject", "category", "topic", "level", "difficulty", "type", "language", "license", "split")


def render_knowledge(row):
    """Questions and answers, code or maths as plain text: question, input, choices, a blank line, answer; no words of our own.

    Fields: one of PAIRS, "input", "choices" (the answer is one, its letter or its place from 0), NO_TEXT. Others are refused.
    """
    pair = next((p for p in PAIRS if set(p) <= set(row)), ())
    unknown = sorted(set(row) - {*pair, "input", "choices", *NO_TEXT})
    if unknown or not pair:
        raise ValueError(f"fields {unknown}; known are {', '.join(map('+'.join, PAIRS))}; input, choices, {', '.join(NO_TEXT)}")
    asked, answer, more, choices = (row.get(name) for name in (*pair, "input", "choices"))
    if choices is not None:
        texts = isinstance(choices, list) and len(choices) <= 26 and all(isinstance(x, str) and x.strip() for x in choices)
        names = choices if texts and answer in choices else [*map(chr, range(65, 91))] if type(answer) is str else [*range(26)]
        if not texts or type(answer) not in (str, int) or answer not in names[:len(choices)]:
            raise ValueError(f"choices are up to 26 texts, {pair[1]} is one, its letter or place, got {choices!r} and {answer!r}")
        choices = [f"{chr(65 + i)}. {x.strip()}" for i, x in enumerate(choices)]
        answer = choices[names.index(answer)]
    parts = [asked, *([] if more in (None, "") else [more]), *(choices or []), answer]
    if bad := [x for x in parts if type(x) not in (str, int, float) or not str(x).strip()]:
        raise ValueError(f"{' and '.join(pair)}, input: each must be text that is not empty, got {bad[0]!r}")
    *asked, answer = (regex.sub(r"\A(\s*\n)+", "", str(x)).rstrip() for x in parts)  # spaces in front may be code's
    return "\n".join(asked) + "\n\n" + answer


# ---------------------------------------------------------------------- filters

ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"  # no spaces between words: each character is one
WORD = regex.compile(rf"(?V1)[[{ALONE}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{ALONE}]]+")
BANNED = ["given sample", "created sample", "given samples", "as an AI", "as a language model", "作为一个人工智能"]


@functools.lru_cache(maxsize=64)
def words(text):
    """Runs of letters, digits and marks, or single characters (with marks) of ALONE; case, width and joiners are evened out."""
    return tuple(WORD.findall(regex.sub(r"\p{Cf}", "", unicodedata.normalize("NFKC", text).casefold())))


def answered(doc, least, most, banned, refusals):
    """A whole answer of least to most words, no banned phrase in it, no refusal in front; "as an AI" is not in "as an aid"."""
    said, finish, n = " ".join(words(doc.text)) + " ", doc.more.get("finish"), len(words(doc.text))
    faults = {"refusal: by the endpoint": finish in ("content_filter", "refusal"), "empty": not n}
    faults |= {"cut: no end": finish == "length", "broken characters": regex.search(r"[\p{Cs}\ufffd]", doc.text)}
    faults |= {f"refusal: {p}": said.startswith(" ".join(words(p)) + " ") for p in refusals}
    faults |= {f"banned: {p}": f" {' '.join(words(p))} " in " " + said for p in banned}
    faults |= {"length: too short": n < least, "length: too long": n > most}
    return next((reason for reason, found in faults.items() if found), None)


def said_before(doc, prompt, itself):
    """prompt: share of the runs of eight words that may stand in the prompt; itself: of the runs of five that may come again."""
    eight, five = (list(zip(*(words(doc.text)[k:] for k in range(n)))) for n in (8, 5))
    asked = set(zip(*(words(doc.more["prompt"])[k:] for k in range(8))))
    if sum(run in asked for run in eight) > prompt * len(eight):
        return "echo: of the prompt"
    return None if len(five) - len(set(five)) <= itself * len(five) else "repetition: words said again and again"


def lcs(a, b):
    """Length of the longest common subsequence: an addition of len(a) bits for each of b; zeros in v are matches (Hyyro 2004)."""
    where = {}
    for i, x in enumerate(a):
        where[x] = where.get(x, 0) | 1 << i
    v = full = (1 << len(a)) - 1
    for x in b:
        both = v & where.get(x, 0)
        v = (v + both | v - both) & full
    return len(a) - v.bit_count()


def novelty(most, seeds=()):
    """A filter with a memory, the last of all: ROUGE-L (F1 = 2 LCS / (m + n), words) with every seed and text kept is below most.

    The bound: LCS <= min(m, n), and LCS <= sum_k min(a[k], b[k]) where a and b count the words of 512 bags, since a common
    subsequence takes its words from both. Pairs that it keeps below most are not compared: under 1 us each instead of 80 to 400.
    """
    number, texts, same, sizes, bags = {}, [], set(), np.zeros(64, np.int64), np.zeros((64, 512), np.uint8)

    def new(text, most=most):
        nonlocal sizes, bags
        ids, n = np.array([number.setdefault(w, len(number)) for w in words(text)], np.int32), len(texts)
        if ids.tobytes() in same:
            return "duplicate: exact"
        bag = np.minimum(np.bincount(ids % 512, minlength=512), 255).astype(np.uint8)
        limit, over = most * (sizes[:n] + len(ids)), len(ids) - int(bag.sum())  # over: words that a byte cannot count
        rows = np.flatnonzero(2 * np.minimum(sizes[:n], len(ids)) >= limit)
        for k in rows[2 * (np.minimum(bags[rows], bag).sum(1, np.int32) + over) >= limit[rows]].tolist():
            if 2 * lcs(np.frombuffer(texts[k], np.int32).tolist(), ids.tolist()) >= limit[k]:
                return f"novelty: too like {'a seed' if k < known else 'an answer kept'}"
        if n == len(sizes):
            sizes, bags = (np.concatenate([x, np.zeros_like(x)]) for x in (sizes, bags))
        sizes[n], bags[n] = len(ids), bag
        texts.append(ids.tobytes())
        same.add(texts[-1])
        return None

    known = len([seed for seed in seeds if new(seed, 3.0) is None])  # no F1 is 3: all seeds are remembered
    return lambda doc: new(doc.text)
