"""Qwen2 from token ids to log-probabilities; with other config fields the same file is Llama 2, Llama 3 and Qwen3.

    python model.py export CHECKPOINT OUT      # a Hugging Face folder for transformers, vLLM, llama.cpp

Parameters and config fields have Hugging Face's names. One call serves all training:

    model(tokens, targets, starts) -> the log-probability of every target, (B, T) float32, 0 where the target is IGNORE

The pretraining loss is minus its mean, an answer's score its sum, bits per byte its sum over bytes.

Legend: B rows, T positions, S positions in the KV cache, C hidden size, H query heads, K key/value heads, D head size,
I intermediate size, L layers, V vocabulary.
"""
import hashlib
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

import kernels
from configs import errors, load
from hf.config import ARCHITECTURES, LLAMA3_ROPE, write_config
from hf.export import check_output, export, write_weights
from hf.weights import open_weights, read_model_fields

IGNORE = -100  # the target of a position that predicts nothing


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int = 4096
    hidden_size: int = 128                # C
    intermediate_size: int = 384          # I, width of the SwiGLU
    num_hidden_layers: int = 4            # L
    num_attention_heads: int = 4          # H
    num_key_value_heads: int = 2          # K, a divisor of H
    max_position_embeddings: int = 32768  # longest document
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True      # the embedding matrix is also the head
    initializer_range: float = 0.02       # standard deviation of initial weights
    model_type: str = "qwen2"             # qwen2: biases on q, k, v; qwen3: norms on q and k heads; llama: neither
    head_dim: int | None = None           # None: hidden_size / num_attention_heads
    attention_bias: bool = False          # llama, qwen3: biases on q, k, v and o
    rope_scaling: dict | None = None      # Llama 3.1's, see `rope_frequencies`

    def __post_init__(self):
        if self.model_type not in ARCHITECTURES:
            raise ValueError(f"model_type must be one of {', '.join(ARCHITECTURES)}, got {self.model_type!r}")
        for name, value in vars(self).items():
            if type(value) in (int, float) and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                             f"{self.num_attention_heads}; change one of them or set head_dim")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                             f"{self.num_key_value_heads}; change one of them")
        if self.head_size % 2:
            raise ValueError(f"head size {self.head_size} is odd; rotary positions rotate pairs of channels")

    @property
    def head_size(self) -> int:
        """D"""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "ModelConfig":
        """The config of a Hugging Face folder or a checkpoint of train.py."""
        return cls(**read_model_fields(folder))


# ---------------------------------------------------------------------- layers

class Linear(nn.Linear):
    """A linear layer that computes in the dtype of its input: float32 master weights serve a bfloat16 forward."""

    def forward(self, x):
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return kernels.rms_norm(x, self.weight, self.eps)


def rope_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians per position of every channel pair, (D/2,): theta^(-2i/D).

    Llama 3.1 slows down the low frequencies for longer texts. With n rotations within the original context length, a
    pair with n < low_freq_factor is slowed down by `factor`, one with n > high_freq_factor is kept, and between them
    the two are interpolated.
    """
    i = torch.arange(0, config.head_size, 2, device=device, dtype=torch.float32)
    w = 1.0 / config.rope_theta ** (i / config.head_size)
    if config.rope_scaling:
        factor, low, high, length = (config.rope_scaling[name] for name in LLAMA3_ROPE)
        keep = ((length * w / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        w = (1 - keep) * w / factor + keep * w
    return w


def rope_cos_sin(position: Tensor, config: ModelConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (B, T, 1, D) with two equal halves. position (B, T)."""
    angle = position[..., None].float() * rope_frequencies(config, position.device)  # (B, T, D/2)
    angle = torch.cat([angle, angle], -1)[:, :, None]
    return angle.cos().to(dtype), angle.sin().to(dtype)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer  # its place in the KV cache
        self.heads = H, K, D = config.num_attention_heads, config.num_key_value_heads, config.head_size
        bias = config.attention_bias or config.model_type == "qwen2"
        self.q_proj = Linear(config.hidden_size, H * D, bias=bias)
        self.k_proj = Linear(config.hidden_size, K * D, bias=bias)
        self.v_proj = Linear(config.hidden_size, K * D, bias=bias)
        self.o_proj = Linear(H * D, config.hidden_size, bias=config.attention_bias)
        self.q_norm = self.k_norm = None
        if config.model_type == "qwen3":
            self.q_norm, self.k_norm = RMSNorm(D, config.rms_norm_eps), RMSNorm(D, config.rms_norm_eps)

    def forward(self, x, cos, sin, mask, cache=None):
        B, T, _ = x.shape
        H, K, D = self.heads
        q = self.q_proj(x).view(B, T, H, D)
        k = self.k_proj(x).view(B, T, K, D)
        v = self.v_proj(x).view(B, T, K, D)
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = kernels.rope(q, k, cos, sin)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, S, K, D)
        y = kernels.attention(q, k, v, mask)  # (B, T, H, D)
        return self.o_proj(y.reshape(B, T, H * D))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(kernels.swiglu(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.self_attn, self.mlp = Attention(config, layer), MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, cos, sin, mask, cache=None, last=0):
        norm, dtype = self.post_attention_layernorm, cos.dtype  # that of the computation; with residual_fp32 not x's
        y = self.self_attn(self.input_layernorm(x).to(dtype), cos, sin, mask, cache)  # (B, T, C)
        if last:  # the other positions are not asked for, and no layer comes after this one
            x, y = x[:, -last:], y[:, -last:]
        x, y = kernels.add_rms_norm(x, y.to(x.dtype), norm.weight, norm.eps)  # x + y and its norm in one pass
        return x + self.mlp(y.to(dtype)).to(x.dtype)


class Backbone(nn.Module):
    """What Hugging Face calls `model`: all parameters but the head."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


def _save_matmuls():
    """Selective activation checkpointing: save outputs of matrix products and attention, recompute the cheap rest."""
    saved = {"aten::mm", "aten::addmm", "nanomarco::attention"}  # attention on the CPU is recomputed

    def policy(_, op, *args, **kwargs):
        return CheckpointPolicy.MUST_SAVE if op.name() in saved else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


# ---------------------------------------------------------------------- the model

class Qwen2(nn.Module):
    """The language model, of any family in ARCHITECTURES.

    dtype: of the computation; parameters keep their own. activation_checkpointing: False, True or "selective" (see
    train.py). residual_fp32: the residual stream, to which every layer adds, is float32 in any case.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32,
                 activation_checkpointing: bool | str = False, residual_fp32: bool = False):
        super().__init__()
        self.config, self.dtype, self.activation_checkpointing = config, dtype, activation_checkpointing
        self.residual_dtype = torch.float32 if residual_fp32 else dtype
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self):
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, tokens: Tensor, targets: Tensor, starts: Tensor | None = None) -> Tensor:
        """tokens, targets (B, T) int64 -> log-probability of every target, (B, T) float32, 0 where it is IGNORE.

        starts[b, t]: the first position that token t may attend to; its document's positions count from there. None: 0.
        """
        x = self.hidden_states(tokens, starts)  # (B, T, C)
        logp = kernels.target_logprobs(x.flatten(0, 1), self.lm_head.weight, targets.flatten(), IGNORE)
        return logp.view(tokens.shape)

    def logits(self, tokens: Tensor, starts: Tensor | None = None, cache: "KVCache | None" = None) -> Tensor:
        """Logits after the last token, (B, V) float32. Arguments as of `hidden_states`."""
        return self.lm_head(self.hidden_states(tokens, starts, cache, last=1)[:, -1]).float()

    def hidden_states(self, tokens: Tensor, starts: Tensor | None = None, cache: "KVCache | None" = None,
                      last: int = 0) -> Tensor:
        """What the head reads: the last layer's normalized output, (B, T, C), or only its last `last` positions. With a
        cache, tokens continue it and starts counts from its first position.
        """
        return self.model.norm(self._run_layers(tokens, starts, cache, last=last)[-1]).to(self.dtype)

    def residual_streams(self, tokens: Tensor, starts: Tensor | None = None) -> list[Tensor]:
        """The L + 1 residual streams, before the first layer and after each, (B, T, C)."""
        return self._run_layers(tokens, starts, None, keep_all=True)

    def _run_layers(self, tokens, starts, cache, keep_all=False, last=0):
        """The residual streams of all layers, or of the last one only (of its last positions)."""
        T, past = tokens.shape[1], 0 if cache is None else cache.length
        starts = torch.zeros_like(tokens) if starts is None else starts
        position = torch.arange(past, past + T, device=tokens.device) - starts  # (B, T)
        cos, sin = rope_cos_sin(position, self.config, self.dtype)
        mask = kernels.document_mask(starts)
        x = F.embedding(tokens, self.model.embed_tokens.weight).to(self.residual_dtype)  # (B, T, C)
        streams = [x]
        for block in self.model.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():
                context = _save_matmuls if self.activation_checkpointing == "selective" else noop_context_fn
                x = checkpoint(block, x, cos, sin, mask, use_reentrant=False, context_fn=context)
            else:
                x = block(x, cos, sin, mask, cache, last if block is self.model.layers[-1] else 0)
            streams = [*streams, x] if keep_all else [x]
        if cache is not None:
            cache.length += T
        return streams

    # ------------------------------------------------------------------ weights

    def base_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that a folder's config.json stands for: all but an adapter's (training/lora.py)."""
        return {name: p for name, p in self.named_parameters() if ".adapter" not in name and ".lora_" not in name}

    def init_weights(self, seed: int) -> "Qwen2":
        """Draw initial weights from N(0, initializer_range).

        o_proj and down_proj, which write to the residual stream, are divided by sqrt(2 L). Every parameter has its own
        generator, so the weights do not depend on how they are sharded.
        """
        for name, p in self.named_parameters():
            # 4 bytes, because the CPU generator uses 32 bits of a seed
            digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            if name.endswith("bias"):
                full = torch.zeros(p.shape)
            elif "norm" in name:
                full = torch.ones(p.shape)
            else:
                std = self.config.initializer_range
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std /= math.sqrt(2 * self.config.num_hidden_layers)
                full = torch.empty(p.shape).normal_(0, std, generator=generator)
            local, first = local_rows(p)
            local.copy_(full[first:first + len(local)])
        return self

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32,
                        param_dtype: torch.dtype | None = None) -> "Qwen2":
        """The model of a Hugging Face folder or of a checkpoint of train.py.

        Nothing is unpickled, and no memory is allocated before config.json and the files agree on every shape.
        """
        model = cls.on_meta(folder, dtype).to(param_dtype or dtype).materialize("cpu")
        model.load_weights(folder)
        return model

    @classmethod
    def on_meta(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "Qwen2":
        """The model of a folder on the meta device, once its files are found to hold the tensors of its config.json."""
        config, stored = ModelConfig.from_pretrained(folder), open_weights(folder)
        if config.num_hidden_layers > len(stored):
            raise ValueError(f"{folder}: config.json claims {config.num_hidden_layers} layers, "
                             f"the files hold {len(stored)} tensors")
        with torch.device("meta"):
            model = cls(config, dtype)
        model.check_tensors(stored, folder)
        return model

    def materialize(self, device: torch.device | str) -> "Qwen2":
        """Allocate uninitialized memory for a model built on the meta device."""
        self.to_empty(device=device)
        self.tie_weights()
        return self

    def load_weights(self, folder: str | Path):
        """Read the parameters from a folder; a sharded parameter reads only its own rows."""
        stored = self.check_tensors(open_weights(folder), folder)
        for name, p in self.base_parameters().items():
            local, first = local_rows(p)
            if local.numel():
                local.copy_(stored[name].read(first, first + len(local)))

    def check_tensors(self, stored: dict, folder: str | Path) -> dict:
        """The tensors of a folder that belong to this model; ValueError if one is missing, unknown or misshapen."""
        params = self.base_parameters()
        ignored = ["rotary_emb.inv_freq"]  # a table that old files hold
        if self.config.tie_word_embeddings:
            ignored.append("lm_head.weight")
        stored = {name: tensor for name, tensor in stored.items() if not name.endswith(tuple(ignored))}
        missing, unknown = sorted(set(params) - set(stored)), sorted(set(stored) - set(params))
        if missing or unknown:
            raise ValueError(f"{folder}: the weights do not fit config.json; missing {missing[:3]} ({len(missing)}), "
                             f"not of this model {unknown[:3]} ({len(unknown)})")
        for name, p in params.items():
            if stored[name].shape != tuple(p.shape):
                raise ValueError(f"{stored[name].file}: {name} has shape {stored[name].shape}, "
                                 f"config.json requires {tuple(p.shape)}")
        return stored

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None, max_bytes: int = 5 << 30,
                        like: str | Path | None = None, tokenizer: str | Path | None = None):
        """Write a Hugging Face folder. Under FSDP every rank calls it: parameters come one by one, and rank 0 writes.

        dtype: of the tensors (None: as they are). max_bytes: of one safetensors file. like: the folder the model came
        from, whose other files and config fields are kept. tokenizer: the tokenizer's folder if it is not that one.
        """
        writes = not dist.is_initialized() or dist.get_rank() == 0

        def tensors():
            for name, p in self.named_parameters():
                full = p.full_tensor() if hasattr(p, "full_tensor") else p
                yield name, full.detach().to("cpu", dtype or p.dtype).contiguous() if writes else None

        if writes:
            check_output(folder, like, tokenizer)
            write_config(folder, asdict(self.config), dtype or next(self.parameters()).dtype, like, tokenizer)
            shapes = {name: (dtype or p.dtype, tuple(p.shape)) for name, p in self.named_parameters()}
            write_weights(folder, shapes, tensors(), max_bytes)
        else:
            for _ in tensors():  # take part in the gathering
                pass


def local_rows(p) -> tuple[Tensor, int]:
    """(this rank's rows of a parameter or gradient, index of the first); all rows unless FSDP2 sharded it on dim 0."""
    if not hasattr(p, "device_mesh"):
        return p.detach(), 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    _, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    return p.detach().to_local(), offset[0]


# ---------------------------------------------------------------------- KV cache

class KVCache:
    """Keys and values of every layer in two allocated tensors (L, B, S, K, D), filled from the left up to `length`."""

    def __init__(self, model: Qwen2, batch_size: int, max_length: int):
        c, device = model.config, model.lm_head.weight.device
        shape = (c.num_hidden_layers, batch_size, max_length, c.num_key_value_heads, c.head_size)
        self.k = torch.zeros(shape, dtype=model.dtype, device=device)
        self.v = torch.zeros_like(self.k)
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, T, K, D) of one layer at `length`; return its keys and values up to there, each (B, S, K, D).

        The model advances `length` after its last layer.
        """
        end = self.length + k.shape[1]
        self.k[layer, :, self.length:end] = k
        self.v[layer, :, self.length:end] = v
        return self.k[layer, :, :end], self.v[layer, :, :end]

    def select_rows(self, rows: list[int]):
        """Keep these rows of the batch, in this order; a row may repeat."""
        self.k, self.v = self.k[:, rows], self.v[:, rows]

    def read_last(self, row: int, n: int) -> tuple[Tensor, Tensor]:
        """Views of the last n keys and values of a row, each (L, n, K, D)."""
        return self.k[:, row, self.length - n:self.length], self.v[:, row, self.length - n:self.length]

    def write(self, row: int, begin: int, k: Tensor, v: Tensor):
        """Write k and v (L, n, K, D), possibly of another cache, to the columns from `begin` on. Rotary positions
        count from a text's first token, so keys are valid in any column.
        """
        self.k[:, row, begin:begin + k.shape[1]] = k
        self.v[:, row, begin:begin + v.shape[1]] = v


# ---------------------------------------------------------------------- command line

@dataclass(frozen=True)
class Export:
    dtype: str | None = None     # float32, bfloat16 or float16; None: every tensor as it is
    max_bytes: int = 5 << 30     # of one safetensors file

    def __post_init__(self):
        if self.dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {self.dtype!r}")


def main(argv: list[str] | None = None):
    """export SOURCE OUT: a Hugging Face folder, an adapter to merge, or OUT/checkpoints/step-N of train.py."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) < 3 or words[0] != "export":
        raise ValueError("the command is: python model.py export CHECKPOINT OUT "
                         "[dtype=bfloat16] [max_bytes=5000000000]")
    source, out, (c,) = *words[1:3], load(Export, argv=words[3:])
    Qwen2.on_meta(source)  # checks the folder
    export(source, out, c.dtype and getattr(torch, c.dtype), c.max_bytes)
    print(f"saved {out}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
