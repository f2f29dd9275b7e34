"""Two models on the same documents: is the difference more than chance? Per language, group and benchmark.

    python eval.py compare out/base/samples.jsonl out/mine/samples.jsonl
    python eval.py compare samples.jsonl samples.jsonl a_name=base b_name=stage2   # two checkpoints of one file

Reads the samples that eval.py writes: every number of a sample is a metric (right or wrong: 1 or 0), bits and bytes are
bits per byte, translations get corpus chrF++ and BLEU. A difference is b's score minus a's. p: McNemar's exact test of
right and wrong in one language, else the paired bootstrap. Holm's correction is over the rows of one metric of a
benchmark, languages and groups apart.
"""
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs import load
from evaluation import results
from evaluation.samples import measurements, pair_samples, read_samples, without_texts
from evaluation.statistics import bootstrap, bootstrap_p, holm, sign_test, wilson


@dataclass(frozen=True)
class Compare:
    a: str                      # samples.jsonl of the first model; the first two arguments name both
    b: str                      # samples.jsonl of the second
    a_name: str | None = None   # checkpoint in a, where it holds several
    b_name: str | None = None   # checkpoint in b
    tasks: str = "*"            # patterns of task names, separated by commas
    resamples: int = 2000       # of the bootstrap
    level: float = 0.95         # of the intervals
    seed: int = 0               # of the bootstrap
    out: str | None = None      # .jsonl file for the rows; None: only print

    def __post_init__(self):
        if self.resamples < 100 or not 0 < self.level < 1:
            raise ValueError("resamples must be at least 100 and level between 0 and 1, "
                             f"got {self.resamples} and {self.level}")


# ---------------------------------------------------------------------- the comparison

def compare(c):
    """(rows, names of the two checkpoints, what only one of them has).

    A row for each benchmark, metric, task and language, and for each group of languages.
    """
    a, a_name = read_samples(c.a, c.a_name, c.tasks, without_texts)
    b, b_name = read_samples(c.b, c.b_name, c.tasks, without_texts)
    files = f"{c.a} ({a_name})", f"{c.b} ({b_name})"
    families = {}  # {(benchmark, metric): {(task, lang): (doc ids, values of a, values of b, score)}}
    for task, lang in (key for key in a if key in b):
        try:
            pairs = pair_samples(a[task, lang], b[task, lang], files)
        except ValueError as e:
            raise ValueError(f"task {task}, {lang}: {e}") from None
        doc_ids = json.dumps([sample["doc_id"] for sample, _ in pairs])
        for metric, values in measurements(pairs, lang).items():
            family = families.setdefault((results.benchmark_of(task, lang), metric), {})
            family[task, lang] = (doc_ids, *values)
    if not families:
        raise ValueError(f"{c.a} and {c.b} share no task and language with a score; "
                         f"a has {list_tasks(a)}, b has {list_tasks(b)}")
    unshared = []
    for name, keys in ((a_name, set(a) - set(b)), (b_name, set(b) - set(a))):
        if keys:
            unshared.append(f"{name} only: {list_tasks(keys)}")
    rows = [row for (benchmark, metric), members in families.items()
            for row in compare_family(c, benchmark, metric, members)]
    return rows, (a_name, b_name), unshared


def list_tasks(keys):
    return ", ".join(sorted({" ".join(key) for key in keys})[:6]) + f" ({len(keys)})"


def compare_family(c, benchmark, metric, members):
    """Rows of one metric of a benchmark. members: {(task, lang): (doc ids, values of a, values of b, score)}."""
    draws = bootstrap_members(c, members)
    rows, groups = [], {}
    for (task, lang), (_, a, b, score) in members.items():
        values = set(np.unique([a, b])) if a.shape[1] == 1 else {None}
        binary = values <= {0.0, 1.0}
        outcomes = values <= {0.0, 0.5, 1.0}  # won, tied or lost
        p = sign_test(int((b > a).sum()), int((a > b).sum())) if outcomes else None
        exact = np.array([score(side.sum(0)[None])[0] for side in (a, b)])
        intervals = [wilson(side.sum(), len(side), c.level) if binary else None for side in (a, b)]
        row = comparison_row(c, benchmark, metric, (task, lang), len(a), exact, draws[task, lang], p, intervals)
        row["test"] = "McNemar" if binary else "sign" if outcomes else "bootstrap"
        rows.append(row)
        for group in results.groups_of(lang):
            groups.setdefault(group, []).append((len(a), exact, draws[task, lang]))
    means = []
    for group in results.GROUPS:  # unweighted, the paper's mean ("macro")
        parts = groups.get(group, ())
        only_group = group == "all" and len(groups) == 2  # the one other group is all there is
        if len(parts) < 2 or only_group:
            continue
        sizes, exact, drawn = zip(*parts)
        place = "mean", f"{group} ({len(parts)})"
        means.append(comparison_row(c, benchmark, metric, place, sum(sizes), np.mean(exact, 0), np.mean(drawn, 0)))
    for tested_together in (rows, means):
        for row, p in zip(tested_together, holm([row["p"] for row in tested_together])):
            row["holm"] = p
    return rows + means


def bootstrap_members(c, members):
    """{(task, lang): (2, resamples) scores of a and b}; tasks of the same documents share their resampled documents."""
    by_documents, draws = {}, {}
    for key, (doc_ids, *_) in members.items():
        by_documents.setdefault(doc_ids, []).append(key)
    for doc_ids, keys in by_documents.items():
        digest = hashlib.blake2b(f"{c.seed} {doc_ids}".encode(), digest_size=8).digest()
        sides = []
        for key in keys:
            _, a, b, score = members[key]
            sides += [(a, score), (b, score)]
        scores = bootstrap(sides, c.resamples, int.from_bytes(digest, "little"))
        for i, key in enumerate(keys):
            draws[key] = np.stack(scores[2 * i:2 * i + 2])
    return draws


def comparison_row(c, benchmark, metric, place, n, exact, drawn, p=None, intervals=(None, None)):
    ends, difference = [(1 - c.level) / 2, (1 + c.level) / 2], drawn[1] - drawn[0]
    (low_a, high_a), (low_b, high_b) = (
        interval or np.quantile(side, ends) for interval, side in zip(intervals, drawn))
    low, high = np.quantile(difference, ends)
    return {"benchmark": benchmark, "metric": metric, "task": place[0], "lang": place[1], "n": n,
            "a": exact[0], "low_a": low_a, "high_a": high_a, "b": exact[1], "low_b": low_b, "high_b": high_b,
            "difference": exact[1] - exact[0], "low": low, "high": high,
            "test": "bootstrap", "p": bootstrap_p(difference) if p is None else p}


# ---------------------------------------------------------------------- output

def print_tables(rows, names):
    """One table for each benchmark and metric; fractions in percent, their differences in points."""
    for key in dict.fromkeys((row["benchmark"], row["metric"]) for row in rows):
        scale = 1 if key[1] in results.NOT_PERCENT else 100
        table = [[" ".join(key), "language", "n", *names, "difference", "p", "Holm", "test"]]
        for row in rows:
            if (row["benchmark"], row["metric"]) == key:
                cells = [with_interval(row, scale, *columns) for columns in (
                    ("a", "low_a", "high_a"), ("b", "low_b", "high_b"), ("difference", "low", "high", "+"))]
                table.append([row["task"], row["lang"], row["n"], *cells,
                              f"{row['p']:.4f}", f"{row['holm']:.4f}", row["test"]])
        print(results.format_table(table, terminal=True), "", sep="\n", flush=True)


def with_interval(row, scale, score, low, high, sign=""):
    score, low, high = (scale * row[key] for key in (score, low, high))
    return f"{score:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    sides, words = ["a", "b"], []
    for word in argv:
        is_file = "=" not in word and word.endswith(".jsonl")
        words.append(f"{sides.pop(0)}={word}" if is_file and sides else word)
    c, = load(Compare, argv=words)
    rows, names, unshared = compare(c)
    print_tables(rows, names)
    print(*unshared, f"difference: {names[1]} minus {names[0]}; brackets: {c.level:.0%} intervals, Wilson's of right "
          f"and wrong, else the bootstrap's ({c.resamples} resamples, seed {c.seed})", sep="\n")
    if c.out:
        Path(c.out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
