"""Qwen2 from token ids to log-probabilities; with other fields of its config the same file is Llama 2, Llama 3 and Qwen3.

    python model.py export CHECKPOINT OUT      # a Hugging Face folder for transformers, vLLM, llama.cpp

Parameters and config fields carry Hugging Face's names, so loading and saving need no table. One call does all the work:

    model(tokens, targets, starts) -> the log-probability of every target, (B, T) float32, 0 where the target is IGNORE

Pretraining is minus its sum over the count; a choice's score is its sum over the choice; bits per byte its sum over bytes.

Legend: B rows, T positions, C hidden size, H query heads, K key/value heads, D head size, V vocabulary, S cache length.
"""
import hashlib
import math
import sys
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts, noop_context_fn
from torch.utils.checkpoint import checkpoint as recomputed

import kernels
from configs import load
from hf.config import ARCHITECTURES, LLAMA3_ROPE, read_config_fields, write_config
from hf.weights import export, open_weights, write_weights
from kernels import attention, documents, on_triton, target_logprobs

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
    model_type: str = "qwen2"             # qwen2: biases on q, k, v; qwen3: an RMSNorm on each query and key head; llama: neither
    head_dim: int | None = None           # None: hidden_size / num_attention_heads
    attention_bias: bool = False          # llama, qwen3: biases on q, k, v and o
    rope_scaling: dict | None = None      # Llama 3.1's, see `frequencies`

    def __post_init__(self):
        if self.model_type not in ARCHITECTURES:
            raise ValueError(f"model_type is {self.model_type!r}; this code implements {', '.join(ARCHITECTURES)}")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                             f"{self.num_attention_heads}; change one or set head_dim")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                             f"{self.num_key_value_heads}")
        if self.head_size % 2:
            raise ValueError(f"head size {self.head_size} is odd: rotary positions turn pairs of channels")

    @property
    def head_size(self):
        """D"""
        return self.head_dim or self.hidden_size // self.num_attention_heads


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
        if on_triton(x):
            return kernels.rms_norm(x, self.weight, self.eps)
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight.to(x.dtype)


def frequencies(c, device):
    """Radians per position of every channel pair, (D/2,): theta^(-2i/D).

    Llama 3.1 stretches the slow ones for longer texts: with n turns within the original length, a pair that turns less than
    low_freq_factor times runs `factor` times slower, one above high_freq_factor is kept, between them the two are mixed.
    """
    i = torch.arange(0, c.head_size, 2, device=device, dtype=torch.float32)
    w = 1.0 / c.rope_theta ** (i / c.head_size)
    if c.rope_scaling:
        factor, low, high, length = (c.rope_scaling[name] for name in LLAMA3_ROPE)
        keep = ((length * w / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        w = (1 - keep) * w / factor + keep * w
    return w


def rotation(position, c, dtype):
    """cos and sin of the rotary angles, (B, T, 1, D), the same for both halves of a head."""
    angle = position[..., None].float() * frequencies(c, position.device)  # (B, T, D/2)
    angle = torch.cat([angle, angle], -1)[:, :, None]
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, cos, sin):
    """Turn channel pairs (i, i + D/2) of every head by its position's angle; x (B, T, H, D)."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = (c.num_attention_heads, c.num_key_value_heads, c.head_size)
        H, K, D = self.heads
        bias = c.attention_bias or c.model_type == "qwen2"
        self.q_proj = Linear(c.hidden_size, H * D, bias=bias)
        self.k_proj = Linear(c.hidden_size, K * D, bias=bias)
        self.v_proj = Linear(c.hidden_size, K * D, bias=bias)
        self.o_proj = Linear(H * D, c.hidden_size, bias=c.attention_bias)
        if c.model_type == "qwen3":
            self.q_norm, self.k_norm = RMSNorm(D, c.rms_norm_eps), RMSNorm(D, c.rms_norm_eps)
        else:
            self.q_norm = self.k_norm = None

    def forward(self, x, cos, sin, docs, cache):
        B, T, _ = x.shape
        H, K, D = self.heads
        q, k, v = self.q_proj(x).view(B, T, H, D), self.k_proj(x).view(B, T, K, D), self.v_proj(x).view(B, T, K, D)
        if self.q_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if on_triton(x) and D & (D - 1) == 0:  # Triton's tiles are powers of two
            q, k = kernels.rope(q, k, cos, sin)
        else:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
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
        gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(kernels.swiglu(gate, up) if on_triton(x) else F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, cos, sin, docs, cache=None):
        y, norm = self.self_attn(self.input_layernorm(x), cos, sin, docs, cache), self.post_attention_layernorm  # (B, T, C)
        if on_triton(x):  # the sum is written and normed in one pass
            x, y = kernels.add_rms_norm(x, y, norm.weight, norm.eps)
            return x + self.mlp(y)
        x = x + y
        return x + self.mlp(norm(x))


class Backbone(nn.Module):
    """The part Hugging Face calls `model`."""

    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


def _selective():
    """Of a recomputed layer keep what matrix products and attention gave; norms, rotations and SwiGLU are cheap to make again."""
    products = {"aten::mm", "aten::addmm", "nanomarco::attention"}  # the CPU's attention is made again
    return create_selective_checkpoint_contexts(lambda _, op, *args, **kwargs: CheckpointPolicy.MUST_SAVE
                                                if op.name() in products else CheckpointPolicy.PREFER_RECOMPUTE)


class Qwen2(nn.Module):
    """The language model, of any family in ARCHITECTURES. `dtype` is what it computes in; the parameters keep their own.
    activation_checkpointing: activation checkpointing, see train.py."""

    def __init__(self, config, dtype=torch.float32, activation_checkpointing=False):
        super().__init__()
        self.config, self.dtype, self.activation_checkpointing = config, dtype, activation_checkpointing
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, tokens, targets=None, starts=None, cache=None, hidden=False):
        """tokens, targets, starts (B, T) int64 -> log-probability of every target, (B, T) float32, 0 where it is IGNORE.

        starts[b, t]: the first position that token t may attend to, and its document's position 0 (default: the row's first).
        With a cache, tokens continue it and starts counts from the cache's first position.
        Without targets: the logits after the last token, (B, V) float32. hidden=True: the L + 1 residual streams, each (B, T, C);
        hidden="last": what the head reads, (B, T, C).
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
            if self.activation_checkpointing and torch.is_grad_enabled():
                contexts = _selective if self.activation_checkpointing == "selective" else noop_context_fn
                x = recomputed(block, x, cos, sin, docs, use_reentrant=False, context_fn=contexts)
            else:
                x = block(x, cos, sin, docs, None if cache is None else cache.layer(i))
            if hidden is True:
                streams.append(x)
        if cache is not None:
            cache.length += T
        if hidden is True:
            return streams
        x = self.model.norm(x)
        if hidden == "last":
            return x
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
            _put(p, lambda a, b: full[a:b])
        return self

    @classmethod
    def from_pretrained(cls, folder, dtype=torch.float32, param_dtype=None):
        """A model from a Hugging Face folder or a checkpoint of train.py. Nothing is unpickled, and no memory is taken before the
        sizes in config.json have been found in the files."""
        model = cls.outline(folder, dtype).to(param_dtype or dtype).materialize("cpu")
        model.load_weights(folder)
        return model

    @classmethod
    def outline(cls, folder, dtype=torch.float32):
        """The model of a folder on the meta device, when its files hold the tensors that its config.json claims."""
        config, stored = read_config(folder), open_weights(folder)
        if config.num_hidden_layers > len(stored):
            raise ValueError(f"{folder}: config.json claims {config.num_hidden_layers} layers, "
                             f"the files hold {len(stored)} tensors")
        with torch.device("meta"):
            model = cls(config, dtype)
        model.match(stored, folder)
        return model

    def materialize(self, device):
        """Give a model built on the meta device memory, uninitialised."""
        self.to_empty(device=device)
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        return self

    def load_weights(self, folder):
        """Fill the parameters; a sharded one reads only its own rows."""
        stored = self.match(open_weights(folder), folder)
        for name, p in self.named_parameters():
            _put(p, stored[name].read)

    def match(self, stored, folder):
        """The tensors of a folder that are this model's; ValueError when one is missing, unknown or of another shape."""
        params = dict(self.named_parameters())
        ignored = ("rotary_emb.inv_freq", "lm_head.weight" if self.config.tie_word_embeddings else "rotary_emb.inv_freq")
        stored = {name: s for name, s in stored.items() if not name.endswith(ignored)}
        missing, extra = sorted(set(params) - set(stored)), sorted(set(stored) - set(params))
        if missing or extra:
            raise ValueError(f"{folder}: the weights do not fit config.json; missing {missing[:3]} ({len(missing)}), "
                             f"not of this model {extra[:3]} ({len(extra)})")
        for name, p in params.items():
            if stored[name].shape != tuple(p.shape):
                raise ValueError(f"{stored[name].file}: {name} has shape {stored[name].shape}, "
                                 f"config.json asks for {tuple(p.shape)}")
        return stored

    def save_pretrained(self, folder, dtype=None, max_bytes=5 << 30, like=None, tokenizer=None):
        """Write a Hugging Face folder. Collective under FSDP: every rank calls it, parameters are gathered one at a time, rank 0
        writes. dtype None keeps the parameters' own. like: the folder the model came from, whose other files and fields are kept;
        tokenizer: the tokenizer's folder, when it is not that one."""
        writer = not dist.is_initialized() or dist.get_rank() == 0

        def tensors():
            for name, p in self.named_parameters():
                full = p.full_tensor() if hasattr(p, "full_tensor") else p
                yield name, full.detach().to("cpu", dtype or p.dtype).contiguous() if writer else None

        if writer:
            write_config(folder, asdict(self.config), dtype or next(self.parameters()).dtype, like, tokenizer)
            write_weights(folder, tensors(), max_bytes)
        else:
            for _ in tensors():
                pass


def own_rows(p):
    """(this process's rows of a parameter or gradient, the number of the first): all of it unless FSDP2 sharded it on dim 0."""
    if not hasattr(p, "device_mesh"):
        return p.detach(), 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    return p.detach().to_local(), compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)[1][0]


def _put(p, read):
    """Copy what read(first row, last row) gives into a parameter's own rows."""
    local, first = own_rows(p)
    if local.numel():
        local.copy_(read(first, first + len(local)))


def read_config(folder):
    """ModelConfig from a Hugging Face config.json."""
    return ModelConfig(**read_config_fields(folder))


# ---------------------------------------------------------------------- generation

class Cache:
    """Keys and values of every layer: two static tensors (L, B, S, K, D), filled from the left."""

    def __init__(self, model, rows, size):
        c, device = model.config, model.lm_head.weight.device
        shape = (c.num_hidden_layers, rows, size, c.num_key_value_heads, c.head_size)
        self.k = torch.zeros(shape, dtype=model.dtype, device=device)
        self.v = torch.zeros_like(self.k)
        self.length = 0

    def layer(self, i):
        return _CacheLayer(self, i)

    def keep(self, rows):
        """Drop the rows of finished texts."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]

    def tail(self, row, n):
        """The last n keys and values of a row, (k, v), each (L, n, K, D): views."""
        return self.k[:, row, self.length - n:self.length], self.v[:, row, self.length - n:self.length]

    def fill(self, row, begin, tail, n):
        """Copy the first n of another row's keys and values behind column begin: rotary positions count from the text's start,
        so they hold in any column."""
        for whole, part in zip((self.k, self.v), tail):
            whole[:, row, begin:begin + n] = part[:, :n]


class _CacheLayer:
    def __init__(self, cache, i):
        self.cache, self.i = cache, i

    def append(self, k, v):
        """Store k, v (B, T, K, D) behind what is there; return all keys and values so far, (B, S, K, D)."""
        begin, end = self.cache.length, self.cache.length + k.shape[1]
        for whole, new in ((self.cache.k, k), (self.cache.v, v)):
            whole[self.i, :, begin:end] = new
        return self.cache.k[self.i, :, :end], self.cache.v[self.i, :, :end]


# ---------------------------------------------------------------------- command line

@dataclass(frozen=True)
class Export:
    dtype: str | None = None     # float32, bfloat16 or float16; None: every tensor as it is
    max_bytes: int = 5 << 30     # of a safetensors file

    def __post_init__(self):
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}")


def main(argv=None):
    """export SOURCE OUT: SOURCE is a Hugging Face folder or OUT/checkpoints/step-N of train.py."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) < 3 or words[0] != "export":
        raise ValueError("the command is: python model.py export CHECKPOINT OUT [dtype=bfloat16] [max_bytes=5000000000]")
    source, out, (c,) = *words[1:3], load(Export, argv=words[3:])
    Qwen2.outline(source)
    export(source, out, c.dtype and getattr(torch, c.dtype), c.max_bytes)
    print(f"saved {out}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
