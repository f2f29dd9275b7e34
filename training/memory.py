"""How much of this machine's memory a run takes, before weights are read; a run that cannot fit is refused."""
import os
from pathlib import Path

import torch

from training.estimate import PROCESS, host_memory, memory_per_gpu

GIB = 2 ** 30
CPU_ACTIVATIONS = 2   # PyTorch's operations store about twice what the kernels do (SmolLM2-135M: 4.8 GiB at its peak)


def memory_needed(c, config, parameters: dict, world) -> dict:
    """{"training", "saving", "loading": bytes} that one process takes at its peak: training where the model is, the
    other two of the host. parameters: from count_parameters.
    """
    used = memory_per_gpu(c, config, parameters, world.world_size if world.is_sharded else 1)
    if c.first_new_id:  # gradients of the embeddings alone
        share = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2) / parameters["all"]
        used["gradients"] *= share
    on_cpu = world.device.type == "cpu"
    if on_cpu:
        used["activations"] *= CPU_ACTIVATIONS * (2 if world.dtype == torch.float32 else 1)
        used["bf16 gathered"] *= world.dtype != torch.float32  # nothing is cast
    state = used["masters"] + used["AdamW"]
    resident = state + used.get("frozen", 0) if on_cpu else 0
    return {"training": sum(used.values()) + PROCESS * on_cpu} | host_memory(state, resident)


def free_memory(device: torch.device) -> float | None:
    """Bytes still available: on a GPU, or on the host within this process's cgroup. None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [1024 * int(line.split()[1]) for line in read_lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    for folder, names in (("/sys/fs/cgroup", ("memory.max", "memory.current")),
                          ("/sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))):
        limit, used = (read_lines(f"{folder}/{name}") for name in names)
        if limit and used and limit[0].isdigit():
            cached = [int(line.split()[1]) for line in read_lines(f"{folder}/memory.stat")
                      if line.split()[0] in ("inactive_file", "total_inactive_file")]
            free.append(int(limit[0]) - int(used[0]) + max(cached, default=0))
    return min(free) if free else None


def read_lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def check_memory(c, config, parameters: dict, world) -> str:
    """A line with the memory the run takes and what is free. ValueError, with what to change, if it cannot fit.

    Collective.
    """
    needed, free = memory_needed(c, config, parameters, world), free_memory(world.device)
    on_cpu = world.device.type == "cpu"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # they share the host
    host = {name: processes * size / GIB for name, size in needed.items()}
    training = host["training"] if on_cpu else needed["training"] / GIB
    line = (f"memory, GiB: training {training:.2f} of {'the host' if on_cpu else 'each GPU'} ("
            f"{'unknown' if free is None else f'{free / GIB:.2f}'} free), saving {host['saving']:.2f} and loading "
            f"{host['loading']:.2f} of the host")
    problem = f"{line}. It does not fit: {remedy(c, world)}" if free is not None and training > free / GIB else None
    problems = [text for text in world.all_gather(problem) if text]
    if problems:
        raise ValueError(problems[0])
    return line


def remedy(c, world):
    """What to set when a run does not fit."""
    changes = ["a smaller micro_batch_size"] * (c.micro_batch_size > 1) + ["a smaller seq_len"]
    changes += ["activation_checkpointing=True"] * (c.activation_checkpointing is not True)
    changes += ["moments=int8"] * (c.moments != "int8")
    if world.device.type == "cpu":
        return f"set {' or '.join([*changes, 'dtype=bfloat16'] if world.dtype == torch.float32 else changes)}"
    return f"set {' or '.join(changes)}, or use more GPUs: weights, gradients and moments are divided among them"
