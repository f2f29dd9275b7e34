"""Token shards -> batches: the mixture, the plan and the packing. Raw text never comes here.

The plan is a pure function: which tokens stand in row r of the global batch of step t depends on (seed, t, r) and nothing
else. There is no loader state, so a resumed run reads on exactly where it stopped, with any number of processes.

A source is a folder of shards written by prepare.py: flat token ids, every document ended by the end-of-text id, and an
index.json. Here that id also opens the document behind it: it is the one token a document's first word is predicted from.
"""
import hashlib
import heapq
import json
import sys
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

IGNORE = -100
PERIOD = 1 << 16  # rows after which the order of sources repeats; weights are exact to 1/PERIOD


class Source:
    """One folder of token shards, read as one endless ring of tokens."""

    def __init__(self, folder):
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.exists():
            raise ValueError(f"{folder}: no index.json; it is written last by prepare.py, so preparing did not finish there")
        try:
            self.index = json.loads(path.read_text())
            self.name, self.category, self.language = (self.index[k] for k in ("name", "category", "language"))
            self.eot, self.bos, self.dtype = self.index["eot"], self.index.get("bos"), np.dtype(self.index["dtype"])
            self.counts = [s["tokens"] for s in self.index["shards"]]
            self.tokens, self.bytes = sum(self.counts), sum(s["bytes"] for s in self.index["shards"])
            self.split, self.tokenizer, self.vocab_size = (self.index[k] for k in ("split", "tokenizer", "vocab_size"))
            self.hashes = {self.folder / s["file"]: s["sha256"] for s in self.index["shards"]}
        except (json.JSONDecodeError, KeyError, TypeError) as e:
            raise ValueError(f"{path}: not an index of token shards ({e!r}); run prepare.py again") from None
        if not self.tokens:
            raise ValueError(f"{path}: the source holds no tokens; run prepare.py again with text in it")
        for file, count in zip(self.hashes, self.counts):
            wanted = count * self.dtype.itemsize
            size = file.stat().st_size if file.exists() else 0
            if size != wanted:
                raise ValueError(f"{file}: {size} bytes, its index says {wanted}; run prepare.py again")

    @cached_property
    def shards(self):
        return [np.memmap(file, self.dtype, "r") for file in self.hashes]

    def read(self, begin, count):
        """count tokens from position begin of the ring, int64."""
        out, have = np.empty(count, np.int64), 0
        position = begin % self.tokens
        while have < count:
            for shard, size in zip(self.shards, self.counts):
                if position < size and have < count:
                    piece = shard[position:position + count - have]
                    out[have:have + len(piece)] = piece
                    have += len(piece)
                    position += len(piece)
                position -= size
            position = 0
        return out

    def verify(self):
        """Compare every shard with its SHA-256; ValueError names the file that differs."""
        for file, wanted in self.hashes.items():
            if hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                raise ValueError(f"{file}: SHA-256 differs from index.json: the file is damaged; run prepare.py again")


def open_sources(folder, split="train"):
    """The sources under a folder with this split, by name; ValueError when there is none or their tokenizers differ."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such folder of token shards; run prepare.py first, or set data=")
    sources = [Source(p.parent) for p in sorted(Path(folder).glob("*/index.json"))]
    sources = [s for s in sources if s.split == split]
    if not sources and split == "train":
        raise ValueError(f"{folder}: no token shards; run prepare.py first, or set data=")
    for s in sources:
        if s.tokenizer != sources[0].tokenizer:
            raise ValueError(f"{s.folder}: made with tokenizer {s.tokenizer}, {sources[0].folder} with {sources[0].tokenizer}; "
                             "prepare both with one tokenizer")
    return sources


def weights(sources, mixture):
    """Per-source shares that sum to 1. mixture: {category or "category/language": share}.

    A category's share is split evenly over its languages (Marco-LLM: uniform inside a group, Tables 1 to 3) but for those that
    have a share of their own; a language's share over its sources in proportion to their tokens.
    """
    groups = {}
    for s in sources:
        groups.setdefault(s.category, {}).setdefault(s.language, []).append(s)
    named = {k: tuple(k.split("/")) for k in mixture if "/" in k}
    empty = sorted(k for k, share in mixture.items() if share > 0 and k not in named and k not in groups)
    empty += sorted(k for k, (category, lang) in named.items() if lang not in groups.get(category, {}))
    if empty:
        raise ValueError(f"mixture: no source of {empty}; the sources have "
                         + ", ".join(f"{c} ({' '.join(sorted(langs))})" for c, langs in sorted(groups.items())))
    unread = sorted(c for c in groups if c not in mixture and not any(k[0] == c for k in named.values()))
    if unread:
        print(f"note: not in the mixture, so not read: {', '.join(unread)}", file=sys.stderr)
    idle = sorted(c for c, langs in groups.items() if mixture.get(c) and all(f"{c}/{k}" in mixture for k in langs))
    if idle:
        raise ValueError(f"mixture: every language of {idle} has a share of its own, "
                         "nobody is left to take the category's; leave it out")
    total, out = sum(mixture.values()), []
    for s in sources:
        peers, own = groups[s.category][s.language], f"{s.category}/{s.language}"
        even = [lang for lang in groups[s.category] if f"{s.category}/{lang}" not in mixture]
        share = mixture[own] if own in mixture else mixture.get(s.category, 0) / len(even)
        out.append(share / total * s.tokens / sum(p.tokens for p in peers))
    return np.array(out)


class Plan:
    """What row r of step t reads. rows: in the global batch; length: tokens per row."""

    def __init__(self, sources, mixture, rows, length, seed):
        self.sources, self.weights = sources, weights(sources, mixture)
        self.rows, self.length, self.seed = rows, length, seed
        # PERIOD rows hold about w PERIOD of each source, evenly spread
        n = np.floor(self.weights * PERIOD).astype(int)
        short = np.argsort(n - self.weights * PERIOD, kind="stable")[:PERIOD - n.sum()]
        n[short] += 1
        self.order = evenly(n)  # (PERIOD,) source of each row
        rank = np.empty(PERIOD, int)
        for i in range(len(n)):
            rank[self.order == i] = np.arange(n[i])
        self.rank, self.per_period = rank, n

    def row(self, step, r):
        """(source index, first token) of row r of step's global batch."""
        turn, offset = divmod(step * self.rows + r, PERIOD)
        i = int(self.order[offset])
        count = turn * int(self.per_period[i]) + int(self.rank[offset])  # rows taken from this source before
        windows = max(1, self.sources[i].tokens // self.length)
        epoch, k = divmod(count, windows)
        return i, permute(k, windows, (self.seed, i, epoch)) * self.length

    def batch(self, step, rows):
        """tokens, targets, starts (len(rows), length) int64 of these rows of step's global batch."""
        return pack([self.sources[i].read(at, self.length + 1) for i, at in (self.row(step, r) for r in rows)],
                    self.sources[0].eot, self.sources[0].bos)

    def epochs(self, steps):
        """{source name: times it is read through in so many steps}."""
        taken = self.weights * steps * self.rows * self.length
        return {s.name: t / s.tokens for s, t in zip(self.sources, taken)}

    def fingerprint(self):
        """Identifies everything the plan depends on; a resumed run must have the same."""
        facts = [self.rows, self.length, self.seed, [float(w) for w in self.weights],
                 [list(s.hashes.values()) for s in self.sources]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def evenly(n):
    """(sum(n),) owners, owner i n[i] times and at every prefix within one of its share: Tijdeman's chairman assignment.

    The j-th turn of i may come from place j sum(n) / n[i] on and must come before (j + 1) sum(n) / n[i]; the most urgent first.
    """
    total, out, ready = sum(n), [], []
    later = [(0.0, i, 0) for i, c in enumerate(n) if c]  # (first place, owner, turn)
    for place in range(total):
        while later and later[0][0] < place + 1:
            _, i, j = heapq.heappop(later)
            heapq.heappush(ready, ((j + 1) * total / n[i], i, j))
        due, i, j = heapq.heappop(ready)
        out.append(i)
        if j + 1 < n[i]:
            heapq.heappush(later, (due, i, j + 1))
    return np.array(out)


def permute(k, n, key):
    """The k-th element of a pseudo-random permutation of range(n): a four-round Feistel network, walked until inside.

    It needs no table, so an epoch of a 90-billion-token source costs nothing to shuffle.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    salt = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    while True:
        a, b = k >> half, k & mask
        for round in range(4):
            x = (b ^ (salt >> (round * 16))) * 0x9E3779B97F4A7C15 + salt + round
            x = ((x ^ (x >> 29)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            a, b = b, a ^ ((x >> 32) & mask)
        k = a << half | b
        if k < n:
            return k


def pack(rows, eot, bos=None):
    """Rows of length + 1 ids -> (tokens, targets, starts), each (rows, length) int64.

        ids      w1  w2 eot  w1  w2  w3 eot        targets  w2 eot  w1  w2  w3 eot
        tokens   w1  w2 eot  w1  w2  w3            starts    0   0   2   2   2   2

    The eot that ends a document is the one that opens the next; a model whose texts begin with BOS (Llama) reads that there.
    """
    ids = torch.from_numpy(np.stack(rows))
    tokens, targets = ids[:, :-1].clone(), ids[:, 1:].clone()
    position = torch.arange(tokens.shape[1]).expand_as(tokens)
    starts = torch.where(tokens == eot, position, 0).cummax(1).values
    if bos is not None:
        tokens[tokens == eot] = bos
    return tokens, targets, starts


def validation(sources, length, limit, rows):
    """Yield (source, [batches]): the first `limit` tokens of each source, every token predicted once, in row order.

    The ring is read from the last end-of-text on, so the first document too is predicted from that id. The last row is padded
    with IGNORE targets.
    """
    for s in sources:
        count = min(limit, s.tokens)
        ids = np.concatenate([[s.eot], s.read(0, count)])
        pieces, batches = [], []
        for i in range(0, count, length):
            piece = ids[i:i + length + 1]
            pieces.append(np.concatenate([piece, np.full(length + 1 - len(piece), s.eot)]))
        left = [min(length, count - i) for i in range(0, count, length)]
        for i in range(0, len(pieces), rows):
            tokens, targets, starts = pack(pieces[i:i + rows], s.eot, s.bos)
            for b, n in enumerate(left[i:i + rows]):
                targets[b, n:] = IGNORE
            batches.append((tokens, targets, starts))
        yield s, count, batches
