"""Intervals and tests: Wilson, Tango, bootstrap, McNemar, Holm."""
import math
from statistics import NormalDist

import numpy as np


def wilson(right, n, level=0.95):
    """Interval of a proportion, right of n (Wilson 1927): within 0 and 1, and not empty at 0 of n."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    center = right + z * z / 2
    half = z * math.sqrt(right * (n - right) / n + z * z / 4)
    return max(0.0, (center - half) / (n + z * z)), min(1.0, (center + half) / (n + z * z))


def tango(wins, losses, n, level=0.95):
    """Score interval of (wins - losses) / n, the difference of two proportions in n pairs (Tango 1998).

    Not empty where no pair is discordant. Also that of 2 rate - 1, where rate counts a tie as half a win.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    estimate = (wins - losses) / n

    def score(delta):
        """Standardized distance of the estimate from delta; decreases in delta."""
        a, b = 2 * n, (2 * n - wins + losses) * delta - wins - losses
        c = -losses * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # likeliest P(loss) for this delta
        variance = n * (2 * q + delta * (1 - delta))
        distance = wins - losses - n * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    ends = []
    for target, outer in ((z, -1.0), (-z, 1.0)):
        inner = estimate
        for _ in range(60):
            middle = (inner + outer) / 2
            if abs(score(middle)) < abs(target):
                inner = middle
            else:
                outer = middle
        ends.append(outer)
    return tuple(ends)


def mean_interval(values):
    """(mean, standard error, low, high) at 95 %: Wilson's of right and wrong, else mean plus and minus 1.96 errors.

    The standard error is the sample standard deviation / sqrt(n), as lm-eval reports it; None where n is 1.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else None
    if all(v in (0, 1) for v in values):
        return mean, error, *wilson(math.fsum(values), n)
    return (mean, error, mean - 1.96 * error, mean + 1.96 * error) if n > 1 else (mean, None, None, None)


def sign_test(wins, losses):
    """Exact two-sided p when wins and losses are equally likely, ties left out; of paired answers McNemar's test."""
    n, tail, term = wins + losses, 0, 1
    if n == 0:
        return 1.0
    for k in range(min(wins, losses) + 1):  # integers: C(n, k) exceeds a float from n = 1030 on
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << n))


def holm(p_values):
    """Adjust p-values for their number (Holm 1979): the smallest times n, the next times n - 1, and so on."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for k, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def bootstrap(measurements, draws, seed):
    """Bootstrap scores of several measurements of the same n documents: a list of (draws,) arrays.

    measurements: for each an (n, S) array of what adds up over documents, and a function (draws, S) sums -> (draws,)
    scores. All use the same resampled documents: differences are paired, and languages that translate one test keep
    what they share.
    """
    n = len(measurements[0][0])
    rng, sums = np.random.Generator(np.random.PCG64(seed)), []
    for begin in range(0, draws, 64):  # weights of 64 draws at a time: 7 MB for MMLU's 14,042 documents
        chosen = rng.integers(n, size=(min(64, draws - begin), n))
        weights = np.stack([np.bincount(row, minlength=n) for row in chosen]).astype(np.float64)
        sums.append([weights @ values for values, _ in measurements])
    return [score(np.concatenate(parts)) for parts, (_, score) in zip(zip(*sums), measurements)]


def bootstrap_p(differences):
    """Two-sided p of a difference of 0, from its bootstrap draws; at least 2 / (draws + 1)."""
    smaller_tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (1 + smaller_tail) / (len(differences) + 1))
