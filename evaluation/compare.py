"""Two models on the same documents: is the difference more than chance? Per language, per group, per benchmark.

    python compare.py out/base/samples.jsonl out/mine/samples.jsonl
    python compare.py samples.jsonl samples.jsonl first=base second=stage2    # two checkpoints of one file

Reads what eval.py writes: every number of a sample is a metric (right or wrong: 1 or 0), bits and bytes are bits per byte,
translations get corpus chrF++ and BLEU. A difference is the second model's score less the first's. p: McNemar's exact test for
right and wrong in one language, else paired bootstrap. Holm's correction is over the rows of one metric of a benchmark,
languages and groups apart.
"""
import functools
import hashlib
import json
import math
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import NormalDist

import numpy as np

from configs import load
from evaluation import results


@dataclass(frozen=True)
class Compare:
    a: str                      # samples.jsonl of the first model; the first two words of the command line name both
    b: str                      # samples.jsonl of the second
    first: str | None = None    # checkpoint in a, where it holds several
    second: str | None = None   # checkpoint in b
    tasks: str = "*"            # patterns of task names, separated by commas
    draws: int = 2000           # of the bootstrap
    level: float = 0.95         # of the intervals
    seed: int = 0               # of the bootstrap: the same numbers every time
    out: str | None = None      # .jsonl to write the rows to; None: only print

    def __post_init__(self):
        if self.draws < 100 or not 0 < self.level < 1:
            raise ValueError(f"draws must be at least 100 and level between 0 and 1, got {self.draws} and {self.level}")


# ---------------------------------------------------------------------- statistics

def wilson(right, n, level=0.95):
    """Interval of a share, right of n (Wilson 1927): never below 0 or above 1, and not empty at 0 of n."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    mid, half = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return max(0.0, (mid - half) / (n + z * z)), min(1.0, (mid + half) / (n + z * z))


def sign_test(up, down):
    """Exact two-sided p of up against down wins when both are as likely, ties left out: McNemar's test of paired answers."""
    n, term, tail = up + down, 1, 0
    for k in range(min(up, down) + 1):  # whole numbers: C(n, k) does not fit a float from n = 1030 on
        tail, term = tail + term, term * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n)) if n else 1.0


def holm(ps):
    """p-values -> those that hold for all of them together (Holm 1979): the smallest times n, the next times n - 1 ..."""
    out, most = [0.0] * len(ps), 0.0
    for k, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        out[i] = most = max(most, min(1.0, (len(ps) - k) * ps[i]))
    return out


def resample(parts, draws, seed):
    """Bootstrap scores of several measurements of the same n documents, a list of (draws,) arrays. parts: for each an (n, S)
    array of what adds up over documents, and a function (draws, S) sums -> (draws,) scores. One draw of documents serves all:
    differences are paired, and languages that translate one test keep what they share."""
    n, rng, sums = len(parts[0][0]), np.random.Generator(np.random.PCG64(seed)), []
    for begin in range(0, draws, 64):  # weights of 64 draws at a time: 7 MB for MMLU's 14,042 documents
        chosen = rng.integers(n, size=(min(64, draws - begin), n))
        weights = np.stack([np.bincount(row, minlength=n) for row in chosen]).astype(np.float64)
        sums.append([weights @ values for values, _ in parts])
    return [score(np.concatenate(some)) for some, (_, score) in zip(zip(*sums), parts)]


def chance(drawn):
    """Two-sided p that the bootstrap gives to a difference of 0; at least 2 / (draws + 1)."""
    return min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (len(drawn) + 1))


# ---------------------------------------------------------------------- samples

NO_METRIC = ("doc_id", "bits", "bytes", "empty", "looping")  # numbers of a sample that are none, or none to compare models by
WAYS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}  # sacreBLEU's tokenizer of a target language, eval.py's too; others: 13a


def read(path, checkpoint, patterns="*", keep=dict):
    """({(task, lang): {doc_id: row}}, the checkpoint's name) of a checkpoint's newest weights and each task's newest prompts; of
    two rows for one document the later counts. keep(row) is what stays in memory. ValueError names file and line."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing; eval.py writes samples.jsonl beside results.jsonl")
    rows = [keep(row) for row in results.read_rows(path, ("checkpoint", "task", "lang", "doc_id"))
            if any(fnmatchcase(row["task"], p) for p in patterns.split(","))]
    names = list(dict.fromkeys(row["checkpoint"] for row in rows))
    if checkpoint is None and len(names) == 1:
        checkpoint = names[0]
    if checkpoint not in names:
        raise ValueError(f"{path} has samples of {', '.join(names) or 'no such task'}, wanted: {checkpoint or 'one'}; name the "
                         "checkpoint (compare.py: first=, second=; judge.py: a_name=, b_name=) or correct tasks=")
    rows, found, newest = [row for row in rows if row["checkpoint"] == checkpoint], {}, {}
    rows = [row for row in rows if row.get("weights") == rows[-1].get("weights")]
    for row in rows:
        newest[row["task"], row["lang"]] = row.get("prompt")
    for row in rows:
        if row.get("prompt") == newest[row["task"], row["lang"]]:
            found.setdefault((row["task"], row["lang"]), {})[row["doc_id"]] = row
    return found, checkpoint


def slim(row):
    """A sample with a hash of what the model was given in place of long texts: other shots or wording have another."""
    if "messages" in row:
        given = [message for message in row["messages"] if message["role"] != "assistant"]
    else:
        given = [pair["context"] for pair in row["pairs"]] if "pairs" in row else row.get("context")
    row = {k: v for k, v in row.items() if k not in ("messages", "responses", "pairs", "context")}
    return row | {"asked": hashlib.blake2b(json.dumps(given).encode(), digest_size=16).hexdigest()}


def aligned(a, b, files):
    """Pairs of rows of one task and language, by document. ValueError where documents or prompts differ."""
    for x, y, of in ((a, b, files), (b, a, files[::-1])):
        if lacking := sorted(set(x) - set(y), key=str):
            raise ValueError(f"document {lacking[0]} is in {of[0]}, not in {of[1]} ({len(lacking)} such); finish both")
    pairs = [(a[k], b[k]) for k in sorted(a, key=str)]
    if other := [x["doc_id"] for x, y in pairs if x["asked"] != y["asked"]]:
        raise ValueError(f"document {other[0]} has another prompt in {files[0]} than in {files[1]} ({len(other)} of "
                         f"{len(pairs)}): other shots, preset or template; run eval.py with the same for both")
    return pairs


def measurements(pairs, lang):
    """{metric: (values of a (n, S), values of b, score)} of the pairs of rows."""
    every = [row for pair in pairs for row in pair]
    have = lambda *names: all(type(row.get(k)) in (int, float, bool) and math.isfinite(row[k]) for row in every for k in names)
    column = lambda *names: [np.array([[row[k] for k in names] for row in side], np.float64) for side in zip(*pairs)]
    out = {k: (*column(k), functools.partial(mean, len(pairs))) for k in every[0] if k not in NO_METRIC and have(k)}
    if have("bits", "bytes"):
        out["bits_per_byte"] = (*column("bits", "bytes"), lambda sums: sums[:, 0] / sums[:, 1])
    said = all(isinstance(row.get("response"), str) and isinstance(row.get("gold"), list) and row["gold"]
               and isinstance(row["gold"][0], str) for row in every)
    return out | corpus_scores(pairs, lang) if said and not set(out) & {"f1", "em", "exact_match", "acc"} else out


def mean(n, sums):
    return sums[:, 0] / n


def corpus_scores(pairs, lang):
    """chrF++ and BLEU of translations: sacreBLEU's counts of every sentence add up to the corpus score (tests compare the two).
    BLEU is left out where its tokenizer for the target language is not installed."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ValueError("comparing translations needs a package: pip install sacrebleu") from None
    way, out = WAYS.get(results.language_code(lang).split("-")[-1], "13a"), {"chrf++": CHRF(word_order=2)}
    try:
        out["bleu"] = BLEU(tokenize=way)
    except (ImportError, RuntimeError):
        print(f"no BLEU for {lang}: pip install 'sacrebleu[{way[:2]}]'", flush=True)
    for name, metric in out.items():
        counts = [metric._extract_corpus_statistics([row["response"].strip() for row in side], [[row["gold"][0] for row in side]])
                  for side in zip(*pairs)]
        out[name] = (*(np.array(some, float) for some in counts), functools.partial(_corpus, metric))
    return out


def _corpus(metric, sums):
    return np.array([metric._compute_score_from_stats([int(x) for x in row]).score for row in sums])


# ---------------------------------------------------------------------- the comparison

def compare(c):
    """(rows, names of the two checkpoints, what only one of them has). A row for each benchmark, metric, task and language, and
    for each group."""
    (a, first), (b, second) = (read(*of, c.tasks, slim) for of in ((c.a, c.first), (c.b, c.second)))
    files, found = (f"{c.a} ({first})", f"{c.b} ({second})"), {}
    for task, lang in (key for key in a if key in b):
        try:
            pairs = aligned(a[task, lang], b[task, lang], files)
        except ValueError as e:
            raise ValueError(f"task {task}, {lang}: {e}") from None
        for metric, values in measurements(pairs, lang).items():
            ids = json.dumps([x["doc_id"] for x, _ in pairs])
            found.setdefault((results.benchmark_of(task, lang), metric), {})[task, lang] = (ids, *values)
    if not found:
        raise ValueError(f"{c.a} and {c.b} share no task and language with a score; a has {some(a)}, b has {some(b)}")
    alone = [f"{name} only: {some(x - y)}" for name, x, y in ((first, {*a}, {*b}), (second, {*b}, {*a})) if x - y]
    return [row for key, parts in found.items() for row in rows_of(c, *key, parts)], (first, second), alone


def some(keys):
    return ", ".join(sorted({" ".join(key) for key in keys})[:6]) + f" ({len(keys)})"


def rows_of(c, benchmark, metric, parts):
    """Rows of one metric of a benchmark. parts {(task, lang): (doc ids, values of a, of b, score)}."""
    drawn, same = {}, {}  # tasks of the same documents, which one draw serves
    for key, (ids, *_) in parts.items():
        same.setdefault(ids, []).append(key)
    for ids, keys in same.items():
        seed = int.from_bytes(hashlib.blake2b(f"{c.seed} {ids}".encode(), digest_size=8).digest(), "little")
        scores = resample([(values, parts[k][3]) for k in keys for values in parts[k][1:3]], c.draws, seed)
        drawn |= {k: np.stack(scores[2 * i:2 * i + 2]) for i, k in enumerate(keys)}
    rows, groups = [], {}
    for (task, lang), (_, x, y, score) in parts.items():
        kinds = set(np.unique([x, y])) if x.shape[1] == 1 else {None}
        right, wins = kinds <= {0.0, 1.0}, kinds <= {0.0, 0.5, 1.0}  # right or wrong; won, tied or lost
        p = sign_test(int((y > x).sum()), int((x > y).sum())) if wins else None
        of = [wilson(v.sum(), len(v), c.level) for v in (x, y)] if right else [None, None]
        exact = np.array([score(v.sum(0)[None])[0] for v in (x, y)])
        rows.append(row_of(c, benchmark, metric, (task, lang), len(x), exact, drawn[task, lang], p, of))
        rows[-1]["test"] = "McNemar" if right else "sign" if wins else "bootstrap"
        for name in results.groups_of(lang):
            groups.setdefault(name, []).append((len(x), exact, drawn[task, lang]))
    means = []
    for name in (g for g in results.GROUPS if len(groups.get(g, ())) > 1):  # unweighted: the paper's mean, "macro"
        if name == "all" and len(groups) == 2:  # the one other group is all there is
            continue
        n, exact, many = zip(*groups[name])
        means.append(row_of(c, benchmark, metric, ("mean", f"{name} ({len(n)})"), sum(n), np.mean(exact, 0), np.mean(many, 0)))
    for family in (rows, means):
        for row, p in zip(family, holm([row["p"] for row in family])):
            row["holm"] = p
    return rows + means


def row_of(c, benchmark, metric, place, n, exact, drawn, p=None, of=(None, None)):
    ends, difference = [(1 - c.level) / 2, (1 + c.level) / 2], drawn[1] - drawn[0]
    (low_a, high_a), (low_b, high_b) = (edge or np.quantile(many, ends) for edge, many in zip(of, drawn))
    low, high = np.quantile(difference, ends)
    return {"benchmark": benchmark, "metric": metric, "task": place[0], "lang": place[1], "n": n, "a": exact[0], "low_a": low_a,
            "high_a": high_a, "b": exact[1], "low_b": low_b, "high_b": high_b, "difference": exact[1] - exact[0], "low": low,
            "high": high, "test": "bootstrap", "p": chance(difference) if p is None else p}


def show(c, rows, names):
    """Print one table for each benchmark and metric; shares in percent, their differences in points."""
    for key in dict.fromkeys((row["benchmark"], row["metric"]) for row in rows):
        part = [row for row in rows if (row["benchmark"], row["metric"]) == key]
        scale = 1 if key[1] in results.NOT_PERCENT else 100
        of = lambda row, x, low, high, sign="": "{:{s}.1f} [{:{s}.1f}, {:{s}.1f}]".format(
            *(scale * row[k] for k in (x, low, high)), s=sign)
        lines = [[" ".join(key), "language", "n", *names, "difference", "p", "Holm", "test"]]
        for row in part:
            lines.append([row["task"], row["lang"], row["n"], of(row, "a", "low_a", "high_a"), of(row, "b", "low_b", "high_b"),
                          of(row, "difference", "low", "high", "+"), f"{row['p']:.4f}", f"{row['holm']:.4f}", row["test"]])
        print(results.format_table(lines, terminal=True), "", sep="\n", flush=True)


def main(argv=None):
    words = sys.argv[1:] if argv is None else list(argv)
    files = [word for word in words if "=" not in word and word.endswith(".jsonl")]
    names = iter(("a", "b"))
    c, = load(Compare, argv=[f"{next(names, word)}={word}" if word in files else word for word in words])
    rows, names, alone = compare(c)
    show(c, rows, names)
    print(*alone, f"difference: {names[1]} less {names[0]}; brackets: {c.level:.0%} intervals, Wilson's of right and wrong, else "
          f"the bootstrap's ({c.draws} draws, seed {c.seed})", sep="\n")
    if c.out:
        Path(c.out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
