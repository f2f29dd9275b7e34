"""Training on a GPU: steps beside transformers', MFU of a slice of Qwen2-7B, and the tiny base's tokens/s.

device="cpu": the dry pass, as in gpu.py.
"""
from pathlib import Path

import torch

from bench.timing import attempt, best_seconds, matmul_rate, noted, row
from bench.training import packed_starts, packed_steps
from configs import load
from model import ModelConfig, Qwen2
from train import Train
from training import estimate

DRY = dict(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
           num_key_value_heads=1)
MEMORY = 78 * 2 ** 30  # bytes of the smallest card that the slice of 7B is for
TINY = Path(__file__).parent.parent / "configs/tiny/base.py"


def tiny_base(device="cuda"):
    """Tokens/s of configs/tiny/base.py: at its own batch size, and at one that fills a card."""
    c, config = load(Train, ModelConfig, argv=[str(TINY)])
    T, sizes = c.seq_len, (c.batch_size, 256)
    if device == "cpu":
        config, T, sizes = ModelConfig(**DRY), 40, (1, 2)
    for rows in sizes:
        yield own_row("tiny_base", "the tiny base", config, rows, T, 75, device)


def slice_of_7b(device="cuda", layers=6, T=4096):
    """Qwen2-7B with its head and 6 of its 28 layers, as many rows as fit 78 GiB: the floor's fraction is the MFU."""
    config = ModelConfig(**estimate.SHAPES["Qwen2-7B"] | dict(num_hidden_layers=layers))
    rows = rows_that_fit(config, T, estimate.USABLE * MEMORY)
    if device == "cpu":
        config, rows, T = ModelConfig(**DRY), 1, 40
    yield own_row("train_slice_7B", f"Qwen2-7B, {layers} layers", config, rows, T, T // 4, device)


def rows_that_fit(config, T, memory):
    """The largest power of two of rows of T tokens whose training step fits, by training/estimate.py; at least 1."""
    parameters, rows = estimate.count_parameters(config), 1
    while True:
        c = Train(out="out", data="data", mixture={"en": 1}, tokens=2 * rows * T, seq_len=T, batch_size=2 * rows,
                  micro_batch_size=2 * rows)
        if sum(estimate.memory_per_gpu(c, config, parameters, 1).values()) > memory:
            return rows
        rows *= 2


def own_row(name, what, config, rows, T, mean, device):
    """Tokens/s of our training step on packed rows."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    step, flops = own_step(config, rows, T, mean, device, dtype)
    a, = best_seconds([step], 1 if device == "cpu" else 5)
    return row(f"{name}_{rows}", f"training {what}, {rows} rows of {T} tokens", rows * T / a, unit="tokens/s",
               floor=flops / matmul_rate(dtype, device) / a)


def own_step(config, rows, T, mean, device, dtype):
    """(a training step as train.py's: float32 weights, computed in dtype, clipped, fused AdamW; its FLOPs)."""
    with torch.device("meta"):
        model = Qwen2(config, dtype)
    model.materialize(device)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, config.initializer_range) if p.ndim > 1 else p.fill_(1)
    tokens = torch.randint(config.vocab_size, (rows, T), device=device)
    starts = torch.stack([packed_starts(T, mean, r) for r in range(rows)]).to(device)
    targets, optimizer = tokens.roll(-1, 1), torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)

    def step():
        (-model(tokens, targets, starts).sum() / tokens.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    attended = int((torch.arange(T, device=device) - starts + 1).sum())
    return step, estimate.count_flops(config, estimate.count_parameters(config), rows * T, attended)


def training_step(device="cuda", T=8192, mean=1024):
    """A training step on one packed row beside transformers, compiled; without it, ours alone."""
    shapes, dtype = {n: estimate.SHAPES[f"Qwen2-{n}"] for n in ("0.5B", "1.5B")}, torch.bfloat16
    if device == "cpu":
        shapes, dtype, T, mean = {"0.5B": DRY}, torch.float32, 40, 12
    rate = matmul_rate(dtype, device)
    for name, shape in shapes.items():
        def both(shape=shape):
            ours, theirs, flops = packed_steps(shape, dtype, T, mean, device, compiled=device == "cuda")
            return *best_seconds([ours, theirs], 5 if device == "cuda" else 1), flops

        measured, reason = attempt(both)
        if reason:
            step, flops = own_step(ModelConfig(**shape), 1, T, mean, device, dtype)
            measured = best_seconds([step])[0], None, flops
        a, b, flops = measured
        yield noted(row(f"train_step_{name}", f"training step of Qwen2-{name}, {T} tokens packed", a, b,
                        of="transformers, sdpa, compiled", floor=flops / rate / a), reason)
