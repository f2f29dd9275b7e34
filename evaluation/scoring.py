"""Log-likelihoods as EleutherAI's lm-evaluation-harness defines them, at lower cost: shared prefixes run once, only
scored positions reach the head, and choices that differ in their last token only (A, B, C, D) are one sequence.
"""
import json
import math
from pathlib import Path

import torch

import kernels
from generate import batch_by_length, prefill_prefixes, run_suffixes, suffix_lengths
from model import IGNORE

WINDOW = 4  # batches of sequences whose shared prefixes are kept at the same time


# ---------------------------------------------------------------------- text -> ids

def encode(t, text):
    """Ids of a prompt as in lm-eval: control tokens in it count; BOS comes first unless the text begins with it."""
    ids = t.encode(text, special=True)
    return ids if t.bos_id is None or ids[:1] == [t.bos_id] else [t.bos_id, *ids]


def empty_context_id(t):
    """The id that stands for an empty context: the declared BOS, else EOS (lm-eval's prefix_token_id)."""
    for name in ("bos_token", "eos_token"):
        if (i := declared_id(t, name)) is not None:
            return i
    return t.prefix_token_id


def declared_id(t, name):
    """The id of a special token that tokenizer_config.json names, or None."""
    token = t.config.get(name)
    return t.added_tokens.get(token.get("content") if isinstance(token, dict) else token)


def eos_ids(t, folder):
    """Ids that end a generation: generation_config.json's, else config.json's, and the tokenizer's EOS."""
    eos = declared_id(t, "eos_token")
    ids = {t.eot_id if eos is None else eos}
    for name in ("generation_config.json", "config.json"):
        path = Path(folder) / name
        declared = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
        if declared is not None:
            return ids | set(declared if isinstance(declared, list) else [declared])
    return ids


def encode_pair(t, context, continuation):
    """Ids of a context and its continuation as they are in the joined text.

    The split is at the length of the context's own ids; white space at the end of the context moves to the
    continuation. An empty context is one id, `empty_context_id`.
    """
    if context == "":
        ids, first = t.encode(continuation, special=True), empty_context_id(t)
        return (ids[:1], ids[1:]) if ids[:1] == [first] else ([first], ids)
    stripped = context.rstrip()
    context, continuation = stripped, context[len(stripped):] + continuation
    context_ids = encode(t, context)
    if not context_ids:  # white space only, and no BOS
        return [empty_context_id(t)], encode(t, continuation)
    return context_ids, encode(t, context + continuation)[len(context_ids):]


# ---------------------------------------------------------------------- log-likelihoods of continuations

@torch.inference_mode()
def loglikelihoods(model, pairs, batch_tokens, max_length=None):
    """Pairs of id lists -> [(sum of log p(continuation | context), whether greedy decoding gives it)], float32.

    The input is (context + continuation)[-(max_length + 1):-1]: a long context loses its beginning. ValueError where a
    continuation is empty or alone longer than max_length (default: the model's max_position_embeddings).
    """
    max_length = max_length or model.config.max_position_embeddings
    members = {}  # {input ids: indices of the pairs that share them}
    for i, (context, continuation) in enumerate(pairs):
        if not 0 < len(continuation) <= max_length or not context:
            raise ValueError(f"pair {i}: a context of {len(context)} and a continuation of {len(continuation)} ids; "
                             f"each needs at least one, and the continuation at most max_length={max_length}")
        members.setdefault(tuple((*context, *continuation)[-(max_length + 1):-1]), []).append(i)
    inputs, results = sorted(members), [None] * len(pairs)
    while inputs:
        window, inputs = split_window(inputs, WINDOW * batch_tokens)
        scored = [max(len(pairs[i][1]) for i in members[ids]) for ids in window]
        prefix_caps = [len(ids) - n for ids, n in zip(window, scored)]
        parents = prefill_prefixes(model, window, prefix_caps, batch_tokens)
        for rows in batch_by_length(suffix_lengths(window, parents), batch_tokens):
            texts, prefixes = [window[r] for r in rows], [parents[r] for r in rows]
            hidden, _, _ = run_suffixes(model, texts, prefixes, last=max(scored[r] for r in rows))
            requests = [(row, i) for row, r in enumerate(rows) for i in members[window[r]]]
            answers = score_continuations(model, hidden, [(row, pairs[i][1]) for row, i in requests])
            for (_, i), answer in zip(requests, answers):
                results[i] = answer
    return results


def split_window(inputs, max_tokens):
    """(the first inputs that hold at most max_tokens, at least one; the others)."""
    n, size = 0, 0
    while n < len(inputs) and (n == 0 or size < max_tokens):
        size += len(inputs[n])
        n += 1
    return inputs[:n], inputs[n:]


def score_continuations(model, hidden, requests):
    """[(sum of log p, all ids greedy)] of requests (row, continuation).

    hidden (B, m, C): states that end where the inputs end, so the last len(continuation) positions predict it.
    """
    m = hidden.shape[1]
    positions, targets = [], []  # a position that several continuations need is computed once
    for row, ids in requests:
        positions += [row * m + m - len(ids) + j for j in range(len(ids))]
        targets += ids
    positions, slot = torch.tensor(positions, device=hidden.device).unique(return_inverse=True)
    hidden, targets = hidden.flatten(0, 1)[positions], torch.tensor(targets, device=hidden.device)
    weight = model.lm_head.weight
    best, total = kernels.most_likely(hidden, weight)
    products = hidden[slot].float() * weight[targets].to(hidden.dtype).float()
    # this sum and that of the head round differently: without the limit a certain token gets more than probability 1
    logprobs = (products.sum(-1).to(hidden.dtype).float() - total[slot]).clamp(max=0)
    greedy = best[slot] == targets
    sizes = [len(ids) for _, ids in requests]
    return [(float(a.sum()), bool(b.all())) for a, b in zip(logprobs.split(sizes), greedy.split(sizes))]


# ---------------------------------------------------------------------- log-probabilities of documents

@torch.inference_mode()
def total_logprobs(model, documents, batch_tokens, prefix_id, max_length=None):
    """Log-probability of each whole document (list of ids); its first id is predicted from prefix_id.

    A document longer than max_length (default: the model's max_position_embeddings) is scored in windows. Windows are
    packed into one row without padding; `starts` keeps them apart.
    """
    max_length = max_length or model.config.max_position_embeddings
    windows = []  # (document, inputs, targets)
    for i, ids in enumerate(documents):
        windows += [(i, *window) for window in rolling_windows(ids, prefix_id, max_length)]
    windows.sort(key=lambda window: len(window[1]))
    totals, device = [0.0] * len(documents), model.lm_head.weight.device
    while windows:
        batch, size = [], 0
        while windows and (not batch or size + len(windows[-1][1]) <= batch_tokens):
            batch.append(windows.pop())
            size += len(batch[-1][1])
        tokens, targets, starts, ends = [], [], [], []
        for _, inputs, outputs in batch:
            starts += [len(tokens)] * len(inputs)
            tokens += inputs
            targets += outputs
            ends.append(len(tokens))
        logprobs = model(*(torch.tensor([x], device=device) for x in (tokens, targets, starts)))[0]
        for (i, _, _), piece in zip(batch, torch.tensor_split(logprobs, ends[:-1])):
            totals[i] += float(piece.sum())
    return totals


def bits_per_byte(model, t, texts, batch_tokens=8192):
    """Bits that a model needs for each byte of texts, every text a document of its own."""
    logprobs = total_logprobs(model, [t.encode(text) for text in texts], batch_tokens, t.prefix_token_id)
    return -math.fsum(logprobs) / math.log(2) / sum(len(text.encode()) for text in texts)


def rolling_windows(ids, prefix_id, max_length):
    """(inputs, targets) of the windows of a document, as lm-eval's loglikelihood_rolling cuts them.

    Every id is a target once. The windows follow each other without overlap; only the last one reaches back, to have
    max_length inputs: targets that an earlier window has scored are IGNORE.
    """
    sequence, windows, scored = [prefix_id, *ids], [], 0
    while scored < len(ids):
        end = min(scored + max_length, len(ids))
        begin = max(0, end - max_length)
        windows.append((sequence[begin:end], [IGNORE] * (scored - begin) + ids[scored:end]))
        scored = end
    return windows
