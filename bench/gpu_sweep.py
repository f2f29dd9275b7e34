"""Which tiles of the attention kernels are fastest on this card: the table to paste into kernels/attention_triton.py.

    python -m bench.gpu_sweep [seconds=150]           # make gpu does it as its last part

For each head size and each of the three kernels, every candidate replaces the shipped tile; its result must agree with
that of the shipped one, then it is timed on packed rows of 8,192 tokens (documents of 1,024). The backward is timed as
a whole. A tile that this card refuses (shared memory, registers) is a record with its error.
"""
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.timing import best_seconds
from bench.training import packed_starts
from kernels import attention_triton, document_mask
from kernels.device import gpu_generation

PARTS = ("forward", "dk and dv", "dq")
# (M, N, warps, stages) beside the shipped tiles: those that compile for Hopper without spills
CANDIDATES = {
    64: (((128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 3), (64, 128, 4, 3), (256, 64, 8, 3)),
         ((32, 128, 8, 3), (64, 64, 4, 2), (64, 64, 8, 2), (32, 64, 4, 3), (32, 128, 8, 2)),
         ((128, 64, 8, 2), (64, 64, 4, 3), (128, 128, 8, 2), (64, 128, 4, 2), (128, 32, 4, 3))),
    128: (((128, 64, 8, 3), (128, 64, 8, 2), (64, 64, 4, 3), (64, 128, 4, 2), (128, 128, 8, 3)),
          ((32, 64, 8, 3), (32, 64, 8, 2), (16, 128, 8, 2), (16, 64, 4, 2), (64, 64, 8, 1)),
          ((128, 64, 8, 2), (64, 64, 4, 2), (64, 64, 8, 3), (128, 32, 8, 3), (64, 128, 8, 2))),
}
INTERPRETED = {64: (((16, 16, 4, 1),), ((32, 16, 4, 1),), ((16, 16, 4, 1),))}  # for the dry pass
HEADS = {64: (14, 2), 128: (28, 4)}  # (H, K) of Qwen2-0.5B and 7B


def sweep(device: str, deadline: float) -> Iterator[dict]:
    """Records of every candidate, {"tile": name of the kernel, "D", "value", "shipped", "seconds" or "error"}; the last
    has the table. deadline: of time.monotonic(); what is left then is counted in "untried" and keeps its shipped tile.
    """
    generation, untried = gpu_generation(torch.device(device)), 0
    table = {}
    for key, candidates in (INTERPRETED if device == "cpu" else CANDIDATES).items():
        shipped, best = attention_triton.TILES[generation][key], []
        work, expected = functions(device, key), None
        for part, tiles in enumerate(candidates):
            seconds = {}
            for tile in dict.fromkeys((shipped[part], *tiles)):
                if time.monotonic() > deadline:
                    untried += 1
                    continue
                record = {"tile": PARTS[part], "D": key, "value": tile, "shipped": tile == shipped[part]}
                try:
                    with replaced(generation, key, part, tile):
                        outputs = [x.float() for x in work[part]()]
                        expected = outputs if record["shipped"] else expected
                        check(outputs, expected)
                        seconds[tile] = best_seconds([work[part]], 1 if device == "cpu" else 10)[0]
                    yield record | {"seconds": seconds[tile]}
                except Exception as e:  # whatever Triton or the driver raises for a tile that does not fit
                    yield record | {"error": f"{type(e).__name__}: {e}"[:300]}
            best.append(min(seconds, key=seconds.__getitem__, default=shipped[part]))
        table[key] = tuple(best)
    yield {"table": generation, "untried": untried, "value": format_table(generation, table)}


def functions(device, D):
    """The forward and, twice, the backward of attention on one input, as functions without arguments."""
    B, T, (H, K) = (1, 40, (2, 1)) if device == "cpu" else (2, 8192, HEADS[D])
    dtype, size = (torch.float32, 16) if device == "cpu" else (torch.bfloat16, D)
    starts = torch.stack([packed_starts(T, 16 if device == "cpu" else 1024, b) for b in range(B)]).to(device)
    mask = document_mask(starts)
    q, k, v, do = (torch.randn(B, T, n, size, device=device, dtype=dtype) for n in (H, K, K, H))
    o, lse = attention_triton._attention(q, k, v, mask.starts, mask.ends)

    def forward():
        return attention_triton._attention(q, k, v, mask.starts, mask.ends)[:1]

    def backward():
        return attention_triton._attention_backward(do, q, k, v, o, lse, mask.starts, mask.ends)

    return forward, backward, backward


@contextmanager
def replaced(generation, key, part, tile):
    """One entry of TILES is another one meanwhile."""
    entries = attention_triton.TILES[generation]
    shipped = entries[key]
    entries[key] = (*shipped[:part], tile, *shipped[part + 1:])
    try:
        yield
    finally:
        entries[key] = shipped


def check(outputs, expected):
    """AssertionError unless a tile gives what the shipped one gives, but for the order of the sums."""
    for a, b in zip(outputs, expected, strict=True):
        difference = float((a - b).norm() / b.norm())
        assert difference < 1e-2, f"differs from the shipped tile's result by {difference:.1e}"


def format_table(generation, table):
    """The rows of TILES as they are written there."""
    rows = [f"{key}: ({', '.join(map(str, tiles))})" for key, tiles in table.items()]
    return f'"{generation}": {{' + f",\n{' ' * (len(generation) + 9)}".join(rows) + "},"


if __name__ == "__main__":
    options = dict(word.split("=") for word in sys.argv[1:])
    for record in sweep("cuda", time.monotonic() + float(options.get("seconds", 150))):
        print(record["value"] if "table" in record else json.dumps(record), flush=True)
