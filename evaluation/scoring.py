"""Log-likelihoods as EleutherAI's lm-evaluation-harness defines them, for less: shared beginnings run once, only scored positions
reach the vocabulary, and choices that differ in their last token only (A, B, C, D) are one text.
"""
import json
from pathlib import Path

import torch

from generate import batch_by_length, prefill_prefixes, run_suffixes, suffix_lengths

WINDOW = 4       # batches of texts whose shared beginnings are alive together
CHUNK = 1 << 22  # logits made at a time


def encode(t, text):
    """Ids of a prompt as the harness has them: control tokens in it count; BOS stands first unless the text begins with it."""
    ids = t.encode(text, special=True)
    return ids if t.bos_id is None or ids[:1] == [t.bos_id] else [t.bos_id, *ids]


def opener(t):
    """The id that stands for an empty context: the declared BOS, else EOS (the harness's prefix_token_id)."""
    found = [declared(t, name) for name in ("bos_token", "eos_token")]
    return next((i for i in found if i is not None), t.prefix_token_id)


def declared(t, name):
    """The id of a special token that tokenizer_config.json names, or None."""
    token = t.config.get(name)
    return t.added_tokens.get(token.get("content") if isinstance(token, dict) else token)


def eos_ids(t, folder):
    """Ids that end a generation: generation_config.json's, else config.json's, and the tokenizer's EOS."""
    ends = {t.eot_id if declared(t, "eos_token") is None else declared(t, "eos_token")}
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        given = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
        if given is not None:
            return ends | set(given if isinstance(given, list) else [given])
    return ends


def encode_pair(t, context, continuation):
    """Ids of context and of continuation as they stand in the joined text, split by the length of the context's ids; white space
    at the end of the context moves to the continuation. An empty context is one id, `opener`."""
    if context == "":
        ids, first = t.encode(continuation, special=True), opener(t)
        return (ids[:1], ids[1:]) if ids[:1] == [first] else ([first], ids)
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped):] + continuation
    ids = encode(t, context)
    if not ids:  # blanks alone, no BOS
        return [opener(t)], encode(t, continuation)
    return ids, encode(t, context + continuation)[len(ids):]


@torch.inference_mode()
def loglikelihoods(model, pairs, batch_tokens, max_length=None):
    """Pairs of id lists -> [(sum of log p(continuation | context), whether every id of it is the likeliest)], float32.

    The input is (context + continuation)[-(max_length + 1):-1]: too long ones lose their beginning. ValueError where a
    continuation is empty or alone longer than max_length (default: the model's max_position_embeddings).
    """
    L, members = max_length or model.config.max_position_embeddings, {}
    for i, (context, continuation) in enumerate(pairs):
        if not 0 < len(continuation) <= L or not context:
            raise ValueError(f"pair {i}: a context of {len(context)} and a continuation of {len(continuation)} ids; at least one "
                             f"each, and at most max_length={L} in the continuation")
        members.setdefault(tuple((*context, *continuation)[-(L + 1):-1]), []).append(i)
    texts, out = sorted(members), [None] * len(pairs)
    while texts:
        n, size = 0, 0
        while n < len(texts) and (not n or size < WINDOW * batch_tokens):
            size, n = size + len(texts[n]), n + 1
        window, texts = texts[:n], texts[n:]
        tails = [max(len(pairs[i][1]) for i in members[text]) for text in window]
        parents = prefill_prefixes(model, window, [len(text) - tail for text, tail in zip(window, tails)], batch_tokens)
        for rows in batch_by_length(suffix_lengths(window, parents), batch_tokens):
            x, _, _ = run_suffixes(model, [window[r] for r in rows], [parents[r] for r in rows])
            asked = [(row, i) for row, r in enumerate(rows) for i in members[window[r]]]
            for (_, i), result in zip(asked, score(model, x, [(row, pairs[i][1]) for row, i in asked])):
                out[i] = result
    return out


def score(model, x, asked):
    """x (B, m, C): states that end where the inputs end; asked: (row, continuation) -> [(sum of log p, all likeliest)]."""
    place, target = [], []  # one position for all continuations that ask for it
    for row, ids in asked:
        place += [row * x.shape[1] + x.shape[1] - len(ids) + j for j in range(len(ids))]
        target += ids
    place, slot = torch.tensor(place, device=x.device).unique(return_inverse=True)
    x, target = x.flatten(0, 1)[place], torch.tensor(target, device=x.device)
    logp, top = torch.empty(len(target), device=x.device), torch.empty(len(target), dtype=torch.bool, device=x.device)
    size = max(1, CHUNK // len(model.lm_head.weight))
    for begin in range(0, len(x), size):
        logits = model.lm_head(x[begin:begin + size]).float()  # (n, V)
        total, best = logits.logsumexp(-1), logits.argmax(-1)
        mine = ((slot >= begin) & (slot < begin + size)).nonzero()[:, 0]
        at = slot[mine] - begin
        logp[mine] = logits[at, target[mine]] - total[at]
        top[mine] = best[at] == target[mine]
    sizes = [len(ids) for _, ids in asked]
    return [(float(a.sum()), bool(b.all())) for a, b in zip(logp.split(sizes), top.split(sizes))]


@torch.inference_mode()
def total_logprobs(model, documents, batch_tokens, opener):
    """Log-probability of each whole document (list of ids), its first id predicted from `opener`. Documents stand one
    behind the other in one row without padding; `starts` keeps them apart."""
    out, order = [0.0] * len(documents), sorted((i for i, d in enumerate(documents) if d), key=lambda i: len(documents[i]))
    device = model.lm_head.weight.device
    while order:
        batch, size = [], 0
        while order and (not batch or size + len(documents[order[-1]]) <= batch_tokens):
            batch.append(order.pop())
            size += len(documents[batch[-1]])
        tokens, targets, starts, ends = [], [], [], []
        for i in batch:
            begin = len(tokens)
            tokens += [opener, *documents[i][:-1]]
            targets += documents[i]
            starts += [begin] * len(documents[i])
            ends.append(len(tokens))
        logp = model(*(torch.tensor([x], device=device) for x in (tokens, targets, starts)))[0]
        for i, piece in zip(batch, torch.tensor_split(logp, ends[:-1])):
            out[i] = float(piece.sum())
    return out
