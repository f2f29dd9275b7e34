"""LoRA: frozen weights, and beside each chosen matrix W the product of two small trained ones (Hu et al. 2021,
arXiv 2106.09685, section 4):

    y = W x + s B A x,   A (rank, in) random, B (out, rank) zero at first, s = lora_alpha / rank

Parameters have PEFT's names and hf/adapters.py its files, so peft, vLLM and llama.cpp read what is saved here.
Checkpoints hold only the adapter and its moments; the base is reread from init= and must be unchanged.
"""
import hashlib
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from hf import adapters
from hf.export import write_file
from model import Linear, local_rows


class Lora(NamedTuple):
    rank: int
    alpha: float
    scale: float   # s
    targets: list  # names of linear layers, such as "q_proj"


class LoraLinear(Linear):
    """A linear layer with a trained product of two small matrices beside its weight, which it shares with `linear`."""

    def __init__(self, linear: Linear, lora: Lora):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scale = linear.in_features, linear.out_features, lora.scale
        self.weight, device = linear.weight, linear.weight.device
        self.register_parameter("bias", linear.bias)
        self.lora_A = Linear(linear.in_features, lora.rank, bias=False, device=device)
        self.lora_B = Linear(lora.rank, linear.out_features, bias=False, device=device)

    def forward(self, x):
        return super().forward(x) + self.lora_B(self.lora_A(x)) * self.scale


def lora_settings(c) -> Lora | None:
    """The LoRA of a run: of the folder it continues, or of its settings; None without one."""
    if c.adapter:
        config = adapters.read_adapter_config(c.adapter)
        targets = config["targets"]
        if isinstance(targets, str):
            raise ValueError(f"{c.adapter}: target_modules is the expression {targets!r}; to continue, list the layers")
        unknown = sorted(set(targets) - set(adapters.LINEARS))
        if unknown:
            raise ValueError(f"{c.adapter}: target_modules has {unknown[0]!r}; trained can be "
                             f"{', '.join(adapters.LINEARS)}")
        if config["dropout"]:
            warnings.warn(f"{c.adapter}: lora_dropout {config['dropout']} is not applied", stacklevel=2)
        return Lora(config["rank"], config["alpha"], config["scale"], sorted(targets))
    if c.lora_rank is None:
        return None
    alpha = c.lora_alpha or 2.0 * c.lora_rank
    return Lora(c.lora_rank, alpha, alpha / c.lora_rank, sorted(c.lora_targets or adapters.LINEARS))


def add_lora(model, lora: Lora, frozen_dtype: torch.dtype = torch.float32):
    """Freeze a model and replace the layers that get LoRA. Call before sharding."""
    model.to(frozen_dtype).requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in lora.targets:
                setattr(parent, name, LoraLinear(child, lora))


def adapter_parameters(model) -> dict:
    """{name: parameter} of an adapter's parameters; {} for a model without one."""
    base = model.base_parameters()
    return {name: p for name, p in model.named_parameters() if name not in base}


@torch.no_grad()
def init_adapter(model, seed: int, folder: str | None = None):
    """Initialize an adapter: from a PEFT folder, or with random A, as PEFT draws it, and B = 0.

    A is uniform in +-1 / sqrt(in). Every matrix has its own generator, so the values do not depend on sharding.
    """
    stored = open_matching(model, folder) if folder else {}
    for name, p in adapter_parameters(model).items():
        local, first = local_rows(p)
        if stored:
            full = stored[name].read()
        elif ".lora_B" in name:
            full = torch.zeros(p.shape)
        else:
            digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            full = torch.empty(p.shape).uniform_(-p.shape[1] ** -0.5, p.shape[1] ** -0.5, generator=generator)
        local.copy_(full[first:first + len(local)])


def open_matching(model, folder) -> dict:
    """{name: StoredTensor} of a PEFT folder that has exactly the matrices of the model's adapter."""
    stored, ours = adapters.open_adapter(folder), adapter_parameters(model)
    if different := sorted(set(stored) ^ set(ours)):
        where = "only the folder has" if different[0] in stored else "the folder lacks"
        raise ValueError(f"{folder}: to continue, every layer named in target_modules needs its matrices, in all "
                         f"layers of the model; {where} {different[0]} ({len(different)} differ)")
    for name, p in ours.items():
        if stored[name].shape != tuple(p.shape):
            raise ValueError(f"{folder}: {name} has shape {stored[name].shape}, this model needs {tuple(p.shape)}: "
                             "it belongs to another base")
    return stored


def save_adapter(model, folder: str | Path, is_main: bool):
    """Write adapter_model.safetensors beside an adapter_config.json. Under FSDP every rank must call it."""
    tensors = {}
    for name, p in adapter_parameters(model).items():
        full = p.full_tensor() if hasattr(p, "full_tensor") else p
        if is_main:
            tensors[adapters.PREFIX + name] = full.detach().cpu().contiguous()
    if is_main:
        write_file(Path(folder) / adapters.WEIGHTS, tensors)


def write_adapter_config(folder: str | Path, base: str, lora: Lora):
    rslora = lora.scale != lora.alpha / lora.rank
    adapters.write_adapter_config(folder, base, lora.rank, lora.alpha, lora.targets, rslora)


def copy_adapter_config(source: str | Path, folder: str | Path):
    """Mark a checkpoint of a run with LoRA as an adapter's."""
    if adapters.is_adapter(source):
        shutil.copyfile(Path(source) / adapters.CONFIG, Path(folder) / adapters.CONFIG)
