"""Multi-process training: device, mesh, sharding, collectives, the lock on a run folder, and signals."""
import ctypes
import os
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from configs import locks
from configs.errors import explain
from training import peers


class World:
    """Rank, device, compute dtype, mesh and collectives of this process. Training reads torchrun's variables here."""

    def __init__(self, c):
        env = os.environ
        self.rank, self.world_size = int(env.get("RANK", 0)), int(env.get("WORLD_SIZE", 1))
        self.is_main = self.rank == 0
        self.lock = None
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(env.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if c.threads:
            torch.set_num_threads(c.threads)
        if not cuda:
            tune_cpu(flush_denormals=not c.first_new_id)
        bfloat16 = c.dtype == "bfloat16" or (c.dtype == "auto" and fast_bfloat16())
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        # GPUs share one copy of the model; on a CPU, with no traffic to hide, each process has its own
        shard_size = min(c.shard_size or (self.world_size if cuda else 1), self.world_size)
        self.is_sharded = shard_size > 1
        self.loss_scale = self.world_size if self.is_sharded else 1  # FSDP averages gradients, replicas sum them
        if c.batch_size % self.world_size or self.world_size % shard_size:
            raise ValueError(f"batch_size={c.batch_size} must be a multiple of {self.world_size} processes, and these "
                             f"a multiple of shard_size={shard_size}")
        if "TORCHELASTIC_RUN_ID" in env:
            die_with_parent()
        if self.world_size > 1:
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            peers.init_process_group(backend, timedelta(hours=1))  # saving 72 B parameters is slow
        if self.is_sharded:
            replicas = self.world_size // shard_size
            names, shape = ("shard",), (shard_size,)
            if replicas > 1:
                names, shape = ("replicate", "shard"), (replicas, shard_size)
            self.mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=names)

    def micro_batches(self, c):
        """This process's rows of a global batch, as a range for each micro-batch."""
        per_process = c.batch_size // self.world_size
        rows = range(self.rank * per_process, (self.rank + 1) * per_process)
        return [rows[i:i + c.micro_batch_size] for i in range(0, per_process, c.micro_batch_size)]

    def distribute(self, n):
        """Yield (index, whether it counts) of this process's share of range(n), the same number on every process.

        A sharded model's forward is collective: a process that has run out repeats an index, which does not count.
        """
        for first in range(0, n, self.world_size):
            yield min(first + self.rank, n - 1), first + self.rank < n

    # ------------------------------------------------------------------ collectives

    def all_reduce(self, numbers):
        """Sum a list of numbers over all processes; exact for counts."""
        if self.world_size == 1:
            return list(numbers)
        t = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(t)
        return t.tolist()

    def any(self, flag):
        """Whether flag is set on any process."""
        return self.all_reduce([bool(flag)])[0] > 0

    def broadcast(self, value):
        """Rank 0's value, on every rank."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather(self, value):
        """Every rank's value, in rank order, on every rank."""
        values = [value]
        if self.world_size > 1:
            values = [None] * self.world_size
            dist.all_gather_object(values, value)
        return values

    def barrier(self):
        if self.world_size > 1:
            dist.barrier()

    def print0(self, text):
        """Print on rank 0. A closed terminal or pipe does not end training: log.jsonl has the numbers."""
        if self.is_main:
            try:
                print(text, flush=True)
            except OSError:
                sys.stdout = open(os.devnull, "w")

    # ------------------------------------------------------------------ the run folder

    def lock_folder(self, out):
        """Hold a lock on out/lock until `close` or the end of the process: one live run per folder. Collective."""
        out.mkdir(parents=True, exist_ok=True)
        holder = None
        if self.is_main:
            self.lock = open(out / "lock", "a+")
            if locks.try_lock(self.lock):
                self.lock.truncate(0)
                self.lock.write(f"process {os.getpid()} on {socket.gethostname()}")
                self.lock.flush()
            else:
                self.lock.seek(0)
                holder = self.lock.read() or "another process"
        holder = self.broadcast(holder)
        if holder:
            raise ValueError(f"{out} is in use by {holder}; stop that run or set out= to another folder")

    def close(self):
        if self.lock:
            self.lock.close()
        if self.world_size > 1:
            peers.part()
            dist.destroy_process_group()


# ---------------------------------------------------------------------- the model on several processes

def shard_model(model, world, residual_fp32=False):
    """Shard each block, then the rest, with FSDP2: float32 master weights, gathered in the compute dtype.

    residual_fp32: do not cast the residual stream, a block's input, to the compute dtype.
    """
    policy = MixedPrecisionPolicy(world.dtype, torch.float32, cast_forward_inputs=not residual_fp32)
    for block in model.model.layers:  # the backward begins with the last block, so that one stays gathered
        is_last = block is model.model.layers[-1]
        fully_shard(block, mesh=world.mesh, mp_policy=policy, reshard_after_forward=not is_last)
    # the root (norm, embedding, head: 5 GB in bf16 at 72 B) stays gathered from forward to backward
    fully_shard(model, mesh=world.mesh, mp_policy=policy, reshard_after_forward=False)


def reshard(model):
    """Drop the weights that a forward without a backward leaves gathered: saving and the optimizer need the shards."""
    for module in (*model.model.layers, model):
        module.reshard()


def sum_gradients(model):
    """Sum the gradients of replicas over all processes: one flat buffer, one all_reduce, the same bits for each."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    for p, grad in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad = grad.view_as(p)


def clip_grad_norm(model, limit):
    """Clip the gradients to a global norm of at most limit; return the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


# ---------------------------------------------------------------------- the process

def fast_bfloat16():
    """Whether the hardware computes in bfloat16 faster than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def tune_cpu(flush_denormals):
    """Before any thread starts: flush denormals (below 1e-38) to 0, and keep freed memory in the process.

    AdamW's moments of rare tokens decay to denormals, which are slow on a CPU; no flushing where old rows must keep
    their bits. Fresh pages cost a small model a fifth of its time.
    """
    torch.set_flush_denormal(flush_denormals)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def die_with_parent():
    """Ask the kernel to kill this process with its parent (Linux): workers would outlive a SIGKILL of torchrun."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        # the parent may already be dead; process 1 is then the parent, or in a container torchrun itself
        orphan = parent == 1 and b"torch" not in Path("/proc/1/cmdline").read_bytes()
        if orphan or os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def exit_with(error):
    """End the program, and processes started by hand beside it, with status 1 and the error in one line.

    With several processes, each skips the interpreter's shutdown, in which gloo's threads may abort (SIGABRT) once a
    peer is gone; the kernel closes its files and locks.
    """
    text = explain(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    if dist.is_initialized() or peers.started_by_hand():
        print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
        peers.end(text)
        os._exit(1)
    sys.exit(text)


def stop_flag(world):
    """A function that returns whether SIGTERM, SIGHUP or SIGUSR1 (a cluster's warning) has arrived on this process."""
    received = []

    def handle(number, frame):
        if not received and world.is_main:
            text = f"{signal.Signals(number).name}: finishing this step, then saving a checkpoint and stopping\n"
            try:
                os.write(2, text.encode())  # print is not safe in a handler
            except OSError:
                pass
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, handle)
    return lambda: bool(received)
