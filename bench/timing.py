"""How the benchmarks measure: rows of the table, time, memory, and the rates that a floor is computed from."""
import math
import time
import warnings
from pathlib import Path

import torch


def row(name, what, ours, peer=None, unit="s", of=None, floor=None):
    """One line of the table. ours, peer: numbers in that unit; s and GiB are better when smaller, others when larger.

    of: who the peer is; floor: the fraction of the floor that ours reaches.
    """
    ratio = None
    if peer:
        ratio = peer / ours if unit == "s" else ours / peer
    return dict(name=name, what=what, ours=ours, peer=peer, unit=unit, of=of, ratio=ratio, floor=floor)


TITLE = f"{'':52} {'ours':>10} {'peer':>10} {'':8} {'ratio':>6} {'of floor':>8}"


def format_row(row):
    peer = "" if row["peer"] is None else f"{row['peer']:.3g}"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    floor = "" if row["floor"] is None else f"{row['floor']:.0%}"
    names = row["name"] if row["of"] is None else f"{row['name']}; peer: {row['of']}"
    if "not_run" in row:
        names += f"; not run: {row['not_run']}"
    return f"{row['what']:52} {row['ours']:10.3g} {peer:>10} {row['unit']:8} {ratio:>6} {floor:>8}  {names}"


def attempt(function):
    """(its result, None), or (None, why it failed): the error, and torch's warnings, which often have the reason."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            return function(), None
        except Exception as e:  # whatever a library may do with a case that it does not support
            texts = [f"{type(e).__name__}: {e}", *(str(w.message) for w in said)]
            return None, "; ".join(dict.fromkeys(text.strip().split("\n")[0][:200] for text in texts))[:600]


def noted(result, reason):
    """A row with the reason why its peer was not run, if there is one."""
    return result | ({"not_run": reason} if reason else {})


def best_seconds(functions, rounds=5):
    """The best time of each function, called in turn `rounds` times after one call to warm up."""
    for function in functions:
        seconds(function)
    best = [math.inf] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            best[i] = min(best[i], seconds(function))
    return best


def seconds(function):
    """Time of one call: CUDA events on a GPU, else process CPU time."""
    if not torch.cuda.is_available():
        start = time.process_time()
        function()
        return time.process_time() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def matmul_rate(dtype, device="cpu"):
    """FLOP/s of a large matrix product."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n ** 3 / best_seconds([lambda: a @ b])[0]


def copy_rate(device):
    """Bytes/s read and written by a copy of 2 GiB, on a CPU of 32 MiB."""
    big = torch.empty(1 << (30 if device == "cuda" else 24), dtype=torch.bfloat16, device=device)
    return 2 * big.nbytes / best_seconds([lambda: big.clone()])[0]


def can_measure_memory():
    return torch.cuda.is_available() or Path("/proc/self/clear_refs").exists()


def peak_memory(function):
    """GiB of memory that a call needs at its peak (on a CPU: the resident set, Linux only)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2 ** 30
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set
    before = process_kib("VmRSS")
    function()
    return (process_kib("VmHWM") - before) / 2 ** 20


def process_kib(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])


def forward_backward(function, inputs):
    """(forward, backward alone) of a function as two functions, with random upstream gradients of all its outputs."""
    out = function()
    gradient = [torch.randn_like(x) for x in out] if isinstance(out, tuple) else torch.randn_like(out)
    return function, lambda: torch.autograd.grad(out, inputs, gradient, retain_graph=True)
