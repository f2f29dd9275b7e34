"""Direct preference optimisation: the loss, the reference's log-probabilities kept on disk, and what is logged of each language.

One model stands in memory: what the reference (the model before its first step) says of every answer is computed once, in the
same rows and by the same code as in training, and cached with the SHA-256 of the weights that said it.
"""
import hashlib
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data import IGNORE, best_fit, collate, pack_chats


def answer_logprobs(model, batch):
    """data.Pairs -> (log-probability of each answer, its number of tokens), both (P, 2) float32: the chosen, the rejected."""
    tokens, targets, starts, chat, pairs = batch
    logp, chat, n = model(tokens, targets, starts).flatten(), chat.flatten(), 2 * len(pairs)
    sums = logp.new_zeros(n).index_add(0, chat, logp)  # where the target is IGNORE, 0 is added
    return sums.view(-1, 2), torch.bincount(chat[targets.flatten() != IGNORE], minlength=n).view(-1, 2).float()


def dpo_loss(logp, reference, tokens, c):
    """Sum over pairs of -log sigmoid(m), m = beta (r_chosen - r_rejected), r = log p(answer) - log p_reference(answer).

    Rafailov et al. 2023, arXiv 2305.18290, equation 7. Inputs (P, 2) -> (loss, m (P,), r (P, 2)). label_smoothing e: 1 - e of it,
    and e of that of the pair turned round (conservative DPO). length_normalized: r for each token of an answer.
    """
    ratio = logp - reference
    chosen, rejected = (c.dpo_beta * (ratio / tokens if c.length_normalized else ratio)).unbind(1)
    m, e = chosen - rejected, c.label_smoothing
    return -((1 - e) * F.logsigmoid(m) + e * F.logsigmoid(-m)).sum(), m, ratio


class Preferences:
    """Sources of pairs with their reference: called as a loss, it keeps the tally of every language.

    tally (languages, 5): pairs, sum of margins, pairs whose margin is above 0 (at 0 half), sum of -log-ratios of both answers,
    their tokens. widest: the largest margin of a pair, either way.
    """

    def __init__(self, c, sources, reference):
        self.c, self.reference = c, reference
        self.languages = sorted({s.language for s in sources})
        self.language = torch.tensor([self.languages.index(s.language) for s in sources])
        self.restart()

    def restart(self):
        self.tally, self.widest = torch.zeros(len(self.languages), 5, dtype=torch.float64), 0.0

    def __call__(self, model, batch):
        logp, tokens = answer_logprobs(model, batch)
        pairs = batch[4].tolist()
        reference = torch.stack([self.reference[i][k] for i, k in pairs]).to(logp.device)
        loss, m, ratio = dpo_loss(logp, reference, tokens, self.c)
        rows = torch.stack([torch.ones_like(m), m, (m.sign() + 1) / 2, -ratio.sum(1), tokens.sum(1)], 1).detach().double().cpu()
        self.tally.index_add_(0, self.language[[i for i, _ in pairs]], rows)
        self.widest = max(self.widest, float(m.detach().abs().max()))
        return loss

    def summary(self, world):
        """{language: pairs, margin and accuracy (means), kl}, over all processes, and the tally begins anew. Collective.

        kl: nats a token by which the answers are less likely than under the reference. Where they were sampled from it, that is
        an estimate of KL(reference || model); of other texts it only says how far the model has gone from them.
        """
        tally = torch.tensor(world.all_reduce(self.tally.flatten().tolist())).view(-1, 5).tolist()
        self.restart()
        return {lang: {"pairs": int(n), "margin": round(m / n, 5), "accuracy": round(right / n, 4), "kl": round(kl / tokens, 5)}
                for lang, (n, m, right, kl, tokens) in zip(self.languages, tally) if n}


# ---------------------------------------------------------------------- the reference

def objectives(c, world, model, schedule, held_out, weights):
    """(Preferences of the schedule's pairs, of the held-out ones, noise). weights: SHA-256 of the model's; it is the reference now.

    noise: the largest margin, either way, of the first batch before any step. It would be 0 but for rounding, which depends on
    what else stands in a batch; above 0.2 it is told, as a run ends with margins of about 1. Collective.
    """
    rows = [best_fit(s.sizes, c.seq_len, 0) for s in held_out]
    learn, check = (Preferences(c, sources, references(c, world, model, sources, packed, weights))
                    for sources, packed in ((schedule.sources, schedule.packed), (held_out, rows)))
    with torch.no_grad():
        for batch in world.batches(schedule, 0, c.micro_batch_size):
            learn(model, [x.to(world.device) for x in batch])
    noise = max(world.all_gather(learn.widest))
    learn.restart()
    if noise > 0.2:
        world.print0(f"warning: before the first step a margin is off by {noise:.3f} through rounding: set dtype=float32")
    return learn, check, noise


def references(c, world, model, sources, packed, weights):
    """[(pairs, 2) float32 or None] of each source: its file in the cache, computed where there is none. Collective.

    packed: rows of pairs of each source (data.best_fit), None for a source that is not read. weights: SHA-256 of the model's.
    """
    folder = Path(c.reference_dir or Path(c.out) / "reference")
    return [None if rows is None else reference(c, world, model, s, rows, weights, folder / f"{s.name}.safetensors")
            for s, rows in zip(sources, packed)]


def reference(c, world, model, source, rows, weights, file):
    """Log-probabilities of the answers of a source's pairs, (pairs, 2); 0 for those that fit into no row. ValueError when the
    file was made by other weights, from other pairs, or in another way."""
    shards = hashlib.sha256(json.dumps([*source.hashes.values(), *source.masks.values()]).encode()).hexdigest()
    facts = {"weights": weights, "shards": shards, "length": str(c.seq_len), "dtype": str(world.dtype)}
    there = world.broadcast(file.exists())
    if there:
        try:
            with safe_open(file, "pt") as f:
                found, out = f.metadata() or {}, f.get_tensor("logp")
        except (SafetensorError, OSError) as e:
            raise ValueError(f"{file}: cannot be read ({e}); delete it, and it is computed again") from None
        for name, ours in facts.items():
            if found.get(name) != ours:
                raise ValueError(f"{file}: reference log-probabilities of other {name} ({found.get(name)}; here {ours}): delete "
                                 "the file, or set reference= to a folder of this model's own")
        return out
    world.print0(f"reference: {source.name}, {len(source.sizes)} pairs")
    out = torch.zeros(len(source.sizes), 2, dtype=torch.float64)
    batches = [rows[k:k + c.micro_batch_size] for k in range(0, len(rows), c.micro_batch_size)]
    for first in range(0, len(batches), world.size):  # every process makes the same number of calls
        mine = first + world.rank
        here = batches[min(mine, len(batches) - 1)]
        some = [pack_chats(source, 0, places, c.seq_len) for places in here]
        with torch.no_grad():
            logp, _ = answer_logprobs(model, [x.to(world.device) for x in collate(some)])
        if mine < len(batches):
            out[[k for _, pairs in some for _, k in pairs]] = logp.double().cpu()
    out = torch.tensor(world.all_reduce(out.flatten().tolist())).view(-1, 2).float()
    if world.main:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"logp": out}, f"{file}.tmp", metadata=facts)
        os.replace(f"{file}.tmp", file)
    world.barrier()
    return out
