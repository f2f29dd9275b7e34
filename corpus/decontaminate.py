"""Documents that share text with an evaluation set, in any of the formats that eval.py reads."""
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from corpus import dedup, files, measure, parquet
from corpus.files import read_lines

N = 12        # words that a document and an evaluation text must share
SHORTEST = 6  # words of an evaluation text that counts as a whole when it has fewer than N
MAX_JSON = 1 << 30  # bytes of a .json file, which is parsed whole


def find_evaluation_files(c) -> list[Path]:
    """The files that the setting evaluation names; ValueError when a pattern matches none."""
    found = []
    for pattern in c.evaluation:
        paths = [path for path in sorted(Path(c.raw).glob(pattern)) if path.is_file()]
        if not paths:
            raise ValueError(f"evaluation: nothing at {Path(c.raw) / pattern}; correct the pattern or raw={c.raw}")
        found += paths
    return found


def load_filter(c) -> "Decontaminate":
    """The filter of the evaluation files, read once in a process."""
    return _load_filter(tuple((path, path.stat().st_mtime_ns) for path in find_evaluation_files(c)))


@lru_cache(maxsize=1)
def _load_filter(versions):
    return Decontaminate((path.name, text) for path, _ in versions for text in read_texts(path))


def read_texts(path: Path) -> Iterator[str]:
    """All strings of an evaluation file: of JSON in any shape, of the columns of .csv, .tsv and .parquet, else its
    lines.

    ValueError names a file that cannot be decoded.
    """
    suffix = files.format_of(path)
    if suffix == ".parquet":
        for number, row, problem in parquet.read_parquet(path):
            yield from strings_of(checked(row, problem, path, number))
        return
    if suffix == ".json":
        yield from read_json_texts(path)
        return
    lines = (checked(text, problem, path, number) for number, _, text, problem in read_lines(path))
    if suffix == ".csv":
        csv.field_size_limit(files.MAX_LINE)
        for fields in csv.reader(io.StringIO("\n".join(lines), newline="")):
            yield from fields
    elif suffix == ".jsonl":
        for number, line in enumerate(lines, 1):
            if line.strip():
                value, problem = files.parse_json(line)
                yield from strings_of(checked(value, problem, path, number))
    else:
        for line in lines:
            yield line
            if suffix == ".tsv":
                yield from line.split("\t")


def read_json_texts(path: Path) -> Iterator[str]:
    """A .json file is one value, or one value per line."""
    lines, size = [], 0
    for number, _, text, problem in read_lines(path):
        lines.append(checked(text, problem, path, number))
        size += len(text or "")
        if size > MAX_JSON:
            raise ValueError(f"evaluation: {path} is larger than {MAX_JSON >> 30} GiB; "
                             "write one object per line as .jsonl")
    value, problem = files.parse_json("\n".join(lines))
    if problem is None:
        yield from strings_of(value)
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            value, at_line = files.parse_json(line)
            yield from strings_of(checked(value, at_line, path, number))


def checked(value: Any, problem: str | None, path: Path, number: int) -> Any:
    if problem:
        raise ValueError(f"evaluation: {path}, line {number}: {problem}; text that cannot be read cannot be kept out "
                         "of the corpus: repair the file")
    return value


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
        self.texts: Counter = Counter()      # of each file
        for name, text in texts:
            keys.append(text_keys(text, n))
            names += [name] * len(keys[-1])
            self.texts[name] += 1
        self.sequences = Counter(names)      # of each file
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


def print_counts(c):
    """Say how much was taken from each evaluation file: one without a sequence can keep nothing out."""
    step = load_filter(c)
    for name in dict.fromkeys(path.name for path in find_evaluation_files(c)):
        n = step.sequences[name]
        note = "" if n else f"; nothing of it can be found: no text has {SHORTEST} words or more"
        print(f"evaluation: {name}: {n:,} sequences of {step.texts[name]:,} texts{note}", flush=True)
