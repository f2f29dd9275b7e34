"""Kept text -> tokenizer and token shards: the last two stages of prepare.py, and what it shares with them."""
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

import tokenizer
from corpus import chat
from corpus.jobs import up_to_date, fingerprint, finish
from hf.folder import list_tokenizer_files

# a change in the code is a change of the result
ROOT = Path(__file__).parent.parent
CODE = [str(p) for pattern in ("prepare.py", "corpus/*.py") for p in sorted(ROOT.glob(pattern))]
UNFIT = ".template"  # dropped/NAME.template.jsonl: the chats that the template refuses


def chats(source):
    """Whether a source holds chats or preference pairs."""
    return source.get("kind", "text") != "text"


def running(source):
    """Whether a source holds running text as found on the web."""
    return not ("target" in source or source.get("clean") or chats(source))


def work(c, source):
    """The folder of a source's marks and of what its files gave."""
    return Path(c.out) / "work" / source["name"]


def drop(aside, dropped, row, reason):
    dropped[reason] += 1
    aside.write(json.dumps(row | {"reason": reason}, default=str) + "\n")  # escaped: it may hold what UTF-8 cannot


def repeats(copies):
    """How often a document stands in the shards that this many copies were found of (FineWeb-2's table)."""
    return next(n for least, n in ((1000, 1), (100, 8), (5, 5), (3, 3), (2, 2), (1, 1)) if copies >= least)


def kept(c, source):
    """The rows of text/NAME.jsonl."""
    with open(Path(c.out) / "text" / f"{source['name']}.jsonl", encoding="utf-8") as f:
        yield from map(json.loads, f)


def make_tokenizer(c, books):
    """The folder of the tokenizer: a copy of c.tokenizer, or a new one trained on text balanced towards small languages."""
    folder = Path(c.out) / "tokenizer"
    mark = Path(c.out) / "work" / "trained.json"
    facts = fingerprint(CODE, [b["outputs"] for b in books], c.vocab_size, c.tokenizer_share, c.tokenizer_bytes, c.template)
    if not c.tokenizer and up_to_date(mark, facts, sorted(folder.glob("*"))):
        return
    if not c.tokenizer or Path(c.tokenizer).resolve() != folder.resolve():  # else that of an earlier run: keep it
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if not c.tokenizer:
        size = Counter()
        for source, book in zip(c.sources, books):
            size[tongue(source)] += book["bytes"]
        power = {k: n ** c.tokenizer_share for k, n in size.items() if n}
        budget = {k: c.tokenizer_bytes * p / sum(power.values()) for k, p in power.items()}
        tokenizer.train(sample(c, budget), c.vocab_size, folder)
    for file in list_tokenizer_files(c.tokenizer) if c.tokenizer else ():
        if not (folder / file.name).exists():
            shutil.copy(file, folder / file.name)
    if c.template:
        tokenizer.write_template(folder, c.template)
    if not c.tokenizer:
        finish(mark, facts, sorted(folder.glob("*")))


def sample(c, budget):
    """Lines of text, about budget[language] bytes of each language, from the front of its sources."""
    for source in c.sources:
        for row in kept(c, source):
            if budget[tongue(source)] <= 0:
                break
            budget[tongue(source)] -= len(row["text"].encode())
            yield from row["text"].split("\n")


def tongue(source):
    """The language of a source, as data.py groups them: "kk", or "en-kk" for bitext."""
    return source["language"] + (f"-{source['target']}" if "target" in source else "")


def tokenize_source(c, source, mark):
    """Write the train and valid shards of a source; the mark: sizes {split: (tokens, bytes, documents)}, the chats that were
    dropped by reason, and how many hold control tokens in what is said (they become ordinary text)."""
    t, out = tokenizer.load(Path(c.out) / "tokenizer"), {}
    text = json.loads((work(c, source) / "merged.json").read_text())["outputs"]
    facts = fingerprint(CODE, text, source, t.fingerprint, t.eot_id, t.bos_id, t.chat_template, c.valid, c.shard_tokens, c.rehydrate)
    folders = [Path(c.out) / (source["name"] + suffix) for suffix in ("", "-valid")]
    unfit = Path(c.out) / "dropped" / f"{source['name']}{UNFIT}.jsonl"
    if up_to_date(mark, facts, [p for f in folders for p in sorted(f.glob("shard-*"))] + [p for p in [unfit] if p.exists()]):
        for f in folders:
            if (f / "index.old").exists():
                os.replace(f / "index.old", f / "index.json")
        return
    unfit.unlink(missing_ok=True)
    splits, dropped, count = {"train": Shards(c, source, t, ""), "valid": Shards(c, source, t, "-valid")}, Counter(), Counter()
    held = c.valid if running(source) or chats(source) else 0.0  # bits per byte are of running text and of answers
    for row in kept(c, source):
        count["rows"] += 1
        try:
            documents = learned(t, row) if chats(source) else [([*t.encode(row["text"]), t.eot_id], None, len(row["text"].encode()))]
        except ValueError as e:
            with open(unfit, "a", encoding="utf-8") as aside:
                drop(aside, dropped, row, f"template: {e}")
            continue
        count["forged"] += chats(source) and t.contains_control_text(row["text"])
        h = int.from_bytes(hashlib.blake2b(row["text"].encode(), digest_size=4).digest(), "little")
        split = "valid" if h < held * 2 ** 32 else "train"
        times = repeats(row.get("copies", 1)) if c.rehydrate and split == "train" else 1
        count["again"] += times - 1
        for _ in range(times):
            splits[split].add(documents)
    for split, shards in splits.items():
        shards.finish(split)
        out[split] = (shards.tokens, shards.bytes, shards.documents)
    written = sum(size[2] for size in out.values())
    assert written + dropped.total() == count["rows"] + count["again"], f"{source['name']}: documents lost"
    if not out["train"][0]:
        if not out["valid"][0]:
            raise ValueError(f"nothing left of source {source['name']}; dropped: {dict(dropped)}, see {unfit}")
        raise ValueError(f"source {source['name']}: all of its documents were held out; set valid=0 or bring more text")
    finish(mark, facts, [p for f in folders for p in sorted(f.glob("shard-*"))] + [p for p in [unfit] if p.exists()],
           sizes=out, dropped=dict(sorted(dropped.items())), forged=count["forged"])


def learned(t, row):
    """[(ids, mask, bytes to learn)] of a chat, or of both chats of a pair: there answers count from where the two differ."""
    out, first = [], chat.shared_prefix_length(row) if "chosen" in row else 0
    for messages in ([row["messages"]] if "messages" in row else [row["chosen"], row["rejected"]]):
        ids, mask = t.encode_with_loss_mask(messages, first)
        size = sum(len(m["content"].encode()) for m in messages[first:] if m["role"] == "assistant")
        out.append((ids, np.array(mask, np.uint8), size))
    return out


class Shards:
    """Documents -> shard-00000.bin ... and, last of all, index.json: a folder without an index is not finished.

    Beside the ids of chats stands shard-00000.mask, a byte for each: 1 to be learned, 2 (or 3) where a chat begins.
    """

    def __init__(self, c, source, t, suffix):
        self.c, self.source, self.t = c, source, t
        self.name = source["name"] + suffix
        self.folder = Path(c.out) / self.name
        self.dtype = np.uint16 if t.vocab_size <= 1 << 16 else np.uint32  # Qwen2's 151,646 ids need 32 bits
        shutil.rmtree(self.folder, ignore_errors=True)
        self.held, self.masks, self.count, self.size, self.written = [], [], 0, 0, []
        self.tokens = self.bytes = self.documents = 0

    def add(self, documents):
        """documents: (ids, mask or None, bytes); they count as one and stay in one shard."""
        for ids, mask, size in documents:
            self.held.append(np.array(ids, self.dtype))
            if mask is not None:
                mask[0] |= 2  # a chat begins
                self.masks.append(mask)
            self.count += len(ids)
            self.size += size
        self.documents += 1
        if self.count >= self.c.shard_tokens:
            self.flush()

    def flush(self):
        if not self.held:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"shard-{len(self.written):05}"
        entry = {"file": f"{name}.bin", "tokens": self.count, "bytes": self.size, "sha256": self.write(f"{name}.bin", self.held)}
        if self.masks:
            entry |= {"mask": f"{name}.mask", "mask_sha256": self.write(f"{name}.mask", self.masks)}
        self.written.append(entry)
        self.tokens, self.bytes = self.tokens + self.count, self.bytes + self.size
        self.held, self.masks, self.count, self.size = [], [], 0, 0

    def write(self, name, arrays):
        """Write arrays to a file, durably; its SHA-256."""
        raw = np.concatenate(arrays).tobytes()
        with open(self.folder / name, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        return hashlib.sha256(raw).hexdigest()

    def finish(self, split):
        self.flush()
        if not self.written:
            return
        index = {"name": self.name, "category": self.source["category"], "language": tongue(self.source), "split": split,
                 "dtype": np.dtype(self.dtype).name, "eot": self.t.eot_id, "bos": self.t.bos_id, "vocab_size": self.t.vocab_size,
                 "tokenizer": self.t.fingerprint, "documents": self.documents, "shards": self.written}
        index |= {"kind": self.source["kind"]} if chats(self.source) else {}
        (self.folder / "index.tmp").write_text(json.dumps(index, indent=1))
        os.replace(self.folder / "index.tmp", self.folder / "index.json")
