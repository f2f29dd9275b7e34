"""Qwen2 from token ids to log-probabilities, its KV cache and generation, and its Hugging Face folder in and out.

Parameters and config fields carry Hugging Face's names, so loading and saving need no table. One call does all the work:

    model(tokens, targets, starts) -> the log-probability of every target, (B, T) float32, 0 where the target is IGNORE

Pretraining is minus its sum over the count; a choice's score is its sum over the choice; bits per byte its sum over bytes.

Legend: B rows, T positions, C hidden size, H query heads, K key/value heads, D head size, V vocabulary, S cache length.
"""
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from kernels import attention, documents, target_logprobs

IGNORE = -100


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int = 4096
    hidden_size: int = 128                # C
    intermediate_size: int = 384          # of the SwiGLU
    num_hidden_layers: int = 4
    num_attention_heads: int = 4          # H
    num_key_value_heads: int = 2          # K, a divisor of H
    max_position_embeddings: int = 32768  # of the longest document
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True      # one matrix reads and predicts words
    initializer_range: float = 0.02       # standard deviation of fresh weights

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                             f"{self.num_key_value_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head size {self.head_dim} is odd: rotary positions turn pairs of channels")

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads


class Linear(nn.Linear):
    """A linear map computed in the input's dtype, so that float32 master weights serve a bfloat16 forward."""

    def forward(self, x):
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, the mean in float32."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight.to(x.dtype)


def rotation(position, c, dtype):
    """cos and sin of the rotary angles, (B, T, 1, D): position / theta^(2i/D), the same for both halves of a head."""
    i = torch.arange(0, c.head_dim, 2, device=position.device, dtype=torch.float32)
    angle = position[..., None].float() / c.rope_theta ** (i / c.head_dim)  # (B, T, D/2)
    angle = torch.cat([angle, angle], -1)[:, :, None]
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, cos, sin):
    """Turn channel pairs (i, i + D/2) of every head by its position's angle; x (B, T, H, D)."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = (c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        H, K, D = self.heads
        self.q_proj = Linear(c.hidden_size, H * D, bias=True)
        self.k_proj = Linear(c.hidden_size, K * D, bias=True)
        self.v_proj = Linear(c.hidden_size, K * D, bias=True)
        self.o_proj = Linear(H * D, c.hidden_size, bias=False)

    def forward(self, x, cos, sin, docs, cache):
        B, T, _ = x.shape
        H, K, D = self.heads
        q = rotate(self.q_proj(x).view(B, T, H, D), cos, sin)
        k = rotate(self.k_proj(x).view(B, T, K, D), cos, sin)
        v = self.v_proj(x).view(B, T, K, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, S, K, D)
        return self.o_proj(attention(q, k, v, docs).reshape(B, T, H * D))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, cos, sin, docs, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, docs, cache)  # (B, T, C)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """The part Hugging Face calls `model`."""

    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Qwen2(nn.Module):
    """The language model. `dtype` is what it computes in; the parameters keep their own."""

    def __init__(self, config, dtype=torch.float32, recompute=False):
        super().__init__()
        self.config, self.dtype, self.recompute = config, dtype, recompute
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, tokens, targets=None, starts=None, cache=None, hidden=False):
        """tokens, targets, starts (B, T) int64 -> log-probability of every target, (B, T) float32, 0 where it is IGNORE.

        starts[b, t]: the first position that token t may attend to, and its document's position 0 (default: the row's first).
        With a cache, tokens continue it and starts counts from the cache's first position.
        Without targets: the logits after the last token, (B, V) float32. hidden=True: the L + 1 residual streams, each (B, T, C).
        """
        B, T = tokens.shape
        past = 0 if cache is None else cache.length
        starts = torch.zeros_like(tokens) if starts is None else starts
        position = torch.arange(past, past + T, device=tokens.device) - starts  # (B, T)
        cos, sin = rotation(position, self.config, self.dtype)
        docs = documents(starts)
        x = F.embedding(tokens, self.model.embed_tokens.weight).to(self.dtype)  # (B, T, C)
        streams = [x]
        for i, block in enumerate(self.model.layers):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, docs, use_reentrant=False)
            else:
                x = block(x, cos, sin, docs, None if cache is None else cache.layer(i))
            if hidden:
                streams.append(x)
        if cache is not None:
            cache.length += T
        if hidden:
            return streams
        x = self.model.norm(x)
        if targets is None:
            return self.lm_head(x[:, -1]).float()
        return target_logprobs(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), IGNORE).view(B, T)

    # ------------------------------------------------------------------ weights

    def init_weights(self, seed):
        """Fresh weights, N(0, initializer_range), the two maps into the residual stream divided by sqrt(2 layers).

        Each parameter has its own generator, so the weights are the same however they are sharded.
        """
        for name, p in self.named_parameters():
            key = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()  # the CPU generator takes 32 bits of a seed
            generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
            std = self.config.initializer_range
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= math.sqrt(2 * self.config.num_hidden_layers)
            full = torch.zeros(p.shape) if name.endswith("bias") else torch.ones(p.shape) if "norm" in name else \
                torch.empty(p.shape).normal_(0, std, generator=generator)
            _put(p, full)
        return self

    @classmethod
    def from_pretrained(cls, folder, dtype=torch.float32, param_dtype=None):
        """A model from a Hugging Face folder: config.json and safetensors, one file or an index. Nothing is unpickled."""
        model = cls(read_config(folder), dtype).to(param_dtype or dtype)
        model.load_weights(folder)
        return model

    def load_weights(self, folder):
        """Fill the parameters from safetensors; a sharded parameter reads only its own rows."""
        folder, where = Path(folder), {}
        for file in weight_files(folder):
            try:
                with safe_open(file, "pt") as f:
                    where |= dict.fromkeys(f.keys(), file)
            except (OSError, SafetensorError) as e:
                raise ValueError(f"{file}: cannot be read ({e}); copy or download it again") from None
        params = dict(self.named_parameters())
        if self.config.tie_word_embeddings:
            where.pop("lm_head.weight", None)
        missing, extra = sorted(set(params) - set(where)), sorted(set(where) - set(params))
        if missing or extra:
            raise ValueError(f"{folder}: the weights do not fit config.json; missing {missing[:3]} ({len(missing)}), "
                             f"not of this model {extra[:3]} ({len(extra)})")
        opened = {file: safe_open(file, "pt") for file in set(where.values())}
        for name, p in params.items():
            piece = opened[where[name]].get_slice(name)
            if tuple(piece.get_shape()) != tuple(p.shape):
                raise ValueError(f"{where[name]}: {name} has shape {tuple(piece.get_shape())}, config.json asks for {tuple(p.shape)}")
            _put(p, piece)

    def save_pretrained(self, folder, dtype=None, max_bytes=5 << 30):
        """Write config.json and safetensors (an index beside them when there are several files). Collective under FSDP:
        every rank calls it, parameters are gathered one at a time, rank 0 writes. dtype None keeps the parameters' own."""
        folder = Path(folder)
        writer = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        files, size, pending = [], 0, {}

        def flush():
            if pending:
                files.append({name: t.nbytes for name, t in pending.items()})
                save_file(dict(pending), folder / f"part-{len(files):05}.tmp", metadata={"format": "pt"})
                pending.clear()

        if writer:
            folder.mkdir(parents=True, exist_ok=True)
        for name, p in self.named_parameters():
            full = p.full_tensor() if hasattr(p, "full_tensor") else p
            if writer:
                full = full.detach().to("cpu", dtype or p.dtype).contiguous()
                if size + full.nbytes > max_bytes:
                    flush()
                    size = 0
                pending[name], size = full, size + full.nbytes
        if not writer:
            return
        flush()
        for old in [folder / "model.safetensors.index.json", *folder.glob("model*.safetensors")]:
            old.unlink(missing_ok=True)
        names = ["model.safetensors"] if len(files) == 1 else \
            [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
        for i, name in enumerate(names):
            os.replace(folder / f"part-{i + 1:05}.tmp", folder / name)
        if len(files) > 1:
            index = {"metadata": {"total_size": sum(sum(f.values()) for f in files)},
                     "weight_map": {key: name for name, f in zip(names, files) for key in f}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        stored = str(dtype or next(self.parameters()).dtype).removeprefix("torch.")
        (folder / "config.json").write_text(json.dumps(
            {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "use_sliding_window": False,
             "attention_dropout": 0.0, "torch_dtype": stored} | asdict(self.config), indent=1))


def _put(p, source):
    """Copy source (a tensor or a safetensors slice of the full shape) into p, or p's own rows of it when p is sharded."""
    local, rows = p.detach(), slice(None)
    if hasattr(p, "device_mesh"):  # a DTensor, sharded on dim 0 by FSDP2
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
        shape, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
        local, rows = local.to_local(), slice(offset[0], offset[0] + shape[0])
    if local.numel():
        local.copy_(source[rows])


def read_config(folder):
    """ModelConfig from a Hugging Face config.json."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ValueError(f"{folder}: no config.json; a checkpoint is a Hugging Face folder (config.json, *.safetensors)")
    try:
        fields = json.loads(path.read_text())
    except json.JSONDecodeError as e:
        raise ValueError(f"{path}: not JSON ({e}); copy or download it again") from None
    if fields.get("model_type") != "qwen2":
        raise ValueError(f"{path}: model_type is {fields.get('model_type')!r}; this code implements 'qwen2'")
    if fields.get("use_sliding_window"):
        raise ValueError(f"{path}: use_sliding_window is on; sliding windows are not implemented")
    rope = (fields.get("rope_parameters") or {}) | (fields.get("rope_scaling") or {})
    kind, act = rope.get("rope_type", rope.get("type", "default")), fields.get("hidden_act", "silu")
    if kind != "default" or act != "silu":
        raise ValueError(f"{path}: rope type {kind!r} with hidden_act {act!r}; only 'default' with 'silu' is implemented")
    fields |= fields.get("rope_parameters") or {}  # transformers 5 keeps rope_theta there
    return ModelConfig(**{k: fields[k] for k in ModelConfig.__dataclass_fields__ if k in fields})


def weight_files(folder):
    """The safetensors files of a folder: those its index names, or all of them."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted({folder / Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: no *.safetensors file (pickled weights are never read)")
    return files


# ---------------------------------------------------------------------- generation

class Cache:
    """Keys and values of every layer: two static tensors (L, B, S, K, D), filled from the left."""

    def __init__(self, model, rows, size):
        c, device = model.config, model.lm_head.weight.device
        shape = (c.num_hidden_layers, rows, size, c.num_key_value_heads, c.head_dim)
        self.k = torch.zeros(shape, dtype=model.dtype, device=device)
        self.v = torch.zeros_like(self.k)
        self.length = 0

    def layer(self, i):
        return _CacheLayer(self, i)

    def keep(self, rows):
        """Drop the rows of finished texts."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]


class _CacheLayer:
    def __init__(self, cache, i):
        self.cache, self.i = cache, i

    def append(self, k, v):
        """Store k, v (B, T, K, D) behind what is there; return all keys and values so far, (B, S, K, D)."""
        begin, end = self.cache.length, self.cache.length + k.shape[1]
        for whole, new in ((self.cache.k, k), (self.cache.v, v)):
            whole[self.i, :, begin:end] = new
        return self.cache.k[self.i, :, :end], self.cache.v[self.i, :, :end]


@torch.inference_mode()
def generate(model, prompts, max_new, stop=(), batch=64):
    """Greedy continuations. prompts: lists of ids -> lists of new ids, without the stop id that ended them.

    Unequal prompts are padded on the left; `starts` hides the padding and counts positions from each prompt's first token, so a
    row's output does not depend on its batch. Finished rows leave the batch.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    out = [[] for _ in prompts]
    device = model.lm_head.weight.device
    for i in range(0, len(order), batch):
        live = order[i:i + batch]
        T = len(prompts[live[0]])
        rows = torch.tensor([[0] * (T - len(prompts[j])) + prompts[j] for j in live], device=device)
        starts = torch.tensor([[T - len(prompts[j])] for j in live], device=device)  # (B, 1)
        cache = Cache(model, len(live), T + max_new)
        logits = model(rows, starts=starts.expand(-1, T), cache=cache)
        for _ in range(max_new):
            new = logits.argmax(-1)
            for j, token in zip(live, new.tolist()):
                out[j].append(token)
            going = [r for r, j in enumerate(live) if out[j][-1] not in stop and len(out[j]) < max_new]
            if not going:
                break
            if len(going) < len(live):
                live, new, starts = [live[r] for r in going], new[going], starts[going]
                cache.keep(going)
            logits = model(new[:, None], starts=starts, cache=cache)
    return [ids[:-1] if ids and ids[-1] in stop else ids for ids in out]
