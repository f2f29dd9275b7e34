"""How well two sentences fit, by embeddings: the margin score of Artetxe and Schwenk (arXiv 1811.01136), exact, in numpy alone.

    x, y = np.load("en.npy", mmap_mode="r"), np.load("kk.npy", mmap_mode="r")  # row i of each: sentence i and its translation
    x, y = aligned(x, y)  # only where the encoder was not trained to bring translations together: mean states of a language model
    scores = margin(x, y)  # with LASER's embeddings, pairs above 1.04 to 1.06 are kept; others have a threshold of their own
    write_ranked("ranked.tsv", scores, sources, targets)  # read it to find that

A cosine alone says little, as some sentences are near everything. The margin is the cosine of a pair divided by the mean of the
cosines that its two sides have with their nearest neighbours on the other side: 1 means that a pair is no nearer than those.
"""
import os

import numpy as np


def margin(x, y, k=4, block=1024):
    """(n,) float32 of aligned rows x, y (n, d), float16 or float32, in memory or mapped: their cosine over the mean of the 2 k
    cosines with their nearest neighbours, taken from the whole of the other side.

    block: rows compared at a time. Memory is 16 * block * (block + d) bytes and 8 k + 4 for every row. All rows meet: 20,000
    pairs of 512 numbers took 13 s on one core (16 billion products a second), so 100,000 of 1,024 take 11 minutes; cut a large
    corpus into parts. A sentence that occurs twice has itself for a neighbour, which lowers its score: drop duplicates before.
    """
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"margin needs two tables of aligned rows, got shapes {x.shape} and {y.shape}; row i of both is pair i")
    if k < 1 or block < 1:
        raise ValueError(f"k and block must be at least 1, got k={k} and block={block}")
    n = len(x)
    k = min(k, max(1, n))
    cosine = np.zeros(n, np.float32)
    near_x, near_y = (np.full((n, k), -np.inf, np.float32) for _ in range(2))  # the k largest cosines of each row so far
    for i in range(0, n, block):
        a = unit(x[i:i + block], i, "first")
        for j in range(0, n, block):
            b = unit(y[j:j + block], j, "second")
            c = a @ b.T  # (rows of x, rows of y)
            if i == j:
                cosine[i:i + block] = c.diagonal()
            near_x[i:i + block] = largest(near_x[i:i + block], c)
            near_y[j:j + block] = largest(near_y[j:j + block], np.ascontiguousarray(c.T))  # half the time of a strided view
    near_x.sort(1)  # a sum in one fixed order
    near_y.sort(1)
    return cosine / np.maximum((near_x.mean(1) + near_y.mean(1)) / 2, 1e-6)  # below 0 only where there are hardly any rows


def aligned(x, y, ridge=0.01, folds=2):
    """Two tables (n, d) of an encoder whose languages lie apart -> two tables (n, 2 d) in which translations lie together.

    A linear map from one language into the other is learned from the pairs themselves, by least squares, in both directions. Each
    fold is mapped by what the others taught, so that no wrong pair vouches for itself; a sixth of wrong pairs does little harm.
    It needs several times more pairs than d. The tinyworld's model of 2 M parameters, d = 128, 2,000 pairs of which 15 % are
    spoilt: the margin's AUC on misaligned pairs rises from 0.65 to 0.97 (Kazakh), 0.89 to 0.97 (German), 0.46 to 0.99 (Thai).
    """
    n, d = x.shape
    if n < 2 * d:
        raise ValueError(f"{n} pairs are too few to align tables of {d} numbers; bring {2 * d} or more, or leave align out")
    x, y = (np.asarray(table, np.float32) for table in (x, y))
    fold, there, back = np.arange(n) % folds, np.empty_like(x), np.empty_like(y)
    for f in range(folds):
        rest, here = fold != f, fold == f
        for source, target, out in ((x, y, there), (y, x, back)):
            middle, aim = source[rest].mean(0), target[rest].mean(0)
            a = source[rest] - middle
            gram = a.T @ a
            gram[np.diag_indices(d)] += ridge * np.trace(gram) / d
            out[here] = (source[here] - middle) @ np.linalg.solve(gram, a.T @ (target[rest] - aim))
    own = [unit(table - table.mean(0), 0, which) for table, which in ((x, "first"), (y, "second"))]
    return np.concatenate([unit(there, 0, "first"), own[0]], 1), np.concatenate([own[1], unit(back, 0, "second")], 1)


def unit(rows, first, which):
    """Rows made 1 long, float32; one of zeros stays. ValueError when a number is not finite. first: number of the first row."""
    rows = np.asarray(rows, np.float32)
    size = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    if not np.isfinite(size).all():
        row = first + int(np.argmin(np.isfinite(size)))
        raise ValueError(f"row {row} of the {which} table is not finite; embed its sentence again")
    return rows / np.maximum(size, 1e-30)[:, None]


def largest(held, new):
    """The k largest of each row of held (r, k) and new (r, c), in any order."""
    k = held.shape[1]
    if new.shape[1] > k:
        new = np.partition(new, -k, axis=1)[:, -k:]
    return np.partition(np.concatenate([held, new], 1), -k, axis=1)[:, -k:]


def rank(scores):
    """Numbers of the rows, the best first; of equal ones the first, and those that are no number last."""
    return np.argsort(-np.asarray(scores), kind="stable")


def write_ranked(path, scores, sources, targets):
    """A .tsv for the eye: score, source, target, the best first. Where it turns wrong is the threshold."""
    if not len(scores) == len(sources) == len(targets):
        raise ValueError(f"{path}: {len(scores)} scores for {len(sources)} source and {len(targets)} target sentences")
    with open(f"{path}.tmp", "w", encoding="utf-8", newline="\n") as f:
        for i in rank(scores):
            f.write("\t".join([f"{scores[i]:.4f}", *(" ".join(side[i].split()) for side in (sources, targets))]) + "\n")
    os.replace(f"{path}.tmp", path)


def auc(scores, labels):
    """The probability that a pair labelled 1 scores above one labelled 0, a tie counting half: 0.5 is chance, 1 is perfect."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if scores.shape != labels.shape or not np.isfinite(scores).all():
        raise ValueError(f"auc needs a finite score for each label, got {scores.shape} and {labels.shape}")
    good, bad = scores[labels], np.sort(scores[~labels])
    if not len(good) or not len(bad):
        raise ValueError(f"auc needs both labels, got {len(good)} times 1 and {len(bad)} times 0")
    return float((np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")).sum() / (2 * len(good) * len(bad)))
