"""Bottleneck adapters beside a frozen model, their fusion, and the contrastive loss that trains them.

Knowledge adapters (Hou et al. 2022, arXiv 2210.13617) after Houlsby et al. 2019 (1902.00751) and, for the fusion,
Pfeiffer et al. 2021 (2005.00247). In every layer, on the output y of the MLP, before the residual addition:

    adapter i:   a_i = y + Up(relu(Down(y)))              Up is zero at first, so a_i = y
    fusion:      sum_i softmax_i(q(y) . k(a_i)) v(a_i)    per token; v is the identity at first

With no adapter active the model computes what it did without them, bit for bit.
"""
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model import MLP, Linear, Qwen2

FUSION = "fusion"  # its file name, and its name as a trained part


class Bottleneck(nn.Module):
    def __init__(self, size: int, width: int, device):
        super().__init__()
        self.down, self.up = Linear(size, width, device=device), Linear(width, size, device=device)

    def forward(self, y):
        return y + self.up(F.relu(self.down(y)))


class Fusion(nn.Module):
    def __init__(self, size: int, device):
        super().__init__()
        self.query, self.key = Linear(size, size, device=device), Linear(size, size, device=device)
        self.value = Linear(size, size, bias=False, device=device)

    def forward(self, y, outputs):
        a = torch.stack(outputs, -2)  # (..., adapters, C)
        weight = (self.key(a) @ self.query(y)[..., None]).float().softmax(-2)  # (..., adapters, 1)
        return (weight.to(a.dtype) * self.value(a)).sum(-2)


class AdaptedMLP(MLP):
    """An MLP with adapters on its output; it shares the matrices of `mlp`. active: names of the adapters applied."""

    def __init__(self, mlp: MLP, size: int, width: int, names: list[str]):
        nn.Module.__init__(self)
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        device = mlp.down_proj.weight.device
        self.adapters = nn.ModuleDict({name: Bottleneck(size, width, device) for name in names})
        self.adapter_fusion = Fusion(size, device)
        self.active: tuple[str, ...] = ()

    def forward(self, x):
        y = super().forward(x)
        if not self.active:
            return y
        outputs = [self.adapters[name](y) for name in self.active]
        return outputs[0] if len(outputs) == 1 else self.adapter_fusion(y, outputs)


# ---------------------------------------------------------------------- adding and selecting them

def add_adapters(model: Qwen2, names: list[str], reduction: int, seed: int = 0):
    """Freeze a model and give every layer adapters of hidden_size / reduction channels, and their fusion."""
    size = model.config.hidden_size
    if reduction < 1 or size % reduction:
        raise ValueError(f"reduction={reduction} must divide the model's hidden_size, {size}")
    if bad := [name for name in names if name == FUSION or not name.isidentifier()]:
        raise ValueError(f"{bad[0]!r} cannot be an adapter's name")
    model.requires_grad_(False)
    for block in model.model.layers:
        assert isinstance(block.mlp, MLP)
        block.mlp = AdaptedMLP(block.mlp, size, size // reduction, names)
    if not model.lm_head.weight.is_meta:
        init_adapters(model, seed)
    set_active(model, [])


@torch.no_grad()
def init_adapters(model: Qwen2, seed: int):
    """Up zero, v the identity, biases zero, the others from N(0, initializer_range)."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in adapter_parameters(model).items():
        if name.endswith("bias") or ".up." in name:
            p.zero_()
        elif ".value." in name:
            nn.init.eye_(p)
        else:
            p.copy_(torch.empty(p.shape).normal_(0, model.config.initializer_range, generator=generator))


def adapter_parameters(model: Qwen2, part: str | None = None) -> dict:
    """{name: parameter} of one adapter, of FUSION, or of all."""
    inside = f".adapter_{FUSION}." if part == FUSION else ".adapter" if part is None else f".adapters.{part}."
    return {name: p for name, p in model.named_parameters() if inside in name}


def set_active(model: Qwen2, names: list[str]):
    """Apply these adapters in every layer: none, one alone, or several through the fusion."""
    known = adapter_names(model)
    if missing := sorted(set(names) - set(known)):
        raise ValueError(f"the model has no adapter {missing[0]!r}, only {', '.join(known)}")
    for module in model.modules():
        if isinstance(module, AdaptedMLP):
            module.active = tuple(names)


def adapter_names(model: Qwen2) -> list[str]:
    """Names of a model's adapters, in their order; [] without any."""
    return next((list(m.adapters) for m in model.modules() if isinstance(m, AdaptedMLP)), [])


def train_only(model: Qwen2, part: str) -> list[nn.Parameter]:
    """Let gradients flow into one adapter, or into FUSION, and nothing else; return its parameters."""
    model.requires_grad_(False)
    parameters = [p.requires_grad_() for p in adapter_parameters(model, part).values()]
    assert parameters, f"no parameters in {part}"
    return parameters


def save_adapters(model: Qwen2, folder: str | Path, parts: list[str]):
    """Write FOLDER/NAME.safetensors for each adapter or FUSION. Under FSDP every rank must call it; rank 0 writes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for part in parts:
        found = adapter_parameters(model, part).items()
        tensors = {name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().cpu().contiguous()
                   for name, p in found}
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            metadata = {"format": "pt", "adapters": json.dumps(adapter_names(model))}
            save_file(tensors, Path(folder) / f"{part}.safetensors", metadata=metadata)


@torch.no_grad()
def load_adapters(model: Qwen2, folder: str | Path, parts: list[str]):
    """Read what save_adapters wrote; ValueError for a part that is missing or was trained for another model."""
    for part in parts:
        file = Path(folder) / f"{part}.safetensors"
        if not file.exists():
            there = ", ".join(sorted(p.stem for p in Path(folder).glob("*.safetensors"))) or "none"
            raise ValueError(f"{folder}: no adapter {part!r}; there are: {there}")
        ours = adapter_parameters(model, part)
        with safe_open(file, "pt") as f:
            names, trained_with = set(f.keys()), json.loads((f.metadata() or {}).get("adapters", "[]"))
            if part == FUSION and trained_with != adapter_names(model):
                raise ValueError(f"{file}: fuses {trained_with}, this model has {adapter_names(model)}")
            if names != set(ours):
                raise ValueError(f"{file}: of a model with other layers: {sorted(names ^ set(ours))[0]} is in one only")
            for name, p in ours.items():
                stored = f.get_tensor(name)
                if stored.shape != p.shape:
                    raise ValueError(f"{file}: {name} has shape {tuple(stored.shape)}, this model needs "
                                     f"{tuple(p.shape)}: trained for another width or reduction")
                p.copy_(stored)


# ---------------------------------------------------------------------- vectors and their loss

def encode(model: Qwen2, texts: list[list[int]], prefix_id: int, pool: str = "mean") -> Tensor:
    """One vector of length 1 for each list of ids, (N, C) float32.

    pool: the mean of the final hidden states of a text's own tokens, or the last one. As in pretraining, prefix_id
    comes before each text; the mean excludes it. Padding comes after, where causal attention never looks. ValueError
    for an empty text.
    """
    if any(not ids for ids in texts):
        raise ValueError(f"text {[bool(ids) for ids in texts].index(False)} of the batch has no tokens")
    length = torch.tensor([len(ids) for ids in texts], device=model.lm_head.weight.device)
    width = int(length.max())
    tokens = torch.tensor([[prefix_id, *ids, *[0] * (width - len(ids))] for ids in texts], device=length.device)
    states = model.hidden_states(tokens)[:, 1:].float()  # (N, width, C)
    position = torch.arange(width, device=length.device)
    inside = position < length[:, None] if pool == "mean" else position == length[:, None] - 1
    return F.normalize((states * inside[..., None]).sum(1), dim=-1, eps=1e-6)


def info_nce(query: Tensor, key: Tensor, tau: float, same: Tensor | None = None) -> Tensor:
    """Mean over the batch of -log(e^(q_i . k_i / tau) / sum_j e^(q_i . k_j / tau)) (van den Oord et al. 2018).

    query, key (B, C) of length 1. same (B, B): other pairs whose key is also right for a query; they are not negatives.
    """
    n = len(query)
    if n < 2:
        raise ValueError(f"InfoNCE needs at least 2 pairs in a batch, got {n}: the others are its negatives")
    logits = query @ key.T / tau
    if same is not None:
        logits = logits.masked_fill(same & ~torch.eye(n, dtype=torch.bool, device=same.device), -torch.inf)
    return F.cross_entropy(logits, torch.arange(n, device=logits.device))
