"""Kept text -> token shards: the last stage of prepare.py."""
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from corpus import jobs
from corpus.account import reject
from corpus.chat_tokens import tokenize_chats
from corpus.sources import has_chats, is_web, kept_file, language_of, refused_file, work_folder

LONGEST_LINE = 16384  # bytes of a line of the tokenizer's text; sentencepiece skips those above 65,536 without a word
COPIES = ((1000, 1), (100, 8), (5, 5), (3, 3), (2, 2), (1, 1))  # FineWeb-2's table: copies found, copies written


def read_kept(c, source: dict) -> Iterator[dict]:
    """The rows of text/NAME.jsonl."""
    with open(kept_file(c, source), encoding="utf-8") as f:
        yield from map(json.loads, f)


def sample_text(c, budget: dict[str, float]) -> Iterator[str]:
    """Lines of text to train a tokenizer on: about budget[language] bytes per language, from the front of its sources.
    """
    for source in c.sources:
        language = language_of(source)
        for row in read_kept(c, source):
            if budget[language] <= 0:
                break
            budget[language] -= len(row["text"].encode())
            for line in row["text"].split("\n"):
                yield from cut_line(line)


def cut_line(line: str, size: int = LONGEST_LINE) -> Iterator[str]:
    """Pieces of a line of at most size bytes, cut at spaces where there are some: trainers skip long lines silently."""
    while len(line.encode()) > size:
        head = line.encode()[:size].decode("utf-8", "ignore")
        end = head.rfind(" ") + 1
        if end <= len(head) // 2:
            end = len(head)
        yield line[:end]
        line = line[end:]
    yield line


def split_budget(c, accounts: list[dict]) -> dict[str, float]:
    """Bytes of the tokenizer's training text per language, in proportion to size ** tokenizer_alpha."""
    size: Counter = Counter()
    for source, account in zip(c.sources, accounts):
        size[language_of(source)] += account["bytes"]
    weight = {language: n ** c.tokenizer_alpha for language, n in size.items() if n}
    return {language: c.tokenizer_bytes * w / sum(weight.values()) for language, w in weight.items()}


def write_shards(c, source: dict, t, stamp: Path):
    """Write the train and valid shards of a source with the tokenizer t.

    The stamp holds sizes {split: (tokens, bytes, documents)}, how many tokens are learned (those that the bytes are
    of), the chats that the template refused by reason, and how many chats have control tokens in what is said (they
    become ordinary text).
    """
    folders = [Path(c.out) / (source["name"] + suffix) for suffix in ("", "-valid")]
    merged = json.loads((work_folder(c, source) / "merged.json").read_text())["outputs"]
    inputs = jobs.fingerprint(merged, source, t.fingerprint, t.eot_id, t.bos_id, t.chat_template, c.valid_fraction,
                              c.shard_tokens, c.rehydrate)
    if jobs.up_to_date(stamp, inputs + hash_indexes(folders, "index.old"), find_outputs(c, source, folders)):
        for folder in folders:
            if (folder / "index.old").exists():
                os.replace(folder / "index.old", folder / "index.json")
        return
    refused_file(c, source).unlink(missing_ok=True)
    writers = {"train": ShardWriter(c, source, t, ""), "valid": ShardWriter(c, source, t, "-valid")}
    refused: Counter = Counter()
    count: Counter = Counter()
    for row in read_kept(c, source):
        count["rows"] += 1
        try:
            documents = encode_row(t, row, has_chats(source))
        except ValueError as e:
            with open(refused_file(c, source), "a", encoding="utf-8") as aside:
                reject(aside, refused, row, f"template: {e}")
            count["refused_bytes"] += len(row["text"].encode())
            continue
        if has_chats(source) and t.contains_control_text(row["text"]):
            count["forged"] += 1
        split = choose_split(c, source, row["text"])
        copies = count_repeats(row.get("copies", 1)) if c.rehydrate and split == "train" else 1
        count["documents"] += copies
        for _ in range(copies):
            writers[split].add(documents)
    for split, writer in writers.items():
        writer.finish(split)
    sizes = {split: (writer.tokens, writer.bytes, writer.documents) for split, writer in writers.items()}
    assert sum(documents for _, _,
               documents in sizes.values()) == count["documents"], f"{source['name']}: documents lost"
    if not sizes["train"][0]:
        if not sizes["valid"][0]:
            raise ValueError(f"nothing left of source {source['name']}; dropped: {dict(refused)}, "
                             f"see {refused_file(c, source)}")
        raise ValueError(f"source {source['name']}: all of its documents were held out; set valid_fraction=0 or bring "
                         "more text")
    jobs.write_stamp(stamp, inputs + hash_indexes(folders, "index.json"), find_outputs(c, source, folders), sizes=sizes,
                     learned=sum(writer.learned for writer in writers.values()),
                     dropped=dict(sorted(refused.items())), refused_bytes=count["refused_bytes"],
                     forged=count["forged"])


def hash_indexes(folders, name):
    """The hashes of the indexes; before it is known whether they hold, they have another name."""
    return "".join(f" {jobs.file_sha256(folder / name)}" for folder in folders if (folder / name).exists())


def find_outputs(c, source, folders):
    """The files that a source's stamp vouches for."""
    shards = [path for folder in folders for path in sorted(folder.glob("shard-*"))]
    return shards + [path for path in [refused_file(c, source)] if path.exists()]


def choose_split(c, source: dict, text: str) -> str:
    """"train" or "valid", by a hash of the text. Bits per byte are measured on running text and on answers only."""
    if not (is_web(source) or has_chats(source)):
        return "train"
    h = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
    return "valid" if h < c.valid_fraction * 2 ** 32 else "train"


def count_repeats(copies: int) -> int:
    """How often to write a document of which this many copies were found."""
    return next(n for least, n in COPIES if copies >= least)


def encode_row(t, row: dict, chats: bool) -> list[tuple]:
    """[(ids, mask or None, bytes to learn)] of a row: one of a text or a chat, two of a preference pair."""
    return tokenize_chats(t, row) if chats else [([*t.encode(row["text"]), t.eot_id], None, len(row["text"].encode()))]


class ShardWriter:
    """Documents -> shard-00000.bin ... and, last of all, index.json: a folder without an index is not finished.

    Beside the ids of chats is shard-00000.mask, one byte each: bit 0 is set where the id is learned, bit 1 where a chat
    begins.
    """

    def __init__(self, c, source, t, suffix):
        self.c, self.source, self.t = c, source, t
        self.name = source["name"] + suffix
        self.folder = Path(c.out) / self.name
        self.dtype = np.uint16 if t.vocab_size <= 1 << 16 else np.uint32  # Qwen2's 151,646 ids need 32 bits
        self.ids, self.masks, self.pending_tokens, self.pending_bytes, self.shards = [], [], 0, 0, []
        self.tokens = self.bytes = self.documents = self.learned = 0
        for path in self.folder.glob("*"):
            if not path.name.startswith(("shard-", "index.")):
                raise ValueError(f"{path} was not made by prepare.py; move it away, or give source {source['name']} "
                                 "another name")
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, documents):
        """documents: (ids, mask or None, bytes); they count as one and stay in one shard."""
        for ids, mask, size in documents:
            self.ids.append(np.array(ids, self.dtype))
            self.learned += len(ids) if mask is None else int((mask & 1).sum())
            if mask is not None:
                mask[0] |= 2  # a chat begins
                self.masks.append(mask)
            self.pending_tokens += len(ids)
            self.pending_bytes += size
        self.documents += 1
        if self.pending_tokens >= self.c.shard_tokens:
            self.flush()

    def flush(self):
        if not self.ids:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"shard-{len(self.shards):05}"
        entry = {"file": f"{name}.bin", "tokens": self.pending_tokens, "bytes": self.pending_bytes,
                 "sha256": self.write(f"{name}.bin", self.ids)}
        if self.masks:
            entry |= {"mask": f"{name}.mask", "mask_sha256": self.write(f"{name}.mask", self.masks)}
        self.shards.append(entry)
        self.tokens, self.bytes = self.tokens + self.pending_tokens, self.bytes + self.pending_bytes
        self.ids, self.masks, self.pending_tokens, self.pending_bytes = [], [], 0, 0

    def write(self, name, arrays):
        """Write arrays to a file durably; returns its SHA-256."""
        raw = np.concatenate(arrays).tobytes()
        with open(self.folder / name, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        return hashlib.sha256(raw).hexdigest()

    def finish(self, split):
        """Write the last shard and the index."""
        self.flush()
        if not self.shards:
            return
        index = {"name": self.name, "category": self.source["category"], "language": language_of(self.source),
                 "split": split, "dtype": np.dtype(self.dtype).name, "eot": self.t.eot_id, "bos": self.t.bos_id,
                 "vocab_size": self.t.vocab_size, "tokenizer": self.t.fingerprint, "documents": self.documents,
                 "shards": self.shards}
        if has_chats(self.source):
            index["kind"] = self.source["kind"]
            # train.py gives the model the template that its chats were rendered with
            index["chat_template"] = hashlib.sha256(self.t.chat_template.encode()).hexdigest()[:16]
        (self.folder / "index.tmp").write_text(json.dumps(index, indent=1))
        os.replace(self.folder / "index.tmp", self.folder / "index.json")
