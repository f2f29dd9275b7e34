"""What a run will need, before there is a GPU: memory, work against traffic, and days, by arithmetic on the meta device.

    python train.py configs/marco/stage1.py estimate=True gpus=64 gpu=H100

Bytes are counted for what train.py does: float32 masters, gradients and AdamW's two moments sharded by FSDP2, blocks gathered in
bfloat16 when they are needed, gradients reduced in float32. Nothing is measured here: the utilisation is a setting. Activations
are those of a model whose kernels keep their inputs only (kernels/); a row is taken as one document, the most that attention
can cost.
"""
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from model import ModelConfig, Qwen2, read_config

# datasheets: dense bfloat16 FLOP/s, GiB of memory, bytes/s one way to the GPUs of its node, to other nodes through its own port
CARDS = {"A100": (312e12, 80, 300e9, 25e9), "H100": (989.5e12, 80, 450e9, 50e9),
         "H200": (989.5e12, 141e9 / 2 ** 30, 450e9, 50e9)}
SHAPES = {  # config.json of the published models
    "Qwen2-0.5B": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
                       num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
    "Qwen2-1.5B": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                       num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
    "Qwen2-7B": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                     num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False),
    "Qwen2-72B": dict(hidden_size=8192, intermediate_size=29568, num_hidden_layers=80, num_attention_heads=64,
                      num_key_value_heads=8, vocab_size=152064, tie_word_embeddings=False),
    "Llama-2-7B": dict(model_type="llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                       num_attention_heads=32, num_key_value_heads=32, vocab_size=32000, tie_word_embeddings=False),
    "Llama-2-13B": dict(model_type="llama", hidden_size=5120, intermediate_size=13824, num_hidden_layers=40,
                        num_attention_heads=40, num_key_value_heads=40, vocab_size=32000, tie_word_embeddings=False),
    "Llama-3-8B": dict(model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                       num_attention_heads=32, num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=False)}
FULL = 0.92   # of a card's memory: the rest is CUDA's context, NCCL's buffers and fragments
CHUNK = 4096  # tokens whose logits exist at a time on a GPU (kernels/cross_entropy.py)


@dataclass(frozen=True)
class Estimate:
    estimate: bool = False         # print what the run will need, and stop
    gpus: int = 8
    gpu: str = "H100"            # A100 (80 GB), H100 or H200
    gpus_per_node: int = 8        # GPUs that NVLink joins
    mfu: float = 0.4             # of the GPU's FLOP/s, expected; Megatron-LM reports 0.41 to 0.48 on H100, MosaicML 0.64 on A100
    shape: str | None = None     # where init= is not on this machine: a name in SHAPES

    def __post_init__(self):
        problems = [f"{name} must be {text}, got {value!r}" for name, text, value, good in (
            ("gpu", ", ".join(CARDS), self.gpu, self.gpu in CARDS), ("gpus", "positive", self.gpus, self.gpus > 0),
            ("gpus_per_node", "positive", self.gpus_per_node, self.gpus_per_node > 0), ("mfu", "in (0, 1]", self.mfu, 0 < self.mfu <= 1),
            ("shape", ", ".join(SHAPES), self.shape, self.shape in (None, *SHAPES))) if not good]
        if problems:
            raise ValueError("Estimate: " + "; ".join(problems))


def config_of(init, model_config, shape):
    """The ModelConfig of a run: of init where that folder is here, else of the published shape, else the settings'."""
    if init and Path(init, "config.json").exists():
        return read_config(init)
    name = shape or (Path(init).name if init else None)
    if name is None:
        return model_config
    if name not in SHAPES:
        raise ValueError(f"init={init} is not on this machine, so estimate=True needs shape=, one of {', '.join(SHAPES)}")
    return ModelConfig(**SHAPES[name])


def parameters(config):
    """{"all", "block": one layer's, "root": what stands outside the layers, "matrices": what a token is multiplied with}."""
    with torch.device("meta"):
        model = Qwen2(config)
    n = {"all": sum(p.numel() for p in model.parameters()), "block": sum(p.numel() for p in model.model.layers[0].parameters())}
    n["root"] = n["all"] - config.num_hidden_layers * n["block"]
    matrices = sum(p.numel() for p in model.model.layers[0].parameters() if p.ndim > 1)
    return n | {"matrices": config.num_hidden_layers * matrices + config.vocab_size * config.hidden_size}


def activations(m, activation_checkpointing):
    """(bytes a token leaves in each layer until backward, bytes it takes in the layer at work), bfloat16."""
    C, I = m.hidden_size, m.intermediate_size
    H, K = (heads * m.head_size for heads in (m.num_attention_heads, m.num_key_value_heads))
    # in and out of both norms 4C; q, k, v, attention's output 2H + 2K; gate, up, their product 3I; log-sum-exp in float32
    plain = 2 * (4 * C + 2 * H + 2 * K + 3 * I) + 4 * m.num_attention_heads
    # the layer's input and what its matrix products and attention gave: o and down C each, gate and up 2I
    selective = 2 * (3 * C + 2 * H + 2 * K + 2 * I) + 4 * m.num_attention_heads
    return {False: plain, "selective": selective, True: 2 * C}[activation_checkpointing], plain


def memory(c, m, n, gpus):
    """Bytes on each GPU at the fullest moment, by purpose."""
    S, T = min(c.shard_size or gpus, gpus), min(c.micro_batch_size, c.batch_size // gpus) * c.seq_len
    kept, working = activations(m, c.activation_checkpointing)
    gathered = 2 * (n["root"] + 2 * n["block"]) if gpus > 1 else 2 * n["all"]  # the block at work and the one on its way
    mine = n["all"] / S
    return {"masters": 4 * mine, "gradients": 4 * mine, "AdamW": 8 * mine, "bf16 gathered": gathered,
            # one block's in bfloat16 and on its way in float32; the root's, and the head's float32 sum
            "gradients at work": 6 * n["block"] + 2 * n["root"] + 4 * m.vocab_size * m.hidden_size,
            "activations": T * (m.num_hidden_layers * kept + working + 6 * m.hidden_size),
            "logits": 2 * min(CHUNK, T) * m.vocab_size}


def flops(m, n, tokens, seen):
    """6 for each weight of a matrix and each token (2 forward, 4 backward), and attention: 12 L H D for each of the keys `seen`
    by all queries together. Recomputation does not count. n: what `parameters` gave."""
    return 6 * n["matrices"] * tokens + 12 * m.num_hidden_layers * m.num_attention_heads * m.head_size * seen


def flops_per_token(m, n, length):
    """Of a row that is one document: a query sees half of it, (length + 1) / 2 keys."""
    return flops(m, n, 1, (length + 1) / 2)


def traffic(c, n, gpus, node, card):
    """(seconds of FSDP traffic of a micro-step, seconds of the all-reduce between copies, once a step), at the datasheet's rates.

    A GPU receives (S - 1)/S of the blocks twice in bfloat16 (forward, backward) and of the root once, and gives its gradients in
    float32. Shards within a node travel over NVLink; beyond it each GPU is taken to have its own port's rate, which NCCL's rings,
    where what enters a node serves all its GPUs, can exceed.
    """
    S, (_, _, inside, outside) = min(c.shard_size or gpus, gpus), CARDS[card]
    copies = gpus // S
    sharded = (S - 1) / S * (2 * (2 * n["all"] - n["root"]) + 4 * n["all"])
    reduced = 2 * (copies - 1) / copies * 4 * n["all"] / S
    return sharded / (inside if S <= node else outside), reduced / (inside if gpus <= node else outside)


def lines(c, model_config, p):
    """(the report's lines, its summary, what does not fit) of settings c on the machines of p; ValueError for no possible run."""
    m, G = config_of(c.init, model_config, p.shape), p.gpus
    S, (peak, capacity, _, _) = min(c.shard_size or G, G), CARDS[p.gpu]
    if c.batch_size % G or G % S:
        raise ValueError(f"batch_size={c.batch_size} must be a multiple of gpus={G}, and those of shard_size={S}")
    n = parameters(m)
    used, tokens, rows = memory(c, m, n, G), c.batch_size * c.seq_len, min(c.micro_batch_size, c.batch_size // G)
    total, micro = sum(used.values()) / 2 ** 30, math.ceil(c.batch_size / G / rows)
    each = flops_per_token(m, n, c.seq_len)
    work = rows * c.seq_len * each * (4 / 3 if c.activation_checkpointing is True else 1) / (p.mfu * peak)  # a second forward pass
    fsdp, between = traffic(c, n, G, p.gpus_per_node, p.gpu)
    step = (micro - 1) * max(work, fsdp) + max(work, fsdp + between)
    out = [f"{n['all']:,} parameters; {G} x {p.gpu}: {G // S} x {S} (copies x shards); {c.batch_size} rows of {c.seq_len} tokens, "
           f"{micro} x {rows} on each GPU",
           "memory of a GPU, GiB: " + ", ".join(f"{k} {v / 2 ** 30:.1f}" for k, v in used.items())
           + f"; {total:.1f} of {capacity:.0f}",
           f"work: {each / 1e9:.2f} GFLOP a token, {work:.2f} s a micro-step at {p.mfu:.0%} of {peak / 1e12:.0f} TFLOP/s"
           + (", layers recomputed" if c.activation_checkpointing is True else ""),
           f"traffic: {fsdp:.2f} s a micro-step" + (f", and {between:.2f} s a step between copies" if between else "")]
    bad = []
    if total > FULL * capacity:
        bad.append(f"{total:.1f} GiB do not fit {FULL:.0%} of {capacity:.0f}: more GPUs, a larger shard_size=, fewer micro_batch_size= or "
                   "seq_len=, or activation_checkpointing=True")
    if fsdp > work:
        out.append(f"warning: traffic outlasts work: at least {math.ceil(rows * fsdp / work)} micro_batch_size would hide it, "
                   "or a shard_size= within one node")
    summary = (f"{G} x {p.gpu}: {total:.1f} GiB a GPU, {step:.1f} s a step, {tokens / step:,.0f} tokens/s, "
               f"{c.steps * step / 86400:.1f} days for {c.steps * tokens / 1e9:.1f} B tokens")
    return out, summary, bad


def report(c, model_config, p):
    """Print it; ValueError when the run does not fit."""
    out, summary, bad = lines(c, model_config, p)
    print("\n".join([*out, summary]))
    if bad:
        raise ValueError("this run does not fit: " + "; ".join(bad))
