"""Numbers about one document, all in one pass: the measures of Gopher (arXiv 2112.11446, A.1.1) and FineWeb (arXiv 2406.17557).

A word is a run of letters, digits and combining marks (Python's \\w leaves the marks out and cuts Bengali at every vowel sign);
one Han, Kana or Thai character is a word, as nothing marks its end. Bounds must therefore be measured with these words: see
`prepare.py calibrate`. Shares are of characters, of words, or of lines that are not blank; nothing measures 0.
"""
import unicodedata
import zlib

import numpy as np
import regex

ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}"  # scripts without spaces between words
WORD = regex.compile(rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{ALONE}]]+|[[{ALONE}]&&[\p{{L}}\p{{N}}]]\p{{M}}*", regex.V1)
UNSPACED = regex.compile(rf"[[{ALONE}]&&[\p{{L}}\p{{N}}]]", regex.V1)
BULLETS = ("-", "*", "\u2022", "\u2023", "\u25b6", "\u25cf", "\u25cb", "\u25a0", "\u25aa", "\u25e6", "\u00b7", "\u2013")
ELLIPSES = ("...", "\u2026", "[...]", "(...)")
STOPS = tuple(".!?…。！？؟۔।;:\"'”»)】」』")  # what a text ends with
ENDS = (*STOPS, ",", "，", "、", "،", "؛")  # what a line of running text ends with: in laws and poems a comma, too
SENTENCE = regex.compile(r"(?<=[.!?。！？؟۔।])\s*|\n")
SYMBOL = regex.compile(r"[\p{S}\p{C}#*_=|\\/<>{}--\n]", regex.V1)
DIGIT = regex.compile(r"\p{Nd}")
MARK = regex.compile(r"\p{Mn}+")
LETTER = regex.compile(r"\p{L}")
URL = regex.compile(r"\b(?:https?://|www\.)\S+")
TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)  # lengths of word n-grams


def measures(text):
    """{measure: number}; the names and their order are those of a row of thresholds."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    words, size, n = WORD.findall(text), max(1, len(text)), max(1, len(lines))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    units = [u for u in SENTENCE.split(text) if u]
    out = {
        "chars": len(text), "words": len(words), "mean_word": float(lengths.mean()) if words else 0.0,
        "longest_word": int(lengths.max()) if words else 0,
        "with_letter": sum(1 for w in words if LETTER.search(w)) / max(1, len(words)),
        "symbols": len(SYMBOL.findall(text)) / size, "digits": len(DIGIT.findall(text)) / size,
        "marks": (text.count("#") + text.count("...") + text.count("\u2026")) / max(1, len(words)),
        "bullets": sum(line.startswith(BULLETS) for line in lines) / n,
        "ellipses": sum(line.endswith(ELLIPSES) for line in lines) / n,
        "full_stops": sum(line.endswith(ENDS) for line in lines) / n, "ends": float(text.endswith(STOPS)),
        "short_lines": sum(len(line) <= 30 for line in lines) / n,
        "newlines": text.count("\n") / max(1, len(words)), "urls": sum(map(len, URL.findall(text))) / size,
        "dup_lines": 1 - len(set(lines)) / n, "dup_line_chars": _said_again(lines),
        "dup_paragraph_chars": _said_again([p for p in text.split("\n\n") if p.strip()]),
        "dup_sentence_chars": _said_again(units)}
    return out | ngrams(words, lengths)


def _said_again(units):
    """Share of the characters that stand in units already seen."""
    if len(set(units)) == len(units):
        return 0.0
    seen, again = set(), 0
    for unit in units:
        again += len(unit) if unit in seen else 0
        seen.add(unit)
    return again / sum(map(len, units))


def ngrams(words, lengths):
    """top_n: share of the characters in the most frequent n-gram (of equals the longest), 0 when none occurs twice; dup_n: in
    n-grams that occurred before, each word counted once. Rows of word numbers are compared by a 64-bit hash of them."""
    total, out = max(1, int(lengths.sum())), {}
    numbers = {}
    ids = np.fromiter((numbers.setdefault(w, len(numbers)) for w in words), np.uint64, len(words))
    again = True  # whether any n-gram of the last length occurred twice; if none did, none of a greater length does
    for n in (*TOP, *DUPLICATE):
        name = f"top_{n}" if n in TOP else f"dup_{n}"
        out[name] = 0.0
        if not again or len(words) <= n:
            again = again and len(words) > n
            continue
        key = rows(ids, n)
        order = np.argsort(key, kind="stable")
        new = np.ones(len(key), bool)
        new[1:] = key[order[1:]] != key[order[:-1]]
        group = np.cumsum(new) - 1
        counts = np.bincount(group)
        again = bool((counts > 1).any())
        if not again:
            continue
        if n in TOP:
            first = order[new]
            span = np.convolve(lengths, np.ones(n, np.int64), "valid")[first]  # characters of each different n-gram
            best = counts == counts.max()
            out[name] = min(1.0, float((counts * span)[best].max() / total))
        else:
            later = order[~new]  # occurrences after the first, in a stable order
            edge = np.zeros(len(words) + 1, np.int64)
            np.add.at(edge, later, 1)
            np.add.at(edge, later + n, -1)
            out[name] = float(lengths[np.cumsum(edge[:-1]) > 0].sum() / total)
    return out


def rows(ids, n):
    """A 64-bit hash of every n neighbouring numbers."""
    key = np.zeros(len(ids) - n + 1, np.uint64)
    for j in range(n):
        key = (key + ids[j:len(ids) - n + 1 + j] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


# ---------------------------------------------------------------------- near duplicates

BANDS, ROWS, SHINGLE = 14, 8, 5  # FineWeb-2's: caught with probability 0.92 at a similarity of 0.8, 1.00 at 0.9
_rng = np.random.Generator(np.random.PCG64(2412_04003))
_A = _rng.integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_B = _rng.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def word_keys(text):
    """A 32-bit key of every word, (W,) uint64: without case and marks, all digits alike."""
    plain = MARK.sub("", unicodedata.normalize("NFD", text.lower())) if not text.isascii() else text.lower()
    known = {}
    words = WORD.findall(DIGIT.sub("0", plain))
    return np.fromiter((known.get(w) or known.setdefault(w, zlib.crc32(w.encode())) for w in words), np.uint64, len(words))


def signature(text):
    """MinHash of a document, (112,) uint32: of its shingles of five words, or of ten where words are single characters, the least
    value under each of 112 hashes. A shorter text is one shingle."""
    ids = word_keys(text)
    n = 2 * SHINGLE if 2 * len(UNSPACED.findall(text)) > len(ids) else SHINGLE
    key = np.unique(rows(ids, min(n, len(ids)))) if len(ids) else np.zeros(1, np.uint64)
    out = np.full(BANDS * ROWS, 0xFFFFFFFF, np.uint64)
    for i in range(0, len(key), 4096):  # the table of one block is 3.7 MB
        np.minimum(out, ((key[i:i + 4096, None] * _A + _B) >> np.uint64(32)).min(0), out=out)
    return out.astype(np.uint32)


def band(signatures, b):
    """One key (N,) uint64 for the b-th eight values of signatures (N, 112)."""
    key = np.zeros(len(signatures), np.uint64)
    for j in range(b * ROWS, (b + 1) * ROWS):
        key = (key + signatures[:, j].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key
