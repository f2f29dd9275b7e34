"""Duplicates, exact and near, and text of evaluation sets. What stays does not depend on the number of workers.

The keys of a document are 16 bytes (exact) and a MinHash signature of 448 bytes (near), kept on disk; one band of eight values is
sorted at a time. Documents that share a band are neighbours when their signatures agree in at least AGREE of 112 places: the
bands alone would join one pair in a hundred at a similarity of 0.4.
"""
import hashlib

import numpy as np

from corpus import measure

AGREE = 0.6  # of the places; a pair of similarity 0.4 gets there with probability 1e-5, one of 0.8 stays below with 1e-6


def exact_key(text):
    """(2,) uint64 of a text, after case and white space are evened out."""
    return np.frombuffer(hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=16).digest(), np.uint64)


def clusters(exact, signatures, chars):
    """exact (N, 2) uint64, signatures (N, 112) uint32 or None, chars (N,) -> head (N,): the document that stands for each one.

    Of a cluster the longest stays, of equals the first. Arrays may be memory maps, rows stand in the documents' one fixed order.
    """
    if not len(exact):
        return np.zeros(0, np.int64)
    parent = np.arange(len(exact))
    order = np.lexsort((exact[:, 1], exact[:, 0]))
    same = (exact[order[1:]] == exact[order[:-1]]).all(1)
    join(parent, order[:-1][same], order[1:][same])
    for band in range(measure.BANDS if signatures is not None else 0):
        key = in_blocks(lambda some: measure.band(signatures[some], band), len(parent))
        order = np.argsort(key, kind="stable")
        same = key[order[1:]] == key[order[:-1]]
        begins = np.append(True, ~same)
        first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))][1:]  # of each group
        for a in (order[:-1], first):  # a document beside the one before it and beside the first of its group
            left, right = a[same], order[1:][same]
            apart = parent[left] != parent[right]
            left, right = left[apart], right[apart]
            agree = in_blocks(lambda some: (signatures[left[some]] == signatures[right[some]]).mean(1), len(left))
            join(parent, left[agree >= AGREE], right[agree >= AGREE])
    best = np.lexsort((np.arange(len(parent)), -np.asarray(chars), parent))  # by cluster, the longest first
    begins = np.append(True, parent[best[1:]] != parent[best[:-1]])
    out = np.empty(len(parent), np.int64)
    out[best] = best[begins][np.cumsum(begins) - 1]
    return out


def in_blocks(f, n, size=65536):
    """f(slice) over range(n) in blocks, joined: the memory of one block at a time."""
    return np.concatenate([f(slice(i, i + size)) for i in range(0, n, size)] or [np.zeros(0)])


def join(parent, left, right):
    """Unite the clusters of left[i] and right[i]; a cluster is known by its smallest number, and parent names it afterwards."""
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


# ---------------------------------------------------------------------- evaluation sets

def grams(text, n=12):
    """Sorted hashes of the n-word pieces of a text; of a shorter one with six words or more, its whole."""
    ids = measure.word_keys(text)
    return np.unique(measure.rows(ids, min(n, len(ids)))) if len(ids) >= 6 else np.zeros(0, np.uint64)


class Decontaminate:
    """A filter that drops documents which share an n-word piece with an evaluation text. texts: an iterable of (name, text)."""

    def __init__(self, texts, n=12):
        self.n, found, names = n, [], []
        for name, text in texts:
            found.append(grams(text, n))
            names += [name] * len(found[-1])
        keys = np.concatenate(found) if found else np.zeros(0, np.uint64)
        self.keys, first = np.unique(keys, return_index=True)
        self.names = [names[i] for i in first]
        self.lengths = sorted({min(n, k) for k in range(6, n + 1)})

    def __call__(self, doc):
        ids = measure.word_keys(doc.text)
        for n in self.lengths if len(self.keys) else ():
            if len(ids) < n:
                break
            key = measure.rows(ids, n)
            at = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
            hit = np.flatnonzero(self.keys[at] == key)
            if len(hit):
                return f"evaluation: {self.names[at[hit[0]]]}"
        return None
