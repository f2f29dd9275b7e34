"""This process among the others: device, mesh, collectives, the lock on a run folder, and signals."""
import ctypes
import fcntl
import math
import os
import signal
import socket
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from training.estimate import CARDS


class World:
    """This process among the others: device, rank, mesh and the few collective calls. torchrun's variables are read here only."""

    def __init__(self, c):
        env = os.environ
        self.rank, self.size = int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1))
        self.main = self.rank == 0
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(env.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if c.threads:
            torch.set_num_threads(c.threads)
        if not cuda:
            tune_cpu(flush=not c.first_new_id)
        fast = torch.cuda.is_bf16_supported() if cuda else (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        self.dtype = torch.bfloat16 if c.dtype == "bfloat16" or (c.dtype == "auto" and fast) else torch.float32
        shard = min(c.shard_size or self.size, self.size)
        if c.batch_size % self.size or self.size % shard:
            raise ValueError(f"batch_size={c.batch_size} must be a multiple of {self.size} processes, and those of shard_size={shard}")
        if "TORCHELASTIC_RUN_ID" in env:
            die_with_parent()
        if self.size > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(hours=1))  # saving 72 B is slow
            copies = self.size // shard
            names, shape = (("replicate", "shard"), (copies, shard)) if copies > 1 else (("shard",), (shard,))
            self.mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=names)

    def batches(self, schedule, step, micro_batch_size):
        """Yield this process's rows of a step's global batch, so many at once."""
        mine = range(self.rank * schedule.batch_size // self.size, (self.rank + 1) * schedule.batch_size // self.size)
        for i in range(0, len(mine), micro_batch_size):
            yield schedule.batch(step, mine[i:i + micro_batch_size])

    def all_reduce(self, numbers):
        """Add a list of numbers over all processes; exact for counts."""
        if self.size == 1:
            return list(numbers)
        t = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(t)
        return t.tolist()

    def broadcast(self, value):
        """Rank 0's value, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather(self, value):
        """Every rank's value, in rank order, on every rank."""
        values = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value)
        return values

    def clip_grad_norm(self, model, limit):
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def peak_flops(self):
        """Of this process's device: the datasheet's dense bf16 rate of a known GPU, else a matrix product measured now."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        for known, (rate, *_) in CARDS.items():
            if known in name:
                return rate
        a = torch.randn(1024, 1024, dtype=self.dtype, device=self.device)
        best = math.inf
        for _ in range(5):
            t = time.perf_counter()
            float((a @ a)[0, 0])
            best = min(best, time.perf_counter() - t)
        return 2 * 1024 ** 3 / best

    def barrier(self):
        if self.size > 1:
            dist.barrier()

    def print0(self, text):
        if self.main:
            print(text, flush=True)

    def close(self):
        if self.size > 1:
            dist.destroy_process_group()


def tune_cpu(flush):
    """flush: numbers below 1e-38 count as 0 (AdamW's moments of rare words decay there, and the CPU is slow on them); not where
    old rows must keep their bits. Freed memory stays in the process (fresh pages cost a small model a fifth of its time).
    Before any thread starts."""
    torch.set_flush_denormal(flush)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def die_with_parent():
    """SIGKILL of torchrun leaves its workers running and writing; ask the kernel to take them along (Linux)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def run_lock(out, world):
    """One run folder, one live job: hold a lock on out/lock while the run lasts."""
    out.mkdir(parents=True, exist_ok=True)
    busy = None
    if world.main:
        lock = open(out / "lock", "a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        except OSError:
            lock.seek(0)
            busy = lock.read() or "another process"
    busy = world.broadcast(busy)
    if busy:
        raise ValueError(f"{out} is in use by {busy}; stop that run or set out= another folder")
    yield


def stop_flag():
    """A function that says whether SIGTERM or SIGUSR1 (a cluster's warning) has come."""
    seen = []
    for s in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(s, lambda *_: seen.append(1))
    return lambda: bool(seen)
