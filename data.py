"""Token shards -> batches: the mixture, the plan and the packing. Raw text never comes here.

The plan is a pure function: which tokens stand in row r of the global batch of step t depends on (seed, t, r) and nothing
else. There is no loader state, so a resumed run reads on exactly where it stopped, with any number of processes.

A source is a folder of shards written by prepare.py: flat token ids, every document ended by the end-of-text id, and an
index.json. Here that id also opens the document behind it: it is the one token a document's first word is predicted from.

Text is cut into rows where it falls; chats are not: a row holds whole ones, best fit, and of a preference pair both. Which lie in
a row is settled once for a source, so a row is again one number.
"""
import hashlib
import heapq
import json
import sys
from bisect import bisect_left, insort
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

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
            self.eot_id, self.bos_id, self.dtype = self.index["eot"], self.index.get("bos"), np.dtype(self.index["dtype"])
            self.counts = [s["tokens"] for s in self.index["shards"]]
            self.tokens, self.bytes = sum(self.counts), sum(s["bytes"] for s in self.index["shards"])
            self.split, self.tokenizer, self.vocab_size = (self.index[k] for k in ("split", "tokenizer", "vocab_size"))
            self.hashes = {self.folder / s["file"]: s["sha256"] for s in self.index["shards"]}
            self.kind = self.index.get("kind", "text")
            self.masks = {self.folder / s["mask"]: s["mask_sha256"] for s in self.index["shards"]} if self.kind != "text" else {}
        except (json.JSONDecodeError, KeyError, TypeError) as e:
            raise ValueError(f"{path}: not an index of token shards ({e!r}); run prepare.py again") from None
        if not self.tokens:
            raise ValueError(f"{path}: the source holds no tokens; run prepare.py again with text in it")
        sizes = [(file, count * self.dtype.itemsize) for file, count in zip(self.hashes, self.counts)]
        for file, wanted in [*sizes, *zip(self.masks, self.counts)]:
            size = file.stat().st_size if file.exists() else 0
            if size != wanted:
                raise ValueError(f"{file}: {size} bytes, its index says {wanted}; run prepare.py again")

    @cached_property
    def shards(self):
        return [np.memmap(file, self.dtype, "r") for file in self.hashes]

    @cached_property
    def marks(self):
        """The masks beside the shards of chats: 1 for a token to be learned, 2 more where a chat begins."""
        return [np.memmap(file, np.uint8, "r") for file in self.masks]

    @cached_property
    def chats(self):
        """(first token, tokens) of every chat, (chats, 2) int64; of pair k the chosen is chat 2k, the rejected one 2k + 1."""
        before = np.cumsum([0, *self.counts])
        first = np.concatenate([np.flatnonzero(np.asarray(mark) & 2) + n for mark, n in zip(self.marks, before)])
        return np.stack([first, np.diff(first, append=self.tokens)], 1)

    @cached_property
    def sizes(self):
        """Places in a row that each chat, or each pair, takes: every token but a chat's last predicts another."""
        return (self.chats[:, 1] - 1).reshape(-1, self.sides).sum(1)

    @property
    def sides(self):
        """Chats that stay together."""
        return 2 if self.kind == "preference" else 1

    def read(self, begin, count, of=None):
        """count tokens from position begin of the ring, int64; of: `marks` for their marks."""
        out, have = np.empty(count, np.int64), 0
        position = begin % self.tokens
        while have < count:
            for shard, size in zip(of or self.shards, self.counts):
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
        for file, wanted in (self.hashes | self.masks).items():
            if hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                raise ValueError(f"{file}: SHA-256 differs from index.json: the file is damaged; run prepare.py again")


def open_sources(folders, split="train"):
    """The sources under a folder, or under each of a list, with this split, by name; ValueError when a folder has none, when two
    sources have one name, or their tokenizers differ."""
    sources, folders = [], folders if isinstance(folders, list) else [folders]
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder of token shards; run prepare.py first, or set data=")
        found = [Source(p.parent) for p in sorted(Path(folder).glob("*/index.json"))]
        found = [s for s in found if s.split == split]
        if not found and split == "train":
            raise ValueError(f"{folder}: no token shards; run prepare.py first, or set data=")
        for s in found:
            if twin := next((p for p in sources if p.name == s.name), None):
                raise ValueError(f"{s.folder} and {twin.folder} have one name; give one of them another in its Prepare config")
        sources += found
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


class Pairs(NamedTuple):
    """Rows of preference pairs: what any batch is, and which token belongs to whom."""
    tokens: torch.Tensor    # (B, T) int64, as the next two
    targets: torch.Tensor   # IGNORE where nothing is learned
    starts: torch.Tensor    # the first position each token may see
    chat: torch.Tensor      # (B, T): the chat of each token; of pair p the chosen one is 2p, the rejected one 2p + 1
    pairs: torch.Tensor     # (P, 2): the source of each pair and its number there


class Schedule:
    """What row r of step t reads. rows: in the global batch; length: tokens per row."""

    def __init__(self, sources, mixture, batch_size, seq_len, seed):
        self.sources, self.weights = sources, weights(sources, mixture)
        self.batch_size, self.seq_len, self.seed = batch_size, seq_len, seed
        # PERIOD rows hold about w PERIOD of each source, evenly spread
        n = np.floor(self.weights * PERIOD).astype(int)
        short = np.argsort(n - self.weights * PERIOD, kind="stable")[:PERIOD - n.sum()]
        n[short] += 1
        self.order = evenly(n)  # (PERIOD,) source of each row
        rank = np.empty(PERIOD, int)
        for i in range(len(n)):
            rank[self.order == i] = np.arange(n[i])
        self.rank, self.per_period = rank, n
        read = [s for s, w in zip(sources, self.weights) if w]
        self.pairs = any(s.kind == "preference" for s in read)
        if self.pairs and any(s.kind != "preference" for s in read):
            some, other = ([s.name for s in read if (s.kind == "preference") == yes] for yes in (True, False))
            raise ValueError(f"mixture: {', '.join(some)} hold preference pairs, {', '.join(other)} do not; they cannot be "
                             "learned in one run")
        self.packed = [best_fit(s.sizes, seq_len, (seed, i)) if s.kind != "text" and w else None
                       for i, (s, w) in enumerate(zip(sources, self.weights))]
        for s, rows in zip(sources, self.packed):
            if rows == []:
                raise ValueError(f"{s.folder}: none of its {len(s.sizes)} chats fits into a row of seq_len={seq_len} (the shortest "
                                 f"takes {s.sizes.min()}); set a larger seq_len, or leave {s.category} out of the mixture")
        self.windows = [max(1, s.tokens // seq_len) if rows is None else len(rows) for s, rows in zip(sources, self.packed)]

    def row(self, step, r):
        """(source index, place) of row r of step's global batch; place: its first token, or the number of a packed row."""
        turn, offset = divmod(step * self.batch_size + r, PERIOD)
        i = int(self.order[offset])
        count = turn * int(self.per_period[i]) + int(self.rank[offset])  # rows taken from this source before
        epoch, k = divmod(count, self.windows[i])
        k = permute(k, self.windows[i], (self.seed, i, epoch))
        return i, k * self.seq_len if self.packed[i] is None else k

    def batch(self, step, rows):
        """tokens, targets, starts (len(rows), length) int64 of these rows of step's global batch; of preference pairs, Pairs."""
        out = []
        for i, at in (self.row(step, r) for r in rows):
            s = self.sources[i]
            if self.packed[i] is None:
                out.append((pack([s.read(at, self.seq_len + 1)], s.eot_id, s.bos_id), []))
            else:
                out.append(pack_chats(s, i, self.packed[i][at], self.seq_len))
        return collate(out)

    def epochs(self, steps):
        """{source name: times it is read through in so many steps}."""
        taken = self.weights * steps * self.batch_size
        passes = taken * self.seq_len / [s.tokens for s in self.sources]
        return {s.name: p if rows is None else t / len(rows) for s, p, t, rows in zip(self.sources, passes, taken, self.packed)}

    def too_long(self):
        """{source name: (chats or pairs longer than a row, which are left out, of how many)} where there are some."""
        over = {s.name: (int((s.sizes > self.seq_len).sum()), len(s.sizes)) for s, rows in zip(self.sources, self.packed) if rows}
        return {name: counts for name, counts in over.items() if counts[0]}

    def fingerprint(self):
        """Identifies everything the plan depends on; a resumed run must have the same."""
        facts = [self.batch_size, self.seq_len, self.seed, [float(w) for w in self.weights],
                 [list((s.hashes | s.masks).values()) for s in self.sources]]
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


def best_fit(sizes, length, key):
    """[[places of some sizes], ...]: rows that hold at most `length`, each size whole and once, but for larger ones.

    The largest first, each into the fullest row with room for it (best-fit decreasing; Ding et al. 2024, arXiv 2404.10830); like
    sizes by lot, as `key` throws it.
    """
    lot = [permute(k, len(sizes), key) for k in range(len(sizes))]
    order = np.array(lot, int)[np.argsort(-sizes[lot], kind="stable")]
    rows, rooms, waiting = [], [], {}  # rooms: rising; waiting {room: rows that have it}
    for k in order[sizes[order] <= length].tolist():
        at = bisect_left(rooms, size := int(sizes[k]))
        if at == len(rooms):
            room, row = length, []
            rows.append(row)
        else:
            room = rooms[at]
            row = waiting[room].pop()
            if not waiting[room]:
                del rooms[at], waiting[room]
        row.append(k)
        if room - size not in waiting:
            insort(rooms, room - size)
        waiting.setdefault(room - size, []).append(row)
    return rows


def pack_chats(source, i, places, length):
    """Whole chats (or pairs) of source number i -> ([tokens, targets, starts, chat], each (1, length) int64, padded at the end;
    [(i, number) of each pair]).

        ids      <|im_start|> user \\n Hi <|im_end|> ... assistant \\n  Ho <|im_end|>    targets: Ho <|im_end|>, others IGNORE

    A chat's tokens are its ids but for the last: nothing opens it, as nothing stands before it when it is asked. A pair's prompt
    stands there twice: what a token sees is an interval (starts), so a second answer could not pass over the first.
    """
    tokens, targets = np.full(length, source.eot_id), np.full(length, IGNORE)
    starts, chat, at = np.zeros(length, int), np.zeros(length, int), 0
    numbers = [k * source.sides + side for k in places for side in range(source.sides)]
    for n, (begin, size) in enumerate(source.chats[numbers].tolist()):
        ids, learn = source.read(begin, size), source.read(begin, size, source.marks) & 1
        row = slice(at, at + size - 1)
        tokens[row], targets[row] = ids[:-1], np.where(learn[1:], ids[1:], IGNORE)
        starts[row], chat[row], at = at, n, row.stop
    starts[at:] = at
    return [torch.from_numpy(x)[None] for x in (tokens, targets, starts, chat)], [(i, k) for k in places if source.sides == 2]


def collate(rows):
    """A batch of [(the tensors of a row, [(source, number) of its pairs])]."""
    parts, pairs = zip(*rows)
    batch = tuple(torch.cat([part[k] for part in parts]) for k in range(3))
    if not pairs[0]:
        return batch
    before = np.cumsum([0, *map(len, pairs)])
    chat = torch.cat([part[3] + 2 * int(n) for part, n in zip(parts, before)])
    return Pairs(*batch, chat, torch.tensor([pair for some in pairs for pair in some]))


def validation(sources, length, limit, rows):
    """Yield (source, bytes to predict, [batches of so many rows]): the first `limit` tokens of each source, every token predicted
    once, in row order. Of chats and pairs the first whole ones; their bytes are in proportion to the tokens to be learned.

    The ring of text is read from the last end-of-text on, so the first document too is predicted from that id. The last row is
    padded with IGNORE targets.
    """
    for i, s in enumerate(sources):
        out, count = [], min(limit, s.tokens)
        if s.kind == "text":
            ids = np.concatenate([[s.eot_id], s.read(0, count)])
            for at in range(0, count, length):
                piece = ids[at:at + length + 1]
                row = pack([np.concatenate([piece, np.full(length + 1 - len(piece), s.eot_id)])], s.eot_id, s.bos_id)
                row[1][0, len(piece) - 1:] = IGNORE
                out.append((row, []))
            size = s.bytes * count / s.tokens
        else:
            front = s.sizes[:max(1, np.searchsorted(s.sizes.cumsum(), limit, "right"))]
            front = best_fit(front, length, 0)
            out = [pack_chats(s, i, places, length) for places in front]
            learned = sum(int((row[1] != IGNORE).sum()) for row, _ in out)
            size = s.bytes * learned / sum(int((np.asarray(mark) & 1).sum()) for mark in s.marks)
        yield s, size, [collate(out[k:k + rows]) for k in range(0, len(out), rows)]
