"""Two models on the same documents: is the difference more than chance? Per language, group and benchmark.

    python eval.py compare out/base/samples.jsonl out/mine/samples.jsonl
    python eval.py compare samples.jsonl samples.jsonl a_name=base b_name=stage2   # two checkpoints of one file

Reads the samples that eval.py writes: every number of a sample is a metric (right or wrong: 1 or 0), bits and bytes are
bits per byte, translations get corpus chrF++ and BLEU. A difference is b's score minus a's. p: McNemar's exact test of
right and wrong in one language, else the paired bootstrap. Intervals: of right and wrong Wilson's and, of a difference,
Tango's; else the bootstrap's. Holm's correction is over the rows of one metric of a benchmark, languages and groups
apart.
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
from evaluation.statistics import bootstrap, bootstrap_p, holm, sign_test, tango, wilson


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
    families = {}  # {(benchmark, metric): {(task, lang): (doc ids, Measurement)}}
    for task, lang in (key for key in a if key in b):
        try:
            pairs = pair_samples(a[task, lang], b[task, lang], files)
        except ValueError as e:
            raise ValueError(f"task {task}, {lang}: {e}") from None
        doc_ids = json.dumps([sample["doc_id"] for sample, _ in pairs])
        for metric, measurement in measurements(pairs, lang).items():
            family = families.setdefault((results.benchmark_of(task, lang), metric), {})
            family[task, lang] = doc_ids, measurement
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
    """Rows of one metric of a benchmark. members: {(task, lang): (doc ids, Measurement)}."""
    draws = bootstrap_members(c, members)
    rows, groups = [], {}
    for (task, lang), (_, measurement) in members.items():
        exact = [float(measurement.score(side.sum(0)[None])[0]) for side in (measurement.a, measurement.b)]
        row = {"benchmark": benchmark, "metric": metric, "task": task, "lang": lang, "n": len(measurement.a),
               **with_bootstrap(c, exact, draws[task, lang]), "signature": measurement.signature}
        row |= exact_statistics(c, measurement)
        rows.append(row)
        for group in results.groups_of(lang):
            groups.setdefault(group, []).append((row, draws[task, lang]))
    means = []
    for group in results.GROUPS:  # unweighted, the paper's mean ("macro")
        parts = groups.get(group, ())
        is_only_group = group == "all" and len(groups) == 2  # the one other group is all there is
        if len(parts) >= 2 and not is_only_group:
            means.append(mean_row(c, benchmark, metric, f"{group} ({len(parts)})", parts))
    for tested_together in (rows, means):
        for row, p in zip(tested_together, holm([row["p"] for row in tested_together])):
            row["holm"] = p
    return rows + means


def with_bootstrap(c, exact, drawn):
    """Scores of a and b and their difference, with the intervals and the p of the bootstrap."""
    ends = (1 - c.level) / 2, (1 + c.level) / 2
    statistics = {}
    for name, low, high, score, sample in (("a", "low_a", "high_a", exact[0], drawn[0]),
                                           ("b", "low_b", "high_b", exact[1], drawn[1]),
                                           ("difference", "low", "high", exact[1] - exact[0], drawn[1] - drawn[0])):
        statistics[name] = score
        statistics[low], statistics[high] = map(float, np.quantile(sample, ends))
    return statistics | {"test": "bootstrap", "p": bootstrap_p(drawn[1] - drawn[0])}


def exact_statistics(c, measurement):
    """What replaces the bootstrap's intervals and p of right and wrong (0 or 1) and of outcomes (0, 0.5 or 1).

    A bootstrap interval is empty where the documents do not differ: 20 answers without a discordant one, 20 ties.
    """
    a, b = measurement.a, measurement.b
    if a.shape[1] > 1:
        return {}
    values, n = set(np.unique([a, b])), len(a)
    wins, losses = int((b > a).sum()), int((b < a).sum())
    if not values <= {0.0, 0.5, 1.0}:
        if 0 <= min(values) and max(values) <= 1 and wins == losses == 0:  # no difference at all, of a bounded metric
            low, high = tango(0, 0, n, c.level)
            return {"low": low, "high": high}
        return {}
    statistics = {"test": "McNemar" if values <= {0.0, 1.0} else "sign", "p": sign_test(wins, losses)}
    if values <= {0.0, 1.0}:
        for side, low, high in ((a, "low_a", "high_a"), (b, "low_b", "high_b")):
            statistics[low], statistics[high] = wilson(float(side.sum()), n, c.level)
        statistics["low"], statistics["high"] = tango(wins, losses, n, c.level)
    elif (a + b == 1).all():  # won, tied or lost: the rate is (1 + (wins - losses) / n) / 2
        low, high = tango(wins, losses, n, c.level)
        statistics |= {"low": low, "high": high, "low_a": (1 - high) / 2, "high_a": (1 - low) / 2,
                       "low_b": (1 + low) / 2, "high_b": (1 + high) / 2}
    elif wins == losses == 0:
        statistics["low"], statistics["high"] = tango(0, 0, n, c.level)
    return statistics


def mean_row(c, benchmark, metric, name, parts):
    """The mean over tasks and languages. parts: (row, its bootstrap scores)."""
    rows = [row for row, _ in parts]
    exact = [float(np.mean([row[side] for row in rows])) for side in ("a", "b")]
    statistics = with_bootstrap(c, exact, np.mean([drawn for _, drawn in parts], 0))
    for low, high in (("low_a", "high_a"), ("low_b", "high_b"), ("low", "high")):
        if statistics[low] == statistics[high]:  # no draw differs: as wide as the members' on average
            statistics[low], statistics[high] = (float(np.mean([row[end] for row in rows])) for end in (low, high))
    signatures = {row["signature"] for row in rows}
    return {"benchmark": benchmark, "metric": metric, "task": "mean", "lang": name, "n": sum(row["n"] for row in rows),
            **statistics, "signature": signatures.pop() if len(signatures) == 1 else "several"}


def bootstrap_members(c, members):
    """{(task, lang): (2, resamples) scores of a and b}; tasks of the same documents share their resampled documents."""
    by_documents, draws = {}, {}
    for key, (doc_ids, _) in members.items():
        by_documents.setdefault(doc_ids, []).append(key)
    for doc_ids, keys in by_documents.items():
        digest = hashlib.blake2b(f"{c.seed} {doc_ids}".encode(), digest_size=8).digest()
        sides = []
        for key in keys:
            _, measurement = members[key]
            sides += [(measurement.a, measurement.score), (measurement.b, measurement.score)]
        scores = bootstrap(sides, c.resamples, int.from_bytes(digest, "little"))
        for i, key in enumerate(keys):
            draws[key] = np.stack(scores[2 * i:2 * i + 2])
    return draws


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
        print(results.format_table(table, terminal=True), flush=True)
        signatures = dict.fromkeys(row["signature"] for row in rows
                                   if (row["benchmark"], row["metric"]) == key and row["task"] != "mean")
        print(*(f"signature: {signature}" for signature in signatures if signature), "", sep="\n", flush=True)


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
    print(*unshared, f"difference: {names[1]} minus {names[0]}; brackets: {c.level:.0%} intervals (right/wrong: "
          f"Wilson and Tango; else bootstrap, {c.resamples} resamples, seed {c.seed})", sep="\n")
    if c.out:
        Path(c.out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
