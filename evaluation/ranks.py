"""Ranks among candidates, ties against the method, and the usual metrics of knowledge-base papers."""
from collections.abc import Iterable

from torch import Tensor


def pessimistic_rank(scores: Tensor, gold: int, removed: Iterable[int] = ()) -> int:
    """The rank, from 1, of candidate `gold` among scores (N,): after all that score as high, and last if its own score
    is not a number. removed: further right answers, which are not counted (the filtered protocol).
    """
    not_above = scores < scores[gold]
    not_above[[i for i in removed if i != gold]] = True
    return len(scores) - int(not_above.sum())


def summarize(ranks: list[int]) -> dict:
    """Hits@1, Hits@10 and MRR, in %; None without ranks."""
    if not ranks:
        return {"n": 0, "hits1": None, "hits10": None, "mrr": None}
    n = len(ranks)
    return {"n": n, "hits1": 100 * sum(r == 1 for r in ranks) / n, "hits10": 100 * sum(r <= 10 for r in ranks) / n,
            "mrr": 100 * sum(1 / r for r in ranks) / n}
