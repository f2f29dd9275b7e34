"""A knowledge base as JSON lines -> pairs of a query and its answer, for contrastive training.

A folder holds, each plain or compressed as corpus/files.py reads it:

    entities.jsonl       {"id": "Q64", "labels": {"en": "Berlin", "kk": "Берлин"}}
    relations.jsonl      {"id": "P36", "labels": {"en": "capital"}}; "{}" in a label stands for the subject, as in
                         "the capital of {} is"; without one the subject's label goes before it
    triples.jsonl        {"subject": "Q183", "relation": "P36", "object": "Q64"}
    descriptions.jsonl   {"entity": "Q64", "text": "Berlin is the capital ..."}, in any language
    sentences.jsonl      {"subject": "Q183", "object": "Q64", "mention": "Berlin", "text": "... Berlin ..."}

The four kinds of pairs are those of the knowledge adapters (Hou et al. 2022, arXiv 2210.13617): ep, two labels of one
entity; tp, a triple's subject and relation with its object, in two random languages; es, a description with a label in
any language; ts, a sentence with its object taken out and a label of the object. Rows that cannot be used are counted
by reason.
"""
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from corpus import files

KINDS = ("ep", "tp", "es", "ts")
FIELDS = {"entities": ("id", "labels"), "relations": ("id", "labels"), "triples": ("subject", "relation", "object"),
          "descriptions": ("entity", "text"), "sentences": ("subject", "object", "mention", "text")}


class Pair(NamedTuple):
    query: str
    key: str
    answer: str  # the entity that the key names


@dataclass
class Knowledge:
    """entities, relations: {id: {language: label}}. triples: (subject, relation, object). dropped: rows by reason."""
    entities: dict = field(default_factory=dict)
    relations: dict = field(default_factory=dict)
    triples: list = field(default_factory=list)
    descriptions: list = field(default_factory=list)  # (entity, text)
    sentences: list = field(default_factory=list)     # (subject, object, the text without its object)
    dropped: Counter = field(default_factory=Counter)


def read_rows(folder: str | Path, name: str) -> Iterator[dict]:
    """The rows of FOLDER/NAME.jsonl, or .jsonl.gz and so on; none without that file. Only entities.jsonl must be there.
    """
    found = sorted(Path(folder).glob(f"{name}.jsonl*"))
    if len(found) > 1 or (name == "entities" and not found):
        raise ValueError(f"{folder}: {len(found)} files {name}.jsonl; expected one")
    for file in found:
        for number, _, line, problem in files.read_lines(file):
            try:
                row = json.loads(line) if line is not None else problem
            except ValueError as e:
                row = e
            if not isinstance(row, dict) or set(row) != set(FIELDS[name]):
                raise ValueError(f"{file}, line {number}: expected an object with {', '.join(FIELDS[name])}, got "
                                 f"{str(row)[:80]}")
            labels = row.get("labels", {})
            texts = [*labels.values()] if isinstance(labels, dict) else [labels]
            texts += [value for key, value in row.items() if key != "labels"]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{file}, line {number}: every field and label must be a text, got {str(row)[:80]}")
            yield row


def read_knowledge(folder: str | Path, languages: list[str]) -> Knowledge:
    """The knowledge base of a folder, with labels in these languages. ValueError names a malformed line."""
    out = Knowledge()
    for name, table in (("entities", out.entities), ("relations", out.relations)):
        for row in read_rows(folder, name):
            labels = {code: text.strip() for code, text in row["labels"].items() if code in languages}
            out.dropped[f"{name}: empty label"] += sum(not text for text in labels.values())
            labels = {code: text for code, text in labels.items() if text}
            if row["id"] in table:
                raise ValueError(f"{folder}: {name}.jsonl has the id {row['id']} twice")
            if labels:
                table[row["id"]] = labels
            else:
                out.dropped[f"{name}: no label in these languages"] += 1
    for row in read_rows(folder, "triples"):
        triple = row["subject"], row["relation"], row["object"]
        if triple[1] not in out.relations:
            out.dropped["triples: relation without a label"] += 1
        elif triple[0] not in out.entities or triple[2] not in out.entities:
            out.dropped["triples: entity without a label"] += 1
        else:
            out.triples.append(triple)
    for row in read_rows(folder, "descriptions"):
        if row["entity"] in out.entities and row["text"].strip():
            out.descriptions.append((row["entity"], row["text"].strip()))
        else:
            out.dropped["descriptions: empty, or of an entity without a label"] += 1
    for row in read_rows(folder, "sentences"):
        count = row["text"].count(row["mention"]) if row["mention"] else 0
        if row["object"] not in out.entities:
            out.dropped["sentences: object without a label"] += 1
        elif count != 1:
            out.dropped[f"sentences: object {'repeated' if count else 'absent'}"] += 1
        else:  # all of it: what is left must not give the answer away
            rest = " ".join(row["text"].replace(row["mention"], " ").split())
            out.sentences.append((row["subject"], row["object"], rest))
    out.dropped = +out.dropped
    return out


def hold_out(knowledge: Knowledge, share: float, seed: int) -> tuple[Knowledge, list[str]]:
    """(what may be trained on, the held-out entities): a share of the subjects of triples and of the other entities.

    Nothing that mentions a held-out entity, as subject, object or topic, is left to train on.
    """
    rng, subjects = random.Random(f"{seed}/held out"), {s for s, _, _ in knowledge.triples}
    held = []
    for group in (sorted(subjects), sorted(set(knowledge.entities) - subjects)):
        held += rng.sample(group, round(share * len(group)))
    out = set(held)
    return Knowledge({k: v for k, v in knowledge.entities.items() if k not in out}, knowledge.relations,
                     [t for t in knowledge.triples if not {t[0], t[2]} & out],
                     [d for d in knowledge.descriptions if d[0] not in out],
                     [s for s in knowledge.sentences if not {s[0], s[1]} & out]), sorted(held)


def question(knowledge: Knowledge, subject: str, relation: str, language: str) -> str:
    """What a triple asks, in one language."""
    label, pattern = knowledge.entities[subject][language], knowledge.relations[relation][language]
    return pattern.replace("{}", label) if "{}" in pattern else f"{label} {pattern}"


def one_pass(knowledge: Knowledge, kind: str, rng: random.Random) -> Iterator[Pair]:
    """Every row of a kind once, in random order and random languages."""
    entities = knowledge.entities

    def label(entity, but=None):
        return entities[entity][rng.choice([code for code in entities[entity] if code != but])]

    if kind == "ep":
        for entity in rng.sample(list(entities), len(entities)):
            if len(entities[entity]) > 1:
                code = rng.choice(list(entities[entity]))
                yield Pair(entities[entity][code], label(entity, but=code), entity)
    elif kind == "tp":
        for subject, relation, answer in rng.sample(knowledge.triples, len(knowledge.triples)):
            shared = [code for code in entities[subject] if code in knowledge.relations[relation]]
            if shared:
                yield Pair(question(knowledge, subject, relation, rng.choice(shared)), label(answer), answer)
    elif kind == "es":
        for entity, text in rng.sample(knowledge.descriptions, len(knowledge.descriptions)):
            yield Pair(text, label(entity), entity)
    else:
        for _, answer, text in rng.sample(knowledge.sentences, len(knowledge.sentences)):
            yield Pair(text, label(answer), answer)


def pair_batches(knowledge: Knowledge, kind: str, batch_size: int, seed: int) -> Iterator[list[Pair]]:
    """Batches of a kind for ever, pass after pass. ValueError when a pass has fewer than two pairs."""
    rng, batch = random.Random(f"{seed}/{kind}"), []
    while True:
        found = 0
        for pair in one_pass(knowledge, kind, rng):
            found += 1
            batch.append(pair)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if found < 2:
            raise ValueError(f"{kind}: {found} pairs to train on, at least 2 are needed; corpus/entity_pairs.py says "
                             "which file they come from")


def count_unusable(knowledge: Knowledge) -> Counter:
    """Rows that no pass uses, by reason."""
    out: Counter = Counter()
    out["entities: one label only (no ep pair)"] = sum(len(v) == 1 for v in knowledge.entities.values())
    out["triples: no language with both labels"] = sum(
        not set(knowledge.entities[s]) & set(knowledge.relations[r]) for s, r, _ in knowledge.triples)
    return +out
