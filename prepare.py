"""Raw text -> token shards: a visible list of steps, every document accounted for, no torch.

    python prepare.py configs/tiny/data.py

    out/text/NAME.jsonl       what was kept, clean           out/tokenizer/          the tokenizer
    out/dropped/NAME.jsonl    what was dropped, and why      out/NAME/, NAME-valid/  token shards with index.json
    out/accounting.json       in = kept + dropped by reason, per source
"""
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

import tokenizer
from configs import load
from corpus import bitext, clean, dedup, read


@dataclass(frozen=True)
class Prepare:
    raw: str                     # folder that the sources' paths are relative to
    out: str
    sources: list                # of {"name", "path" (a file or pattern), "category", "language"} and, for bitext, "target" (a language)
    names: dict                  # {language code: English name}, used by the translation templates
    tokenizer: str | None = None   # folder of the tokenizer to use; None: train one of vocab_size
    vocab_size: int = 4096
    tokenizer_share: float = 0.3   # a language's share of the tokenizer's text is its size to this power (0: all alike, 1: as they are)
    tokenizer_bytes: int = 8_000_000  # of text the tokenizer is trained on
    unit: str = "paragraph"      # what a document is in a .txt file: line, paragraph or file
    langid: bool = True          # check languages with py3langid (pip install py3langid)
    alike: list = field(default_factory=list)  # groups of languages that the identifier may take for each other, e.g. [["id", "ms"]]
    thresholds: dict = field(default_factory=dict)  # {"*" or language: {measure: value}}; see THRESHOLDS
    blocked: list = field(default_factory=list)     # words that no address may contain
    valid: float = 0.02          # share of the documents held out for validation (bits per byte)
    shard_tokens: int = 1 << 26
    workers: int | None = None   # processes; None: one per core. The output does not depend on it

    def __post_init__(self):
        problems = [f"source {s!r} needs name, path, category and language" for s in self.sources
                    if not {"name", "path", "category", "language"} <= set(s)]
        problems += [] if self.sources else ["sources is empty: name at least one file of text"]
        problems += [f"source {s.get('name')!r} has unknown {sorted(set(s) - SOURCE)}; the keys are {sorted(SOURCE)}"
                     for s in self.sources if set(s) - SOURCE]
        problems += [f"unit must be line, paragraph or file, got {u!r}" for u in {self.unit, *(s.get("unit", "file") for s in self.sources)}
                     - {"line", "paragraph", "file"}]
        problems += [f"source name {s['name']!r} is taken: choose one without '/' that is not tokenizer, text, dropped or ...-valid"
                     for s in self.sources if "/" in str(s.get("name")) or str(s.get("name")).endswith("-valid")
                     or s.get("name") in ("tokenizer", "text", "dropped")]
        problems += [] if 0 <= self.valid < 1 else [f"valid is a share of the documents, 0 <= valid < 1, got {self.valid}"]
        names = Counter(s.get("name") for s in self.sources)
        problems += [f"two sources are named {n!r}" for n, k in names.items() if k > 1]
        problems += [f"names has no English name for language {c!r}" for s in self.sources for c in (s.get("language"), s.get("target"))
                     if "target" in s and c not in self.names]
        problems += [f"thresholds: no measure {m!r}; they are {list(THRESHOLDS)}" for row in self.thresholds.values() for m in row
                     if m not in THRESHOLDS]
        if problems:
            raise ValueError("Prepare: " + "; ".join(problems))


SOURCE = {"name", "path", "category", "language", "target", "clean", "unit"}  # the keys of a source

# measures of web documents and the values a language gets unless its row says otherwise: looser than any single language needs
THRESHOLDS = {"least_chars": 20, "most_chars": 1_000_000, "full_stops": 0.4, "symbols": 0.1, "repetition": 0.4, "ends": True}


def web_steps(c, source):
    """The cascade of a web source, in order: each step keeps a document or names the reason why not."""
    t = THRESHOLDS | c.thresholds.get("*", {}) | c.thresholds.get(source["language"], {})
    identify = clean.identifier(set(c.names)) if c.langid else None
    if c.langid and identify is None:
        raise ValueError("langid=True needs a package: pip install py3langid (or set langid=False)")
    wanted = {source["language"], *(code for group in c.alike if source["language"] in group for code in group)}
    return [clean.repair,
            partial(clean.url, words=c.blocked),
            partial(clean.length, least=t["least_chars"], most=t["most_chars"]),
            partial(clean.punctuation, least=t["full_stops"]),
            partial(clean.symbols, most=t["symbols"]),
            partial(clean.repetition, most=t["repetition"]),
            partial(clean.truncated, wanted=t["ends"]),
            *([partial(clean.language, identify=identify, wanted=wanted)] if identify else []),
            dedup.Exact()]


def bitext_steps(c, source):
    """The rules for sentence pairs, then one of the eleven templates in one of the two directions."""
    return [partial(bitext.rules, most_ratio=4.0), dedup.Exact(),
            partial(bitext.render, src=c.names[source["language"]], tgt=c.names[source["target"]])]


def plain_steps(c, source):
    """Knowledge and synthetic text: already chosen, so only repaired and deduplicated."""
    return [clean.repair, partial(clean.length, least=1, most=1 << 30), dedup.Exact()]


def steps_of(c, source):
    if "target" in source:
        return bitext_steps(c, source)
    return plain_steps(c, source) if source.get("clean") else web_steps(c, source)


def main(argv=None):
    c, = load(Prepare, argv=argv)
    out = Path(c.out)
    for source in c.sources:
        files_of(c, source)  # all paths are looked up before any work starts
    if c.tokenizer:
        tokenizer.load(c.tokenizer)
    for index in out.glob("*/index.json"):
        index.unlink()  # shards of an earlier run are not this run's
    with ProcessPoolExecutor(c.workers or os.cpu_count()) as pool:
        books = list(pool.map(clean_source, [c] * len(c.sources), c.sources))
        account(out, c.sources, books)
        folder = make_tokenizer(c, books)
        sizes = list(pool.map(tokenize_source, [c] * len(c.sources), c.sources, [folder] * len(c.sources)))
    report(c, books, sizes)


def files_of(c, source):
    """The files of a source, in a fixed order; ValueError when there is none. Moses pairs are "a.en|a.kk"."""
    if "|" in source["path"]:
        paths = [Path(c.raw) / p for p in source["path"].split("|")]
        found = ["|".join(map(str, paths))] if all(p.exists() for p in paths) else []
    else:
        found = sorted(str(p) for p in Path(c.raw).glob(source["path"]))
    if not found:
        raise ValueError(f"source {source['name']}: nothing at {Path(c.raw) / source['path']}; correct its path or raw={c.raw}")
    return found


def clean_source(c, source):
    """Run the steps of one source over its files; returns {"in": n, "kept": n, "bytes": n, "dropped": {reason: n}}."""
    steps, book, dropped = steps_of(c, source), Counter(), Counter()
    kept_file, dropped_file = (Path(c.out) / kind / f"{source['name']}.jsonl" for kind in ("text", "dropped"))
    for f in (kept_file, dropped_file):
        f.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{kept_file}.tmp", "w", encoding="utf-8") as kept, open(f"{dropped_file}.tmp", "w", encoding="utf-8") as aside:
        for path in files_of(c, source):
            rows = bitext.pairs(path) if "target" in source else read.documents(path, source.get("unit", c.unit))
            for doc in rows:
                book["in"] += 1
                doc.language = source["language"]
                original = doc.text
                if doc.reason is None:
                    doc.reason = run(steps, doc)
                if doc.reason is None:
                    book["kept"] += 1
                    book["bytes"] += len(doc.text.encode())
                    kept.write(json.dumps({"text": doc.text, "file": doc.file, "line": doc.line}, ensure_ascii=False) + "\n")
                else:
                    dropped[doc.reason] += 1
                    row = doc.more | {"reason": doc.reason, "file": doc.file, "line": doc.line, "text": original}
                    aside.write(json.dumps(row, default=str) + "\n")  # escaped: it may hold what UTF-8 cannot
    for f in (kept_file, dropped_file):
        os.replace(f"{f}.tmp", f)
    return {"in": book["in"], "kept": book["kept"], "bytes": book["bytes"], "dropped": dict(sorted(dropped.items()))}


def run(steps, doc):
    """The reason why some step drops doc, or None when all keep it."""
    for step in steps:
        verdict = step(doc)
        if verdict is not True:
            return verdict[1]
    return None


def account(out, sources, books):
    """Write accounting.json; assert that no document is missing; ValueError when a source has nothing left."""
    for source, book in zip(sources, books):
        assert book["in"] == book["kept"] + sum(book["dropped"].values()), f"{source['name']}: documents lost"
    (out / "accounting.json").write_text(json.dumps({s["name"]: b for s, b in zip(sources, books)}, indent=1))
    empty = [f"{s['name']} ({b['in']} read, dropped: {b['dropped'] or 'none'})" for s, b in zip(sources, books) if not b["kept"]]
    if empty:
        raise ValueError(f"nothing left of source {', '.join(empty)}; what was dropped, and why, is in {out}/dropped")


def texts(c, source):
    with open(Path(c.out) / "text" / f"{source['name']}.jsonl", encoding="utf-8") as f:
        for line in f:
            yield json.loads(line)["text"]


def make_tokenizer(c, books):
    """The folder of the tokenizer: a copy of c.tokenizer, or a new one trained on text balanced towards small languages."""
    folder = Path(c.out) / "tokenizer"
    if c.tokenizer and Path(c.tokenizer).resolve() == folder.resolve():
        return str(folder)  # the tokenizer of an earlier run: keep it
    shutil.rmtree(folder, ignore_errors=True)
    if c.tokenizer:
        folder.mkdir(parents=True)
        for file in tokenizer.files(c.tokenizer):
            shutil.copy(file, folder / file.name)
    else:
        size = Counter()
        for source, book in zip(c.sources, books):
            size[tongue(source)] += book["bytes"]
        power = {k: n ** c.tokenizer_share for k, n in size.items() if n}
        budget = {k: c.tokenizer_bytes * p / sum(power.values()) for k, p in power.items()}
        tokenizer.train(sample(c, budget), c.vocab_size, folder)
    return str(folder)


def sample(c, budget):
    """Lines of text, about budget[language] bytes of each language, from the front of its sources."""
    for source in c.sources:
        for text in texts(c, source):
            if budget[tongue(source)] <= 0:
                break
            budget[tongue(source)] -= len(text.encode())
            yield from text.split("\n")


def tongue(source):
    """The language of a source, as data.py groups them: "kk", or "en-kk" for bitext."""
    return source["language"] + (f"-{source['target']}" if "target" in source else "")


def tokenize_source(c, source, folder):
    """Write the train and valid shards of a source; returns {split: (tokens, bytes, documents)}."""
    t, out = tokenizer.load(folder), {}
    splits = {"train": Shards(c, source, t, ""), "valid": Shards(c, source, t, "-valid")}
    held = c.valid if "target" not in source and not source.get("clean") else 0.0  # bits per byte are of running text
    for text in texts(c, source):
        h = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
        splits["valid" if h < held * 2 ** 32 else "train"].add(text)
    for split, shards in splits.items():
        shards.finish(split)
        out[split] = (shards.tokens, shards.bytes, shards.documents)
    assert sum(size[2] for size in out.values()) == sum(1 for _ in texts(c, source)), f"{source['name']}: documents lost"
    if not out["train"][0]:
        raise ValueError(f"source {source['name']}: all of its documents were held out; set valid=0 or bring more text")
    return out


class Shards:
    """Documents -> shard-00000.bin ... and, last of all, index.json: a folder without an index is not finished."""

    def __init__(self, c, source, t, suffix):
        self.c, self.source, self.t = c, source, t
        self.name = source["name"] + suffix
        self.folder = Path(c.out) / self.name
        self.dtype = np.uint16 if t.vocab_size <= 1 << 16 else np.uint32  # Qwen2's 151,646 ids need 32 bits
        shutil.rmtree(self.folder, ignore_errors=True)
        self.held, self.count, self.size, self.written = [], 0, 0, []
        self.tokens = self.bytes = self.documents = 0

    def add(self, text):
        ids = [*self.t.encode(text), self.t.eot]
        self.held.append(np.array(ids, self.dtype))
        self.count += len(ids)
        self.size += len(text.encode())
        self.documents += 1
        if self.count >= self.c.shard_tokens:
            self.flush()

    def flush(self):
        if not self.held:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"shard-{len(self.written):05}.bin"
        raw = np.concatenate(self.held).tobytes()
        with open(file, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        self.written.append({"file": file.name, "tokens": self.count, "bytes": self.size, "sha256": hashlib.sha256(raw).hexdigest()})
        self.tokens, self.bytes = self.tokens + self.count, self.bytes + self.size
        self.held, self.count, self.size = [], 0, 0

    def finish(self, split):
        self.flush()
        if not self.written:
            return
        index = {"name": self.name, "category": self.source["category"], "language": tongue(self.source), "split": split,
                 "dtype": np.dtype(self.dtype).name, "eot": self.t.eot, "bos": self.t.bos, "vocab_size": self.t.vocab_size,
                 "tokenizer": self.t.fingerprint, "documents": self.documents, "shards": self.written}
        (self.folder / "index.tmp").write_text(json.dumps(index, indent=1))
        os.replace(self.folder / "index.tmp", self.folder / "index.json")


def report(c, books, sizes):
    """One line per language (documents, reasons, fertility), and the sum."""
    groups = {}
    for source, book, size in zip(c.sources, books, sizes):
        key = source["language"] if "target" not in source and not source.get("clean") else source["category"]
        g = groups.setdefault(key, [0, 0, 0, 0, Counter()])
        g[0] += book["in"]
        g[1] += book["kept"]
        g[2] += sum(s[0] for s in size.values())
        g[3] += sum(s[1] for s in size.values())
        g[4].update({reason.split(":")[0]: n for reason, n in book["dropped"].items()})
    print(f"{'':12} {'in':>8} {'kept':>8} {'tokens':>10} {'tokens/byte':>11}  dropped")
    for key, (given, kept, tokens, size, why) in groups.items():
        reasons = ", ".join(f"{k} {n}" for k, n in why.most_common())
        print(f"{key:12} {given:8,} {kept:8,} {tokens:10,} {tokens / max(1, size):11.3f}  {reasons}")
    total = sum(b["in"] for b in books), sum(b["kept"] for b in books)
    print(f"{c.out}: {total[0]:,} documents in = {total[1]:,} kept + {total[0] - total[1]:,} dropped (see {c.out}/dropped)")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
