"""How much of an evaluation set stands in the token shards of a training run: per file, the share of items seen there.

    python recipes/contamination.py data=out/marco/tokens eval='belebele/*.jsonl' tokenizer=Qwen/Qwen2-7B out=found.jsonl

The 13-grams are runs of 13 token ids of the shards' own tokenizer within one field of an item. 13 words, as GPT-3 counted, are
more: where a language is cut finely, 13 tokens are three or four words, which chance repeats. So beside the items of which any
run is found stand those that are "seen": half of a field's runs or more. Shards are streamed; memory is 64 MB, about 50 MB for
each thread, and about 50 bytes for each token of the evaluation files.
"""
import csv
import glob
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import data  # noqa: E402
from reports import tables  # noqa: E402
import tokenizer  # noqa: E402
from configs import load  # noqa: E402
from corpus import measure  # noqa: E402


@dataclass(frozen=True)
class Contamination:
    data: str                      # folder of prepare.py's: a folder of shards for each source
    eval: str                      # files or patterns, separated by commas: .jsonl, .csv, .tsv, .txt (lines), .parquet
    tokenizer: str                 # folder that the shards were made with
    fields: list = field(default_factory=list)  # of a row to look for; none: all texts but ids, links and licences
    n: int = 13                    # tokens in a run
    seen: float = 0.5              # an item is seen when this share of the runs of one of its fields is found
    block: int = 1 << 20           # tokens at a time
    threads: int = os.cpu_count() or 1
    out: str | None = None         # .jsonl of the items of which something was found, with the share and a sample

    def __post_init__(self):
        if self.n < 2 or self.block < 2 * self.n or not 0 < self.seen <= 1 or self.threads < 1:
            raise ValueError("n must be at least 2, block at least 2 n, seen above 0 and at most 1, threads at least 1; got "
                             f"n={self.n}, block={self.block}, seen={self.seen}, threads={self.threads}")


NO_TEXT = ("id", "doc_id", "question_id", "link", "url", "source", "license", "licence", "split", "dialect")
FILTER = 26  # bits of a hash that a table of 64 MB knows; only what stands in it is looked up


# ---------------------------------------------------------------------- the evaluation set

def items(path):
    """(number, row as a dict) of an evaluation file; of a .txt each line is a row."""
    suffix = Path(path).suffix
    if suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise ValueError(f"{path}: reading .parquet needs a package: pip install pyarrow") from None
        yield from enumerate(parquet.read_table(path).to_pylist(), 1)
    elif suffix in (".csv", ".tsv"):
        with open(path, encoding="utf-8", newline="") as f:
            yield from enumerate(csv.DictReader(f, delimiter="," if suffix == ".csv" else "\t"), 1)
    elif suffix == ".jsonl":
        yield from enumerate(tables.lines(path, ()), 1)
    elif suffix == ".txt":
        text = Path(path).read_text(encoding="utf-8")
        yield from ((i, {"text": line}) for i, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        raise ValueError(f"{path}: unknown format; expected .jsonl, .csv, .tsv, .txt or .parquet")


def texts(value, fields, name=None):
    """The texts of a row, from lists and dicts too."""
    if isinstance(value, str):
        return [value] if not fields or name in fields else []
    if isinstance(value, dict):
        return [x for k, v in value.items() if k in fields or not fields and k not in NO_TEXT for x in texts(v, fields, k)]
    return [x for v in value for x in texts(v, fields, name)] if isinstance(value, list) else []


def runs(t, text, n):
    """Hashes of the n-token runs of a text, (R,) uint64: as it begins a line, and as it stands behind a space, where tokenizers
    may spell its first word otherwise. None where it has no run."""
    both = [np.array(t.encode(x), np.uint64) for x in (text, " " + text)]
    return [measure.ngram_keys(ids, n) for ids in both] if min(map(len, both)) >= n else None


def wanted(c, t):
    """Every item of the files: (file, number, [(text, its runs)])."""
    paths = [path for pattern in c.eval.split(",") for path in sorted(glob.glob(pattern))]
    if not paths:
        raise ValueError(f"eval={c.eval}: no such file; correct the pattern")
    for path in paths:
        for number, row in items(path):
            yield path, number, [(text, some) for text in texts(row, c.fields) if (some := runs(t, text, c.n)) is not None]


# ---------------------------------------------------------------------- the shards

def search(c, keys, sources):
    """Which of the sorted hashes occur in the shards, (K,) bool. Documents end with an id that no evaluation text holds, so what
    is found lies within one of them."""
    found, table = np.zeros(len(keys), bool), np.zeros(1 << FILTER, bool)
    top = lambda x: x >> np.uint64(64 - FILTER)
    table[top(keys)] = True

    def block(place):
        shard, begin = place
        hashes = measure.ngram_keys(shard[begin:begin + c.block + c.n - 1].astype(np.uint64), c.n)
        hashes = hashes[table[top(hashes)]]
        at = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
        found[at[keys[at] == hashes]] = True
        return len(shard[begin:begin + c.block])

    places = [(shard, i) for s in sources for shard in s.shards for i in range(0, len(shard) - c.n + 1, c.block)]
    total, done, start = sum(s.tokens for s in sources), 0, time.monotonic()
    last = start
    with ThreadPoolExecutor(c.threads) as pool:
        for i in range(0, len(places), 8 * c.threads):
            done += sum(pool.map(block, places[i:i + 8 * c.threads]))
            if (now := time.monotonic()) > last + 10:
                last, left = now, (now - start) * (total - done) / done
                print(f"{done:,} of {total:,} tokens, {left:.0f} s left", flush=True)
    return found


def share(some, known):
    """Share of the runs that is found, of the field and the spelling where it is highest; None where no field has a run."""
    return max((float(np.isin(x, known).mean()) for _, both in some for x in both), default=None)


def sample(c, t, some, known):
    """The first run found, as text."""
    for text, _ in some:
        for x in (text, " " + text):
            ids = t.encode(x)
            hit = np.flatnonzero(np.isin(measure.ngram_keys(np.array(ids, np.uint64), c.n), known))
            if len(hit):
                return t.decode(ids[hit[0]:hit[0] + c.n])


def main(argv=None):
    c, = load(Contamination, argv=argv)
    t, sources = tokenizer.load(c.tokenizer), data.open_sources(c.data)
    if sources[0].tokenizer != t.fingerprint:
        raise ValueError(f"{c.data} was made with tokenizer {sources[0].tokenizer}, {c.tokenizer} is {t.fingerprint}; set "
                         "tokenizer= to that of the shards")
    asked = list(wanted(c, t))
    keys = np.unique(np.concatenate([x for *_, some in asked for _, both in some for x in both] or [np.zeros(0, np.uint64)]))
    if not len(keys):
        raise ValueError(f"eval={c.eval}: no text has {c.n} tokens; correct the files or fields=")
    known = keys[search(c, keys, sources)]
    files, rows = {}, []
    for path, number, some in asked:
        book, found = files.setdefault(path, {"items": 0, "short": 0, "any": 0, "seen": 0, "shares": 0.0}), share(some, known)
        book["items"] += 1
        book["short"] += found is None
        book["any"] += bool(found)
        book["seen"] += found is not None and found >= c.seen
        book["shares"] += found or 0.0
        if found:
            rows.append({"file": path, "row": number, "share": found, "sample": sample(c, t, some, known)})
    head = ["file", "items", f"no run of {c.n}", "any run found", "seen", "seen %", "mean share %"]
    rate = lambda x, b: f"{100 * x / max(1, b['items'] - b['short']):.1f}"
    lines = [[path, *(b[k] for k in ("items", "short", "any", "seen")), rate(b["seen"], b), rate(b["shares"], b)]
             for path, b in files.items()]
    print(tables.table([head, *lines], terminal=True), "", f"{sum(s.tokens for s in sources):,} tokens, {len(sources)} sources; "
          f"seen: at least {c.seen:.0%} of a field's runs of {c.n} token ids; percentages: of items that have a run", sep="\n")
    if c.out:
        Path(c.out).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
