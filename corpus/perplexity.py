"""How expected a text is, in bits per character, by a character model of reference text in its language; numpy alone.

Marco-LLM and CCNet (arXiv 1911.00359) drop the web pages that a model of good text finds least likely. CCNet's is of words, which
leaves little to count in a small language: this one is of characters, orders 1 to 6, and needs no notion of a word. With N counts
of pieces, h the characters before c, h' those without the first, each order leans on the one below (a Dirichlet prior, weight K):

    p(c | h) = (N(hc) + K p(c | h')) / (N(h) + K)

The counts stand in one table by hash: two pieces in one slot make a text look a little more likely, and memory is fixed.
"""
import json
import re
import zipfile
import zlib

import numpy as np

ORDER, SLOTS = 6, 1 << 22  # 16 MiB of counts
K = 4.0  # NTREX, 7 languages: of 1, 2, 4, 8 the larger gave fewer bits on held-out text, the smaller told shuffled words better
RARE = 1 / 65536  # what an unseen character gets when nothing is known


def pieces(text):
    """(ORDER, T) int64: the slot of the piece of n + 1 characters that ends at each place. Case, digits, spaces are made even."""
    text = re.sub(r"\d", "0", " " * (ORDER - 1) + " ".join(text.lower().split()))
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    key, out = np.zeros(len(codes), np.uint64), []
    for n in range(ORDER):
        key[n:] = (key[n:] ^ codes[:len(codes) - n]) * np.uint64(0x9E3779B97F4A7C15)  # the character n places before joins
        key ^= key >> np.uint64(29)
        out.append((key[ORDER - 1:] % np.uint64(SLOTS)).astype(np.int64))
    return np.stack(out)


def train(texts, keep=0.995):
    """texts -> a model {"table": (SLOTS,) uint32, "total": characters, "most": bits per character}.

    Of every hundred texts the last ten are held out (neighbours are often of one piece); their share `keep` stays below `most`.
    ValueError when they are fewer than ten.
    """
    table, total, held, waiting = np.zeros(SLOTS, np.uint32), 0, [], []
    for i, text in enumerate(texts):
        if i % 100 >= 90:
            held.append(text)
            continue
        waiting.append(pieces(text))
        total += waiting[-1].shape[1]
        if i % 1000 == 0:
            count(table, waiting)
            waiting = []
    count(table, waiting)
    if len(held) < 10:
        raise ValueError(f"{len(held)} documents to find the bound with, ten at least are needed: bring a hundred documents")
    model = {"table": table, "total": total}
    return model | {"most": float(np.quantile([bits(model, text) for text in held], keep))}


def count(table, some):
    """Add pieces to the table in place."""
    slot, n = np.unique(np.concatenate([np.zeros((ORDER, 0), np.int64), *some], 1), return_counts=True)
    table[slot] += n.astype(np.uint32)


def bits(model, text):
    """Bits per character of a text; of nothing 0."""
    slots = pieces(text)
    if not slots.shape[1]:
        return 0.0
    counts, p = model["table"][slots].astype(np.float64), RARE
    before = np.full(slots.shape[1], float(model["total"]))
    for n in range(ORDER):
        p = (np.minimum(counts[n], before) + K * p) / (before + K)
        before = np.append(0.0, counts[n, :-1])  # the same piece, as context of the next character
    return float(-np.log2(p).mean())


def save(path, model):
    with open(path, "wb") as f:
        np.savez_compressed(f, table=model["table"], about=json.dumps({k: model[k] for k in ("total", "most")}))


def load(path):
    """A model that `save` wrote; ValueError when the file is something else."""
    try:
        with np.load(path, allow_pickle=False) as f:
            model = {"table": f["table"]} | json.loads(str(f["about"]))
        assert model["table"].shape == (SLOTS,) and model["table"].dtype == np.uint32, "its table is another"
        assert model["most"] > 0 and model["total"] > 0
    except (OSError, EOFError, ValueError, KeyError, TypeError, AssertionError, zipfile.BadZipFile, zlib.error) as e:
        raise ValueError(f"{path} is no perplexity model ({e}); write one with: python prepare.py perplexity") from None
    return model


def perplexity(doc, model):
    """A filter: what is less likely than nearly all held-out reference text is dropped."""
    return None if bits(model, doc.text) <= model["most"] else "perplexity: too high"
