"""What a run will need, computed without a GPU: memory, compute against traffic, and days.

    python train.py configs/marco/stage1.py estimate=True gpus=64 gpu=H100

Bytes are counted as in train.py: float32 master weights, gradients and AdamW's moments sharded by FSDP2, blocks
gathered in bfloat16 when they are needed, gradients reduced in float32. With LoRA the base has weights only, in
frozen_dtype. Nothing is measured: the utilization (mfu) is a setting. Activations assume kernels that save only their
inputs (kernels/), and each row counts as one document, the worst case for attention.
"""
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from model import ModelConfig, Qwen2
from training.adamw import moment_bytes
from training.checkpoint import FILE_BYTES
from training.lora import Lora, adapter_parameters, add_lora, lora_settings

# datasheets: dense bfloat16 FLOP/s; GiB of memory; bytes/s one way to GPUs of the node; to other nodes by its own port
CARDS = {"A100": (312e12, 80, 300e9, 25e9), "H100": (989.5e12, 80, 450e9, 50e9),
         "H200": (989.5e12, 141e9 / 2 ** 30, 450e9, 50e9)}
SHAPES: dict[str, dict] = {  # config.json of the published models
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
BANDWIDTH = 3.35e12  # bytes/s of an H100's memory, by its datasheet
PROCESS = 0.4 * 2 ** 30  # host bytes of a process with PyTorch
USABLE = 0.92       # share of a card's memory; the rest is CUDA's context, NCCL's buffers and fragmentation
LOGIT_CHUNK = 4096  # tokens whose logits exist at a time on a GPU (kernels/cross_entropy.py)


@dataclass(frozen=True)
class Estimate:
    estimate: bool = False       # print what the run needs, and stop
    gpus: int = 8
    gpu: str = "H100"            # A100 (80 GB), H100 or H200
    gpus_per_node: int = 8       # GPUs connected by NVLink
    mfu: float = 0.4             # expected share of the GPU's FLOP/s, counting recomputation and causal attention.
                                 # Counted so, peers report 0.38 to 0.45 on H100 and 0.49 to 0.62 on A100, 0.1 more with
                                 # recomputation, for rows up to 4,096 tokens; less for longer ones
                                 # (tests/test_estimate_peers.py)
    shape: str | None = None     # where init= is not on this machine: a name in SHAPES

    def __post_init__(self):
        problems = []
        if self.gpu not in CARDS:
            problems.append(f"gpu must be {', '.join(CARDS)}, got {self.gpu!r}")
        if self.gpus <= 0:
            problems.append(f"gpus must be positive, got {self.gpus}")
        if self.gpus_per_node <= 0:
            problems.append(f"gpus_per_node must be positive, got {self.gpus_per_node}")
        if not 0 < self.mfu <= 1:
            problems.append(f"mfu must be in (0, 1], got {self.mfu}")
        if self.shape not in (None, *SHAPES):
            problems.append(f"shape must be {', '.join(SHAPES)}, got {self.shape!r}")
        if problems:
            raise ValueError("Estimate: " + "; ".join(problems))


def resolve_config(init: str | None, model_config: ModelConfig, shape: str | None) -> ModelConfig:
    """The ModelConfig of a run: init's where that folder is here, else the published shape's, else the settings'."""
    if init and Path(init, "config.json").exists():
        return ModelConfig.from_pretrained(init)
    name = shape or (Path(init).name if init else None)
    if name is None:
        return model_config
    if name not in SHAPES:
        raise ValueError(f"init={init} is not on this machine, so estimate=True needs shape=, one of "
                         f"{', '.join(SHAPES)}")
    return ModelConfig(**SHAPES[name])


def count_parameters(config: ModelConfig, lora: Lora | None = None) -> dict:
    """{"all"; "block": one layer; "root": outside the layers; "matrices": those multiplied with each token;
    "adapter": LoRA's, in none of the others, 0 without}."""
    with torch.device("meta"):
        model = Qwen2(config)
    everything = sum(p.numel() for p in model.parameters())
    block = sum(p.numel() for p in model.model.layers[0].parameters())
    block_matrices = sum(p.numel() for p in model.model.layers[0].parameters() if p.ndim > 1)
    L, head = config.num_hidden_layers, config.vocab_size * config.hidden_size
    if lora:
        add_lora(model, lora)
    return {"all": everything, "block": block, "root": everything - L * block, "matrices": L * block_matrices + head,
            "adapter": sum(p.numel() for p in adapter_parameters(model).values())}


def count_moments(c, config: ModelConfig) -> int:
    """Bytes of the moments of everything that a run trains."""
    with torch.device("meta"):
        model = Qwen2(config)
    if lora := lora_settings(c):
        add_lora(model, lora)
    return moment_bytes(model, c)


def count_flops(config, parameters, tokens, attended):
    """FLOP of training on these tokens, recomputation not counted.

    6 per token and weight of a matrix (2 forward, 4 backward), 4 if it is frozen and only passes gradients on;
    attention 12 L H D per attended key: `attended` counts them over all queries. parameters: from count_parameters.
    """
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * config.head_size * attended
    n = parameters
    matrices = 4 * n["matrices"] + 6 * n["adapter"] if n["adapter"] else 6 * n["matrices"]
    return matrices * tokens + attention


def flops_per_token(config, parameters, seq_len):
    """FLOP per token in rows of one document: a query attends to (seq_len + 1) / 2 keys on average."""
    return count_flops(config, parameters, 1, (seq_len + 1) / 2)


def activation_bytes(config, activation_checkpointing, residual_fp32=False):
    """(bytes a token keeps in each layer until backward, bytes it takes in the layer being computed), bfloat16.

    residual_fp32: the residual stream, which both norms of a layer read, takes twice as much.
    """
    C, I = config.hidden_size, config.intermediate_size
    H, K = config.num_attention_heads * config.head_size, config.num_key_value_heads * config.head_size
    log_sum_exp = 4 * config.num_attention_heads  # float32
    stream = 4 * C if residual_fp32 else 2 * C
    # inputs and outputs of both norms; q, k, v and attention's output 2H + 2K; gate, up and their product 3I
    plain = 2 * stream + 2 * (2 * C + 2 * H + 2 * K + 3 * I) + log_sum_exp
    # the layer's input and the outputs of its matrix products and attention: o and down C each, gate and up 2I
    selective = stream + 2 * (2 * C + 2 * H + 2 * K + 2 * I) + log_sum_exp
    return {False: plain, "selective": selective, True: stream}[activation_checkpointing], plain


def memory_per_gpu(c, config, parameters, gpus):
    """Peak bytes on each GPU, by purpose."""
    shards = min(c.shard_size or gpus, gpus)
    tokens = min(c.micro_batch_size, c.batch_size // gpus) * c.seq_len
    n, own = parameters, parameters["all"] / shards
    kept, working = activation_bytes(config, c.activation_checkpointing, c.residual_fp32)
    gathered = n["all"] if gpus == 1 else n["root"] + 2 * n["block"]  # the block being computed and the one prefetched
    # gradients: one block's in bfloat16 and, being reduced, float32; the root's, and the head's float32 sum
    trained, frozen = own, {}
    at_work = 6 * n["block"] + 2 * n["root"] + 4 * config.vocab_size * config.hidden_size
    if n["adapter"]:
        of_block = n["adapter"] / config.num_hidden_layers
        in_bfloat16 = c.frozen_dtype == "bfloat16"
        trained, frozen = n["adapter"] / shards, {"frozen": own * (2 if in_bfloat16 else 4)}
        gathered = 0 if in_bfloat16 and shards == 1 else gathered  # used as stored
        gathered, at_work = gathered + (n["adapter"] if gpus == 1 else 2 * of_block), 6 * of_block
    return {"masters": 4 * trained, **frozen, "gradients": 4 * trained, "AdamW": count_moments(c, config) / shards,
            "bf16 gathered": 2 * gathered, "gradients at work": at_work,
            "activations": tokens * (config.num_hidden_layers * kept + working + 6 * config.hidden_size),
            "logits": 2 * min(LOGIT_CHUNK, tokens) * config.vocab_size}


def host_memory(state: float, resident: float = 0) -> dict:
    """{"saving", "loading": bytes of the host} at the peak of one process, which writes and reads a checkpoint file by
    file. state: bytes of its weights and moments; resident: of the host's memory that they take anyway.
    """
    beside = PROCESS + resident
    return {"saving": beside + 2 * min(FILE_BYTES, state), "loading": beside + min(FILE_BYTES, state)}


def traffic_seconds(c, parameters, gpus, gpus_per_node, gpu):
    """(of FSDP per micro-step, of the all-reduce between replicas per step), at the datasheet's rates.

    A GPU receives (S - 1) / S of the blocks twice in bfloat16 (forward, backward), of the last block and of the root
    once, and sends its gradients in float32. Shards within a node use NVLink. Of shards beyond it, NCCL's rings bring
    each byte into a node once and pass it on over NVLink, so all ports of the node serve all its GPUs; published runs
    with small batches are up to 2.4 times as fast as one port per GPU would allow (tests/test_estimate_peers.py).
    Replicas, each shard with its own counterpart, have one port per GPU.
    """
    shards, n = min(c.shard_size or gpus, gpus), parameters
    _, _, in_node, between_nodes = CARDS[gpu]
    replicas = gpus // shards
    trained = n["adapter"] or n["all"]
    sharded = (shards - 1) / shards * (2 * (2 * n["all"] - n["root"] - n["block"]) + 4 * trained)
    reduced = 2 * (replicas - 1) / replicas * 4 * trained / shards
    return (sharded / (in_node if shards <= gpus_per_node else min(in_node, gpus_per_node * between_nodes)),
            reduced / (in_node if gpus <= gpus_per_node else between_nodes))


def estimate_run(c, model_config: ModelConfig, machines: Estimate) -> tuple[list[str], str, list[str]]:
    """(report lines, summary, reasons why the run does not fit). ValueError for an impossible run."""
    config, gpus = resolve_config(c.init, model_config, machines.shape), machines.gpus
    shards, (peak_flops, capacity, _, _) = min(c.shard_size or gpus, gpus), CARDS[machines.gpu]
    if c.batch_size % gpus or gpus % shards:
        raise ValueError(f"batch_size={c.batch_size} must be a multiple of gpus={gpus}, and gpus a multiple of "
                         f"shard_size={shards}")
    parameters = count_parameters(config, lora_settings(c))
    memory = memory_per_gpu(c, config, parameters, gpus)
    total = sum(memory.values()) / 2 ** 30
    rows = min(c.micro_batch_size, c.batch_size // gpus)
    micro_steps = math.ceil(c.batch_size / gpus / rows)
    per_token = flops_per_token(config, parameters, c.seq_len)
    recomputes = c.activation_checkpointing is True
    compute = rows * c.seq_len * per_token * (4 / 3 if recomputes else 1) / (machines.mfu * peak_flops)
    fsdp, between = traffic_seconds(c, parameters, gpus, machines.gpus_per_node, machines.gpu)
    step = (micro_steps - 1) * max(compute, fsdp) + max(compute, fsdp + between)
    tokens = c.batch_size * c.seq_len

    adapter = f", frozen, and {parameters['adapter']:,} of LoRA" if parameters["adapter"] else ""
    lines = [f"{parameters['all']:,} parameters{adapter}; {gpus} x {machines.gpu}: {gpus // shards} x {shards} "
             f"(replicas x shards); {c.batch_size} rows of {c.seq_len} tokens, {micro_steps} x {rows} on each GPU",
             f"memory per GPU, GiB: {', '.join(f'{k} {v / 2 ** 30:.1f}' for k, v in memory.items())}; "
             f"{total:.1f} of {capacity:.0f}",
             f"compute: {per_token / 1e9:.2f} GFLOP per token, {compute:.2f} s per micro-step at {machines.mfu:.0%} of "
             f"{peak_flops / 1e12:.0f} TFLOP/s{', layers recomputed' if recomputes else ''}",
             f"traffic: {fsdp:.2f} s per micro-step"
             f"{f', and {between:.2f} s per step between replicas' if between else ''}"]
    host = host_memory(memory["masters"] + memory["AdamW"])
    lines.append("memory of the host per GPU, GiB: " + ", ".join(f"{k} {v / 2 ** 30:.1f}" for k, v in host.items()))
    if fsdp > compute:
        lines.append(f"warning: traffic takes longer than compute; micro_batch_size={math.ceil(rows * fsdp / compute)} "
                     "would hide it, or a shard_size within one node")
    problems = []
    if total > USABLE * capacity:
        problems.append(f"{total:.1f} GiB do not fit {USABLE:.0%} of {capacity:.0f}: set more gpus, a larger "
                        "shard_size, a smaller micro_batch_size or seq_len, activation_checkpointing=True or "
                        "moments=int8")
    summary = (f"{gpus} x {machines.gpu}: {total:.1f} GiB a GPU, {step:.1f} s a step, {tokens / step:,.0f} tokens/s, "
               f"{c.steps * step / 86400:.1f} days for {c.steps * tokens / 1e9:.1f} B tokens")
    return lines, summary, problems


def describe_passes(init: str, tokens: int, backward: bool = False, steps: int = 0) -> str:
    """The cost of running a frozen model over this many tokens of short texts on one H100.

    backward: with gradients through the frozen weights, to adapters. steps: of decoding; each reads all weights.
    """
    config = resolve_config(init, ModelConfig(), None)
    n, (peak, *_), mfu = count_parameters(config), CARDS["H100"], Estimate.mfu
    flops = (4 if backward else 2) * (n["matrices"] - config.vocab_size * config.hidden_size) * tokens
    text = (f"{init}: {n['all']:,} parameters, {2 * n['all'] / 2 ** 30:.1f} GiB in bfloat16; {tokens / 1e6:,.1f} M "
            f"tokens forward{' and backward' if backward else ''}: {flops / mfu / peak / 60:,.1f} minutes on one H100 "
            f"at {mfu:.0%} of {peak / 1e12:.0f} TFLOP/s")
    if steps:
        minutes = steps * 2 * n["all"] / BANDWIDTH / 60
        text += f"; {steps:,} steps of decoding that read the weights: {minutes:,.1f} minutes or more"
    return text


def print_estimate(c, model_config: ModelConfig, machines: Estimate):
    """Print the estimate; ValueError when the run does not fit."""
    lines, summary, problems = estimate_run(c, model_config, machines)
    print("\n".join([*lines, summary]))
    if problems:
        raise ValueError("this run does not fit: " + "; ".join(problems))
