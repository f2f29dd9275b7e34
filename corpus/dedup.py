"""Exact and near-duplicates within a source. The result does not depend on the number of workers.

The keys of a document are 16 bytes (exact) and a MinHash signature of 448 bytes (near), kept on disk; one band of
eight values is sorted at a time. Two documents that share a band are near-duplicates when their signatures agree in at
least AGREE of 112 places: the bands alone would join one pair in a hundred at a similarity of 0.4.
"""
import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corpus import measure

BANDS, ROWS, SHINGLE = 14, 8, 5  # FineWeb-2's: caught with probability 0.92 at a similarity of 0.8, 1.00 at 0.9
# of the places; a pair of similarity 0.4 gets there with probability 1e-5, one of 0.8 stays below with 1e-6
AGREE = 0.6
_rng = np.random.Generator(np.random.PCG64(2412_04003))
_A = _rng.integers(1, 1 << 63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_B = _rng.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def exact_key(text: str) -> np.ndarray:
    """(2,) uint64 of a text; case and white space do not matter."""
    normalized = " ".join(text.casefold().split())
    return np.frombuffer(hashlib.blake2b(normalized.encode(), digest_size=16).digest(), np.uint64)


def signature(text: str) -> np.ndarray:
    """MinHash of a document, (112,) uint32: the minimum of each of 112 hashes over its shingles.

    A shingle is five words, or ten where words are single characters; a shorter text is one shingle.
    """
    ids, single = normalized_words(text)
    n = 2 * SHINGLE if 2 * single > len(ids) else SHINGLE
    keys = np.unique(measure.ngram_keys(ids, min(n, len(ids)))) if len(ids) else np.zeros(1, np.uint64)
    out = np.full(BANDS * ROWS, 0xFFFFFFFF, np.uint32)
    for i in range(0, len(keys), 1024):  # the table of one block is 0.9 MB: it stays in the cache
        table = _A[:, None] * keys[i:i + 1024]
        table += _B[:, None]
        np.minimum(out, (table.view(np.uint32)[:, 1::2]).min(1), out=out)  # the upper halves, little-endian
    return out


def word_keys(text: str) -> np.ndarray:
    """A 64-bit key of every word, (W,) uint64, without case and marks, all digits alike."""
    return normalized_words(text)[0]


def normalized_words(text):
    """(keys of the words, how many of them are one character of an unspaced script)."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFD", text.lower())
    codes, classes = measure.classes_of(text)
    thin = (classes & measure.THIN) != 0
    if thin.any():
        codes, classes = codes[~thin], classes[~thin]
    codes = np.where(classes & measure.DIGIT, np.uint32(48), codes)
    return measure.find_words(codes, classes)[0], int(np.count_nonzero(classes & measure.SINGLE))


def band_keys(signatures: np.ndarray, band: int) -> np.ndarray:
    """One key (N,) uint64 for the eight values of a band of signatures (N, 112)."""
    key = np.zeros(len(signatures), np.uint64)
    for j in range(band * ROWS, (band + 1) * ROWS):
        key = (key + signatures[:, j].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def find_duplicates(key_file: Path, near: bool) -> tuple[np.ndarray, np.ndarray]:
    """(head (N,), exact (N, 2)): for each document of a source the one that is kept for it, and its exact key.

    key_file: the rows that `key_bytes` made, in the order of the documents; it stays on disk.
    """
    dtype: list[tuple] = [("chars", np.uint64), ("exact", np.uint64, 2)]
    if near:
        dtype += [("signature", np.uint32, BANDS * ROWS)]
    if not key_file.stat().st_size:
        return np.zeros(0, np.int64), np.zeros((0, 2), np.uint64)
    keys = np.memmap(key_file, np.dtype(dtype), "r")
    exact = np.array(keys["exact"])
    return cluster(exact, keys["signature"] if near else None, keys["chars"].astype(np.int64)), exact


def key_bytes(text: str, target: str, near: bool) -> bytes:
    """The row of a key file for one document; target: the other side of a pair, else ""."""
    row = np.uint64(len(text)).tobytes() + exact_key(f"{text}\t{target}").tobytes()
    return row + signature(text).tobytes() if near else row


def cluster(exact: np.ndarray, signatures: np.ndarray | None, chars: np.ndarray) -> np.ndarray:
    """exact (N, 2) uint64, signatures (N, 112) uint32 or None, chars (N,) -> head (N,): the document kept for each one.

    Of a cluster the longest document is kept, of equals the first. Arrays may be memory maps.
    """
    if not len(exact):
        return np.zeros(0, np.int64)
    parent = np.arange(len(exact))
    order = np.lexsort((exact[:, 1], exact[:, 0]))
    same = (exact[order[1:]] == exact[order[:-1]]).all(1)
    join(parent, order[:-1][same], order[1:][same])
    for band in range(BANDS if signatures is not None else 0):
        join_band(parent, signatures, band)
    best = np.lexsort((np.arange(len(parent)), -np.asarray(chars), parent))  # by cluster, the longest first
    begins = np.append(True, parent[best[1:]] != parent[best[:-1]])
    head = np.empty(len(parent), np.int64)
    head[best] = best[begins][np.cumsum(begins) - 1]
    return head


def join_band(parent, signatures, band):
    """Unite documents that share a band and agree: each with the previous and with the first one of its group."""
    key = in_blocks(lambda block: band_keys(signatures[block], band), len(parent))
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    begins = np.append(True, ~same)
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))][1:]  # of each group
    for other in (order[:-1], first):
        left, right = other[same], order[1:][same]
        apart = parent[left] != parent[right]
        left, right = left[apart], right[apart]
        agree = in_blocks(lambda block, left=left, right=right:
                          (signatures[left[block]] == signatures[right[block]]).mean(1), len(left))
        join(parent, left[agree >= AGREE], right[agree >= AGREE])


def in_blocks(f: Callable[[slice], np.ndarray], n: int, size: int = 65536) -> np.ndarray:
    """f(slice) over range(n) in blocks, concatenated: needs the memory of one block at a time."""
    return np.concatenate([f(slice(i, i + size)) for i in range(0, n, size)] or [np.zeros(0)])


def join(parent: np.ndarray, left: np.ndarray, right: np.ndarray):
    """Unite the clusters of left[i] and right[i] in place; afterwards parent holds each cluster's smallest number."""
    def root(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i
    for a, b in zip(left.tolist(), right.tolist()):
        a, b = root(a), root(b)
        if a != b:
            parent[max(a, b)] = min(a, b)
    while (parent[parent] != parent).any():
        parent[:] = parent[parent]
