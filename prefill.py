"""Many texts through the model at once: a beginning that several of them share is computed once, the rest without padding.

The texts, sorted, are the leaves of a tree; an inner node is a beginning that at least two share (few-shot examples, a passage, a
question before its choices). Every node runs behind the keys and values of its parent. A batch is one rectangle of tokens, as
wide as the longest rest in it; a shorter text fills its row with the end of its parent, computed again:

    row of text 1     . . P P P P|r r r r      P: the parent's keys and values, copied; r: the tokens of this forward
    row of text 2     P P P P P P|p p r r      p: the parent's last tokens once more, instead of padding

Used by evaluation/scoring.py (the texts are contexts with their continuations) and generate.py (prompts).
"""
from itertools import pairwise

import torch

from model import Cache

WORTH = 8  # tokens that a node must add to its parent: below, the price of one more row eats what is saved


def prefix_tree(texts, caps):
    """Sorted lists of ids -> (nodes, parents): which beginnings are shared; caps[i]: how many ids of text i may be.

    A node is (a text that begins with it, its length, its parent's number or None), parents first; parents[i] is text i's node.
    """
    common = [min(shared(a, b), x, y) for (a, x), (b, y) in pairwise(zip(texts, caps))]
    nodes, parents, todo = [], [None] * len(texts), [(0, len(texts), None)]
    while todo:
        begin, end, above = todo.pop()
        if end - begin == 1:
            parents[begin] = above
            continue
        length = min(common[begin:end - 1])  # what all of them share
        if length - (0 if above is None else nodes[above][1]) >= WORTH:
            nodes.append((begin, length, above))
            above = len(nodes) - 1
        cuts = [begin, *(i + 1 for i in range(begin, end - 1) if common[i] == length), end]
        todo += [(a, b, above) for a, b in pairwise(cuts)]
    return nodes, parents


def shared(a, b):
    """How many ids two lists have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def trunk(model, texts, caps, batch_tokens):
    """The keys and values of each text's longest shared beginning: a list of (k, v), each (L, P, K, D), or None."""
    order = sorted(range(len(texts)), key=texts.__getitem__)
    nodes, parents = prefix_tree([texts[i] for i in order], [caps[i] for i in order])
    done = {None: None}
    while len(done) <= len(nodes):  # one level of the tree after the other
        ready = [n for n, (_, _, above) in enumerate(nodes) if n not in done and above in done]
        begins = [texts[order[i]][:length] for i, length, _ in (nodes[n] for n in ready)]
        above = [done[nodes[n][2]] for n in ready]
        for rows in batches(rests(begins, above), batch_tokens):
            _, cache, _ = behind(model, [begins[i] for i in rows], [above[i] for i in rows])
            for row, i in enumerate(rows):
                done[ready[i]] = cache.tail(row, len(begins[i]))
    found = [None] * len(texts)
    for i, n in zip(order, parents):
        found[i] = done[n]
    return found


def rests(texts, parents):
    """Tokens of each text that its parent does not have."""
    return [len(text) - (0 if p is None else p[0].shape[1]) for text, p in zip(texts, parents)]


def batches(sizes, batch_tokens):
    """Numbers of texts in batches of like size, the largest first, each a rectangle of at most batch_tokens or a single row.

    From an eighth of batch_tokens on, a text shorter than nine tenths of the widest begins another batch: a forward of so many
    tokens costs by the token, and padding costs as much.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    while order:
        m, n = sizes[order[0]], 1
        while n < len(order) and (n + 1) * m <= batch_tokens and (sizes[order[n]] >= 0.9 * m or 8 * n * m < batch_tokens):
            n += 1
        yield order[:n]
        order = order[n:]


def behind(model, texts, parents, room=0):
    """Run texts, each behind its parent's keys and values -> (hidden states of the rectangle (B, m, C), cache, starts (B, 1)).

    All rows end in the cache's column T - 1, where the longest text ends; room: columns kept free behind it.
    """
    m, T = max(rests(texts, parents)), max(map(len, texts))
    cache, device = Cache(model, len(texts), T + room), model.lm_head.weight.device
    for row, (text, parent) in enumerate(zip(texts, parents)):
        if len(text) > m:
            cache.fill(row, T - len(text), parent, len(text) - m)
    cache.length = T - m
    tokens = torch.tensor([[0] * (m - len(text)) + list(text[-m:]) for text in texts], device=device)
    starts = torch.tensor([[T - len(text)] for text in texts], device=device)
    alone = torch.minimum(starts, torch.arange(T - m, T, device=device))  # padding sees itself: no key at all may be nan
    return model(tokens, starts=alone, cache=cache, hidden="last"), cache, starts
