"""Measures of a document, all in one pass: those of Gopher (arXiv 2112.11446, A.1.1) and FineWeb (arXiv 2406.17557).

A word is a run of letters, digits and combining marks (Python's \\w omits marks and splits Bengali at every vowel
sign). In scripts without spaces between words, one character is a word. Thresholds must be calibrated with these
words: see `prepare.py calibrate`. Ratios are of characters, of words, or of non-blank lines; an empty text measures 0.
"""
import numpy as np
import regex

# scripts without spaces between words
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}" \
           r"\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Javanese}\p{Balinese}\p{Yi}"
# the definition of a word, which `find_words` implements at five times the speed
WORD = regex.compile(
    rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]+|[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*", regex.V1)
BULLETS = ("-", "*", "\u2022", "\u2023", "\u25b6", "\u25cf", "\u25cb", "\u25a0", "\u25aa", "\u25e6", "\u00b7", "\u2013")
ELLIPSES = ("...", "\u2026", "[...]", "(...)")
_BMP = "".join(map(chr, range(0x10000)))
SENTENCE_ENDS = frozenset(regex.findall(r"\p{Sentence_Terminal}", _BMP)) | {*"…།༎"}  # the full stops of all scripts
STOPS = SENTENCE_ENDS | {*";:\"'”»)】」』’›）"}  # what a text ends with
# what a line of running text ends with: in laws and poems also a comma
ENDS = STOPS | frozenset(regex.findall(r"\p{Terminal_Punctuation}", _BMP))
URL = regex.compile(r"\b(?:https?://|www\.)\S+")
TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)  # lengths of word n-grams

# the classes of a code point, one bit each; SINGLE: a word of its own, RUN: part of a longer word, THIN: mark without
# width
SINGLE, RUN, MARK, LETTER, SYMBOL, DIGIT, THIN = (1 << i for i in range(7))
CLASSES = {SINGLE: rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]", RUN: rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]",
           MARK: r"\p{M}", LETTER: r"\p{L}", SYMBOL: r"[\p{S}\p{C}#*_=|\\/<>{}--[\n\p{Cf}]]", DIGIT: r"\p{Nd}",
           THIN: r"\p{Mn}"}


def _class_table():
    """(0x110000,) uint8. Above 0x32400 there are only ideographs to come, variation selectors, and what has no
    meaning.
    """
    table, every = np.zeros(0x110000, np.uint8), "".join(map(chr, range(0x32400)))
    for bit, pattern in CLASSES.items():
        table[[m.start() for m in regex.finditer(pattern, every, regex.V1)]] |= bit
    table[0x32400:] |= SYMBOL
    table[0xE0100:0xE01F0] = RUN | MARK | THIN  # variation selectors
    return table


CLASS = _class_table()


def classes_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(T,) uint32 code points of a text and (T,) uint8 their classes."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes, CLASS[codes]


def find_words(codes: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys, lengths, letters): of every word a 64-bit hash, its number of characters, and whether it has a letter."""
    single, run, mark = (classes & SINGLE) != 0, (classes & RUN) != 0, (classes & MARK) != 0
    attached = mark  # marks that belong to the word of one character before them
    if mark.any():
        # last place without a mark, from 1
        base = np.maximum.accumulate(np.where(mark, 0, np.arange(1, len(classes) + 1)))
        attached = mark & np.append(False, single)[base]
        run &= ~attached
    first = single | (run & ~np.append(False, run[:-1]))
    at = np.flatnonzero(single | run | attached)
    if not len(at):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, bool)
    begin = np.flatnonzero(first[at])
    lengths = np.diff(begin, append=len(at))
    place = np.arange(len(at)) - np.repeat(begin, lengths)  # of the character in its word
    keys = scramble(codes[at].astype(np.uint64) + (place.astype(np.uint64) << np.uint64(32)))
    return np.add.reduceat(keys, begin), lengths, np.maximum.reduceat(classes[at] & LETTER, begin) != 0


def scramble(key: np.ndarray) -> np.ndarray:
    """Mix the bits of 64-bit numbers, so that a sum of them is a hash."""
    key = (key + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return key ^ (key >> np.uint64(29))


def measures(text: str) -> dict[str, float]:
    """{measure: number}; the names and their order are those of a row of thresholds."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    codes, classes = classes_of(text)
    words, lengths, letters = find_words(codes, classes)
    w, chars, n = max(1, len(words)), max(1, len(text)), max(1, len(lines))
    out = {
        "chars": len(text), "words": len(words),
        "mean_word": float(lengths.mean()) if len(words) else 0.0,
        "longest_word": int(lengths.max()) if len(words) else 0,
        "with_letter": int(letters.sum()) / w,
        "symbols": int(np.count_nonzero(classes & SYMBOL)) / chars,
        "digits": int(np.count_nonzero(classes & DIGIT)) / chars,
        "marks": (text.count("#") + text.count("...") + text.count("\u2026")) / w,
        "bullets": sum(line.startswith(BULLETS) for line in lines) / n,
        "ellipses": sum(line.endswith(ELLIPSES) for line in lines) / n,
        "full_stops": sum(line[-1] in ENDS for line in lines) / n,
        "ends": float(text[-1:] in STOPS),
        "short_lines": sum(len(line) <= 30 for line in lines) / n,
        "newlines": text.count("\n") / w,
        "urls": sum(map(len, URL.findall(text))) / chars if "://" in text or "www." in text else 0.0,
        "dup_lines": 1 - len(set(lines)) / n,
        "dup_line_chars": duplicate_chars(lines),
        "dup_paragraph_chars": duplicate_chars([p for p in text.split("\n\n") if p.strip()]),
        "dup_sentence_chars": duplicate_chars(split_sentences(text))}
    return out | ngram_measures(words, lengths)


def split_sentences(text: str) -> list[str]:
    """Pieces of a text up to its full stops and line breaks."""
    for stop in SENTENCE_ENDS.intersection(text):
        text = text.replace(stop, stop + "\n")
    return [piece for piece in map(str.strip, text.split("\n")) if piece]


def duplicate_chars(units: list[str]) -> float:
    """Fraction of the characters that are in units which occurred before."""
    if len(set(units)) == len(units):
        return 0.0
    seen, repeated = set(), 0
    for unit in units:
        if unit in seen:
            repeated += len(unit)
        seen.add(unit)
    return repeated / sum(map(len, units))


def ngram_measures(words: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """top_n: fraction of the characters in the most frequent n-gram (of equals the longest), 0 when none occurs twice.
    dup_n: fraction in n-grams that occurred before, each word counted once. words (W,): their hashes."""
    total = max(1, int(lengths.sum()))
    out = {f"{'top' if n in TOP else 'dup'}_{n}": 0.0 for n in (*TOP, *DUPLICATE)}
    key = scramble(words)
    for n in range(2, DUPLICATE[-1] + 1):
        if len(words) <= n:
            break
        key = scramble(key[:-1] + words[n - 1:])
        order = np.argsort(key, kind="stable")
        new = np.append(True, key[order[1:]] != key[order[:-1]])
        if new.all():  # no n-gram occurs twice, so no longer one does
            break
        if n in TOP:
            counts = np.diff(np.flatnonzero(new), append=len(key))
            ends = np.append(0, np.cumsum(lengths))
            first = order[new]
            span = ends[first + n] - ends[first]  # characters of each different n-gram
            out[f"top_{n}"] = min(1.0, float((counts * span)[counts == counts.max()].max() / total))
        else:
            edge = np.zeros(len(words) + 1, np.int64)
            later = order[~new]  # occurrences after the first, in a stable order
            edge[later] += 1
            edge[later + n] -= 1
            out[f"dup_{n}"] = float(lengths[np.cumsum(edge[:-1]) > 0].sum() / total)
    return out


def ngram_keys(ids: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash of every n consecutive numbers."""
    key = scramble(ids)
    for j in range(1, n):
        key = scramble(key[:-1] + ids[j:])
    return key

NAMES = tuple(measures(""))
