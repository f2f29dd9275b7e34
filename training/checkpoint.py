"""Training checkpoints: safetensors and JSON only, complete or absent.

OUT/checkpoints/step-N is written under another name, fsynced, given a manifest of sizes and SHA-256, and published by
one rename. Loading walks back to the newest checkpoint whose manifest holds.
"""
import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from hf.adapters import WEIGHTS
from hf.config import write_config
from hf.weights import open_weights
from training.adamw import moment_tensors
from training.lora import adapter_parameters, copy_adapter_config

FILE_BYTES = 256 << 20  # of one file and process; a file has two copies in host memory while it is written


def state_dict(model, optimizer):
    """Parameters and, for trained ones, AdamW's moments as stored, by name; DTensors under FSDP.

    With an adapter, the adapter's only.
    """
    tensors = {}
    for name, p in (adapter_parameters(model) or dict(model.named_parameters())).items():
        tensors[name] = p.detach()
        if p.requires_grad:
            tensors |= {f"{kind}.{name}": tensor for kind, tensor in moment_tensors(optimizer, p).items()}
    return tensors


# ---------------------------------------------------------------------- save

def save(c, world, model, optimizer, state):
    """Write checkpoints/step-N, make it durable, publish it by one rename, then prune older ones. Collective.

    state: {"step", "identity", "next_lr"}; next_lr is this run's next rate, for a note where a resumed run differs.
    """
    folder = Path(c.out) / "checkpoints"
    final = folder / f"step-{state['step']:08}"
    tmp = final.with_suffix(".tmp")
    if world.is_main:
        folder.mkdir(exist_ok=True)
        for path in list_checkpoints(folder):
            if path.suffix == ".tmp" or path == final:
                shutil.rmtree(path)
        tmp.mkdir()
    world.barrier()
    tensors = state_dict(model, optimizer)
    writer = HuggingFaceStorageWriter(str(tmp / "tensors"), number_files(tensors), save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer, no_dist=world.world_size == 1)
    except dcp.CheckpointException as e:  # torch's, around the errors of all ranks
        for error, _ in e.failures.values():
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, error.filename or str(tmp)) from None
        raise
    world.barrier()
    if world.is_main:
        updates = max(int(s["step"]) for s in optimizer.state.values())  # fewer than steps where some were skipped
        (tmp / "state.json").write_text(json.dumps(state | {"updates": updates}))
        write_config(tmp, asdict(model.config), torch.float32, like=c.out)
        copy_adapter_config(c.out, tmp)
    world.barrier()
    manifest = fsync_and_hash(tmp, world)
    if world.is_main:
        (tmp / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for path in (tmp / "manifest.json", tmp / "tensors", tmp):
            fsync(path)
        os.rename(tmp, final)
        fsync(folder)
        # a later one, skipped as damaged when this run resumed, must not displace a good one
        older = [path for path in list_checkpoints(folder) if path <= final]
        for path in older[:-c.keep_checkpoints]:
            shutil.rmtree(path)
    world.barrier()


def number_files(tensors, max_bytes=None):
    """{name: number of its file, from 1}: a process's part of a file is at most max_bytes, or one tensor."""
    numbers, number, size = {}, 1, 0
    for name, tensor in tensors.items():
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if size and size + tensor.nbytes > (max_bytes or FILE_BYTES):
            number, size = number + 1, 0
        numbers[name], size = number, size + tensor.nbytes
    return numbers


def list_checkpoints(folder):
    """The folders that `save` made, finished (step-N) or not (step-N.tmp), in order; no others are ever deleted."""
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{8,}(\.tmp)?", p.name) and p.is_dir())


def fsync_and_hash(folder, world):
    """{relative path: {"bytes", "sha256"}} of all files; the processes share the hashing: there may be a terabyte."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {}
    for path in files[world.rank::world.world_size]:
        fsync(path)
        entries[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return {name: entry for part in world.all_gather(entries) for name, entry in part.items()}


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


# ---------------------------------------------------------------------- load

def newest_checkpoint(folder, world):
    """The newest checkpoint whose manifest holds, or None. Rank 0 decides; it prints which it skipped, and why."""
    newest = None
    if world.is_main and folder.is_dir():
        for path in reversed(list_checkpoints(folder)):
            problem = "was never finished" if path.suffix == ".tmp" else find_corruption(path)
            if problem is None:
                newest = str(path)
                break
            world.print0(f"skipping checkpoint {path}: {problem}")
    return world.broadcast(newest)


def find_corruption(path):
    """What is wrong with a checkpoint folder, or None: its files must be exactly those of the manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        entries = [(name, entry["bytes"], entry["sha256"]) for name, entry in manifest.items()]
        files = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        return f"manifest.json cannot be read ({type(e).__name__}: {e})"
    names = {name for name, _, _ in entries}
    missing, stray = sorted(names - files), sorted(files - names - {"manifest.json"})
    if missing:
        return f"{missing[0]} is missing"
    if stray:
        return f"{stray[0]} is not in the manifest"
    if "state.json" not in names or not any(name.startswith("tensors/") for name in names):
        return "the manifest has no state.json or no tensors"
    for name, size, digest in entries:
        if (path / name).stat().st_size != size:
            return f"{name} has {(path / name).stat().st_size} bytes, the manifest says {size}"
        if sha256(path / name) != digest:
            return f"{name} has another SHA-256 than the manifest says"
    return None


def restore(path, model, optimizer, identity):
    """Load weights and moments in place, resharding as needed; return the saved state. ValueError for another run's."""
    state = json.loads((Path(path) / "state.json").read_text())
    for key, ours in identity.items():
        theirs = state["identity"].get(key, "float32" if key == "moments" else None)  # older checkpoints lack it
        if theirs != ours:
            raise ValueError(f"{path}: made with another {key}: {theirs}, this run has {ours}; undo the change of "
                             "settings or data, or start over in another out=")
    reader = HuggingFaceStorageReader(str(Path(path) / "tensors"))
    dcp.load(state_dict(model, optimizer), storage_reader=reader, no_dist=not dist.is_initialized())
    for p in model.parameters():
        if p.requires_grad:
            optimizer.state[p]["step"].fill_(state["updates"])
    return state


# ---------------------------------------------------------------------- identity

def run_identity(c, world, schedule, config, lora):
    """What a checkpoint and the run resuming from it must share. Collective."""
    identity = {"stages": c.stages and [c.ramp, *c.stages], "schedule": schedule.fingerprint(),
                "config": asdict(config), "init": c.init and fingerprint(c.init), "first_new_id": c.first_new_id,
                "lora": lora and lora._asdict(), "moments": c.moments}
    if lora:  # the frozen weights are not in the checkpoint, so every bit of them counts
        identity |= {"base": weights_sha256(c.init, world), "adapter": c.adapter and sha256(Path(c.adapter, WEIGHTS))}
    return identity


def fingerprint(folder):
    """Identifies a Hugging Face folder by its files' names and sizes and its config.json."""
    files = sorted(Path(folder).glob("*.safetensors"))
    facts = [(file.name, file.stat().st_size) for file in files] + [(Path(folder) / "config.json").read_text()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def weights_sha256(folder, world):
    """SHA-256 of all weights of a Hugging Face folder; each process hashes some of the files. Collective."""
    pieces = [piece for tensor in open_weights(folder).values() for piece in tensor.pieces]
    files = sorted({file for _, _, file, _ in pieces})
    hashes = world.all_gather({file.name: sha256(file) for file in files[world.rank::world.world_size]})
    of_all = sorted(item for part in hashes for item in part.items())
    return hashlib.sha256(json.dumps(of_all).encode()).hexdigest()


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
