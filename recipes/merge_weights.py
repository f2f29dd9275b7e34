"""Merge the weights of models of one architecture, so that an adapted model keeps what the original knew.

    python recipes/merge_weights.py models='["out/stage2", "models/Qwen2-1.5B"]' weights='[0.7, 0.3]' out=out/merged

BYOL (arXiv 2601.10804) preserves English this way. method:
    linear           the mean of the models by weights that sum to 1 (model soups, arXiv 2203.05482)
    task_arithmetic  base + the sum of weight * (model - base) (arXiv 2212.04089); base= names the original
    slerp            two models on the arc between them, weights [1 - t, t]; each tensor is one vector (Shoemake 1985)

Tensors are read, merged in float32 in blocks of rows, and written one at a time: a 72B model needs a few GB of memory.
One vocabulary may extend another: rows of tokens that only some models have are averaged over those (with slerp, taken
from the one). A tied head counts as the embedding; the result is untied if any model is. Models that differ otherwise
are refused.
"""
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import errors, load
from hf.config import read_config_fields, write_config
from hf.export import check_output, write_weights
from hf.folder import list_tokenizer_files
from hf.weights import open_weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MAY_DIFFER = ("vocab_size", "tie_word_embeddings")
BLOCK = 1 << 24  # elements of each model in float32 at a time


@dataclass(frozen=True)
class Merge:
    models: list                # Hugging Face folders or training checkpoints
    out: str                    # folder for the merged model; its files come from the model with the largest vocabulary
    weights: list | None = None  # one for each model; None: equal, for task_arithmetic 1
    method: str = "linear"      # linear, task_arithmetic or slerp
    base: str | None = None     # task_arithmetic: the model the others were trained from

    def __post_init__(self):
        n, weights = len(self.models), self.weights
        if self.method not in ("linear", "task_arithmetic", "slerp"):
            raise ValueError(f"method must be linear, task_arithmetic or slerp, got {self.method!r}")
        if (self.method == "task_arithmetic") != (self.base is not None):
            raise ValueError("base= is the original model of method=task_arithmetic; set both or neither")
        if n < (1 if self.base else 2) or (self.method == "slerp" and n != 2):
            needed = {"linear": "two or more", "task_arithmetic": "one or more", "slerp": "two"}[self.method]
            raise ValueError(f"method={self.method} needs {needed} models, got {n}")
        if weights is not None:
            good = len(weights) == n and all(isinstance(w, int | float) and math.isfinite(w) for w in weights)
            if not good:
                raise ValueError(f"weights must be {n} finite numbers, one for each model, got {weights}")
            if self.base is None and (abs(sum(weights) - 1) > 1e-6 or min(weights) < 0):
                raise ValueError(f"weights of method={self.method} must be positive and sum to 1, got {weights}")
        if any(Path(self.out).resolve() == Path(folder).resolve() for folder in self.folders):
            raise ValueError(f"out={self.out} is one of the models; give another folder")

    @property
    def folders(self):
        return self.models if self.base is None else [*self.models, self.base]


class Source:
    """One model: its tensors, the fields of its config, and how many rows of its embedding are tokens it knows."""

    def __init__(self, folder):
        self.folder, self.tensors = folder, open_weights(folder)
        self.fields = read_config_fields(folder)
        if EMBEDDING not in self.tensors:
            raise ValueError(f"{folder}: it has no {EMBEDDING}")
        self.rows = self.tensors[EMBEDDING].shape[0]
        self.tied = HEAD not in self.tensors or (self.fields["tie_word_embeddings"] and self.has_equal_head())
        if self.tied and not self.fields["tie_word_embeddings"]:
            raise ValueError(f"{folder}: config.json unties the head, but {HEAD} is missing")
        has_tokenizer = any(file.name != "tokenizer_config.json" for file in list_tokenizer_files(folder))
        self.tokenizer = tokenizer.load(folder) if has_tokenizer else None
        self.known = min(self.tokenizer.vocab_size, self.rows) if self.tokenizer else self.rows

    def has_equal_head(self):
        head, embedding = self.tensors[HEAD], self.tensors[EMBEDDING]
        if head.shape != embedding.shape:
            return False
        for row in range(0, self.rows, 4096):
            last = min(row + 4096, self.rows)
            if not torch.equal(head.read(row, last), embedding.read(row, last)):
                return False
        return True

    def stored(self, name):
        """A tensor by its name; the head of a tied model is its embedding."""
        return self.tensors[EMBEDDING if name == HEAD and self.tied else name]


def main(argv=None):
    c, = load(Merge, argv=argv)
    check_output(c.out, c.models[0])
    sources = [Source(folder) for folder in c.folders]
    tied = all(source.tied for source in sources)
    check_alike(sources, tied)
    largest = max(sources, key=lambda source: (source.known, source.rows))
    names = [name for name in sources[0].tensors if name != HEAD] + [HEAD] * (not tied)
    rows = max(source.rows for source in sources)
    dtype = sources[0].tensors[EMBEDDING].dtype
    write_config(c.out, largest.fields | {"vocab_size": rows}, dtype, like=largest.folder)
    if tied != largest.fields["tie_word_embeddings"]:
        config = Path(c.out) / "config.json"
        text = json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"tie_word_embeddings": tied}, indent=1)
        config.write_text(text, encoding="utf-8")
    shapes = {name: (dtype, (rows, *s.shape[1:]) if name in (EMBEDDING, HEAD) else s.shape)
              for name in names for s in [sources[0].stored(name)]}
    write_weights(c.out, shapes, ((name, merge_tensor(c, sources, name)) for name in names), max_bytes=2 << 30)
    print(f"{c.out}: {c.method} of {', '.join(map(str, c.models))}" + (f" on {c.base}" if c.base else "")
          + f", {len(names)} tensors, {'tied' if tied else 'untied'} head, {rows} rows in the embedding")


def check_alike(sources, tied):
    """ValueError that names the first difference of two models: a field, a tensor, a shape, a token."""
    first = sources[0]
    for other in sources[1:]:
        pair = f"{first.folder} and {other.folder} cannot be merged"
        for field, value in first.fields.items():
            if field not in MAY_DIFFER and other.fields[field] != value:
                raise ValueError(f"{pair}: {field} is {value!r} and {other.fields[field]!r}")
        names, others = ({name for name in s.tensors if name != HEAD} for s in (first, other))
        if alone := sorted(names ^ others):
            raise ValueError(f"{pair}: only one of them has {alone[0]} ({len(alone)} such tensors)")
        for name in names | (set() if tied else {HEAD}):
            a, b = first.stored(name).shape, other.stored(name).shape
            if a != b and (name not in (EMBEDDING, HEAD) or a[1:] != b[1:]):
                raise ValueError(f"{pair}: {name} has shape {a} and {b}")
        check_vocabularies(pair, first, other)


def check_vocabularies(pair, first, other):
    """ValueError unless one vocabulary extends the other: every id that both know is the same token."""
    if first.tokenizer is None or other.tokenizer is None:
        if first.rows != other.rows:
            raise ValueError(f"{pair}: their embeddings have {first.rows} and {other.rows} rows, and without the "
                             "tokenizers of both it is not known which rows are the same tokens")
        return
    a, b = first.tokenizer.token_bytes, other.tokenizer.token_bytes
    differing = [i for i in sorted(a.keys() & b.keys()) if a[i] != b[i]]
    if differing:
        i = differing[0]
        raise ValueError(f"{pair}: id {i} is {a[i]!r} and {b[i]!r} ({len(differing)} ids differ); "
                         "their tokenizers must agree on the ids that both have")


# ---------------------------------------------------------------------- one tensor

def merge_tensor(c, sources, name):
    """The merged tensor in the first model's dtype; vocabulary rows by the models that have them."""
    tensors = [source.stored(name) for source in sources]
    if name not in (EMBEDDING, HEAD):
        out = torch.empty(tensors[0].shape, dtype=tensors[0].dtype)
        rows = out.shape[0] if out.dim() else 1
        merge_rows(c, name, out, tensors, list(range(len(tensors))), 0, rows)
        return out
    out = torch.empty((max(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:]), dtype=tensors[0].dtype)
    for first, last, members in vocabulary_parts(sources):
        merge_rows(c, name, out, tensors, members, first, last)
    return out


def vocabulary_parts(sources):
    """[first row, last row + 1, indices of the models whose rows count there] of the embedding, in order."""
    edges = sorted({0} | {s.known for s in sources} | {s.rows for s in sources})
    parts = []
    for first, last in zip(edges, edges[1:]):
        members = [i for i, s in enumerate(sources) if s.known >= last]
        if not members:  # padding that no tokenizer uses
            members = [i for i, s in enumerate(sources) if s.rows >= last]
        if parts and parts[-1][2] == members:
            parts[-1][1] = last
        else:
            parts.append([first, last, members])
    return parts


def merge_rows(c, name, out, tensors, members, first, last):
    """Fill rows first to last - 1 of out from the tensors of the members, block by block."""
    step = max(1, BLOCK // max(1, math.prod(tensors[0].shape[1:])))
    factors = coefficients(c, name, tensors, members, first, last, step)
    for row in range(first, last, step):
        end = min(row + step, last)
        parts = [factor * read_block(c, name, tensors, i, row, end) for i, factor in factors.items() if factor]
        (out[row:end] if out.dim() else out).copy_(sum(parts))


def read_block(c, name, tensors, i, row, end):
    """Rows of one model in float32; ValueError if one is not finite."""
    block = tensors[i].read(row, end) if tensors[i].shape else tensors[i].read()
    block = block.float()
    if not torch.isfinite(block).all():
        raise ValueError(f"{c.folders[i]}: {name} holds NaN or infinity in rows {row} to {end - 1}")
    return block


def coefficients(c, name, tensors, members, first, last, step):
    """{index of a model: its factor} of a merge that is a weighted sum of the members' rows."""
    n = len(c.models)
    weights = c.weights or [1.0 if c.base else 1 / n] * n
    if len(members) == 1:
        return {members[0]: 1.0}
    if c.method == "slerp":
        return dict(enumerate(slerp_factors(c, name, tensors, first, last, step, weights[1])))
    if c.base and n in members:  # base + sum of w (model - base)
        models = [i for i in members if i < n]
        return {i: weights[i] for i in models} | {n: 1 - sum(weights[i] for i in models)}
    total = sum(weights[i] for i in members)
    return {i: weights[i] / total if total else 1 / len(members) for i in members}


def slerp_factors(c, name, tensors, first, last, step, t):
    """Factors of both models at the fraction t of the arc; linear where they are almost parallel or one is zero."""
    dot = squares_a = squares_b = 0.0
    for row in range(first, last, step):
        a, b = (read_block(c, name, tensors, i, row, min(row + step, last)).double() for i in (0, 1))
        dot += float((a * b).sum())
        squares_a += float((a * a).sum())
        squares_b += float((b * b).sum())
    if not squares_a or not squares_b:
        return 1 - t, t
    cosine = max(-1.0, min(1.0, dot / math.sqrt(squares_a * squares_b)))
    if abs(cosine) > 0.9995:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
