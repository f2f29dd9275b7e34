"""Token shards to batches: mixture, schedule, packing. Raw text never comes here.

The schedule is a pure function: the tokens in row r of the global batch of step t depend on (seed, t, r) and on nothing
else. There is no loader state, so a resumed run reads exactly what an unbroken one would, with any number of processes.

A source is a folder of shards written by prepare.py: flat token ids, each document ended by the end-of-text id (eot),
and an index.json. In a batch that eot also opens the next document: it is the token its first word is predicted from.

Text is cut into windows of seq_len tokens. Chats are never cut: a row holds whole ones, and both chats of a preference
pair. Which chats share a row is decided once per source, so a row of chats is identified by one number, as a window is.
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
DTYPES, KINDS = ("uint16", "uint32"), ("text", "chat", "preference")  # of shards
PERIOD = 1 << 16  # rows after which the order of sources repeats; weights are exact to 1/PERIOD


class Batch(NamedTuple):
    """What a model is trained on: B rows of T tokens. The last two fields are set for preference pairs only."""
    tokens: torch.Tensor                # (B, T) int64
    targets: torch.Tensor               # (B, T): the token to predict; IGNORE where there is no loss
    starts: torch.Tensor                # (B, T): the first position each token may attend to
    chat: torch.Tensor | None = None    # (B, T): the chat of each token: of pair p, 2p is chosen and 2p + 1 rejected
    pairs: torch.Tensor | None = None   # (P, 2): (source, number within the source) of each pair

    def to(self, device):
        return Batch(*(x if x is None else x.to(device, non_blocking=True) for x in self))


# ---------------------------------------------------------------------- sources

class Source:
    """A folder of token shards, read as one endless ring of tokens."""

    def __init__(self, folder):
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.exists():
            raise ValueError(f"{folder}: no index.json; prepare.py writes it last, so it did not finish there")
        try:
            self.index = index = json.loads(path.read_text())
            self.name, self.category, self.language = index["name"], index["category"], index["language"]
            self.split, self.tokenizer, self.vocab_size = index["split"], index["tokenizer"], index["vocab_size"]
            self.kind = index.get("kind", "text")
            self.eot_id, self.bos_id, dtype = index["eot"], index.get("bos"), index["dtype"]
            shards = index["shards"]
            self.shard_tokens = [s["tokens"] for s in shards]
            self.tokens, self.bytes = sum(self.shard_tokens), sum(s["bytes"] for s in shards)
            self.shard_sha256 = {self.folder / s["file"]: s["sha256"] for s in shards}
            with_mask = shards if self.kind in KINDS[1:] else []
            self.mask_sha256 = {self.folder / s["mask"]: s["mask_sha256"] for s in with_mask}
            if not all(type(n) is int and n >= 0 for n in (self.eot_id, self.vocab_size, *self.shard_tokens)):
                raise TypeError("eot, vocab_size and tokens must be counts")
            if dtype not in DTYPES or self.kind not in KINDS or self.eot_id >= self.vocab_size:
                raise TypeError(f"dtype {dtype!r}, kind {self.kind!r}, eot {self.eot_id} of {self.vocab_size} ids")
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{path}: not an index of token shards ({e!r}); run prepare.py again") from None
        if not self.tokens:
            raise ValueError(f"{path}: the source holds no tokens; run prepare.py again with text in it")
        self.dtype, self.chats_per_example = np.dtype(dtype), 2 if self.kind == "preference" else 1
        sizes = [(file, n * self.dtype.itemsize) for file, n in zip(self.shard_sha256, self.shard_tokens)]
        for file, wanted in [*sizes, *zip(self.mask_sha256, self.shard_tokens)]:
            size = file.stat().st_size if file.exists() else 0
            if size != wanted:
                raise ValueError(f"{file}: {size} bytes, its index says {wanted}; run prepare.py again")

    @cached_property
    def shards(self):
        return [np.memmap(file, self.dtype, "r") for file in self.shard_sha256]

    @cached_property
    def masks(self):
        """Flags beside the tokens of chats: 1 for a token with a loss, 2 (added) for the first token of a chat."""
        return [np.memmap(file, np.uint8, "r") for file in self.mask_sha256]

    @cached_property
    def chats(self):
        """(first token, tokens) of every chat, (chats, 2) int64. Of pair k, chat 2k is chosen and 2k + 1 rejected."""
        shard_begin = np.cumsum([0, *self.shard_tokens])
        first = np.concatenate([np.flatnonzero(np.asarray(m) & 2) + n for m, n in zip(self.masks, shard_begin)])
        return np.stack([first, np.diff(first, append=self.tokens)], 1)

    @cached_property
    def lengths(self):
        """Positions each chat, or each pair, takes in a row: all tokens but a chat's last, which predicts nothing."""
        return (self.chats[:, 1] - 1).reshape(-1, self.chats_per_example).sum(1)

    def read(self, begin, count):
        """count tokens from position begin of the ring, int64."""
        ids = self.read_ring(self.shards, begin, count)
        if count and ids.max() >= self.vocab_size:
            self.check_ids()
        return ids

    def read_mask(self, begin, count):
        """The flags of the same tokens, int64."""
        return self.read_ring(self.masks, begin, count)

    def read_ring(self, shards, begin, count):
        out, filled, position = np.empty(count, np.int64), 0, begin % self.tokens
        while filled < count:
            for shard, size in zip(shards, self.shard_tokens):
                if position < size and filled < count:
                    piece = shard[position:position + count - filled]
                    out[filled:filled + len(piece)] = piece
                    filled += len(piece)
                    position += len(piece)
                position -= size
            position = 0
        return out

    def verify(self):
        """Compare every file with its SHA-256, and every id with the vocabulary; ValueError names the file."""
        for file, wanted in (self.shard_sha256 | self.mask_sha256).items():
            if hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
                raise ValueError(f"{file}: SHA-256 differs from index.json: the file is damaged; run prepare.py again")
        self.check_ids()

    def check_ids(self):
        for file, shard in zip(self.shard_sha256, self.shards):
            if len(shard) and shard.max() >= self.vocab_size:
                place = int((np.asarray(shard) >= self.vocab_size).argmax())
                raise ValueError(f"{file}: token {place} is id {shard[place]}, outside vocab_size={self.vocab_size}; "
                                 "run prepare.py again")


def open_sources(folders: str | Path | list, split: str = "train") -> list[Source]:
    """The sources of this split in one folder or several, sorted by name within a folder.

    ValueError when a folder has no training shards, two sources share a name, or their tokenizers differ.
    """
    sources = []
    for folder in folders if isinstance(folders, list) else [folders]:
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder of token shards; run prepare.py first, or set data=")
        of_folder = [Source(path.parent) for path in sorted(Path(folder).glob("*/index.json"))]
        of_folder = [s for s in of_folder if s.split == split]
        if not of_folder and split == "train":
            raise ValueError(f"{folder}: no token shards; run prepare.py first, or set data=")
        sources += of_folder
    for i, s in enumerate(sources):
        for other in sources[:i]:
            if other.name == s.name:
                raise ValueError(f"{s.folder} and {other.folder} have one name; rename one in its data config")
        if s.tokenizer != sources[0].tokenizer:
            raise ValueError(f"{s.folder}: made with tokenizer {s.tokenizer}, {sources[0].folder} with "
                             f"{sources[0].tokenizer}; prepare both with the same tokenizer")
    return sources


# ---------------------------------------------------------------------- mixture

def mixture_weights(sources, mixture):
    """Sampling weight of each source; they sum to 1. mixture: {category or "category/language": share}.

    A category's share is split evenly over its languages (Marco-LLM: uniform within a group, Tables 1 to 3), except
    those with a share of their own. A language's share is split over its sources in proportion to their tokens.
    """
    groups = {}  # {category: {language: its sources}}
    for s in sources:
        groups.setdefault(s.category, {}).setdefault(s.language, []).append(s)
    check_mixture(groups, mixture)
    total, out = sum(mixture.values()), []
    for s in sources:
        own, peers = f"{s.category}/{s.language}", groups[s.category][s.language]
        if own in mixture:
            share = mixture[own]
        else:
            even = sum(f"{s.category}/{lang}" not in mixture for lang in groups[s.category])
            share = mixture.get(s.category, 0) / even
        out.append(share / total * s.tokens / sum(p.tokens for p in peers))
    return np.array(out)


def check_mixture(groups, mixture):
    """ValueError for shares that no source can take; a note for categories without a share."""
    languages = {name: name.split("/") for name in mixture if "/" in name}
    unknown = sorted(name for name, share in mixture.items() if share > 0 and "/" not in name and name not in groups)
    unknown += sorted(name for name, (category, lang) in languages.items() if lang not in groups.get(category, {}))
    if unknown:
        available = [f"{category} ({' '.join(sorted(langs))})" for category, langs in sorted(groups.items())]
        raise ValueError(f"mixture: no source of {unknown}; the sources have {', '.join(available)}")
    read = set(mixture) | {category for category, _ in languages.values()}
    if set(groups) - read:
        print(f"note: not in the mixture, so not read: {', '.join(sorted(set(groups) - read))}", file=sys.stderr)
    for category, langs in sorted(groups.items()):
        if mixture.get(category) and all(f"{category}/{lang}" in mixture for lang in langs):
            raise ValueError(f"mixture: every language of '{category}' has a share of its own, so none is left to take "
                             f"the category's {mixture[category]}; remove it")


# ---------------------------------------------------------------------- schedule

class Schedule:
    """Which tokens are in row r of the global batch of step t: a pure function of (seed, t, r).

    The order of sources is a low-discrepancy sequence that repeats after PERIOD rows; source i has quota[i] of them.
    The n-th row of a source is its n-th window in a permuted order, with another permutation in each epoch. Windows of
    text shift: an epoch begins at the tail that was too short for a window in the one before, so every token is read
    within two epochs. A mixture that changes during the run is training/stages.py's.
    """

    def __init__(self, sources, mixture, batch_size, seq_len, seed):
        self.sources, self.batch_size, self.seq_len, self.seed = sources, batch_size, seq_len, seed
        self.weights = self.plan_rows(mixture)
        self.has_pairs = check_kinds([s for s, w in zip(sources, self.weights) if w])
        self.packed, self.windows = [], []  # of each source: its packed rows (None for text), and its windows per epoch
        for i, (s, w) in enumerate(zip(sources, self.weights)):
            rows = best_fit(s.lengths, seq_len, (seed, i)) if s.kind != "text" and w else None
            if rows == []:
                raise ValueError(f"{s.folder}: none of its {len(s.lengths)} chats fits into a row of seq_len={seq_len} "
                                 f"(the shortest takes {s.lengths.min()}); set a larger seq_len, or take {s.category} "
                                 "out of the mixture")
            self.packed.append(rows)
            self.windows.append(max(1, s.tokens // seq_len) if rows is None else len(rows))

    def plan_rows(self, mixture):
        """Decide which source each row is of; return the share of each source."""
        weights = mixture_weights(self.sources, mixture)
        self.quota = quotas(weights)                   # (sources,) rows of each source in a period
        self.order = low_discrepancy_order(self.quota)  # (PERIOD,) source of each row
        self.turn = np.empty(PERIOD, int)              # (PERIOD,) the row's number among those of its source
        for i, n in enumerate(self.quota):
            self.turn[self.order == i] = np.arange(n)
        return weights

    def find_row(self, row):
        """(source index, rows of this source before it) of a row, counted through all batches."""
        period, place = divmod(row, PERIOD)
        i = int(self.order[place])
        return i, period * int(self.quota[i]) + int(self.turn[place])

    def locate(self, step, r):
        """(source index, position) of row r of a step; position: its first token, or the number of a packed row."""
        i, rows_before = self.find_row(step * self.batch_size + r)
        epoch, k = divmod(rows_before, self.windows[i])
        window = permute(k, self.windows[i], (self.seed, i, epoch))
        if self.packed[i] is not None:
            return i, window
        tokens = self.sources[i].tokens
        shift = epoch * self.windows[i] if tokens > self.seq_len else 0  # every window holds all of a shorter source
        return i, (window + shift) * self.seq_len % tokens

    def batch(self, step, rows):
        """The Batch of these rows of a step's global batch."""
        out = []
        for r in rows:
            i, position = self.locate(step, r)
            s, packed = self.sources[i], self.packed[i]
            out.append(pack_text(s.read(position, self.seq_len + 1), s.eot_id, s.bos_id) if packed is None else
                       pack_chats(s, i, packed[position], self.seq_len))
        return collate(out)

    def epochs(self, steps):
        """{source name: times it is read in so many steps}."""
        rows = self.weights * steps * self.batch_size
        return {s.name: n * self.seq_len / s.tokens if packed is None else n / len(packed)
                for s, packed, n in zip(self.sources, self.packed, rows)}

    def too_long(self):
        """{source name: (chats or pairs longer than a row, which are left out; of how many)}, where there are any."""
        read = [s for s, packed in zip(self.sources, self.packed) if packed and s.lengths.max() > self.seq_len]
        return {s.name: (int((s.lengths > self.seq_len).sum()), len(s.lengths)) for s in read}

    def fingerprint(self):
        """Identifies everything the schedule depends on; a resumed run must have the same."""
        facts = ["shifted windows", self.batch_size, self.seq_len, self.seed, [float(w) for w in self.weights],
                 [list((s.shard_sha256 | s.mask_sha256).values()) for s in self.sources]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def check_kinds(sources):
    """Whether these sources hold preference pairs; ValueError when only some do."""
    pairs, others = ([s.name for s in sources if (s.kind == "preference") == kind] for kind in (True, False))
    if pairs and others:
        raise ValueError(f"mixture: {', '.join(pairs)} hold preference pairs, {', '.join(others)} do not; they cannot "
                         "be trained on in one run")
    return bool(pairs)


def quotas(weights):
    """Rows of each source in a period: weights * PERIOD, rounded by largest remainders so that they sum to PERIOD."""
    quota = np.floor(weights * PERIOD).astype(int)
    largest_remainders = np.argsort(quota - weights * PERIOD, kind="stable")[:PERIOD - quota.sum()]
    quota[largest_remainders] += 1
    return quota


def low_discrepancy_order(quota):
    """(N,) source indices, N = sum(quota), i quota[i] times, in every prefix within one of its share.

    Tijdeman's chairman assignment: turn j of i may come from place j N / quota[i] on and is due before
    (j + 1) N / quota[i]; the earliest deadline goes first.
    """
    total, order, ready = sum(quota), [], []
    waiting = [(0.0, i, 0) for i, n in enumerate(quota) if n]  # (release, source, turn)
    for place in range(total):
        while waiting and waiting[0][0] < place + 1:
            _, i, turn = heapq.heappop(waiting)
            heapq.heappush(ready, ((turn + 1) * total / quota[i], i, turn))
        deadline, i, turn = heapq.heappop(ready)
        order.append(i)
        if turn + 1 < quota[i]:
            heapq.heappush(waiting, (deadline, i, turn + 1))
    return np.array(order)


def permute(k, n, key):
    """Element k of a pseudo-random permutation of range(n), seeded by key.

    A four-round Feistel network with cycle walking. It needs no table, so shuffling 90 billion tokens costs nothing.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    salt = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    while True:
        left, right = k >> half, k & mask
        for i in range(4):
            x = (right ^ (salt >> (i * 16))) * 0x9E3779B97F4A7C15 + salt + i
            x = ((x ^ (x >> 29)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            left, right = right, left ^ ((x >> 32) & mask)
        k = left << half | right
        if k < n:  # else walk on: the network permutes the next power of four, a superset of range(n)
            return k


# ---------------------------------------------------------------------- packing

def pack_text(ids, eot, bos=None):
    """T + 1 ids -> a Batch of one row.

        ids      w1  w2 eot  w1  w2  w3 eot        targets  w2 eot  w1  w2  w3 eot
        tokens   w1  w2 eot  w1  w2  w3            starts    0   0   2   2   2   2

    The eot that ends a document opens the next one. A model whose texts begin with bos (Llama) reads that in its place.
    """
    row = torch.from_numpy(ids)[None]
    tokens, targets = row[:, :-1].clone(), row[:, 1:].clone()
    starts = torch.where(tokens == eot, torch.arange(tokens.shape[1]), 0).cummax(1).values
    if bos is not None:
        tokens[tokens == eot] = bos
    return Batch(tokens, targets, starts)


def best_fit(lengths, capacity, key):
    """Indices of lengths, packed into rows of at most `capacity`: each exactly once, longer ones left out.

    Best-fit decreasing: the longest first, each into the fullest row that has room for it (Ding et al. 2024,
    arXiv 2404.10830). Ties are broken pseudo-randomly, seeded by key.
    """
    shuffled = np.array([permute(k, len(lengths), key) for k in range(len(lengths))], int)
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    rows, rooms = [], []  # rooms: the distinct amounts of free room, ascending
    with_room = {}        # {room: the rows that have it}
    for k in order[lengths[order] <= capacity].tolist():
        length = int(lengths[k])
        fit = bisect_left(rooms, length)
        if fit == len(rooms):
            room, row = capacity, []
            rows.append(row)
        else:
            room = rooms[fit]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[fit], with_room[room]
        row.append(k)
        if room - length not in with_room:
            insort(rooms, room - length)
            with_room[room - length] = []
        with_room[room - length].append(row)
    return rows


def pack_chats(source, i, examples, seq_len):
    """These chats (or pairs) of source number i -> a Batch of one row, padded at the end. chat is set in any case.

        ids      <|im_start|> user \\n Hi <|im_end|> ... assistant \\n  Ho <|im_end|>   targets: Ho <|im_end|>, IGNORE

    A chat's last id is a target only, and its first follows nothing, as at inference. A pair's prompt is in the row
    twice: attention is over an interval (starts), so a second answer could not skip the first.
    """
    tokens, targets = np.full(seq_len, source.eot_id), np.full(seq_len, IGNORE)
    starts, chat, begin = np.zeros(seq_len, int), np.zeros(seq_len, int), 0
    sides = source.chats_per_example
    numbers = [k * sides + side for k in examples for side in range(sides)]
    for n, (first, size) in enumerate(source.chats[numbers].tolist()):
        ids, has_loss = source.read(first, size), source.read_mask(first, size) & 1
        span = slice(begin, begin + size - 1)
        tokens[span], targets[span] = ids[:-1], np.where(has_loss[1:], ids[1:], IGNORE)
        starts[span], chat[span], begin = begin, n, span.stop
    starts[begin:] = begin
    row = [torch.from_numpy(x)[None] for x in (tokens, targets, starts, chat)]
    return Batch(*row, torch.tensor([(i, k) for k in examples]) if source.kind == "preference" else None)


def collate(rows):
    """One Batch of several; of preference pairs the chats are numbered through."""
    tokens, targets, starts = (torch.cat(x) for x in zip(*(row[:3] for row in rows)))
    if rows[0].pairs is None:
        return Batch(tokens, targets, starts)
    pairs_before = np.cumsum([0, *(len(row.pairs) for row in rows)]).tolist()
    chat = torch.cat([row.chat + 2 * n for row, n in zip(rows, pairs_before)])
    return Batch(tokens, targets, starts, chat, torch.cat([row.pairs for row in rows]))


# ---------------------------------------------------------------------- validation

def validation_batches(sources: list[Source], seq_len: int, limit: int, batch_size: int):
    """Yield (source, bytes of text predicted, [Batch, ...]): the first `limit` tokens of each source, in order.

    Text: every token is predicted once. Chats and pairs: the first whole ones, their bytes in proportion to the tokens
    with a loss.
    """
    for i, s in enumerate(sources):
        rows, size = first_text(s, seq_len, limit) if s.kind == "text" else first_chats(s, i, seq_len, limit)
        yield s, size, [collate(rows[k:k + batch_size]) for k in range(0, len(rows), batch_size)]


def first_text(source, seq_len, limit):
    """(rows, bytes) of the first tokens. The first document, too, is predicted from an eot; the last row is padded."""
    count = min(limit, source.tokens)
    ids = np.concatenate([[source.eot_id], source.read(0, count)])
    rows = []
    for begin in range(0, count, seq_len):
        piece = ids[begin:begin + seq_len + 1]
        padding = np.full(seq_len + 1 - len(piece), source.eot_id)
        row = pack_text(np.concatenate([piece, padding]), source.eot_id, source.bos_id)
        row.targets[0, len(piece) - 1:] = IGNORE
        rows.append(row)
    return rows, source.bytes * count / source.tokens


def first_chats(source, i, seq_len, limit):
    """(rows, bytes) of the first chats or pairs that together have at most `limit` tokens, but at least one."""
    count = max(1, np.searchsorted(source.lengths.cumsum(), limit, "right"))
    rows = [pack_chats(source, i, examples, seq_len) for examples in best_fit(source.lengths[:count], seq_len, 0)]
    predicted = sum(int((row.targets != IGNORE).sum()) for row in rows)
    with_loss = sum(int((np.asarray(mask) & 1).sum()) for mask in source.masks)
    return rows, source.bytes * predicted / with_loss
