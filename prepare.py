"""Raw text -> token shards: a visible list of steps, every document accounted for, no torch.

    python prepare.py configs/tiny/data.py
    python prepare.py calibrate language=kk text='good/kk/*.txt'    # the bounds of a new language, for configs/thresholds.py

    out/text/NAME.jsonl       what was kept, clean           out/tokenizer/          the tokenizer
    out/dropped/NAME.jsonl    what was dropped, and why      out/NAME/, NAME-valid/  token shards with index.json
    out/account.json          read = kept + dropped by reason, per source
    out/rejects.jsonl         source, file, offset (bytes), line and reason of everything dropped
"""
import glob
import hashlib
import json
import math
import os
import shutil
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

import tokenizer
from configs import load, thresholds
from corpus import bitext, chat, clean, dedup, measure, read
from corpus.work import as_before, digest, fingerprint, finish, meet, share, wait


@dataclass(frozen=True)
class Prepare:
    raw: str                     # folder that the sources' paths are relative to
    out: str
    sources: list                # of {"name", "path" (file or pattern), "category", "language"}; bitext: and a "target" language;
    #                              chats and pairs: and a "kind", "chat" or "preference" (corpus/chat.py)
    names: dict                  # {language code: English name}, used by the translation templates
    tokenizer: str | None = None   # folder of the tokenizer to use; None: train one of vocab_size
    template: str | None = None    # chat template to give it, of tokenizer.TEMPLATES; None: it brings its own
    vocab_size: int = 4096
    tokenizer_share: float = 0.3   # a language's share of the tokenizer's text is its size to this power (0: all alike)
    tokenizer_bytes: int = 8_000_000  # of text the tokenizer is trained on
    unit: str = "paragraph"      # what a document is in a .txt file: line, paragraph or file
    langid: bool = True          # check languages with py3langid (pip install py3langid)
    alike: list = field(default_factory=list)  # groups of languages that may pass for each other, e.g. [["id", "ms"]]
    thresholds: dict = field(default_factory=dict)  # {"*" or language: {measure: (least, most)}}; corpus/measure.py, THRESHOLDS
    near: bool = True            # drop near-duplicates of web documents, too
    evaluation: list = field(default_factory=list)  # files under raw: documents that share 12 words with them are dropped
    keep_going: bool = False     # go on when a file is damaged; what was read of it is kept
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
        units = {self.unit, *(s.get("unit", "file") for s in self.sources)} - {"line", "paragraph", "file"}
        problems += [f"unit must be line, paragraph or file, got {u!r}" for u in units]
        problems += [f"source name {s['name']!r} is taken: choose one without '/', not tokenizer, text, dropped or ...-valid"
                     for s in self.sources if "/" in str(s.get("name")) or str(s.get("name")).endswith("-valid")
                     or s.get("name") in ("tokenizer", "text", "dropped")]
        problems += [f"source {s.get('name')!r}: kind is text, chat or preference (bitext has a target), got {s['kind']!r}"
                     for s in self.sources if s.get("kind", "text") not in ("text", *chat.KINDS) or "target" in s and "kind" in s]
        if any(chats(s) for s in self.sources) and not (self.template or self.tokenizer):
            problems.append(f"chats need a template: set template= to one of {', '.join(tokenizer.TEMPLATES)}")
        problems += [] if 0 <= self.valid < 1 else [f"valid is a share of the documents, 0 <= valid < 1, got {self.valid}"]
        names = Counter(s.get("name") for s in self.sources)
        problems += [f"two sources are named {n!r}" for n, k in names.items() if k > 1]
        problems += [f"names has no English name for language {c!r}" for s in self.sources if "target" in s
                     for c in (s.get("language"), s["target"]) if c not in self.names]
        problems += [f"thresholds: {m!r}: {bounds!r} is not a measure with (least, most); the measures are {', '.join(MEASURES)}"
                     for row in self.thresholds.values() for m, bounds in row.items()
                     if m not in MEASURES or not (isinstance(bounds, (tuple, list)) and len(bounds) == 2)]
        if problems:
            raise ValueError("Prepare: " + "; ".join(problems))


# a change in the code is a change of the result
CODE = [__file__, *sorted(str(p) for p in (Path(__file__).parent / "corpus").glob("*.py"))]
SOURCE = {"name", "path", "category", "language", "target", "clean", "unit", "kind"}  # the keys of a source
RECORD = ("target", "messages", "chosen", "rejected")  # what the documents of bitext, chats and pairs hold beside their text

MEASURES = list(measure.measures(""))
# the bounds a language gets unless its row says otherwise: looser than any single language needs
THRESHOLDS = {"chars": (20, 1_000_000), "full_stops": (0.4, 1), "symbols": (0, 0.1), "dup_sentence_chars": (0, 0.4),
              "ends": (1, 1)}


def web_steps(c, source):
    """The cascade of a web source, in order: each step keeps a document or names the reason why not."""
    t = THRESHOLDS | c.thresholds.get("*", {}) | c.thresholds.get(source["language"], {})
    identify = clean.identifier(set(c.names)) if c.langid else None
    if c.langid and identify is None:
        raise ValueError("langid=True needs a package: pip install py3langid (or set langid=False)")
    wanted = {source["language"], *(code for group in c.alike if source["language"] in group for code in group)}
    return [partial(clean.url, words=c.blocked),
            clean.repair,
            partial(clean.heuristics, bounds=t),
            *([partial(clean.language, identify=identify, wanted=wanted)] if identify else []),
            clean.mask,
            *([dedup.Decontaminate(evaluation_texts(c))] if c.evaluation else [])]


def bitext_steps(c, source):
    """The rules for sentence pairs; those left when duplicates are gone fill one of the eleven templates, in one direction."""
    return [partial(bitext.rules, most_ratio=4.0)]


def plain_steps(c, source):
    """Knowledge and synthetic text: already chosen, so only repaired and deduplicated."""
    return [clean.repair, partial(clean.heuristics, bounds={"chars": (1, 1 << 30)})]


def chat_steps(c, source):
    """Chats and pairs: whoever chose them saw to the rest; only what the evaluation asks must not be among them."""
    return [dedup.Decontaminate(evaluation_texts(c))] if c.evaluation else []


def chats(source):
    """Whether a source holds chats or preference pairs."""
    return source.get("kind", "text") != "text"


def running(source):
    """Whether a source holds running text as found on the web."""
    return not ("target" in source or source.get("clean") or chats(source))


def steps_of(c, source):
    if chats(source):
        return chat_steps(c, source)
    if "target" in source:
        return bitext_steps(c, source)
    return plain_steps(c, source) if source.get("clean") else web_steps(c, source)


@dataclass(frozen=True)
class Calibrate:
    language: str
    text: str                    # files of good text in it, a pattern
    unit: str = "file"           # what a document is in a .txt file
    keep: float = 0.995          # share of these documents that each bound must let pass


def calibrate(argv):
    """Print the row of thresholds of a language: the general bounds, widened until its reference text passes. They are never
    narrowed, as what a sample of good text lacks is not therefore bad."""
    c, = load(Calibrate, argv=argv)
    found = []
    for path in sorted(p for p in glob.glob(c.text, recursive=True) if Path(p).is_file()):
        for doc in read.documents(path, c.unit):
            if doc.reason is None and clean.repair(doc) and doc.text:
                found.append(measure.measures(doc.text))
    if len(found) < 10:
        raise ValueError(f"{c.text}: {len(found)} documents; ten at least are needed to say what is usual")
    row = {}
    for name, (least, most) in thresholds.GENERAL.items():
        low, high = np.quantile([m[name] for m in found], [1 - c.keep, c.keep])
        low, high = min(least, math.floor(low * 100) / 100), max(most, math.ceil(high * 100) / 100)
        row |= {name: (low, high)} if (low, high) != (least, most) else {}
    print(f"{c.language!r}: {row},  # of {len(found)} documents, {sum(m['chars'] for m in found):,} characters")


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["calibrate"]:
        return calibrate(words[1:])
    c, = load(Prepare, argv=words)
    out, rank, size = Path(c.out), int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    files = [(source, i, path) for source in c.sources for i, path in enumerate(files_of(c, source))]  # looked up before any work
    if c.tokenizer and tokenizer.load(c.tokenizer).template is None and not c.template and any(map(chats, c.sources)):
        raise ValueError(f"{c.tokenizer} has no chat template; set template= to one of {', '.join(tokenizer.TEMPLATES)}")
    if rank == 0:
        for index in out.glob("*/index.json"):
            os.replace(index, index.with_name("index.old"))  # not this run's until its text is found to be the same
    meet(out / "work", rank, size)
    with ProcessPoolExecutor(c.workers or os.cpu_count()) as pool:
        do = partial(share, pool, rank, size)
        do("clean", clean_file, [(c, *file) for file in files], [work(c, source) / f"{i:05}.json" for source, i, _ in files])
        merged = [work(c, source) / "merged.json" for source in c.sources]
        do("merge", merge_files, [(c, source) for source in c.sources], merged)
        books = [json.loads(p.read_text()) for p in merged]
        if rank == 0:
            account(c, out, books)
            make_tokenizer(c, books)
            finish(out / "work" / "tokenizer.json", "", [])
        wait([out / "work" / "tokenizer.json"])
        done = [work(c, source) / "shards.json" for source in c.sources]
        do("tokenize", tokenize_source, [(c, source) for source in c.sources], done)
    if rank == 0:
        made = [json.loads(p.read_text()) for p in done]
        for source, book, more in zip(c.sources, books, made):
            if chats(source):  # the template had a word in it
                book["kept"] -= sum(more["dropped"].values())
                book |= {"dropped": book["dropped"] | more["dropped"], "control_tokens_as_text": more["forged"]}
        account(c, out, books)
        report(c, books, [more["sizes"] for more in made])


def work(c, source):
    """The folder of a source's marks and of what its files gave."""
    return Path(c.out) / "work" / source["name"]


# ---------------------------------------------------------------------- cleaning

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


def evaluation_texts(c):
    """(file name, text) of every row of the evaluation files: all strings of a .jsonl row, else the lines of the file."""
    for pattern in c.evaluation:
        paths = sorted(Path(c.raw).glob(pattern))
        if not paths:
            raise ValueError(f"evaluation: nothing at {Path(c.raw) / pattern}; correct the pattern or raw={c.raw}")
        for path in paths:
            for _, line, problem in read.lines(path):
                row = json.loads(line) if problem is None and line.strip() and ".jsonl" in path.suffixes else line
                yield from ((path.name, text) for text in strings(row))


def strings(value):
    """All strings of a JSON value."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [text for part in parts for text in strings(part)]


def clean_file(c, source, i, path, mark):
    """Run the steps over one file: what passes is written with its keys, the rest aside."""
    web = running(source)
    outputs = passed_file, dropped_file, key_file = [mark.with_name(f"{i:05}.{kind}") for kind in ("passed", "dropped", "keys")]
    about = [(p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in path.split("|")]
    later = ("out", "sources", "workers", "keep_going", "tokenizer", "template", "vocab_size", "tokenizer_share",
             "tokenizer_bytes", "valid", "shard_tokens")
    settings = {k: v for k, v in asdict(c).items() if k not in later}
    facts = fingerprint(CODE, about, source, settings, [digest(p) for q in c.evaluation for p in sorted(Path(c.raw).glob(q))])
    if as_before(mark, facts, outputs):
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    steps, book, dropped, damaged = steps_of(c, source), Counter(), Counter(), []
    with (open(passed_file, "w", encoding="utf-8") as passed, open(dropped_file, "w", encoding="utf-8") as aside,
          open(key_file, "wb") as keys):
        for doc in documents_of(c, source, path):
            book["read"] += 1
            doc.language, original = source["language"], doc.text
            damaged += [f"{doc.file}, line {doc.line}: {doc.reason}"] if str(doc.reason).startswith("unreadable") else []
            doc.reason = doc.reason or run(steps, doc)
            row = {"file": doc.file, "offset": doc.offset, "line": doc.line}
            if doc.reason is not None:
                drop(aside, dropped, doc.more | row | {"text": original}, doc.reason)
                continue
            record = {k: doc.more[k] for k in RECORD if k in doc.more} if chats(source) or "target" in source else {}
            passed.write(json.dumps({"text": doc.text} | record | row, ensure_ascii=False) + "\n")
            other = record.get("target", "")
            keys.write(np.uint64(len(doc.text)).tobytes() + dedup.exact_key(f"{doc.text}\t{other}").tobytes()
                       + (measure.signature(doc.text).tobytes() if web and c.near else b""))
    if about != [(p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in path.split("|")]:
        raise ValueError(f"{path} changed while it was read; let its writer finish, then run this again")
    finish(mark, facts, outputs, read=book["read"], dropped=dropped, damaged=damaged)


def documents_of(c, source, path):
    if chats(source):
        return chat.conversations(path, source["kind"])
    return bitext.pairs(path) if "target" in source else read.documents(path, source.get("unit", c.unit))


def drop(aside, dropped, row, reason):
    dropped[reason] += 1
    aside.write(json.dumps(row | {"reason": reason}, default=str) + "\n")  # escaped: it may hold what UTF-8 cannot


def merge_files(c, source, mark):
    """The files of a source in their order, without duplicates: text/NAME.jsonl, dropped/NAME.jsonl. The mark is its book."""
    marks = [work(c, source) / f"{i:05}.json" for i in range(len(files_of(c, source)))]
    parts, web = [json.loads(p.read_text()) for p in marks], running(source)
    outputs = kept_file, dropped_file = [Path(c.out) / kind / f"{source['name']}.jsonl" for kind in ("text", "dropped")]
    facts = fingerprint(CODE, [part["outputs"] for part in parts], c.names)
    if as_before(mark, facts, outputs):
        return
    book, dropped = Counter(), Counter()
    for p in outputs:
        p.parent.mkdir(parents=True, exist_ok=True)
    with open(mark.with_name("keys"), "wb") as keys:
        for p in marks:
            with open(p.with_suffix(".keys"), "rb") as some:
                shutil.copyfileobj(some, keys)
    head, exact = duplicates(mark.with_name("keys"), web and c.near)
    with open(kept_file, "w", encoding="utf-8") as kept, open(dropped_file, "w", encoding="utf-8") as aside:
        i = 0
        for p, part in zip(marks, parts):
            dropped.update(part["dropped"])
            with open(p.with_suffix(".dropped"), encoding="utf-8") as some:
                shutil.copyfileobj(some, aside)
            for line in open(p.with_suffix(".passed"), encoding="utf-8"):
                row, i = json.loads(line), i + 1
                other = row.pop("target", "")
                if head[i - 1] != i - 1:
                    same = (exact[i - 1] == exact[head[i - 1]]).all()
                    drop(aside, dropped, row, "duplicate: exact" if same else "duplicate: near")
                    continue
                if "target" in source:
                    pair = read.Document(row["text"], more={"target": other})
                    bitext.render(pair, c.names[source["language"]], c.names[source["target"]])
                    row["text"] = pair.text
                book["kept"] += 1
                book["bytes"] += len(row["text"].encode())
                kept.write(json.dumps(row, ensure_ascii=False) + "\n")
    mark.with_name("keys").unlink()
    finish(mark, facts, outputs, read=sum(p["read"] for p in parts), kept=book["kept"], bytes=book["bytes"],
           dropped=dict(sorted(dropped.items())), damaged=[d for p in parts for d in p["damaged"]])


def duplicates(key_file, near):
    """(head, exact): which document of the source stands for each one, and the exact keys; the keys stay on disk."""
    signature = [("signature", np.uint32, measure.BANDS * measure.ROWS)] if near else []
    row = np.dtype([("chars", np.uint64), ("exact", np.uint64, 2), *signature])
    if not key_file.stat().st_size:
        return np.zeros(0, np.int64), np.zeros((0, 2), np.uint64)
    keys = np.memmap(key_file, row, "r")
    exact = np.array(keys["exact"])
    return dedup.clusters(exact, keys["signature"] if near else None, keys["chars"].astype(np.int64)), exact


def run(steps, doc):
    """The reason why some step drops doc, or None when all keep it."""
    for step in steps:
        verdict = step(doc)
        if verdict is not True:
            return verdict[1]
    return None


PLACE = ("file", "offset", "line", "reason")
UNFIT = ".template"  # dropped/NAME.template.jsonl: the chats that the template refuses


def account(c, out, books):
    """Write account.json and rejects.jsonl; no document may be missing; ValueError for damaged files and empty sources."""
    for source, book in zip(c.sources, books):
        assert book["read"] == book["kept"] + sum(book["dropped"].values()), f"{source['name']}: documents lost"
    told = ("read", "kept", "bytes", "dropped", "damaged", "control_tokens_as_text")
    told = {s["name"]: {k: b[k] for k in told if k in b} for s, b in zip(c.sources, books)}
    (out / "account.json").write_text(json.dumps(told, indent=1))
    with open(out / "rejects.jsonl", "w", encoding="utf-8") as rejects:
        for source in c.sources:
            files = [out / "dropped" / f"{source['name']}{suffix}.jsonl" for suffix in ("", UNFIT)]
            for line in (line for path in files if path.exists() for line in open(path, encoding="utf-8")):
                row = {"source": source["name"]} | {k: v for k, v in json.loads(line).items() if k in PLACE}
                rejects.write(json.dumps(row, ensure_ascii=False) + "\n")
    damaged = [text for book in books for text in book["damaged"]]
    if damaged and not c.keep_going:
        raise ValueError(f"{len(damaged)} damaged files: {'; '.join(damaged[:5])}; replace them, or keep what could be read with "
                         "keep_going=True")
    empty = [f"{s['name']} ({b['read']} read, dropped: {b['dropped'] or 'none'})" for s, b in zip(c.sources, books)
             if not b["kept"]]
    if empty:
        raise ValueError(f"nothing left of source {', '.join(empty)}; what was dropped, and why, is in {out}/dropped")


def kept(c, source):
    """The rows of text/NAME.jsonl."""
    with open(Path(c.out) / "text" / f"{source['name']}.jsonl", encoding="utf-8") as f:
        yield from map(json.loads, f)


def make_tokenizer(c, books):
    """The folder of the tokenizer: a copy of c.tokenizer, or a new one trained on text balanced towards small languages."""
    folder = Path(c.out) / "tokenizer"
    mark = Path(c.out) / "work" / "trained.json"
    facts = fingerprint(CODE, [b["outputs"] for b in books], c.vocab_size, c.tokenizer_share, c.tokenizer_bytes, c.template)
    if not c.tokenizer and as_before(mark, facts, sorted(folder.glob("*"))):
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
    for file in tokenizer.files(c.tokenizer) if c.tokenizer else ():
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
    facts = fingerprint(CODE, text, source, t.fingerprint, t.eot, t.bos, t.template, c.valid, c.shard_tokens)
    folders = [Path(c.out) / (source["name"] + suffix) for suffix in ("", "-valid")]
    unfit = Path(c.out) / "dropped" / f"{source['name']}{UNFIT}.jsonl"
    if as_before(mark, facts, [p for f in folders for p in sorted(f.glob("shard-*"))] + [p for p in [unfit] if p.exists()]):
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
            documents = learned(t, row) if chats(source) else [([*t.encode(row["text"]), t.eot], None, len(row["text"].encode()))]
        except ValueError as e:
            with open(unfit, "a", encoding="utf-8") as aside:
                drop(aside, dropped, row, f"template: {e}")
            continue
        count["forged"] += chats(source) and t.written_out(row["text"])
        h = int.from_bytes(hashlib.blake2b(row["text"].encode(), digest_size=4).digest(), "little")
        splits["valid" if h < held * 2 ** 32 else "train"].add(documents)
    for split, shards in splits.items():
        shards.finish(split)
        out[split] = (shards.tokens, shards.bytes, shards.documents)
    assert sum(size[2] for size in out.values()) + dropped.total() == count["rows"], f"{source['name']}: documents lost"
    if not out["train"][0]:
        if not out["valid"][0]:
            raise ValueError(f"nothing left of source {source['name']}; dropped: {dict(dropped)}, see {unfit}")
        raise ValueError(f"source {source['name']}: all of its documents were held out; set valid=0 or bring more text")
    finish(mark, facts, [p for f in folders for p in sorted(f.glob("shard-*"))] + [p for p in [unfit] if p.exists()],
           sizes=out, dropped=dict(sorted(dropped.items())), forged=count["forged"])


def learned(t, row):
    """[(ids, mask, bytes to learn)] of a chat, or of both chats of a pair: there answers count from where the two differ."""
    out, first = [], chat.shared(row) if "chosen" in row else 0
    for messages in ([row["messages"]] if "messages" in row else [row["chosen"], row["rejected"]]):
        ids, mask = t.learn(messages, first)
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
                 "dtype": np.dtype(self.dtype).name, "eot": self.t.eot, "bos": self.t.bos, "vocab_size": self.t.vocab_size,
                 "tokenizer": self.t.fingerprint, "documents": self.documents, "shards": self.written}
        index |= {"kind": self.source["kind"]} if chats(self.source) else {}
        (self.folder / "index.tmp").write_text(json.dumps(index, indent=1))
        os.replace(self.folder / "index.tmp", self.folder / "index.json")


def report(c, books, sizes):
    """One line per language (documents, reasons, fertility), and the sum."""
    groups = {}
    for source, book, size in zip(c.sources, books, sizes):
        key = source["language"] if running(source) else source["category"]
        g = groups.setdefault(key, [0, 0, 0, 0, Counter()])
        g[0] += book["read"]
        g[1] += book["kept"]
        g[2] += sum(s[0] for s in size.values())
        g[3] += sum(s[1] for s in size.values())
        for reason, n in book["dropped"].items():
            g[4][reason.split(":")[0]] += n
    print(f"{'':12} {'in':>8} {'kept':>8} {'tokens':>10} {'tokens/byte':>11}  dropped")
    for key, (given, kept, tokens, size, why) in groups.items():
        reasons = ", ".join(f"{k} {n}" for k, n in why.most_common())
        print(f"{key:12} {given:8,} {kept:8,} {tokens:10,} {tokens / max(1, size):11.3f}  {reasons}")
    for source, book in zip(c.sources, books):
        if book.get("control_tokens_as_text"):
            print(f"note: {source['name']}: {book['control_tokens_as_text']} chats have control tokens in what is said; they are "
                  "ordinary text in the shards")
    total = sum(b["read"] for b in books), sum(b["kept"] for b in books)
    print(f"{c.out}: {total[0]:,} documents in = {total[1]:,} kept + {total[0] - total[1]:,} dropped (see {c.out}/dropped)")


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"ValueError: {e}")
