"""Documents that share text with an evaluation set."""
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from corpus import dedup, measure
from corpus.files import read_lines

N = 12        # words that a document and an evaluation text must share
SHORTEST = 6  # words of an evaluation text that counts as a whole when it has fewer than N


def find_evaluation_files(c) -> list[Path]:
    """The files that the setting evaluation names; ValueError when a pattern matches none."""
    found = []
    for pattern in c.evaluation:
        paths = sorted(Path(c.raw).glob(pattern))
        if not paths:
            raise ValueError(f"evaluation: nothing at {Path(c.raw) / pattern}; correct the pattern or raw={c.raw}")
        found += paths
    return found


def read_evaluation_texts(c) -> Iterator[tuple[str, str]]:
    """(file name, text) of every row of the evaluation files: all strings of a .jsonl row, else the lines."""
    for path in find_evaluation_files(c):
        for _, _, line, _ in read_lines(path):
            row = json.loads(line) if line and line.strip() and ".jsonl" in path.suffixes else line
            for text in strings_of(row):
                yield path.name, text


def strings_of(value: object) -> list[str]:
    """All strings of a JSON value."""
    if isinstance(value, str):
        return [value]
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in strings_of(part)]


class Decontaminate:
    """A filter that drops documents which share an n-word sequence with one of the evaluation texts (name, text)."""

    def __init__(self, texts: Iterable[tuple[str, str]], n: int = N):
        keys, names = [], []
        for name, text in texts:
            keys.append(text_keys(text, n))
            names += [name] * len(keys[-1])
        self.keys, first = np.unique(np.concatenate(keys) if keys else np.zeros(0, np.uint64), return_index=True)
        self.names = [names[i] for i in first]
        self.lengths = range(min(n, SHORTEST), n + 1)

    def __call__(self, doc):
        ids = dedup.word_keys(doc.text)
        for n in self.lengths if len(self.keys) else ():
            if len(ids) < n:
                break
            keys = measure.ngram_keys(ids, n)
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            hits = np.flatnonzero(self.keys[at] == keys)
            if len(hits):
                return f"evaluation: {self.names[at[hits[0]]]}"
        return None


def text_keys(text: str, n: int = N) -> np.ndarray:
    """Sorted hashes of the n-word sequences of a text; of a shorter one with at least SHORTEST words, its whole."""
    ids = dedup.word_keys(text)
    return np.unique(measure.ngram_keys(ids, min(n, len(ids)))) if len(ids) >= SHORTEST else np.zeros(0, np.uint64)
