"""Linear probes of hidden states: what a layer says about a label, and how alike two probes are.

A probe is an L2-regularized logistic regression (scikit-learn's objective with penalty l2 and C) on standardized
features, fitted in float64 until its gradient is below 1e-6. recipes/probing.py compares languages and layers with it
(arXiv 2409.14459).
"""
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model import Qwen2

TOLERANCE = 1e-6  # of the gradient's norm
FEATURES = ("block_out", "mlp_in")
METRICS = ("accuracy", "f1", "auc")


# ---------------------------------------------------------------------- features

@torch.no_grad()
def last_states(model: Qwen2, texts: Sequence[Sequence[int]], feature: str = "block_out") -> Tensor:
    """The state of every layer at the last id of each text, (layers, N, C) float32.

    feature: "block_out", the L + 1 residual streams, the embeddings first; "mlp_in", what the L MLPs read: the stream
    after attention, normalized. The texts are packed into one row without padding; `starts` keeps them apart.
    """
    if not all(texts):
        raise ValueError("a text without ids has no last state; give it at least the id that begins a text")
    device = model.lm_head.weight.device
    length = torch.tensor([len(ids) for ids in texts])
    end = torch.cumsum(length, 0)
    starts = torch.repeat_interleave(end - length, length)[None].to(device)
    tokens = torch.tensor([i for ids in texts for i in ids], device=device)[None]
    end = (end - 1).to(device)
    if feature == "block_out":
        return torch.stack([x[0, end].float() for x in model.residual_streams(tokens, starts)]).cpu()
    seen: list[Tensor] = []
    layers: list[Any] = list(model.model.layers)
    hooks = [block.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, end].float()))
             for block in layers]
    try:
        model.hidden_states(tokens, starts)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen).cpu()


@dataclass(frozen=True)
class Scaling:
    """(x - mean) / std per feature; a constant feature becomes 0."""
    mean: Tensor   # (C,) float64
    std: Tensor
    constant: int  # features without variance

    @classmethod
    def fit(cls, x: Tensor) -> "Scaling":
        """Of the rows of x (N, C): those that are trained on, never those that are tested."""
        x = finite(x)
        constant = x.amax(0) == x.amin(0)  # exactly: a computed variance may be a rounding error
        mean = torch.where(constant, x[0], x.mean(0))
        std = torch.where(constant, 1.0, x.std(0, correction=0))
        return cls(mean, std, int(constant.sum()))

    def __call__(self, x: Tensor) -> Tensor:
        return (finite(x) - self.mean) / self.std

    @property
    def key(self) -> str:
        """Equal exactly for equal scalings."""
        return hashlib.sha256(torch.stack([self.mean, self.std]).numpy().tobytes()).hexdigest()[:16]


def finite(x: Tensor) -> Tensor:
    """x in float64; ValueError where a state is infinite or not a number."""
    x = x.double()
    if not torch.isfinite(x).all():
        raise ValueError(f"{int((~torch.isfinite(x)).any(-1).sum())} of {len(x)} states are not finite; compute them "
                         "with dtype=float32")
    return x


# ---------------------------------------------------------------------- the classifier

@dataclass(frozen=True)
class Probe:
    place: tuple       # what its features are: (model, feature, layer)
    scaling: Scaling
    weight: Tensor     # (C,) float64, of the standardized features
    bias: float

    def scores(self, x: Tensor) -> Tensor:
        """(N,) log-odds of class 1 for states x (N, C)."""
        return self.scaling(x) @ self.weight + self.bias


def fit_probe(x: Tensor, labels: Tensor, scaling: Scaling, c: float = 1.0, place: tuple = ()) -> Probe | None:
    """The probe of states x (N, C) with labels 0 and 1; None where all labels are equal."""
    labels = labels.double()
    if not len(labels) or labels.min() == labels.max():
        return None
    weight, bias = logistic_regression(scaling(x), labels, c)
    return Probe(place, scaling, weight, bias)


def logistic_regression(x: Tensor, labels: Tensor, c: float = 1.0, steps: int = 100) -> tuple[Tensor, float]:
    """Minimize |w|^2 / 2 + c sum softplus(-y (x w + b)), y = 1 or -1, by Newton's method with a line search.

    x (N, C) float64, labels (N,) 0 or 1 -> w (C,), b. The bias is not regularized. With more features than rows, w is
    a combination of the rows, so N unknowns suffice. ValueError if the gradient's norm stays above TOLERANCE.
    """
    n, width = x.shape
    basis = None
    if width > n:
        basis = torch.linalg.qr(x.T).Q  # (C, N)
        x = x @ basis
    x = torch.cat([x, x.new_ones(n, 1)], 1)
    y, penalty = 2 * labels - 1, torch.cat([x.new_ones(x.shape[1] - 1), x.new_zeros(1)])
    w = x.new_zeros(x.shape[1])

    def value_and_gradient(w):
        margin = y * (x @ w)
        gradient = penalty * w - c * (x.T @ (y * torch.sigmoid(-margin)))
        return penalty @ w.square() / 2 + c * F.softplus(-margin).sum(), gradient

    value, gradient = value_and_gradient(w)
    for _ in range(steps):
        if gradient.norm() < TOLERANCE:
            break
        p = torch.sigmoid(x @ w)
        hessian = torch.diag(penalty) + c * (x.T * (p * (1 - p))) @ x
        direction, step = torch.linalg.solve(hessian, gradient), 1.0
        while step > 1e-10:
            new_value, new_gradient = value_and_gradient(w - step * direction)
            # at the end the value changes by less than its rounding: then the gradient decides
            if new_value < value - 1e-4 * step * (gradient @ direction) or new_gradient.norm() < gradient.norm() / 2:
                break
            step /= 2
        w, value, gradient = w - step * direction, new_value, new_gradient
    if not gradient.norm() < TOLERANCE:
        raise ValueError(f"the fit of {n} rows of {width} features stopped at a gradient of {gradient.norm():.1e}, "
                         f"above {TOLERANCE}; lower C={c}")
    weight = w[:-1] if basis is None else basis @ w[:-1]
    return weight, float(w[-1])


def classify(scores: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Accuracy, F1 of class 1 and AUC of scores; None where a metric is undefined, as AUC of one class."""
    scores, truth = scores.double(), labels.bool()
    if not len(scores):
        return dict.fromkeys(METRICS)
    guess, n1, n0 = scores > 0, int(truth.sum()), int((~truth).sum())
    positives = n1 + int(guess.sum())
    auc = None
    if n1 and n0:  # pairs that are ordered rightly, ties counting half
        low, high = (torch.searchsorted(scores[~truth].sort().values, scores[truth], right=right)
                     for right in (False, True))
        auc = float((low + high).sum()) / (2 * n1 * n0)
    return {"accuracy": float((guess == truth).double().mean()),
            "f1": 2 * int((guess & truth).sum()) / positives if positives else None, "auc": auc}


# ---------------------------------------------------------------------- splits and similarity

def split_groups(groups: Sequence, fraction: float, seed: int) -> set:
    """A random fraction of the distinct groups, at least one and not all; the same for every order of the rows.

    A group is whatever must not straddle a split: a fact, its false twin, and both in every language.
    """
    distinct = sorted(set(groups), key=str)
    if len(distinct) < 2:
        raise ValueError(f"{len(distinct)} groups cannot be split; give each fact a group of its own")
    random.Random(f"{seed}/groups").shuffle(distinct)
    return set(distinct[:min(len(distinct) - 1, max(1, round(fraction * len(distinct))))])


def similarity(a: Probe, b: Probe) -> float | None:
    """Cosine of two probes' weights; None where one is zero. ValueError unless both read the same scaled features."""
    if a.place != b.place or a.scaling.key != b.scaling.key:
        raise ValueError(f"the probes of {a.place} and {b.place} read different features, or scaled differently: the "
                         "cosine of their weights means nothing; fit both on the same layer and Scaling")
    norm = a.weight.norm() * b.weight.norm()
    return float(a.weight @ b.weight / norm) if norm > 0 else None
