"""Direct preference optimization: the loss, the cached log-probabilities of the reference, and statistics per language.

Only one model is in memory. The reference is the model before its first step: its log-probability of every answer is
computed once, in the same rows and by the same code as in training, and cached under its weights' SHA-256.
"""
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data import IGNORE, best_fit, collate, pack_chats
from hf.adapters import WEIGHTS
from training.checkpoint import sha256, weights_sha256
from training.distributed import reshard


def answer_logprobs(model, batch):
    """(log-probability, tokens) of each answer, both (P, 2) float32: chosen and rejected."""
    n = 2 * len(batch.pairs)
    logp, chat = model(batch.tokens, batch.targets, batch.starts).flatten(), batch.chat.flatten()
    sums = logp.new_zeros(n).index_add(0, chat, logp)  # logp is 0 where the target is IGNORE
    tokens = torch.bincount(chat[batch.targets.flatten() != IGNORE], minlength=n)
    return sums.view(-1, 2), tokens.view(-1, 2).float()


def dpo_loss(logp, reference, tokens, c):
    """Sum over pairs of -log sigmoid(m), m = beta (r_chosen - r_rejected), r = log p(answer) - log p_reference(answer).

    Rafailov et al. 2023, arXiv 2305.18290, equation 7. Inputs (P, 2) -> (loss, m (P,), r (P, 2)). label_smoothing e
    gives the swapped pair weight e (conservative DPO); length_normalized divides r by the answer's tokens.
    """
    ratio = logp - reference
    chosen, rejected = (c.dpo_beta * (ratio / tokens if c.length_normalized else ratio)).unbind(1)
    m, e = chosen - rejected, c.label_smoothing
    loss = -((1 - e) * F.logsigmoid(m) + e * F.logsigmoid(-m)).sum()
    return loss, m, ratio


class DPO:
    """The objective of preference pairs, with running statistics for each language.

    reference: {source index: (pairs, 2) log-probabilities}. totals (languages, 5): pairs, sum of margins, pairs with a
    margin above 0 (half of those at 0), sum of -log-ratios of both answers, their tokens. max_margin: the largest |m|.
    """

    def __init__(self, c, world, sources, reference):
        self.c, self.world, self.reference = c, world, reference
        self.languages = sorted({s.language for s in sources})
        self.language = torch.tensor([self.languages.index(s.language) for s in sources])  # of each source
        self.restart()

    def restart(self):
        self.totals, self.max_margin = torch.zeros(len(self.languages), 5, dtype=torch.float64), 0.0

    def weight(self, batch):
        """The number of pairs, by which the loss is divided."""
        return len(batch.pairs)

    def loss(self, model, batch):
        logp, tokens = answer_logprobs(model, batch)
        pairs = batch.pairs.tolist()
        reference = torch.stack([self.reference[i][k] for i, k in pairs]).to(logp.device)
        loss, m, ratio = dpo_loss(logp, reference, tokens, self.c)
        columns = [torch.ones_like(m), m, (m.sign() + 1) / 2, -ratio.sum(1), tokens.sum(1)]
        rows = torch.stack(columns, 1).detach().double().cpu()
        self.totals.index_add_(0, self.language[[i for i, _ in pairs]], rows)
        self.max_margin = max(self.max_margin, float(m.detach().abs().max()))
        return loss

    def summary(self):
        """{language: pairs, mean margin and accuracy, kl} since the last call, over all processes. Collective.

        kl: how much less likely the answers are than under the reference, in nats per token. It estimates
        KL(reference || model) if the answers were sampled from the reference; otherwise it only shows how far the model
        has moved on them.
        """
        totals = torch.tensor(self.world.all_reduce(self.totals.flatten().tolist())).view(-1, 5).tolist()
        self.restart()
        out = {}
        for lang, (pairs, margin, right, kl, tokens) in zip(self.languages, totals):
            if pairs:
                out[lang] = {"pairs": int(pairs), "margin": round(margin / pairs, 5),
                             "accuracy": round(right / pairs, 4), "kl": round(kl / tokens, 5)}
        return out


# ---------------------------------------------------------------------- the reference

def make_objectives(c, world, model, schedule, held_out):
    """(DPO on the schedule's pairs, on the held-out ones, {"noise": n}). The weights must be init's. Collective.

    noise: the largest |margin| of the first batch before any step. It would be 0 but for rounding, which depends on
    the rest of the batch. A run ends with margins of about 1, so above 0.2 there is a warning.
    """
    weights = weights_sha256(c.init, world)
    if c.adapter:
        weights = f"{weights} + {sha256(Path(c.adapter, WEIGHTS))}"
    packed = [best_fit(s.lengths, c.seq_len, 0) for s in held_out]
    train = DPO(c, world, schedule.sources, references(c, world, model, schedule.sources, schedule.packed, weights))
    valid = DPO(c, world, held_out, references(c, world, model, held_out, packed, weights))
    with torch.no_grad():
        for rows in world.micro_batches(c):
            train.loss(model, schedule.batch(0, rows).to(world.device))
    noise = max(world.all_gather(train.max_margin))
    train.restart()
    if noise > 0.2:
        world.print0(f"warning: before the first step rounding moves a margin by {noise:.3f}; set dtype=float32")
    if world.is_sharded:
        reshard(model)
    return train, valid, {"noise": noise}


def references(c, world, model, sources, packed, weights):
    """{source index: log-probabilities of its pairs, (pairs, 2)}, from the cache or computed. Collective.

    packed: the rows of each source (data.best_fit), None for one that is not read. weights: SHA-256 of the model's.
    """
    folder = Path(c.reference_dir or Path(c.out) / "reference")
    return {i: load_reference(c, world, model, s, rows, weights, folder / f"{s.name}.safetensors")
            for i, (s, rows) in enumerate(zip(sources, packed)) if rows is not None}


def load_reference(c, world, model, source, rows, weights, file):
    """Reference log-probabilities of a source's pairs, (pairs, 2); 0 for those too long for a row. Collective.

    The cache records all they depend on and their SHA-256; ValueError when any of these differs.
    """
    shards = json.dumps([*source.shard_sha256.values(), *source.mask_sha256.values()])
    config = json.dumps(asdict(model.config), sort_keys=True)
    facts = {"weights": weights, "config": hashlib.sha256(config.encode()).hexdigest(),
             "shards": hashlib.sha256(shards.encode()).hexdigest(),
             "seq_len": str(c.seq_len), "dtype": str(world.dtype)}
    if world.broadcast(file.exists()):
        return read_reference(file, facts, len(source.lengths))
    world.print0(f"reference: {source.name}, {len(source.lengths)} pairs")
    logp = compute_reference(c, world, model, source, rows)
    if world.is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{file}.tmp", "wb") as f:  # the library's own writer hides disk errors
            f.write(save({"logp": logp}, metadata=facts | {"sha256": tensor_sha256(logp)}))
            f.flush()
            os.fsync(f.fileno())
        os.replace(f"{file}.tmp", file)
    world.barrier()
    return logp


def read_reference(file, facts, pairs):
    """The values of a cached file; ValueError when they are damaged or belong to another run."""
    try:
        with safe_open(file, "pt") as f:
            metadata, logp = f.metadata() or {}, f.get_tensor("logp")
    except (SafetensorError, OSError) as e:
        raise ValueError(f"{file}: cannot be read ({e}); delete it to recompute it") from None
    for name, ours in facts.items():
        if metadata.get(name) != ours:
            raise ValueError(f"{file}: reference log-probabilities of other {name} ({metadata.get(name)}; this run has "
                             f"{ours}); delete the file, or set reference_dir= to a folder of this model's own")
    if logp.dtype != torch.float32 or logp.shape != (pairs, 2):
        raise ValueError(f"{file}: holds {logp.dtype} of shape {tuple(logp.shape)}, must be float32 of ({pairs}, 2); "
                         "delete it to recompute it")
    if metadata.get("sha256") != tensor_sha256(logp):
        raise ValueError(f"{file}: its contents have another SHA-256 than when written: the file is damaged; "
                         "delete it to recompute it")
    return logp


def tensor_sha256(x):
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


def compute_reference(c, world, model, source, rows):
    """The model's log-probabilities of the answers in these rows of pairs, (pairs, 2) float32. Collective."""
    out = torch.zeros(len(source.lengths), 2, dtype=torch.float64)
    batches = [rows[k:k + c.micro_batch_size] for k in range(0, len(rows), c.micro_batch_size)]
    for i, counts in world.distribute(len(batches)):
        batch = collate([pack_chats(source, 0, examples, c.seq_len) for examples in batches[i]])
        with torch.no_grad():
            logp, _ = answer_logprobs(model, batch.to(world.device))
        if counts:
            out[batch.pairs[:, 1]] = logp.double().cpu()
    logp = torch.tensor(world.all_reduce(out.flatten().tolist())).view(-1, 2).float()
    if not logp.isfinite().all():
        pair = int((~logp.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"{source.folder}: the reference's log-probability of pair {pair} is not finite; look at the "
                         f"weights of init={c.init}")
    return logp
