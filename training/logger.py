"""The record of a run: settings and code in run.json, progress in log.jsonl and on the terminal."""
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from training.estimate import CARDS, count_flops, count_parameters


class Logger:
    """Loss, speed, model FLOP utilization, memory and time left: one printed line and one JSON line. Rank 0 writes."""

    def __init__(self, c, config, world, lora=None):
        self.c, self.config, self.world = c, config, world
        self.parameters = count_parameters(config, lora)
        self.peak_flops = peak_flops(world)
        self.restart()

    def restart(self):
        """Restart the clock: validation and saving do not count."""
        self.time, self.tokens, self.flops, self.steps = time.perf_counter(), 0, 0.0, 0

    def start(self, schedule, checkpoint):
        """Write settings, code and environment beside the run; warn of overused sources and dropped chats."""
        c, out, print0 = self.c, Path(self.c.out), self.world.print0
        run = {"settings": asdict(c), "model": asdict(self.config), "torch": torch.__version__,
               "commit": git("rev-parse", "HEAD"), "diff": git("diff", "HEAD", "--", "*.py")}
        name = f"run-{Path(checkpoint).name}.json" if checkpoint else "run.json"
        if self.world.is_main:
            (out / name).write_text(json.dumps(run, indent=1))
            end_last_line(out / "log.jsonl")
        resumed = f", from {checkpoint}" if checkpoint else ""
        adapter = self.parameters["adapter"]
        trained = f", frozen, and {adapter / 1e6:.3f} M of LoRA" if adapter else ""
        print0(f"{out}: {self.parameters['all'] / 1e6:.2f} M parameters{trained}, {c.steps} steps of {c.batch_size} x "
               f"{c.seq_len} tokens{resumed}")
        for name, epochs in schedule.epochs(c.steps).items():
            if epochs > c.max_epochs:
                print0(f"warning: source {name} is read {epochs:.1f} times (max_epochs={c.max_epochs}): lower its "
                       "share or add text")
        for name, (too_long, total) in schedule.too_long().items():
            print0(f"note: source {name}: {too_long} of {total} chats are longer than a row of seq_len={c.seq_len} "
                   "and are left out, not cut")

    def count(self, batches):
        """Add one step's batches to the speed's counts."""
        for batch in batches:
            position = torch.arange(batch.tokens.shape[1])
            attended = float((position - batch.starts + 1).sum())  # keys that all queries attend to
            self.flops += count_flops(self.config, self.parameters, batch.tokens.numel(), attended)
            self.tokens += batch.tokens.numel()
        self.steps += 1

    def step(self, step, loss, norm, lr, languages):
        """languages: statistics of each language's preference pairs, {} for text."""
        seconds = time.perf_counter() - self.time
        speed = self.tokens * self.world.world_size / seconds
        mfu, memory_gb = self.flops / seconds / self.peak_flops, memory_in_use(self.world.device) / 1e9
        eta = round((self.c.steps - step) * seconds / self.steps)
        row = {"step": step, "tokens": step * self.c.batch_size * self.c.seq_len, "loss": round(loss, 5), "lr": lr,
               "norm": round(norm, 4), "tokens_per_s": round(speed), "mfu": round(mfu, 4),
               "memory_gb": round(memory_gb, 2), "eta_s": eta}
        self.write(row | {"languages": languages} if languages else row)
        self.world.print0(f"step {step}/{self.c.steps} loss {loss:.4f} lr {lr:.2e} norm {norm:.2f} {speed:,.0f} tok/s "
                          f"mfu {mfu:.0%} {memory_gb:.2f} GB eta {eta // 60}:{eta % 60:02}")
        self.restart()

    def validation(self, step, bits_per_byte, languages):
        """bits_per_byte: {source: value}. languages: statistics of held-out preference pairs, {} for text."""
        row = {"step": step, "tokens": step * self.c.batch_size * self.c.seq_len}
        if languages:
            self.write(row | {"held_out": languages})
            values = [f"{k} margin {v['margin']:.2f} accuracy {v['accuracy']:.0%}" for k, v in languages.items()]
            self.world.print0(f"step {step}: held-out pairs {', '.join(values)}")
        elif bits_per_byte:
            self.write(row | {"bpb": bits_per_byte})
            values = [f"{k} {v:.2f}" for k, v in bits_per_byte.items()]
            self.world.print0(f"step {step}: bits per byte {', '.join(values)}")
        self.restart()

    def skip(self, step, problem):
        self.write({"step": step, "skipped": problem})
        self.world.print0(f"step {step} skipped: {problem}")

    def write(self, row):
        if self.world.is_main:
            with open(Path(self.c.out) / "log.jsonl", "a") as f:
                f.write(json.dumps(row) + "\n")


def end_last_line(path):
    """End a line that a kill cut short, so that the next is not appended to it."""
    if path.exists() and path.stat().st_size:
        with open(path, "rb+") as f:
            f.seek(-1, 2)
            if f.read() != b"\n":
                f.write(b"\n")


def peak_flops(world):
    """FLOP/s of this device: a known GPU's dense bf16 rate from its datasheet, else timed on a matrix product."""
    gpu = torch.cuda.get_device_name() if world.device.type == "cuda" else ""
    for card, (rate, *_) in CARDS.items():
        if card in gpu:
            return rate
    a = torch.randn(1024, 1024, dtype=world.dtype, device=world.device)
    seconds = math.inf
    for _ in range(5):
        begin = time.perf_counter()
        float((a @ a)[0, 0])
        seconds = min(seconds, time.perf_counter() - begin)
    return 2 * 1024 ** 3 / seconds


def memory_in_use(device):
    """Peak bytes: of the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def git(*arguments):
    """The output of a git command here; None without git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return done.stdout.strip()
