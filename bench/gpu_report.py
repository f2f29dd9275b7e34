"""One GPU in one command (make gpu): first checks that the Triton kernels are right there, then the timings of
bench/gpu.py, then the sweep of bench/gpu_sweep.py over the tiles of attention.

    python -m bench.gpu_report out=out/gpu.jsonl minutes=9
    TRITON_INTERPRET=1 python -m bench.gpu_report dry=True    # all of it, small, in the interpreter on a CPU

Needs nothing from a network. Every result is printed and appended to `out` at once, as a line of JSON, so a run that
is cut off still tells what it found; the timings come again as a table at the end, each with the fraction of its floor
that was measured just before. A check or a timing that fails does not stop the others; the exit status is 1 if a check
failed. A rival that did not run has a row with the reason.

The clock is looked at before each row of the timings, none of which begins after 0.7 of `minutes`, and before each
tile, none of which is tried after all of them: a run ends at most one part (a minute: two models compiled) after
`minutes`. What was left out is a line as well.
"""
import gc
import json
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
import triton

from bench import gpu, gpu_sweep
from bench.gpu_checks import CHECKS, Setup
from bench.timing import TITLE, format_row
from configs import load
from kernels import device as kernels_device


@dataclass(frozen=True)
class Gpu:
    out: str = "out/gpu.jsonl"
    minutes: float = 9.0  # until the last timing or tile begins; the checks come first, however long they take
    dry: bool = False  # small shapes in Triton's interpreter, whose times mean nothing

    def __post_init__(self):
        if self.minutes <= 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")


def main(argv: list[str] | None = None) -> int:
    """Run the checks, then the timings; return the number of failed checks."""
    c, = load(Gpu, argv=argv)
    if c.dry != kernels_device.INTERPRETED or (not c.dry and not torch.cuda.is_available()):
        raise ValueError("this needs a CUDA device; for the dry pass on a CPU set dry=True, and TRITON_INTERPRET=1 in "
                         "the environment")
    path = Path(c.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    rows = []

    def write(record):
        rows.extend([record] if "of" in record else [])
        print(json.dumps(record), flush=True)
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    begin = time.monotonic()
    name = "Triton's interpreter" if c.dry else torch.cuda.get_device_name()
    write({"device": name, "torch": torch.__version__, "triton": triton.__version__,
           "time": time.strftime("%Y-%m-%d %H:%M:%S")})
    failed = sum(not run_check(check, c, write) for check in CHECKS)
    device = Setup(c.dry).device
    run_timings(write, device, begin + 0.7 * 60 * c.minutes)
    run_sweep(write, device, begin + 60 * c.minutes)
    print(TITLE, *map(format_row, rows), sep="\n")
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed in {time.monotonic() - begin:.0f} s; {path}")
    return failed


def run_check(check, c, write) -> bool:
    """Write what a check found, and return whether it passed."""
    result, begin = {"check": check.__name__.removeprefix("check_"), "passed": True}, time.monotonic()
    try:
        result |= check(Setup(c.dry)) or {}
    except Exception as e:  # whatever a GPU may do; the other checks still run
        traceback.print_exc()
        result |= {"passed": False, "error": f"{type(e).__name__}: {e}"}
    write(result | {"seconds": round(time.monotonic() - begin, 1)})
    return result["passed"]


def run_timings(write, device, deadline):
    """Write the rows of bench/gpu.py until the deadline; one that fails, or that comes too late, is a line too."""
    for name, timing in gpu.GPU.items():
        rows = timing(device)
        while True:
            if time.monotonic() > deadline:
                write({"timing": name, "skipped": "no time left; more with minutes="})
                break
            try:
                write(next(rows))
            except StopIteration:
                break
            except Exception as e:  # a peer that is missing, too little memory ...
                traceback.print_exc()
                write({"timing": name, "error": f"{type(e).__name__}: {e}"})
                break
        gc.collect()  # a model and its optimizer may refer to each other
        torch.cuda.empty_cache()


def run_sweep(write, device, deadline):
    """Write what gpu_sweep measures, and print its table for kernels/attention_triton.py."""
    try:
        for record in gpu_sweep.sweep(device, deadline):
            write(record)
            if "table" in record:
                print(f"the fastest tiles ({record['untried']} not tried), as in TILES:\n    {record['value']}")
    except Exception as e:  # the shipped tiles fail as well
        traceback.print_exc()
        write({"sweep": "failed", "error": f"{type(e).__name__}: {e}"})


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
