"""Probes of several languages side by side: statements to states, scores by layer, controls, and cosines.

Settings `c` are those of recipes/probing.py: c, feature, test_fraction, splits, seed, max_tokens, batch_tokens.
"""
import random
from collections import Counter
from dataclasses import dataclass, field

import torch

from evaluation.probe import METRICS, Scaling, classify, fit_probe, last_states, similarity, split_groups

# ---------------------------------------------------------------------- statements

@dataclass
class Language:
    """The statements of one language, as far as they can be probed."""
    ids: list = field(default_factory=list)
    labels: list = field(default_factory=list)
    groups: list = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)  # by reason
    last_tokens: Counter = field(default_factory=Counter)


def encode_statements(c, t, rows) -> dict[str, Language]:
    """{language: its statements as ids}, after the id that begins a text; the others are counted by reason."""
    labels: dict = {}
    for row in rows:
        labels.setdefault((row["language"], row["text"].strip()), set()).add(row["label"])
    found: dict[str, Language] = {}
    seen = set()
    for row in rows:
        language, key = found.setdefault(row["language"], Language()), (row["language"], row["text"].strip())
        ids = [t.prefix_token_id, *t.encode(row["text"].rstrip())]
        reason = ("empty" if not key[1] else "both labels" if len(labels[key]) > 1 else "duplicate" if key in seen else
                  f"more than {c.max_tokens} tokens" if len(ids) > c.max_tokens else None)
        seen.add(key)
        if reason:
            language.dropped[reason] += 1
            continue
        language.ids.append(ids)
        language.labels.append(row["label"])
        language.groups.append(row["group"])
        language.last_tokens[t.decode(ids[-1:])] += 1
    if empty := sorted(code for code, language in found.items() if not language.ids):
        raise ValueError(f"no statement of {', '.join(empty)} is left: {dict(found[empty[0]].dropped)}")
    return found


def compute_states(c, model, data) -> dict[str, torch.Tensor]:
    """{language: the state of every layer at the last token of its statements, (layers, N, C) float32}."""
    states = {}
    for code, language in data.items():
        parts: list[torch.Tensor] = []
        batch: list[list[int]] = []
        size = 0
        for ids in language.ids:
            if batch and size + len(ids) > c.batch_tokens:
                parts.append(last_states(model, batch, c.feature))
                batch, size = [], 0
            batch.append(ids)
            size += len(ids)
        states[code] = torch.cat([*parts, last_states(model, batch, c.feature)], 1)
    return states


def count_tokens(data) -> dict[str, torch.Tensor]:
    """{language: how often each of its tokens is in each statement, (1, N, tokens)}."""
    counts = {}
    for code, language in data.items():
        column = {i: n for n, i in enumerate(sorted({i for ids in language.ids for i in ids}))}
        counts[code] = torch.zeros(1, len(language.ids), len(column))
        for row, ids in enumerate(language.ids):
            for i in ids:
                counts[code][0, row, column[i]] += 1
    return counts


# ---------------------------------------------------------------------- probes

def has_group(data, groups) -> dict[str, torch.Tensor]:
    return {code: torch.tensor([g in groups for g in language.groups]) for code, language in data.items()}


def split_statements(c, data, split) -> tuple[set, set]:
    """(test groups, the other groups) of a random split, one for all languages."""
    groups = {g for language in data.values() for g in language.groups}
    test = split_groups(sorted(groups), c.test_fraction, c.seed + split)
    return test, groups - test


def fit_scalings(data, states, layer, rows, kind) -> dict:
    """{language: how its states of a layer are standardized}, by these rows of all languages, or of its own."""
    x = {code: states[code][layer][rows[code]] for code in data}
    shared = Scaling.fit(torch.cat(list(x.values()))) if kind == "shared" else None
    return {code: shared or (Scaling.fit(x[code]) if len(x[code]) else None) for code in data}


def fit_languages(c, data, states, layer, rows, scalings, labels) -> dict:
    """{language: the probe of a layer's states in these rows, or None where they do not have both labels}."""
    return {code: fit_probe(states[code][layer][rows[code]], labels[code][rows[code]], scalings[code], c.c,
                            (c.feature, layer)) for code in data}


def all_labels(data):
    return {code: torch.tensor(language.labels) for code, language in data.items()}


def score(probe, x, labels):
    return classify(probe.scores(x), labels) if probe else dict.fromkeys(METRICS)


def probe_languages(c, data, states, scaling, shuffled=False) -> dict[str, dict]:
    """{language: {"layers": scores of every layer, "picked": layer of each split, and the scores there}}, means.

    The layer is picked by the accuracy on a quarter of the training groups, so that the test does not choose it.
    """
    found: dict = {code: {"layers": [], "picked": [], "at": []} for code in data}
    for split in range(c.splits):
        test, rest = split_statements(c, data, split)
        held = split_groups(sorted(rest), 0.25, c.seed + split) if len(rest) > 1 else set()
        at = {name: has_group(data, groups) for name, groups in (("test", test), ("rest", rest), ("held", held),
                                                                 ("fit", rest - held))}
        truth = labels = all_labels(data)
        if shuffled:
            labels = {code: shuffle_rows(y, at["rest"][code], f"{c.seed + split}/{code}") for code, y in truth.items()}
        scores: dict = {code: [] for code in data}  # of each layer: (on the held-out quarter, on the test)
        for layer in range(len(next(iter(states.values())))):
            scalings = fit_scalings(data, states, layer, at["rest"], scaling)
            inner, outer = (fit_languages(c, data, states, layer, at[name], scalings, labels)
                            for name in ("fit", "rest"))
            for code in data:
                x = states[code][layer]
                scores[code].append([score(probe, x[rows], y[rows]) for probe, rows, y in (
                    (inner[code], at["held"][code], labels[code]), (outer[code], at["test"][code], truth[code]))])
        for code, of_layers in scores.items():
            best = max(range(len(of_layers)), key=lambda i: of_layers[i][0]["accuracy"] or 0)
            found[code]["picked"].append(best)
            found[code]["at"].append(of_layers[best][1])
            found[code]["layers"].append([test_scores for _, test_scores in of_layers])
    return {code: {"layers": [mean_scores(of_layer) for of_layer in zip(*r["layers"])], "picked": r["picked"]}
            | mean_scores(r["at"]) for code, r in found.items()}


def shuffle_rows(labels, rows, seed):
    """Labels with those of the rows in random order."""
    order, out = rows.nonzero()[:, 0].tolist(), labels.clone()
    out[rows] = labels[random.Random(f"{seed}/labels").sample(order, len(order))]
    return out


def mean_scores(scores):
    """The mean of each metric over where it is defined; None where it never is."""
    values = {k: [s[k] for s in scores if s[k] is not None] for k in METRICS}
    return {k: sum(v) / len(v) if v else None for k, v in values.items()}


def compare_languages(c, data, states, layer) -> dict:
    """Cosines of the languages' probes of one layer, and of each language's two probes of half of its groups."""
    _, rest = split_statements(c, data, 0)
    half = split_groups(sorted(rest), 0.5, c.seed) if len(rest) > 1 else rest
    at = [has_group(data, groups) for groups in (rest, half, rest - half)]
    scalings = fit_scalings(data, states, layer, at[0], "shared")  # one for all, or cosines would mean nothing
    whole, *halves = (fit_languages(c, data, states, layer, rows, scalings, all_labels(data)) for rows in at)

    def cosine(a, b):
        return similarity(a, b) if a and b else None

    return {"layer": layer, "cosine": {x: {y: cosine(whole[x], whole[y]) for y in data} for x in data},
            "reliability": {x: cosine(halves[0][x], halves[1][x]) for x in data}}
