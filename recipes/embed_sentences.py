"""Sentences -> vectors: the mean hidden state of a language model, for the margin score of sentence pairs.

    python recipes/embed_sentences.py model=out/demo/stage2 text=en-kk.tsv column=0 out=en.npy
    python recipes/embed_sentences.py model=out/demo/stage2 text=en-kk.tsv column=1 out=kk.npy

It writes one float16 unit vector per line of the file; a line without a sentence becomes zeros, which match nothing.
corpus/similarity.py scores two such files. Make one file per language: `center` subtracts the mean vector, which in a
language model mostly encodes the language itself.

How well the vectors tell translations from other pairs depends on the model, so try it on known pairs. With the
tinyworld's model of 2 M parameters the margin's AUC over all languages is 0.74, and 0.98 after
`similarity.align_languages` (RESULTS.md, "The cascade").
"""
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer
from configs import errors, load
from corpus import files
from model import Qwen2


@dataclass(frozen=True)
class Embed:
    model: str                    # Hugging Face folder or a checkpoint of train.py
    text: str                     # one sentence per line, or a .tsv; plain, .gz, .xz or .zst
    out: str                      # the .npy file
    column: int = 0               # of the .tsv, from 0
    layer: int | str = "middle"   # 0: the embeddings, N: the hidden states after N layers, "middle": after half of them
    center: bool = True           # subtract the mean of all rows
    batch_tokens: int = 8192      # tokens computed at a time
    max_tokens: int = 512         # of a sentence; the rest is truncated
    dtype: str = "float32"        # of the model

    def __post_init__(self):
        problems = []
        for name, least in (("column", 0), ("batch_tokens", 1), ("max_tokens", 1)):
            if getattr(self, name) < least:
                problems.append(f"{name} must be at least {least}, got {getattr(self, name)}")
        if Path(self.out).suffix != ".npy":
            problems.append(f"out must end in .npy, got {self.out!r}")
        if self.layer != "middle" and not (isinstance(self.layer, int) and self.layer >= 0):
            problems.append(f"layer must be a number or middle, got {self.layer!r}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            problems.append(f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}")
        if problems:
            raise ValueError("Embed: " + "; ".join(problems))


def main(argv=None):
    c, = load(Embed, argv=argv)
    if not Path(c.text).is_file():
        raise ValueError(f"{c.text}: no such file; text= names lines of text or a .tsv")
    device, t = "cuda" if torch.cuda.is_available() else "cpu", tokenizer.load(c.model)
    model = Qwen2.from_pretrained(c.model, getattr(torch, c.dtype)).to(device).eval()
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    layer = layers // 2 if c.layer == "middle" else c.layer
    if not 0 <= layer <= layers:
        raise ValueError(f"layer={layer}: the model has {layers}; 0 is the embeddings")
    n = sum(1 for _ in files.read_lines(c.text))
    if not n:
        raise ValueError(f"{c.text} is empty; there is nothing to embed")
    Path(c.out).parent.mkdir(parents=True, exist_ok=True)
    vectors = np.lib.format.open_memmap(f"{c.out}.float32", "w+", np.float32, (n, width))  # zeros
    has_sentence = np.zeros(n, bool)
    for rows, ids in batches(c, t):
        vectors[rows] = mean_states(model, t.prefix_token_id, ids, layer).cpu().numpy()
        has_sentence[rows] = True
    write_normalized(c, vectors, has_sentence)
    os.unlink(f"{c.out}.float32")
    print(f"{c.out}: {n:,} rows of {width} numbers, layer {layer} of {layers}, {n - int(has_sentence.sum()):,} without "
          "a sentence")


def write_normalized(c, vectors, has_sentence, chunk=65536):
    """Write the rows to c.out as float16, centered and scaled to length 1; those without a sentence stay zero."""
    n, width = vectors.shape
    center = 0.0
    if c.center:
        total = sum(vectors[i:i + chunk].sum(0, np.float64) for i in range(0, n, chunk))
        center = total / max(1, has_sentence.sum())
    out = np.lib.format.open_memmap(f"{c.out}.tmp", "w+", np.float16, (n, width))
    for i in range(0, n, chunk):
        rows = (vectors[i:i + chunk] - center) * has_sentence[i:i + chunk, None]
        out[i:i + chunk] = rows / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)[:, None]
    out.flush()
    os.replace(f"{c.out}.tmp", c.out)


def batches(c, t):
    """Yield (row numbers, their lists of ids) of about batch_tokens tokens; lines without a sentence are left out."""
    rows, ids, n_tokens = [], [], 0
    for i, (_, _, line, problem) in enumerate(files.read_lines(c.text)):
        columns = line.split("\t") if problem is None else []
        text = columns[c.column].strip() if len(columns) > c.column else ""
        if not text:
            continue
        sentence = t.encode(text)[:c.max_tokens]
        if ids and n_tokens + len(sentence) + 1 > c.batch_tokens:
            yield rows, ids
            rows, ids, n_tokens = [], [], 0
        rows.append(i)
        ids.append(sentence)
        n_tokens += len(sentence) + 1
    if ids:
        yield rows, ids


@torch.inference_mode()
def mean_states(model, prefix_token_id, ids, layer):
    """(N, C) float32: the mean hidden state of each list of ids after `layer` layers.

    The lists are packed into one row, each after the id that begins a text, as in training. The mean leaves that id
    out, as its state is the same everywhere.
    """
    device = model.lm_head.weight.device
    length = torch.tensor([len(sentence) + 1 for sentence in ids])
    begin = torch.cumsum(length, 0) - length
    tokens = torch.tensor([i for sentence in ids for i in (prefix_token_id, *sentence)], device=device)
    owner, starts = (torch.repeat_interleave(x, length).to(device) for x in (torch.arange(len(ids)), begin))
    states = model.residual_streams(tokens[None], starts[None])[layer][0].float()  # (T, C)
    states[begin.to(device)] = 0
    sums = states.new_zeros(len(ids), states.shape[1]).index_add_(0, owner, states)
    return sums / (length - 1).to(device)[:, None]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
