"""A curriculum: a schedule whose mixture changes during the run, in stages (PolyLM, arXiv 2307.06018, Section 3.3).

    stages=[dict(tokens=2_000_000, mixture={"en": 70, "low": 30}),
            dict(tokens=350_000, mixture={"en": 40, "low": 60}, data="out/clean")]      ramp="step" or "linear"

A stage takes `tokens` (with padding) from its mixture, and only from folders in `data` if it names any. step: the
mixture changes at the border. linear: over its rows a stage moves from the previous mixture to its own. A border lies
between two rows, anywhere in a global batch. A source continues in the new stage where it stopped in the old one.

As in data.py, which tokens a row holds is a pure function of (seed, row). At every row of the run each source is
within one row of its planned count.
"""
import hashlib
import heapq
import json
from bisect import bisect_left, bisect_right
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
from data import PERIOD

RAMP_PIECES = 32  # constant mixtures that a linear ramp is made of


class Segment(NamedTuple):
    """Rows of a run from number `first` on, whose sources repeat one order."""
    first: int
    order: np.ndarray   # (N,) source of each row
    turn: np.ndarray    # (N,) rows of this source before it, in the first pass
    quota: np.ndarray   # (sources,) rows of each source in a pass


class StagedSchedule(data.Schedule):
    """data.Schedule with successive mixtures."""

    def __init__(self, sources, stages, ramp, batch_size, seq_len, seed):
        self.stages, self.ramp = stages, ramp
        super().__init__(sources, None, batch_size, seq_len, seed)

    def plan_rows(self, mixture):
        ends = [tokens // self.seq_len for tokens in accumulate(stage["tokens"] for stage in self.stages)]
        self.borders = ends[:-1]  # first rows of the stages after the first
        weights = [stage_weights(self.sources, stage, n) for n, stage in enumerate(self.stages)]
        self.pieces = cut_into_pieces(weights, np.diff(ends, prepend=0).tolist(), self.ramp)
        self.segments = assign_rows(self.pieces)
        return sum(rows * quota for rows, quota in self.pieces) / (PERIOD * ends[-1])

    def find_row(self, row):
        segment = self.segments[bisect_right(self.segments, row, key=lambda s: s.first) - 1]
        passes, place = divmod(row - segment.first, len(segment.order))
        i = int(segment.order[place])
        return i, int(segment.turn[place] + passes * segment.quota[i])

    def fingerprint(self):
        facts = [super().fingerprint(), [[rows, quota.tolist()] for rows, quota in self.pieces]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def describe(self):
        """One line: where each stage begins."""
        places = [f"stage {n} from step {row // self.batch_size}" + (f", row {row % self.batch_size}" if
                  row % self.batch_size else "") for n, row in enumerate(self.borders, 2)]
        return f"stages ({self.ramp}): {'; '.join(['stage 1 from step 0', *places])}"


def make_schedule(c, sources) -> data.Schedule:
    """The schedule of a run: of one mixture, or of stages. c: train.Train."""
    if c.stages:
        return StagedSchedule(sources, c.stages, c.ramp, c.batch_size, c.seq_len, c.seed)
    return data.Schedule(sources, c.mixture, c.batch_size, c.seq_len, c.seed)


def check_stages(c) -> list[str]:
    """[what is wrong with the settings of a curriculum], or []."""
    problems = [] if c.stages else ["stages must name at least one stage, got []"]
    problems += [f"{name}= is that of one mixture, and stages= is set; remove one of them"
                for name in ("mixture", "tokens") if getattr(c, name) is not None]
    for n, stage in enumerate(c.stages):
        if not isinstance(stage, dict) or not {"tokens", "mixture"} <= set(stage) <= {"tokens", "mixture", "data"}:
            problems.append(f"stages[{n}] must be a dict of tokens, mixture and, if it reads some folders only, data; "
                            f"got {stage!r}")
            continue
        tokens, mixture, folders = stage["tokens"], stage["mixture"], stage.get("data", [])
        if type(tokens) is not int or tokens < c.seq_len:
            problems.append(f"stages[{n}]: tokens must be at least one row, seq_len={c.seq_len}, got {tokens!r}")
        problems += [f"stages[{n}]: {problem}" for problem in check_shares(mixture)]
        if not isinstance(folders, str | list) or not all(isinstance(folder, str) for folder in folders):
            problems.append(f"stages[{n}]: data must be a folder or a list of folders, got {folders!r}")
    return problems


def check_shares(mixture) -> list[str]:
    """[what is wrong with the numbers of a mixture], or []."""
    shares = list(mixture.values()) if isinstance(mixture, dict) else []
    if any(shares) and all(type(share) in (int, float) and 0 <= share < float("inf") for share in shares):
        return []
    return [f"mixture needs numbers >= 0 and one above 0, got {mixture!r}"]


def stage_weights(sources, stage, n):
    """Share of each source in stage n. ValueError names the stage and what it lacks."""
    folders = stage.get("data", [s.folder.parent for s in sources])
    folders = {Path(folder) for folder in (folders if isinstance(folders, list) else [folders])}
    unknown = sorted(map(str, folders - {s.folder.parent for s in sources}))
    if unknown:
        raise ValueError(f"stages[{n}]: data={unknown[0]} is not among the run's folders, data=")
    chosen = [i for i, s in enumerate(sources) if s.folder.parent in folders]
    weights = np.zeros(len(sources))
    try:
        weights[chosen] = data.mixture_weights([sources[i] for i in chosen], stage["mixture"])
    except ValueError as e:
        raise ValueError(f"stages[{n}]: {e}") from None
    return weights


def cut_into_pieces(weights, rows, ramp):
    """[(rows, share of each source in units of 1 / PERIOD)]: a piece for each stage, or RAMP_PIECES in a linear ramp.

    Each piece of a ramp has its midpoint's mixture, so at its end the plan meets the straight line.
    """
    pieces = []
    for n, (own, count) in enumerate(zip(weights, rows)):
        before, parts = (weights[n - 1], min(RAMP_PIECES, count)) if n and ramp == "linear" else (own, 1)
        edges = [count * k // parts for k in range(parts + 1)]
        for k in range(parts):
            share = (edges[k] + edges[k + 1]) / (2 * count)
            pieces.append((edges[k + 1] - edges[k], data.quotas(before + share * (own - before))))
    return pieces


# ---------------------------------------------------------------------- which source each row is of

class Plan:
    """The planned rows of each source up to a row of the run: piecewise linear, counted in units of 1 / PERIOD."""

    def __init__(self, pieces):
        self.quota = [quota.tolist() for _, quota in pieces]
        self.first = list(accumulate((rows for rows, _ in pieces), initial=0))
        planned = list(accumulate((rows * quota for rows, quota in pieces[:-1]), initial=np.zeros_like(pieces[0][1])))
        self.planned = np.array(planned).T.tolist()  # (sources, pieces), at the first row of each piece

    def crossing(self, i, k, bisect):
        """Where the plan of source i reaches k rows (bisect_left) or exceeds k (bisect_right): a fractional row."""
        piece = bisect(self.planned[i], k * PERIOD) - 1
        missing, quota = k * PERIOD - self.planned[i][piece], self.quota[piece][i]
        return self.first[piece] + missing / quota if quota else float("inf")

    def release(self, i, k):
        """Where row k of source i may come at the earliest: from here on the plan exceeds k."""
        return self.crossing(i, k, bisect_right)

    def deadline(self, i, k):
        """The row before which it must come: where the plan reaches k + 1."""
        return self.crossing(i, k + 1, bisect_left)


def assign_rows(pieces) -> list[Segment]:
    """The source of every row of the run.

    Tijdeman's chairman assignment, as in data.low_discrepancy_order, over a plan that bends at the borders: each row
    of a source has an earliest and a latest place, and the earliest deadline goes first. Within a piece the order soon
    repeats after PERIOD rows; the repetitions are not computed again, so a run of any length takes seconds.
    """
    plan, segments = Plan(pieces), []
    counts = np.zeros(len(pieces[0][1]), np.int64)  # rows of each source so far
    for piece, (_, quota) in enumerate(pieces):
        begin, end = plan.first[piece:piece + 2]
        while begin < end:
            stop, passes = min(begin + PERIOD, end), 1
            order, turn = earliest_deadline_first(plan, begin, stop, counts)
            gained = np.bincount(order, minlength=len(counts))
            # some of a piece's last PERIOD rows have deadlines beyond its end
            if stop - begin == PERIOD and np.array_equal(gained, quota):
                passes += max(0, (end - stop) // PERIOD - 1)
            segments.append(Segment(begin, order, turn, gained))
            counts, begin = counts + passes * gained, begin + passes * (stop - begin)
    return segments


def earliest_deadline_first(plan, begin, stop, counts):
    """(source of each row from begin to stop - 1, rows of this source before it). counts: of each source, at begin."""
    order, turn, ready = [], [], []
    waiting = [(plan.release(i, k), i, k) for i, k in enumerate(counts.tolist())]
    heapq.heapify(waiting)
    for row in range(begin, stop):
        while waiting and waiting[0][0] < row + 1:
            _, i, k = heapq.heappop(waiting)
            heapq.heappush(ready, (plan.deadline(i, k), i, k))
        _, i, k = heapq.heappop(ready)
        order.append(i)
        turn.append(k)
        heapq.heappush(waiting, (plan.release(i, k + 1), i, k + 1))
    return np.array(order, np.int32), np.array(turn, np.int64)
