"""Numbers about one document, all in one pass: the measures of Gopher (arXiv 2112.11446, A.1.1) and FineWeb (arXiv 2406.17557).

A word is a run of letters, digits and combining marks (Python's \\w leaves the marks out and cuts Bengali at every vowel sign);
one Han, Kana or Thai character is a word, as nothing marks its end. Bounds must therefore be measured with these words: see
`prepare.py calibrate`. Shares are of characters, of words, or of lines that are not blank; nothing measures 0.
"""
import unicodedata

import numpy as np
import regex

ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}"  # scripts without spaces between words
# the definition of a word, which `words_of` follows at five times the speed
WORD = regex.compile(rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{ALONE}]]+|[[{ALONE}]&&[\p{{L}}\p{{N}}]]\p{{M}}*", regex.V1)
BULLETS = ("-", "*", "\u2022", "\u2023", "\u25b6", "\u25cf", "\u25cb", "\u25a0", "\u25aa", "\u25e6", "\u00b7", "\u2013")
ELLIPSES = ("...", "\u2026", "[...]", "(...)")
STOPS = tuple(".!?…。！？؟۔।;:\"'”»)】」』")  # what a text ends with
ENDS = (*STOPS, ",", "，", "、", "،", "؛")  # what a line of running text ends with: in laws and poems a comma, too
SENTENCE_ENDS = ".!?…。！？؟۔।"
URL = regex.compile(r"\b(?:https?://|www\.)\S+")
TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)  # lengths of word n-grams

# what a code point is, a bit each: a word of its own, part of a longer word, mark, letter, symbol, digit, mark without width
SINGLE, RUN, MARK, LETTER, SYMBOL, DIGIT, THIN = (1 << i for i in range(7))
CLASSES = {SINGLE: rf"[[{ALONE}]&&[\p{{L}}\p{{N}}]]", RUN: rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{ALONE}]]", MARK: r"\p{M}",
           LETTER: r"\p{L}", SYMBOL: r"[\p{S}\p{C}#*_=|\\/<>{}--\n]", DIGIT: r"\p{Nd}", THIN: r"\p{Mn}"}


def _class_table():
    """(0x110000,) uint8. Above 0x32400 there are only ideographs to come, variation selectors, and what has no meaning."""
    table, every = np.zeros(0x110000, np.uint8), "".join(map(chr, range(0x32400)))
    for bit, pattern in CLASSES.items():
        table[[m.start() for m in regex.finditer(pattern, every, regex.V1)]] |= bit
        table[0x32400:] |= bit if bit == SYMBOL else 0
        table[0xE0100:0xE01F0] |= bit if bit in (RUN, MARK, THIN) else 0
    table[0xE0100:0xE01F0] &= ~np.uint8(SYMBOL)
    return table


CLASS = _class_table()


def classes_of(text):
    """(T,) uint32 code points of a text and (T,) uint8 their classes."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes, CLASS[codes]


def words_of(codes, kind):
    """(keys, lengths, letters): of every word a 64-bit hash, its characters, and whether a letter is among them."""
    single, run = (kind & SINGLE) != 0, (kind & RUN) != 0
    mark = (kind & MARK) != 0
    if mark.any():  # those behind a word of one character belong to it
        before = np.maximum.accumulate(np.where(mark, 0, np.arange(1, len(kind) + 1)))  # the last place that is no mark, from 1
        behind = mark & np.append(False, single)[before]
        run &= ~behind
    else:
        behind = mark
    first = single | (run & ~np.append(False, run[:-1]))
    at = np.flatnonzero(single | run | behind)
    if not len(at):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, bool)
    begin = np.flatnonzero(first[at])
    lengths = np.diff(begin, append=len(at))
    place = np.arange(len(at)) - np.repeat(begin, lengths)  # of the character in its word
    key = mixed(codes[at].astype(np.uint64) + (place.astype(np.uint64) << np.uint64(32)))
    return np.add.reduceat(key, begin), lengths, np.maximum.reduceat(kind[at] & LETTER, begin) != 0


def mixed(key):
    """A number of 64 bits scrambled, so that a sum of them is a hash."""
    key = (key + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return key ^ (key >> np.uint64(29))


def measures(text):
    """{measure: number}; the names and their order are those of a row of thresholds."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    codes, kind = classes_of(text)
    words, lengths, lettered = words_of(codes, kind)
    w, size, n = max(1, len(words)), max(1, len(text)), max(1, len(lines))
    out = {
        "chars": len(text), "words": len(words), "mean_word": float(lengths.mean()) if len(words) else 0.0,
        "longest_word": int(lengths.max()) if len(words) else 0, "with_letter": int(lettered.sum()) / w,
        "symbols": int(np.count_nonzero(kind & SYMBOL)) / size, "digits": int(np.count_nonzero(kind & DIGIT)) / size,
        "marks": (text.count("#") + text.count("...") + text.count("\u2026")) / w,
        "bullets": sum(line.startswith(BULLETS) for line in lines) / n,
        "ellipses": sum(line.endswith(ELLIPSES) for line in lines) / n,
        "full_stops": sum(line.endswith(ENDS) for line in lines) / n, "ends": float(text.endswith(STOPS)),
        "short_lines": sum(len(line) <= 30 for line in lines) / n, "newlines": text.count("\n") / w,
        "urls": sum(map(len, URL.findall(text))) / size if "://" in text or "www." in text else 0.0,
        "dup_lines": 1 - len(set(lines)) / n, "dup_line_chars": _said_again(lines),
        "dup_paragraph_chars": _said_again([p for p in text.split("\n\n") if p.strip()]),
        "dup_sentence_chars": _said_again(sentences(text))}
    return out | ngrams(words, lengths)


def sentences(text):
    """Pieces of a text up to its full stops and line breaks."""
    for stop in SENTENCE_ENDS:
        text = text.replace(stop, stop + "\n")
    return [piece for piece in map(str.strip, text.split("\n")) if piece]


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
    n-grams that occurred before, each word counted once. words (W,): their hashes, of which an n-gram's is made."""
    total, out = max(1, int(lengths.sum())), {f"{'top' if n in TOP else 'dup'}_{n}": 0.0 for n in (*TOP, *DUPLICATE)}
    key = mixed(words)
    for n in range(2, DUPLICATE[-1] + 1):
        if len(words) <= n:
            break
        key = mixed(key[:-1] + words[n - 1:])
        order = np.argsort(key, kind="stable")
        new = np.append(True, key[order[1:]] != key[order[:-1]])
        if new.all():  # none occurs twice; then none of a greater length does
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


def rows(ids, n):
    """A 64-bit hash of every n neighbouring numbers."""
    key = mixed(ids)
    for j in range(1, n):
        key = mixed(key[:-1] + ids[j:])
    return key


# ---------------------------------------------------------------------- near duplicates

BANDS, ROWS, SHINGLE = 14, 8, 5  # FineWeb-2's: caught with probability 0.92 at a similarity of 0.8, 1.00 at 0.9
_rng = np.random.Generator(np.random.PCG64(2412_04003))
_A = _rng.integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_B = _rng.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def word_keys(text):
    """A 64-bit key of every word, (W,) uint64: without case and marks, all digits alike."""
    return _plain_words(text)[0]


def _plain_words(text):
    """(keys of the words, how many of them are one character of a script without spaces)."""
    codes, kind = classes_of(text.lower() if text.isascii() else unicodedata.normalize("NFD", text.lower()))
    if (thin := (kind & THIN) != 0).any():
        codes, kind = codes[~thin], kind[~thin]
    codes = np.where(kind & DIGIT, np.uint32(48), codes)
    return words_of(codes, kind)[0], int(np.count_nonzero(kind & SINGLE))


def signature(text):
    """MinHash of a document, (112,) uint32: of its shingles of five words, or of ten where words are single characters, the least
    value under each of 112 hashes. A shorter text is one shingle."""
    ids, single = _plain_words(text)
    n = 2 * SHINGLE if 2 * single > len(ids) else SHINGLE
    key = np.unique(rows(ids, min(n, len(ids)))) if len(ids) else np.zeros(1, np.uint64)
    out = np.full(BANDS * ROWS, 0xFFFFFFFF, np.uint32)
    for i in range(0, len(key), 1024):  # the table of one block is 0.9 MB: it stays in the cache
        table = _A[:, None] * key[i:i + 1024]
        table += _B[:, None]
        np.minimum(out, (table.view(np.uint32)[:, 1::2]).min(1), out=out)  # the upper halves, little-endian
    return out


def band(signatures, b):
    """One key (N,) uint64 for the b-th eight values of signatures (N, 112)."""
    key = np.zeros(len(signatures), np.uint64)
    for j in range(b * ROWS, (b + 1) * ROWS):
        key = (key + signatures[:, j].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key
