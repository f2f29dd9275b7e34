"""Training checkpoints: safetensors and JSON only, complete or absent.

OUT/checkpoints/step-N is written aside, made durable, given a manifest of sizes and SHA-256, and published by one rename. Loading
walks back to the newest checkpoint whose manifest holds.
"""
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from hf.config import write_config


def state_tensors(model, optimizer):
    """Parameters and, of those that learn, AdamW's two moments by name; DTensors under FSDP. Fresh moments are zeros."""
    out = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            out[name] = p.detach()
            continue
        s = optimizer.state[p]
        if not s:
            s |= {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        out |= {name: p.detach(), f"exp_avg.{name}": s["exp_avg"], f"exp_avg_sq.{name}": s["exp_avg_sq"]}
    return out


def save(c, world, model, optimizer, step, identity):
    """Write checkpoints/step-N aside, make it durable, publish it by one rename, then prune. Collective."""
    folder = Path(c.out) / "checkpoints"
    final, tmp = folder / f"step-{step:08}", folder / f"step-{step:08}.tmp"
    if world.main:
        for old in [*folder.glob("*.tmp"), *([final] if final.exists() else [])]:
            shutil.rmtree(old)
        tmp.mkdir(parents=True)
    world.barrier()
    writer = HuggingFaceStorageWriter(str(tmp / "tensors"), save_distributed=True)
    dcp.save(state_tensors(model, optimizer), storage_writer=writer, no_dist=world.size == 1)
    world.barrier()
    if world.main:
        (tmp / "state.json").write_text(json.dumps({"step": step, "identity": identity}))
        write_config(tmp, asdict(model.config), torch.float32, like=c.out)
    world.barrier()
    mine = sorted(p for p in tmp.rglob("*") if p.is_file())[world.rank::world.size]  # a terabyte is not hashed by one process
    for p in mine:
        fsync(p)
    parts = world.all_gather({str(p.relative_to(tmp)): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in mine})
    if world.main:
        manifest = {name: entry for part in parts for name, entry in sorted(part.items())}
        (tmp / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for p in (tmp / "manifest.json", tmp / "tensors", tmp):
            fsync(p)
        os.rename(tmp, final)
        fsync(folder)
        older = sorted(p for p in folder.glob("step-*") if p <= final)  # a later one was passed over as damaged
        for old in older[:-c.keep_checkpoints]:
            shutil.rmtree(old)
    world.barrier()


def latest(folder, world):
    """The newest checkpoint whose manifest holds, or None; says which newer ones it skipped and why. Rank 0 decides."""
    found = None
    if world.main:
        for path in sorted(folder.glob("step-*"), reverse=True):
            problem = "was never finished" if path.suffix == ".tmp" else find_corruption(path)
            if problem is None:
                found = str(path)
                break
            print(f"skipping checkpoint {path}: {problem}", flush=True)
    return world.broadcast(found)


def find_corruption(path):
    """What is wrong with a checkpoint folder, or None."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name, want in manifest.items():
            file = path / name
            if not file.exists():
                return f"{name} is missing"
            if file.stat().st_size != want["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, the manifest says {want['bytes']}"
            if sha256(file) != want["sha256"]:
                return f"{name} has another SHA-256 than the manifest"
    except (OSError, ValueError, TypeError, KeyError) as e:
        return f"manifest.json cannot be read ({e})"
    return None


def restore(path, model, optimizer, identity):
    """Load weights and moments into place, resharding as needed; returns the step. ValueError when the run is another one."""
    state = json.loads((Path(path) / "state.json").read_text())
    for key, ours in identity.items():
        if state["identity"].get(key) != ours:
            raise ValueError(f"{path}: made with another {key}: {state['identity'].get(key)}, this run has {ours}; "
                             "undo the change of settings or data, or start anew in another out=")
    tensors = state_tensors(model, optimizer)
    dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(Path(path) / "tensors")), no_dist=not dist.is_initialized())
    for p in model.parameters():  # the tensors are the model's and the optimizer's own, filled in place
        if p.requires_grad:
            optimizer.state[p]["step"].fill_(state["step"])
    return state["step"]


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
