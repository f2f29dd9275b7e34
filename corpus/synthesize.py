"""Synthetic text: Marco-LLM's three prompts (Table 14, in our own words), and filters of the answers.

A filter takes a Document (text: the answer; more: the request of `make_requests`, and "finish") and returns None to
keep it, or the reason to drop it.
"""
import functools
import itertools
import random
import unicodedata

import numpy as np
import regex

PROMPTS = {
    "explanation":
    "You are {role_1}, and your field is {subject}. Explain these keywords to {role_2}: {keywords}.\nGive "
    "each at least three sentences; a short story may help. Close with a summary, then a list of the keywords. Be "
    "correct, useful and easy to understand, and do not put everything in the same way.\nWrite in {language}.",
    "story":
    "You are {role_1}, and your field is {subject}. You are about to teach new words to {role_2}. First write "
    "{type_passage} in which every one of these words occurs: {keywords}.\nIt is set {scene}. It has {length[0]} to "
    "{length[1]} words, its style is {style}, and it ends with {ending}.\nWrite in {language}.",
    "sample":
    "You make samples for a collection. These are some of it:\n\n{samples}\n\nMake one more, of the same field "
    "but on something rarer. It should be about as long and as difficult as these, and sensible to a human reader. Do "
    "not mention that there is a given sample or a created sample: the answer is the new sample and nothing else.\n"
    "Write in {language}.",
}
SLOTS = {  # default values of the slots that are not filled from lists of the caller
    "subject": ["everyday life", "history", "geography", "biology", "physics", "mathematics", "medicine", "law",
                "economics"],
    "role_2": ["primary school pupils", "secondary school students", "university students", "adults at evening school"],
    "type_passage": ["a short story", "a dialogue", "a diary entry", "a fable", "a letter", "a newspaper report"],
    "scene": ["at home", "at school", "at a market", "in a village", "in a big city", "on a journey", "long ago"],
    "style": ["plain", "humorous", "lively", "thoughtful", "poetic", "factual"],
    "length": [[80, 150], [150, 250], [250, 400]],
    "ending": ["a surprise", "a lesson learned", "an open question", "a reconciliation", "a plan for tomorrow"],
}


def deal_hands(name, items, count, rng):
    """Yield lists of `count` different items forever, from a deck reshuffled when used up, so that use is even."""
    if not 0 < count <= len(items):
        raise ValueError(f"{name}: a prompt takes {count}, there are {len(items)}; give more or ask for fewer")
    while True:
        deck = rng.sample(items, len(items))
        yield from (deck[i:i + count] for i in range(0, len(deck) - count + 1, count))


def make_requests(kinds, seed, language, keywords=(), personas=(), seeds=(), keywords_each=3, shots=3, slots=None):
    """Yield requests forever, the kinds in turn; the same for the same seed and lists.

    A request is {"prompt", "prompt_kind", "keyword", "persona"} and the values of the slots. language: English name.
    personas: "role" or "role<TAB>subject". keywords_each: keywords in a prompt. shots: seeds in a prompt.
    """
    decks = {name: (name, items, 1) for name, items in (SLOTS | (slots or {})).items()}
    decks |= {"keywords": ("keywords", keywords, keywords_each), "role_1": ("personas", personas, 1),
              "samples": ("seeds", seeds, shots)}
    dealers = []
    for n, kind in enumerate(kinds):
        used = [name for name in decks if "{" + name in PROMPTS[kind]]
        dealers.append({name: deal_hands(*decks[name], random.Random(f"{seed} {n} {name}")) for name in used})
    for kind, dealer in itertools.cycle(zip(kinds, dealers)):
        hands = {name: next(hand) for name, hand in dealer.items()}
        values = {name: hand[0] for name, hand in hands.items()}
        values["keywords"] = ", ".join(hands.get("keywords", []))
        values["samples"] = "\n\n".join(f"({n}) {text}" for n, text in enumerate(hands.get("samples", []), 1))
        values["role_1"], _, subject = values.get("role_1", "").partition("\t")
        if subject:
            values["subject"] = subject
        row = {"prompt_kind": kind, "keyword": values["keywords"], "persona": values["role_1"]}
        row |= {name: value for name, value in values.items() if name in SLOTS}
        yield row | {"prompt": PROMPTS[kind].format(language=language, **values)}


# ---------------------------------------------------------------------- filters

# scripts without spaces between words: each character counts as a word
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"(?V1)[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+")
BANNED = ["given sample", "created sample", "given samples", "as an AI", "as a language model", "作为一个人工智能"]


@functools.lru_cache(maxsize=64)
def split_words(text: str) -> tuple[str, ...]:
    """Runs of letters, digits and marks, or single characters (with marks) of UNSPACED scripts.

    Case, width variants and invisible joiners are normalized.
    """
    return tuple(WORD.findall(regex.sub(r"\p{Cf}", "", unicodedata.normalize("NFKC", text).casefold())))


def check_answer(doc, min_words, max_words, banned, refusals):
    """Drop refusals, answers that were cut off or are too short or too long, and answers with a banned phrase.

    Phrases are compared word by word: "as an AI" is not found in "as an aid".
    """
    words, finish = split_words(doc.text), doc.more.get("finish")
    if finish in ("content_filter", "refusal"):
        return "refusal: by the endpoint"
    if not words:
        return "empty"
    if finish == "length":
        return "cut: no end"
    if regex.search(r"[\p{Cs}\ufffd]", doc.text):
        return "broken characters"
    text = f" {' '.join(words)} "
    for phrase in refusals:
        if text.startswith(f" {' '.join(split_words(phrase))} "):
            return f"refusal: {phrase}"
    for phrase in banned:
        if f" {' '.join(split_words(phrase))} " in text:
            return f"banned: {phrase}"
    if len(words) < min_words:
        return "length: too short"
    if len(words) > max_words:
        return "length: too long"
    return None


def ngrams(words, n):
    return list(zip(*(words[k:] for k in range(n))))


def check_repetition(doc, max_echo, max_repeated):
    """Drop answers that repeat the prompt or themselves.

    max_echo: share of the answer's 8-grams that may occur in the prompt. max_repeated: share of its 5-grams that may be
    repetitions of an earlier one.
    """
    words = split_words(doc.text)
    eight, five = ngrams(words, 8), ngrams(words, 5)
    prompt = set(ngrams(split_words(doc.more["prompt"]), 8))
    if sum(ngram in prompt for ngram in eight) > max_echo * len(eight):
        return "echo: of the prompt"
    if len(five) - len(set(five)) > max_repeated * len(five):
        return "repetition: words said again and again"
    return None


def lcs_length(a, b):
    """Length of the longest common subsequence, by one addition of len(a) bits per item of b (Hyyro 2004)."""
    positions = {}
    for i, x in enumerate(a):
        positions[x] = positions.get(x, 0) | 1 << i
    v = full = (1 << len(a)) - 1  # zeros in v are matches
    for x in b:
        matches = v & positions.get(x, 0)
        v = (v + matches | v - matches) & full
    return len(a) - v.bit_count()


def novelty_filter(max_rouge, seeds=()):
    """A filter with a memory, to be used last: drop an answer like a seed or like an answer that was kept.

    Two texts are alike when the F1 of ROUGE-L on words, 2 LCS / (m + n), is max_rouge or more. An upper bound spares
    most comparisons (under 1 us each instead of 80 to 400): LCS <= min(m, n), and LCS <= sum_k min(a[k], b[k]), where a
    and b count the words of 512 hash bags, since a common subsequence takes its words from both.
    """
    word_ids, kept, kept_set = {}, [], set()
    sizes, bags = np.zeros(64, np.int64), np.zeros((64, 512), np.uint8)

    def add(text, limit=max_rouge):
        nonlocal sizes, bags
        ids = np.array([word_ids.setdefault(w, len(word_ids)) for w in split_words(text)], np.int32)
        n = len(kept)
        if ids.tobytes() in kept_set:
            return "duplicate: exact"
        bag = np.minimum(np.bincount(ids % 512, minlength=512), 255).astype(np.uint8)
        uncounted = len(ids) - int(bag.sum())  # words beyond the 255 that a byte can count
        needed = limit * (sizes[:n] + len(ids))  # 2 LCS from which two texts are alike
        rows = np.flatnonzero(2 * np.minimum(sizes[:n], len(ids)) >= needed)
        bound = np.minimum(bags[rows], bag).sum(1, np.int32) + uncounted
        for k in rows[2 * bound >= needed[rows]].tolist():
            if 2 * lcs_length(np.frombuffer(kept[k], np.int32).tolist(), ids.tolist()) >= needed[k]:
                return f"novelty: too like {'a seed' if k < n_seeds else 'an answer kept'}"
        if n == len(sizes):
            sizes, bags = (np.concatenate([x, np.zeros_like(x)]) for x in (sizes, bags))
        sizes[n], bags[n] = len(ids), bag
        kept.append(ids.tobytes())
        kept_set.add(kept[-1])
        return None

    for seed in seeds:
        add(seed, limit=3.0)  # above any F1: all seeds are remembered
    n_seeds = len(kept)
    return lambda doc: add(doc.text)
