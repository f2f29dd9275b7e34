"""Contamination: how much of an evaluation set occurs in the token shards of a training run, per file.

    python recipes/contamination.py data=out/marco/tokens eval='belebele/*.jsonl' tokenizer=Qwen2-7B out=hits.jsonl

It looks for runs of 13 token ids (13-grams in the shards' own tokenizer) within one field of an item, prints a table,
and writes the items with a hit to out=. GPT-3 used 13 words, which is stricter: where words split into many tokens, 13
tokens are three or four words, which repeat by chance. So the table counts items with any hit and, beside them, those
that are "seen": half of a field's runs or more. Shards are streamed. Memory is 64 MB, about 50 MB per thread, and about
50 bytes per token of the evaluation files.
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
import data
import tokenizer
from configs import errors, load
from corpus import measure
from evaluation import results


@dataclass(frozen=True)
class Contamination:
    data: str                      # folder of prepare.py's output: one folder of shards per source
    eval: str                      # files or patterns, comma-separated: .jsonl, .csv, .tsv, .txt, .parquet
    tokenizer: str                 # folder of the tokenizer that the shards were made with
    fields: list = field(default_factory=list)  # of a row to search for; empty: all text but ids, links and licenses
    n: int = 13                    # tokens in a run
    seen: float = 0.5              # an item is seen when this share of the runs of one of its fields is found
    block: int = 1 << 20           # tokens at a time
    threads: int = os.cpu_count() or 1
    out: str | None = None         # .jsonl of the items with a hit, with the share and a sample

    def __post_init__(self):
        if self.n < 2 or self.block < 2 * self.n or not 0 < self.seen <= 1 or self.threads < 1:
            raise ValueError("n must be at least 2, block 2 n, threads 1, and seen above 0 and at most 1; "
                             f"got n={self.n}, block={self.block}, seen={self.seen}, threads={self.threads}")


METADATA = ("id", "doc_id", "question_id", "link", "url", "source", "license", "licence", "split", "dialect")
FILTER_BITS = 26  # of a hash: a table of 64 MB that passes few hashes on to the exact search


def main(argv=None):
    c, = load(Contamination, argv=argv)
    t, sources = tokenizer.load(c.tokenizer), data.open_sources(c.data)
    if sources[0].tokenizer != t.fingerprint:
        raise ValueError(f"{c.data} was made with tokenizer {sources[0].tokenizer}, {c.tokenizer} is "
                         f"{t.fingerprint}; set tokenizer= to that of the shards")
    items = list(read_items(c, t))
    hashes = [run for *_, fields in items for _, spellings in fields for run in spellings]
    wanted = np.unique(np.concatenate(hashes or [np.zeros(0, np.uint64)]))
    if not len(wanted):
        raise ValueError(f"eval={c.eval}: no text has {c.n} tokens; correct the files or fields=")
    hits = wanted[find_hits(c, wanted, sources)]
    counts, rows = count_hits(c, t, items, hits)
    print(results.format_table(format_rows(c, counts), terminal=True), "",
          f"{sum(s.tokens for s in sources):,} tokens, {len(sources)} sources; seen: at least {c.seen:.0%} of a "
          f"field's runs of {c.n} token ids; percentages: of items that have a run", sep="\n")
    if c.out:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(c.out).write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------- the evaluation set

def read_items(c, t):
    """Yield every item of the files: (file, number, [(text, hashes of its runs in both spellings)])."""
    paths = [path for pattern in c.eval.split(",") for path in sorted(glob.glob(pattern))]
    if not paths:
        raise ValueError(f"eval={c.eval}: no such file; correct the pattern")
    for path in paths:
        for number, row in read_rows(path):
            fields = [(text, hash_runs(t, text, c.n)) for text in texts_of(row, c.fields)]
            yield path, number, [(text, spellings) for text, spellings in fields if spellings is not None]


def read_rows(path):
    """Yield (number, row as a dict) of an evaluation file; of a .txt each line is a row."""
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
        yield from enumerate(results.read_rows(path, ()), 1)
    elif suffix == ".txt":
        text = Path(path).read_text(encoding="utf-8")
        yield from ((i, {"text": line}) for i, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        raise ValueError(f"{path}: unknown format; expected .jsonl, .csv, .tsv, .txt or .parquet")


def texts_of(value, fields, name=None):
    """The texts of a row, including those in lists and dicts."""
    if isinstance(value, str):
        return [value] if not fields or name in fields else []
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item, fields, name)]
    if not isinstance(value, dict):
        return []
    keys = [key for key in value if key in fields or not fields and key not in METADATA]
    return [text for key in keys for text in texts_of(value[key], fields, key)]


def spell(t, text):
    """Ids of a text as it begins a line, and after a space, where a tokenizer may spell its first word differently."""
    return [np.array(t.encode(spelling), np.uint64) for spelling in (text, " " + text)]


def hash_runs(t, text, n):
    """Hashes of the n-token runs of a text in both spellings, each (R,) uint64; None if it has no run."""
    spellings = spell(t, text)
    return [measure.ngram_keys(ids, n) for ids in spellings] if min(map(len, spellings)) >= n else None


# ---------------------------------------------------------------------- the shards

def top_bits(hashes):
    return hashes >> np.uint64(64 - FILTER_BITS)


def find_hits(c, wanted, sources):
    """(K,) bool: which of the sorted hashes `wanted` occur in the shards.

    Documents end with an id that no evaluation text holds, so a run that is found lies within one document.
    """
    found, table = np.zeros(len(wanted), bool), np.zeros(1 << FILTER_BITS, bool)
    table[top_bits(wanted)] = True

    def search_block(place):
        shard, begin = place
        hashes = measure.ngram_keys(shard[begin:begin + c.block + c.n - 1].astype(np.uint64), c.n)
        hashes = hashes[table[top_bits(hashes)]]
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found[at[wanted[at] == hashes]] = True
        return len(shard[begin:begin + c.block])

    places = [(shard, i) for s in sources for shard in s.shards for i in range(0, len(shard) - c.n + 1, c.block)]
    total, done, start = sum(s.tokens for s in sources), 0, time.monotonic()
    last_print = start
    with ThreadPoolExecutor(c.threads) as pool:
        for i in range(0, len(places), 8 * c.threads):
            done += sum(pool.map(search_block, places[i:i + 8 * c.threads]))
            now = time.monotonic()
            if now > last_print + 10:
                last_print = now
                print(f"{done:,} of {total:,} tokens, {(now - start) * (total - done) / done:.0f} s left", flush=True)
    return found


# ---------------------------------------------------------------------- the result

def count_hits(c, t, items, hits):
    """({file: counts}, rows of the items with a hit)."""
    counts, rows = {}, []
    for path, number, fields in items:
        count = counts.setdefault(path, {"items": 0, "short": 0, "any": 0, "seen": 0, "shares": 0.0})
        share = found_share(fields, hits)
        count["items"] += 1
        if share is None:
            count["short"] += 1
        elif share > 0:
            count["any"] += 1
            count["seen"] += share >= c.seen
            count["shares"] += share
            rows.append({"file": path, "row": number, "share": share, "sample": find_sample(c, t, fields, hits)})
    return counts, rows


def found_share(fields, hits):
    """Share of runs that are found, of the field and spelling where it is highest; None if no field has a run."""
    return max((float(np.isin(runs, hits).mean()) for _, spellings in fields for runs in spellings), default=None)


def find_sample(c, t, fields, hits):
    """The first run that is found, as text."""
    for text, _ in fields:
        for ids in spell(t, text):
            at = np.flatnonzero(np.isin(measure.ngram_keys(ids, c.n), hits))
            if len(at):
                return t.decode(ids[at[0]:at[0] + c.n].tolist())
    return None


def format_rows(c, counts):
    rows = [["file", "items", f"no run of {c.n}", "any run found", "seen", "seen %", "mean share %"]]
    for path, count in counts.items():
        searched = max(1, count["items"] - count["short"])
        percentages = [f"{100 * count[name] / searched:.1f}" for name in ("seen", "shares")]
        rows.append([path, *(count[name] for name in ("items", "short", "any", "seen")), *percentages])
    return rows


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
