"""A training step, and the head with its loss, beside transformers with the same weights."""
import math
import tempfile

import numpy as np
import torch

import kernels
from bench.timing import best_seconds, can_measure_memory, matmul_rate, peak_memory, row
from model import IGNORE, ModelConfig, Qwen2
from training import estimate
from training.adamw import LowBitAdamW

SMALL = dict(vocab_size=8192, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8,
             num_key_value_heads=4)
WIDE = SMALL | dict(hidden_size=512, intermediate_size=1408, num_key_value_heads=2)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def steps():
    """One packed row; rows of one full document each; short documents, which we pack and transformers pads."""
    generator = torch.Generator().manual_seed(1)

    def document(n):
        return torch.randint(SMALL["vocab_size"], (n,), generator=generator).tolist()

    full = [document(513) for _ in range(8)]
    short = [document(int(n)) for n in torch.randint(10, 101, (72,), generator=generator)]
    for name, dtype in DTYPES.items():
        rate = matmul_rate(dtype)
        ours, theirs, flops = packed_steps(WIDE, dtype, 4096, 450)
        mine, other = best_seconds([ours, theirs], 2)
        yield row(f"train_step_{name}", "training step, 4096 tokens packed, documents of 450", mine, other,
                  of="transformers, sdpa", floor=flops / rate / mine)
        for kind, documents in (("unpacked", full), ("short", short)):
            padded = padded_batch(documents)
            if padded["attention_mask"].all():
                del padded["attention_mask"]  # transformers is faster without a mask of ones
            models = model_pair(SMALL, dtype)
            flops = documents_flops(models[0].config, documents)
            mine, other = best_seconds(training_steps(*models, packed_batch(documents, 512), padded), 3)
            yield row(f"{kind}_{name}", f"training step, {kind} documents", mine, other, of="transformers, sdpa",
                      floor=flops / rate / mine)


def head_memory():
    """Head and loss, forward and backward: peak memory above that of the weights."""
    if not can_measure_memory():
        return
    from transformers.loss.loss_utils import ForCausalLMLoss
    T, C, V = 2048, 256, 151936
    x, w = torch.randn(T, C, requires_grad=True), torch.randn(V, C).mul_(0.02).requires_grad_()
    targets = torch.randint(V, (T,))

    def ours():
        return torch.autograd.grad(-kernels.target_logprobs(x, w, targets).sum() / T, (x, w))

    def theirs():
        loss = ForCausalLMLoss((x @ w.T)[None], targets[None], V, shift_labels=targets[None])
        return torch.autograd.grad(loss, (x, w))

    torch.testing.assert_close(ours()[0], theirs()[0], atol=1e-8, rtol=1e-3)
    mine, other = peak_memory(ours), peak_memory(theirs)
    yield row("head_memory", "head and loss, 2048 tokens, 151,936 words", mine, other, unit="GiB",
              of="transformers, fp32")


def moments():
    """An optimizer step with AdamW's moments in fewer bits, beside torch's fused one in float32."""
    shapes, steps = [(1024, 1024)] * 8, []
    for kind in ("float32", "bfloat16", "int8"):
        weights = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        groups = [{"params": weights, "weight_decay": 0.1}]
        steps.append(torch.optim.AdamW(groups, lr=1e-4, fused=True).step if kind == "float32" else
                     LowBitAdamW(groups, 1e-4, (0.9, 0.95), kind).step)
    theirs, *ours = best_seconds(steps, 3)
    for kind, mine in zip(("bfloat16", "int8"), ours):
        yield row(f"moments_{kind}", f"optimizer step, 8.4 M parameters, moments in {kind}", mine, theirs,
                  of="torch's fused AdamW, float32")


# ---------------------------------------------------------------------- batches

def packed_batch(documents, seq_len):
    """(tokens, targets, starts): documents packed into rows, longest first, each into the first row with room."""
    rows = []
    for document in sorted(documents, key=len, reverse=True):
        row = next((r for r in rows if len(r[0]) + len(document) - 1 <= seq_len), None)
        if row is None:
            row = ([], [], [])
            rows.append(row)
        tokens, targets, starts = row
        starts += [len(tokens)] * (len(document) - 1)
        tokens += document[:-1]
        targets += document[1:]
    for tokens, targets, starts in rows:
        padding = seq_len - len(tokens)
        starts += [len(tokens)] * padding
        tokens += [0] * padding
        targets += [IGNORE] * padding
    return [torch.tensor(x) for x in zip(*rows)]


def padded_batch(documents):
    """What transformers takes: one document per row, padded to the longest."""
    longest = max(map(len, documents))
    ids = torch.tensor([d + [0] * (longest - len(d)) for d in documents])
    mask = torch.tensor([[1] * len(d) + [0] * (longest - len(d)) for d in documents])
    return dict(input_ids=ids, attention_mask=mask, labels=torch.where(mask == 1, ids, -100))


def packed_starts(T, mean, seed=0):
    """starts (T,): documents of log-normal length (sigma 1) with that mean, cut at T."""
    rng, starts = np.random.default_rng(seed), []
    while len(starts) < T:
        length = max(2, round(rng.lognormal(math.log(mean) - 0.5, 1)))
        starts += [len(starts)] * length
    return torch.tensor(starts[:T])


# ---------------------------------------------------------------------- models and steps

def model_pair(shape, dtype, device="cpu"):
    """Our model and transformers', with the same weights in the same dtype."""
    from transformers import Qwen2ForCausalLM
    from transformers.utils import logging
    logging.disable_progress_bar()
    ours = Qwen2(ModelConfig(**shape), dtype).init_weights(0).to(device=device, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        theirs = Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    return ours, theirs.train().to(device)


def training_steps(ours, theirs, batch, padded):
    """Both training steps, once their losses agree: forward, backward, fused AdamW with a learning rate of 0."""
    count = int((batch[1] != IGNORE).sum())
    losses = [lambda: -ours(*batch).sum() / count, lambda: theirs(**padded, use_cache=False).loss]
    with torch.no_grad():
        a, b = (float(loss()) for loss in losses)
    assert abs(a - b) < (1e-4 if ours.dtype == torch.float32 else 2e-2), f"the losses differ: {a} and {b}"

    def step(loss, optimizer):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.0, fused=True) for model in (ours, theirs)]
    return [lambda loss=loss, optimizer=optimizer: step(loss, optimizer) for loss, optimizer in zip(losses, optimizers)]


def packed_steps(shape, dtype, T, mean, device="cpu", compiled=False):
    """(our step, transformers' with a block-diagonal mask on the same packed row, FLOPs of the model in either)."""
    ours, theirs = model_pair(shape, dtype, device)
    ids = torch.randint(shape["vocab_size"], (1, T + 1), generator=torch.Generator().manual_seed(0))
    starts = packed_starts(T, mean)[None]
    tokens, targets, starts = (x.to(device) for x in (ids[:, :-1], ids[:, 1:], starts))
    position = torch.arange(T, device=device) - starts
    flops = estimate.count_flops(ours.config, estimate.count_parameters(ours.config), T, int((position + 1).sum()))
    if compiled:
        theirs.model.compile()
    padded = dict(input_ids=tokens, position_ids=position, labels=targets, shift_labels=targets)
    return *training_steps(ours, theirs, (tokens, targets, starts), padded), flops


def documents_flops(config, documents):
    """FLOPs of a training step on the documents alone, without padding."""
    lengths = [len(document) - 1 for document in documents]
    attended = sum(n * (n + 1) // 2 for n in lengths)
    return estimate.count_flops(config, estimate.count_parameters(config), sum(lengths), attended)
