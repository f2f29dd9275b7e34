"""Filters of sentence pairs: each takes a pair and returns None to keep it, or the reason to drop it.

A pair is a Document whose text is the source sentence and whose more["target"] is its translation
(corpus/bitext_files.py reads them). The rules catch what is hardly a sentence and its translation. Whether two clean
sentences mean the same is for corpus/similarity.py.
"""
import hashlib
import unicodedata
from bisect import bisect_left

import numpy as np
import regex

from corpus.bitext_numbers import numbers_differ
from corpus.clean import DENSE, LETTERS, SCRIPTS, byte_size, script_pattern
from corpus.read import Document

# Length of a sentence relative to English, in characters and in UTF-8 bytes. 15 languages: as in FLORES. The others
# (one decimal): as in the tinyworld times 1.09, the median factor by which FLORES exceeds it where both are known.
LENGTHS = {row.split()[0]: tuple(float(number) for number in row.split()[1:]) for row in """
    en 1 1, zh .33 .92, ar .90 1.63, de 1.16 1.18, es 1.19 1.21, fr 1.19 1.23, ko .50 1.19, ja .44 1.27, pt 1.08 1.11,
    tr 1.03 1.12, bn .97 2.60, id 1.09 1.09, th .95 2.72, kk 1.04 1.91, ne .96 2.58, he .8 1.4, it 1.1 1.1, ms 1.2 1.2,
    nl 1.1 1.1, pl 1 1, ru .9 1.7, uk .9 1.7, ur 1.0 1.8, vi 1.1 1.4, cs .9 1.0, el 1.2 2.2, hu 1.0 1.1, ro 1.0 1.1,
    az 1.0 1.1""".split(",")}
SCRIPT_PATTERNS = {code: script_pattern(scripts) for code, scripts in SCRIPTS.items()}
DENSE_CHARACTER = regex.compile(f"[{DENSE}]")
# In scripts without spaces between words each character counts as a word
UNSPACED = DENSE + "".join(rf"\p{{{script}}}" for script in (
    "Lao", "Khmer", "Myanmar", "Tibetan", "Javanese", "Balinese", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Yi"))
WORD = regex.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
ADDRESS = regex.compile(r"(?:https?://|www\.)[!-~--[\"'()<>]]+|(?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]+",
                        regex.V1 | regex.A)
# UTF-8 decoded as Latin-1 or Windows-1252: what bytes C2 to F4 become, then what bytes 80 to BF become, twice in a row.
# Of the frequent Ã©, Â° and â€ one is enough. Then the escapes of Python, URLs and HTML.
TRAILING = "[\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]"
BROKEN = regex.compile(rf"(?:[Â-ß]{TRAILING}|[à-ï]{TRAILING}{{2}}|[ð-ô]{TRAILING}{{3}}){{2,}}|"
                       r"[ÃÂ][\x80-\xbf€ƒ†‡ˆ‰Š‹Œ]|â€|[\0-\x08\x7f-\x9f]|"
                       r"[\ufffd\ud800-\udfff]|\\u[\da-fA-F]{4}|\\x[\da-fA-F]{2}|%[C-F][\dA-F]%[89AB]|"
                       r"&(?:[a-zA-Z]{2,8}|#\d{1,7}|#x[\da-fA-F]{1,6});")
REPEATED = regex.compile(rf"(?<![\p{{L}}\p{{M}}])({LETTERS.pattern})"  # a word three times in a row
                         r"(?:[^\p{L}\p{M}]{1,3}\1(?![\p{L}\p{M}])){2,}|"
                         rf"([{DENSE}]{{2,20}}?)\2{{3}}", regex.I)  # without spaces: four times
SPACE = regex.compile(r"[^\S\u00a0\u202f\u3000]+")  # those three belong to the spelling
BRACKETS = str.maketrans("（）［］【】｛｝", "()[][]{}")


def require_two_sides(doc: Document) -> str | None:
    """Drop a pair with an empty side: the only rule when filtering is off."""
    doc.text, doc.more["target"] = (" ".join(side.split()) for side in (doc.text, doc.more["target"]))
    return None if doc.text and doc.more["target"] else "pair: a side is empty"


def filter_pair(doc: Document, source=None, target=None, **bounds) -> str | None:
    """Drop a pair that breaks one of the hard rules of `find_fault`; normalize the white space of one that stays."""
    x, y = (SPACE.sub(" ", unicodedata.normalize("NFC", side)).strip() for side in (doc.text, doc.more["target"]))
    fault = find_fault(x, y, source, target, score=doc.more.get("score"), **bounds)
    if fault:
        return f"pair: {fault}"
    doc.text, doc.more["target"] = x, y
    return None


def find_fault(x, y, source, target, max_ratio, min_words=1, max_chars=1024, min_score=None, score=None, identify=None,
               alike=()):
    """The first rule that a pair (x, y) breaks, cheap rules first, or None.

    source, target: language codes; None skips the rules on script and language of that side. max_ratio: of the lengths,
    see `length_ratio`. min_score: of the row's score, where its file has one. identify: text -> language code. alike:
    groups of codes that identify may confuse.
    """
    if not x or not y:
        return "a side is empty"
    if max(len(x), len(y)) > max_chars:
        return "too long"
    if BROKEN.search(x) or BROKEN.search(y):
        return "broken or escaped characters"
    # without addresses, with ASCII brackets; and the letters alone
    p, q = (ADDRESS.sub(" ", side).translate(BRACKETS) for side in (x, y))
    p_letters, q_letters = ("".join(LETTERS.findall(side)) for side in (p, q))
    if x.casefold() == y.casefold() or p_letters.casefold() == q_letters.casefold():
        return "a copy"
    if min(len(WORD.findall(x)), len(WORD.findall(y))) < min_words:
        return "too few words"
    if length_ratio(x, y, source, target) > max_ratio:
        return "lengths do not match"
    if len(ADDRESS.findall(x)) != len(ADDRESS.findall(y)):
        return "an address on one side only"
    for side, letters in ((p, p_letters), (q, q_letters)):
        if 2 * byte_size(letters) < byte_size("".join(side.split())):
            return "few letters"
    if numbers_differ(p, q, source, target):
        return "numbers do not match"
    if max(map(len, WORD.findall(f"{p} {q}")), default=0) > 40:
        return "a word of more than 40 characters"
    if bool(REPEATED.search(p)) != bool(REPEATED.search(q)):
        return "words repeated on one side"
    for opening, closing in ("()", "[]", "{}"):
        if p.count(opening) - p.count(closing) != q.count(opening) - q.count(closing):
            return "brackets left open"
    sides = [side for side in ((x, p_letters, source), (y, q_letters, target)) if side[2]]
    for _, letters, code in sides:
        own = "".join(SCRIPT_PATTERNS[code].findall(letters)) if code in SCRIPT_PATTERNS else letters
        if 2 * byte_size(own) < byte_size(letters):
            return "script of another language"
    if min_score is not None and not (isinstance(score, (int, float)) and score >= min_score):
        return "score too low"
    for side, letters, code in sides if identify else ():
        allowed = {code}.union(*(group for group in alike if code in group))
        if len(letters) >= 20 and identify(side) not in allowed:  # a shorter text says little about its language
            return "another language"
    return None


def length_ratio(x, y, source, target):
    """How many times longer one side is than expected from the other, 1 or more.

    Lengths are in characters, or in UTF-8 bytes when a side is mostly written in a script without spaces.
    """
    dense = any(4 * len(DENSE_CHARACTER.findall(side)) > len(side) for side in (x, y))
    known = source in LENGTHS and target in LENGTHS
    lengths = []
    for side, code in ((x, source), (y, target)):
        expected = LENGTHS[code][dense] if known else 1
        lengths.append((byte_size(side) if dense else len(side)) / expected)
    return max(lengths) / min(lengths)


def one_to_one():
    """A filter that keeps the first pair of each source and of each target sentence, ignoring case and white space.

    It holds an 8-byte hash per sentence in a sorted table. Only the latest ninth is in a set, which needs ten times as
    much memory.
    """
    table, recent = memoryview(np.empty(0, np.uint64)), set()

    def is_known(key):
        if key in recent:
            return True
        i = bisect_left(table, key)
        return i < len(table) and table[i] == key

    def step(doc):
        nonlocal table, recent
        keys = []
        for i, side in enumerate((doc.text, doc.more["target"])):
            normal = f"{i}{' '.join(side.casefold().split())}"
            keys.append(int.from_bytes(hashlib.blake2b(normal.encode(), digest_size=8).digest(), "little"))
        source_known, target_known = map(is_known, keys)
        if source_known and target_known:
            return "pair: a duplicate"
        if source_known or target_known:
            return f"pair: {'source' if source_known else 'target'} is in another pair"
        recent.update(keys)
        if len(recent) > max(1 << 16, len(table) >> 3):
            table = memoryview(np.sort(np.concatenate([table, np.fromiter(recent, np.uint64)])))
            recent = set()
        return None
    return step
