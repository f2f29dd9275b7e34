"""How predictable a text is, in bits per character, under a character model of reference text in its language; numpy
alone.

Marco-LLM and CCNet (arXiv 1911.00359) drop the web pages that a model of good text finds least likely. CCNet's model
is of words, for which a small language has too few counts; this one is of characters, orders 1 to 6, and needs no
notion of a word. With N the counts of n-grams, h the characters before c, and h' those without the first, each order
backs off to the one below (a Dirichlet prior of weight K):

    p(c | h) = (N(hc) + K p(c | h')) / (N(h) + K)

The counts are in one hash table: two n-grams in one slot make a text look a little more likely, and memory is fixed.
"""
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from corpus.read import Document

ORDER, SLOTS = 6, 1 << 22  # 16 MiB of counts
# NTREX, 7 languages, of 1, 2, 4, 8: larger gave fewer bits on held-out text, smaller found shuffled words better
K = 4.0
RARE = 1 / 65536  # probability of an unseen character when nothing is known


def ngram_slots(text: str) -> np.ndarray:
    """(ORDER, T) int64: the slot of the (n + 1)-gram that ends at each character. Case, digits and spaces are
    normalized.
    """
    text = re.sub(r"\d", "0", " " * (ORDER - 1) + " ".join(text.lower().split()))
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    key, out = np.zeros(len(codes), np.uint64), []
    for n in range(ORDER):
        # add the character n places before
        key[n:] = (key[n:] ^ codes[:len(codes) - n]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
        out.append((key[ORDER - 1:] % np.uint64(SLOTS)).astype(np.int64))
    return np.stack(out)


def train(texts: Iterable[str], keep: float = 0.995) -> dict:
    """A model {"table": (SLOTS,) uint32, "total": characters, "most": bits per character}.

    Of every hundred texts the last ten are held out (neighbors are often parts of one text); the fraction `keep` of
    them is below `most`. ValueError when fewer than ten are held out.
    """
    table, total, held_out, pending = np.zeros(SLOTS, np.uint32), 0, [], []
    for i, text in enumerate(texts):
        if i % 100 >= 90:
            held_out.append(text)
            continue
        pending.append(ngram_slots(text))
        total += pending[-1].shape[1]
        if i % 1000 == 0:
            add_counts(table, pending)
            pending = []
    add_counts(table, pending)
    if len(held_out) < 10:
        raise ValueError(f"{len(held_out)} held-out documents to set the bound; at least ten are needed: "
                         "provide a hundred documents")
    model = {"table": table, "total": total}
    bits = [bits_per_character(model, text) for text in held_out]
    return model | {"most": float(np.quantile(bits, keep))}


def add_counts(table, slots):
    """Count n-grams in the table, in place."""
    slot, n = np.unique(np.concatenate([np.zeros((ORDER, 0), np.int64), *slots], 1), return_counts=True)
    table[slot] += n.astype(np.uint32)


def bits_per_character(model: dict, text: str) -> float:
    """The cross-entropy of a text under the model; 0 for an empty text."""
    slots = ngram_slots(text)
    if not slots.shape[1]:
        return 0.0
    counts, p = model["table"][slots].astype(np.float64), RARE
    context = np.full(slots.shape[1], float(model["total"]))
    for n in range(ORDER):
        p = (np.minimum(counts[n], context) + K * p) / (context + K)
        context = np.append(0.0, counts[n, :-1])  # the same n-gram, as context of the next character
    return float(-np.log2(p).mean())


def save(path: str | Path, model: dict):
    with open(path, "wb") as f:
        np.savez_compressed(f, table=model["table"], about=json.dumps({k: model[k] for k in ("total", "most")}))


def load(path: str | Path) -> dict:
    """A model that `save` wrote; ValueError when the file is something else."""
    try:
        with np.load(path, allow_pickle=False) as f:
            model = {"table": f["table"]} | json.loads(str(f["about"]))
        table = model["table"]
        assert table.shape == (SLOTS,) and table.dtype == np.uint32, "its table has another shape or type"
        assert model["most"] > 0 and model["total"] > 0
    except (OSError, EOFError, ValueError, KeyError, TypeError, AssertionError, zipfile.BadZipFile, zlib.error) as e:
        raise ValueError(f"{path} is no perplexity model ({e}); write one with: python prepare.py perplexity") from None
    return model


def filter_perplexity(doc: Document, model: dict) -> str | None:
    """Drop what is less likely than nearly all held-out reference text."""
    return None if bits_per_character(model, doc.text) <= model["most"] else "perplexity: too high"
