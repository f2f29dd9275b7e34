"""Beam search among known strings: the entities of a language, ranked by log-probability after a prompt.

A candidate is a list of ids that ends in an end id, so that one that is the beginning of another can be found, too. All
candidates form one trie; a hypothesis is a node of it, and all hypotheses of all prompts share one KV cache. With at
least as many beams as candidates nothing is pruned, and the ranking is that of scoring every candidate (Prix-LM, arXiv
2110.08443).

generate() with the trie as its allowed_next finds the same best candidate with enough beams, and never a better one
(tests/test_prixlm.py). But it returns one text, while ranks need the score of every candidate that was reached; and
each of its steps runs all beams and masks the whole vocabulary, though the trie allows only a few ids. So this search
shares generate's prefill and cache, but reads only the logits of the trie's children.
"""
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from generate import prefill_prompts
from model import Qwen2


@dataclass
class Node:
    children: dict[int, "Node"] = field(default_factory=dict)  # {id: the node after it}
    candidate: int | None = None                                # that ends here


def build_trie(candidates: Sequence[Sequence[int]]) -> Node:
    """The trie of candidates (lists of ids); ValueError where one is empty, occurs twice, or goes on after another's
    end."""
    root = Node()
    for index, ids in enumerate(candidates):
        node = root
        for i in ids:
            node = node.children.setdefault(i, Node())
        if not ids or node.candidate is not None:
            raise ValueError(f"candidate {index} {'is empty' if not ids else f'equals candidate {node.candidate}'}; "
                             "merge names with equal ids and leave out empty ones")
        node.candidate = index
    todo = [root]
    while todo:
        node = todo.pop()
        if node.children and node.candidate is not None:
            raise ValueError(f"candidate {node.candidate} begins another one; end every candidate in an end id")
        todo += node.children.values()
    if not root.children:
        raise ValueError("there are no candidates; name at least one entity")
    return root


@torch.inference_mode()
def rank_candidates(model: Qwen2, prompts: list[list[int]], trie: Node, beams: int, batch_size: int = 16,
                    length_penalty: float = 0.0) -> list[list[tuple[int, float]]]:
    """For each prompt (ids) its candidates that were found, as (index, score), best first; equal scores by index.

    score: the sum of log p over the candidate's ids, over all of the vocabulary, / ids ** length_penalty. Each step
    keeps the `beams` best unfinished hypotheses of a prompt, by the same score; finished ones do not compete.
    """
    if beams < 1 or batch_size < 1:
        raise ValueError(f"beams and batch_size must be at least 1, got {beams} and {batch_size}")
    if not all(prompts):
        raise ValueError("a prompt is empty; give at least one id")
    found: list[list[tuple[int, float]]] = []
    for i in range(0, len(prompts), batch_size):
        found += rank_batch(model, prompts[i:i + batch_size], trie, beams, length_penalty)
    return [sorted(f, key=lambda x: (-x[1], x[0])) for f in found]


def rank_batch(model, prompts, trie, beams, length_penalty):
    """The candidates found after each prompt, unordered."""
    depth = longest_path(trie)
    longest = max(map(len, prompts)) + depth - 1
    if longest > model.config.max_position_embeddings:
        raise ValueError(f"a prompt and a candidate have {longest} ids together, above max_position_embeddings="
                         f"{model.config.max_position_embeddings} of the model")
    logits, cache, starts = prefill_prompts(model, prompts, depth)
    found: list[list[tuple[int, float]]] = [[] for _ in prompts]
    running = [(p, trie, 0.0) for p in range(len(prompts))]  # (prompt, node, sum of log p) of each row of the cache
    for length in range(1, depth + 1):
        logp = torch.log_softmax(logits.float(), -1)
        extended: list[list[tuple]] = [[] for _ in prompts]  # of each prompt: (sum, row of the parent, id, node)
        for row, (p, node, total) in enumerate(running):
            ids = list(node.children)
            for i, x in zip(ids, logp[row, ids].tolist()):
                extended[p].append((total + x, row, i, node.children[i]))
        running, parents, tokens = [], [], []
        for p, hypotheses in enumerate(extended):
            found[p] += [(node.candidate, total / length ** length_penalty) for total, _, _, node in hypotheses
                         if node.candidate is not None]
            unfinished = sorted((h for h in hypotheses if h[3].children), key=lambda h: -h[0])[:beams]
            running += [(p, node, total) for total, _, _, node in unfinished]
            parents += [row for _, row, _, _ in unfinished]
            tokens += [i for _, _, i, _ in unfinished]
        if not running:
            return found
        cache.select_rows(parents)
        starts = starts[parents]
        logits = model.logits(torch.tensor(tokens, device=logits.device)[:, None], starts, cache)
    return found


def longest_path(node) -> int:
    """Ids of the longest candidate."""
    level, depth = [node], 0
    while level := [child for n in level for child in n.children.values()]:
        depth += 1
    return depth


# ---------------------------------------------------------------------- names and ranks

@dataclass(frozen=True)
class Entities:
    index: dict[str, int]  # {name: its candidate}; names with equal ids are one candidate
    names: list[str]       # of each candidate, the first of its names
    trie: Node
    counts: Counter        # of names left out, merged, or unusual, by reason


def encode_entities(t, names: Sequence[str], max_ids: int) -> Entities:
    """The candidates of a language: its names as answers to a question, by the tokenizer's chat template, each with
    the id that ends an answer. Names of more than max_ids ids are left out."""
    index: dict[str, int] = {}
    first: dict[tuple[int, ...], str] = {}  # {ids: the first name that has them}
    counts: Counter = Counter()
    for name in dict.fromkeys(names):
        ids, mask = t.encode_with_loss_mask([{"role": "user", "content": "?"}, {"role": "assistant", "content": name}])
        answer = tuple(i for i, is_learned in zip(ids, mask) if is_learned)
        if len(answer) > max_ids:
            counts[f"more than {max_ids} ids, left out"] += 1
            continue
        counts["same ids as another name, merged"] += answer in first
        counts["spells a control token, kept as text"] += t.contains_control_text(name)
        index[name] = index[first[answer]] if answer in first else len(first)
        first.setdefault(answer, name)
    return Entities(index, list(first.values()), build_trie(list(first)), +counts)


def rank_answers(model: Qwen2, t, entities: Entities, questions: Sequence[tuple[str, str]], known: dict[str, set[str]],
                 beams: int, batch_size: int = 16, length_penalty: float = 0.0) -> list[tuple[int | None, str]]:
    """(filtered rank of the right answer, best name) of each (question, right answer). known: {question: all right
    answers}. ValueError for an answer that is no entity: it could never be found."""
    for asked, answer in questions:
        if answer not in entities.index:
            raise ValueError(f"the answer {answer!r} to {asked!r} is none of the {len(entities.names)} entities; add "
                             "it to them or leave the question out")
    prompts = [t.encode_chat([{"role": "user", "content": asked}]) for asked, _ in questions]
    found = rank_candidates(model, prompts, entities.trie, beams, batch_size, length_penalty)
    ranks = []
    for (asked, answer), scores in zip(questions, found):
        others = {entities.index[name] for name in known.get(asked, ()) if name in entities.index}
        ranks.append((filtered_rank(dict(scores), entities.index[answer], others), entities.names[scores[0][0]]))
    return ranks


def filtered_rank(scores: dict, gold, known=frozenset()) -> int | None:
    """The rank of gold among scored candidates, from 1, without the other right answers `known`; ties count against it.

    None where the search did not reach it: a miss at every k.
    """
    if gold not in scores:
        return None
    return sum(score >= scores[gold] for x, score in scores.items() if x == gold or x not in known)


def rank_metrics(ranks: Sequence[int | None], ks=(1, 3, 10)) -> dict[str, float | None]:
    """{"hits@k" and "mrr"}: a rank that is None counts 0; no ranks, no metrics."""
    n = len(ranks)
    out: dict[str, float | None] = {f"hits@{k}": sum(r is not None and r <= k for r in ranks) / n if n else None
                                    for k in ks}
    return out | {"mrr": sum(1 / r for r in ranks if r is not None) / n if n else None}
