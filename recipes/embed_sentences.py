"""Sentences -> vectors: the mean of a language model's hidden states over the tokens of each, for the margin score of bitext.

    python recipes/embed_sentences.py model=out/demo/stage2 text=en-kk.tsv column=0 out=en.npy
    python recipes/embed_sentences.py model=out/demo/stage2 text=en-kk.tsv column=1 out=kk.npy    # then corpus/similarity.py

Row i is line i of the file, float16, 1 long; a line without a sentence is a row of zeros, which fits nothing. Make one file for
each language: `centre` takes away what all its sentences share, which in a language model is mostly the language itself.

How well this tells translations from other pairs depends on the model, so try it on known pairs. By the tinyworld's model of 2 M
parameters the margin's AUC is 0.77 (not centred: 0.70), best after three of four layers: 0.75 to 0.95 for English and a language
in the same script, 0.46 to 0.81 for the others, which is often chance; `similarity.aligned` mends that (README: 0.98).
"""
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import tokenizer  # noqa: E402
from configs import load  # noqa: E402
from corpus import files  # noqa: E402
from model import Qwen2  # noqa: E402


@dataclass(frozen=True)
class Embed:
    model: str                    # Hugging Face folder or a checkpoint of train.py
    text: str                     # a sentence a line, or a .tsv; plain, .gz, .xz or .zst
    out: str                      # the .npy file
    column: int = 0               # of the .tsv, from 0
    layer: int | str = "middle"   # 0: the embeddings, N: the stream after N layers, "middle": after half of them
    centre: bool = True           # take the mean of all rows from each
    batch_tokens: int = 8192      # tokens computed at a time
    max_tokens: int = 512         # of a sentence; the rest is not read
    dtype: str = "float32"        # the model computes in

    def __post_init__(self):
        wrong = [f"{name} must be at least {least}, got {getattr(self, name)}" for name, least in
                 (("column", 0), ("batch_tokens", 1), ("max_tokens", 1)) if getattr(self, name) < least]
        wrong += [] if Path(self.out).suffix == ".npy" else [f"out must end in .npy, got {self.out!r}"]
        wrong += [f"layer must be a number or middle, got {self.layer!r}"] if self.layer not in ("middle", *range(10_000)) else []
        wrong += [] if self.dtype in ("float32", "bfloat16", "float16") else [
            f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}"]
        if wrong:
            raise ValueError("Embed: " + "; ".join(wrong))


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
    whole = np.lib.format.open_memmap(f"{c.out}.float32", "w+", np.float32, (n, width))  # zeros
    full = np.zeros(n, bool)
    for places, ids in batches(c, t):
        whole[places], full[places] = means(model, t.prefix_token_id, ids, layer).cpu().numpy(), True
    centre = sum(whole[i:i + 65536].sum(0, np.float64) for i in range(0, n, 65536)) / max(1, full.sum()) if c.centre else 0.0
    done = np.lib.format.open_memmap(f"{c.out}.tmp", "w+", np.float16, (n, width))
    for i in range(0, n, 65536):
        rows = (whole[i:i + 65536] - centre) * full[i:i + 65536, None]
        done[i:i + 65536] = rows / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)[:, None]
    done.flush()
    os.replace(f"{c.out}.tmp", c.out)
    os.unlink(f"{c.out}.float32")
    print(f"{c.out}: {n:,} rows of {width} numbers, layer {layer} of {layers}, {n - int(full.sum()):,} without a sentence")


def batches(c, t):
    """(numbers of rows, their lists of ids) of about batch_tokens tokens; lines without a sentence are left out."""
    places, ids, size = [], [], 0
    for i, (_, _, line, problem) in enumerate(files.read_lines(c.text)):
        columns = line.split("\t") if problem is None else []
        text = columns[c.column].strip() if len(columns) > c.column else ""
        new = t.encode(text)[:c.max_tokens] if text else []
        if ids and size + len(new) + 1 > c.batch_tokens:
            yield places, ids
            places, ids, size = [], [], 0
        if new:
            places, ids, size = [*places, i], [*ids, new], size + len(new) + 1
    if ids:
        yield places, ids


@torch.inference_mode()
def means(model, opener, ids, layer):
    """(N, C) float32: the mean of a stream over each list of ids. The lists stand in one row without padding, each behind the id
    that a text begins with, as in training; the mean leaves that one out, as its state is the same everywhere."""
    device = model.lm_head.weight.device
    length = torch.tensor([len(x) + 1 for x in ids])
    begin = torch.cumsum(length, 0) - length
    tokens = torch.tensor([i for x in ids for i in (opener, *x)], device=device)
    owner, starts = (torch.repeat_interleave(x, length).to(device) for x in (torch.arange(len(ids)), begin))
    stream = model(tokens[None], starts=starts[None], hidden=True)[layer][0].float()  # (T, C)
    stream[begin.to(device)] = 0
    return stream.new_zeros(len(ids), stream.shape[1]).index_add_(0, owner, stream) / (length - 1).to(device)[:, None]


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
