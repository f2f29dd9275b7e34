"""Ours beside what people use, on the same input and machine, in one run; only ratios are worth quoting.

    python -m bench.speed                   # make bench: every row that this machine can measure
    python -m bench.speed training head     # some of them, by their names in CPU, or in bench/gpu.py's GPU

Each line: what is measured, ours, the peer's, their ratio (how many times as fast we are; for memory, what part of the
peer's we need), and the fraction of the floor that we reach. The floor is the time this machine would need at the rate
of a large matrix product measured in this run, or at the rate of a copy where memory is the limit. The last line is one
JSON object, {name: {"ratio": ..., "floor": ...}}.

Both sides take turns, and the best of several turns counts: process CPU time of one thread on a CPU (less disturbed by
other processes than wall time), CUDA events on a GPU. Both must compute the same numbers, which is checked before they
are timed. To add rows, write a function that yields `timing.row(...)` and name it below, or in GPU.
"""
import json
import os
import sys

import torch

from bench import documents, evaluation, gpu, tokenizing, training
from bench.timing import TITLE, format_row

CPU = {"training": training.steps, "head": training.head_memory, "moments": training.moments,
       "tokenizing": tokenizing.tokenizing,
       "documents": documents.documents, "evaluation": evaluation.evaluation, "cascade": documents.cascade}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    on_gpu = torch.cuda.is_available()
    benches = gpu.GPU if on_gpu else CPU
    if unknown := sorted(set(names) - set(benches)):
        raise ValueError(f"no such rows on this machine: {', '.join(unknown)}; there are {', '.join(benches)}")
    print(f"{torch.cuda.get_device_name() if on_gpu else 'one CPU thread'}, torch {torch.__version__}")
    print(TITLE)
    results = {}
    for name in names or benches:
        for row in benches[name]():
            print(format_row(row), flush=True)
            results[row["name"]] = {key: row[key] for key in ("ratio", "ours", "peer", "unit", "floor")}
    print(json.dumps(results))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
