"""Raw text -> token shards: a visible list of steps, every document accounted for, no torch.

    python prepare.py configs/tiny/data.py
    python prepare.py calibrate language=kk text='good/kk/*.txt'               # a new language's row for configs/thresholds.py
    python prepare.py perplexity language=kk text='good/kk/*.txt' out=kk.npz   # a model of good text, for the setting perplexity

    out/text/NAME.jsonl       what was kept, clean           out/tokenizer/          the tokenizer
    out/dropped/NAME.jsonl    what was dropped, and why      out/NAME/, NAME-valid/  token shards with index.json
    out/account.json          read = kept + dropped by reason, per source
    out/rejects.jsonl         source, file, offset (bytes), line and reason of everything dropped
    out/samples.jsonl         a few of the dropped for each reason, to be read
"""
import glob
import json
import math
import os
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

import tokenizer
from configs import load, thresholds
from corpus import (bitext, bitext_files, chat, clean, dedup, knowledge, measure, perplexity, read, similarity,
                    translation_templates)
from corpus.jobs import up_to_date, digest, fingerprint, finish, start_together, naming, run_tasks, wait
from corpus.shards import CODE, UNFIT, chats, drop, make_tokenizer, running, tokenize_source, work


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
    fix: bool = False            # mend text that was decoded wrongly (pip install ftfy)
    langid: bool | str = True    # check languages with py3langid (pip install py3langid), or with the fastText model at this path
    scripts: dict = field(default_factory=dict)     # {language: Unicode scripts}, for languages that corpus/clean.py lacks
    alike: list = field(default_factory=lambda: [["id", "ms"]])  # groups of languages too close to be told apart
    thresholds: dict = field(default_factory=dict)  # {"*" or language: {measure: (least, most)}}; corpus/measure.py, THRESHOLDS
    perplexity: dict = field(default_factory=dict)  # {language: file under raw that `prepare.py perplexity` wrote}
    filter_bitext: bool = True   # False: all pairs with two sides pass, whatever their score (the paper's Figure 7)
    near: bool = True            # drop near-duplicates of web documents, too
    rehydrate: bool = False      # repeat a document that many copies were found of, up to 8 times (FineWeb-2's table)
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
        problems += [f"scripts: {e}" for e in map(unusable, self.scripts.values()) if e]
        problems += [f"source {s['name']}: vectors, align and least_score are for bitext (target)" for s in self.sources
                     if "target" not in s and {"vectors", "align", "least_score"} & set(s)]
        problems += [f"source {s['name']}: vectors are two files, \"en.npy|kk.npy\", got {s['vectors']!r}" for s in self.sources
                     if str(s.get("vectors", "|")).count("|") != 1]
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


def unusable(scripts):
    if not isinstance(scripts, str) or not scripts.split():
        return f"{scripts!r} names no Unicode script; 'Han Latin' names two"
    try:
        clean.written(scripts)
    except ValueError as e:
        return e


# the keys of a source. For bitext: target, least_score, vectors ("en.npy|kk.npy", row i of each is line i of the file) and align
# (the vectors are a language model's, whose languages lie apart)
SOURCE = {"kind", "name", "path", "category", "language", "target", "clean", "unit", "vectors", "align", "least_score", "licence"}
RECORD = ("target", "messages", "chosen", "rejected")  # what the documents of bitext, chats and pairs hold beside their text

MEASURES = list(measure.measures(""))
# the bounds a language gets unless its row says otherwise: looser than any single language needs
THRESHOLDS = {"chars": (20, 1_000_000), "full_stops": (0.4, 1), "symbols": (0, 0.1), "dup_sentence_chars": (0, 0.4),
              "ends": (1, 1)}


def web_steps(c, source):
    """The cascade of a web source, in order: each step keeps a document or names the reason why not."""
    language = source["language"]
    bounds = THRESHOLDS | c.thresholds.get("*", {}) | c.thresholds.get(language, {})
    scripts = (clean.SCRIPTS | c.scripts).get(language)
    wanted = {language, *(code for group in c.alike if language in group for code in group)}
    return [partial(clean.url, words=c.blocked),
            partial(clean.repair, fix=mender(c)),
            *([partial(clean.script, pattern=clean.written(scripts), name=scripts)] if scripts else []),
            *([partial(clean.language, identify=identifier(c), wanted=wanted)] if c.langid else []),
            partial(clean.heuristics, bounds=bounds),
            *([partial(perplexity.perplexity, model=perplexity.load(Path(c.raw) / c.perplexity[language]))]
              if language in c.perplexity else []),
            clean.mask,
            *([dedup.Decontaminate(evaluation_texts(c))] if c.evaluation else [])]


def bitext_steps(c, source):
    """The rules for sentence pairs; those left when duplicates are gone fill one of the eleven templates, in one direction."""
    if not c.filter_bitext:
        return [bitext.require_two_sides]
    return [partial(bitext.filter_pair, max_ratio=4.0, source=source["language"], target=source["target"],
                    min_score=source.get("least_score"), identify=identifier(c) if c.langid else None, alike=c.alike)]


def identifier(c):
    """text -> language code, by the identifier that the settings name."""
    return _identifier(c.langid, tuple(c.names))


@cache
def _identifier(langid, codes):
    """Loaded once in a process, as it takes longer than to clean a small file."""
    if isinstance(langid, str):
        return clean.fasttext_identifier(langid)
    if (identify := clean.identifier(codes)) is None:
        raise ValueError("langid=True needs a package: pip install py3langid (or set langid=False)")
    return identify


def mender(c):
    if not c.fix:
        return None
    try:
        from ftfy import fix_text
    except ImportError:
        raise ValueError("fix=True needs a package: pip install ftfy") from None
    return fix_text


def plain_steps(c, source):
    """Knowledge and synthetic text: already chosen, so only repaired and deduplicated."""
    return [partial(clean.repair, fix=mender(c)), partial(clean.heuristics, bounds={"chars": (1, 1 << 30)})]


def chat_steps(c, source):
    """Chats and pairs: whoever chose them saw to the rest; only what the evaluation asks must not be among them."""
    return [dedup.Decontaminate(evaluation_texts(c))] if c.evaluation else []


def steps_of(c, source):
    if chats(source):
        return chat_steps(c, source)
    if "target" in source:
        return bitext_steps(c, source)
    return plain_steps(c, source) if source.get("clean") else web_steps(c, source)


@dataclass(frozen=True)
class Reference:
    language: str
    text: str                    # files of good text in it, a pattern
    out: str | None = None       # of `perplexity`: the file of the model
    unit: str = "file"           # what a document is in a .txt file
    keep: float = 0.995          # share of these documents that each bound must let pass


def reference(argv):
    """(settings, an iterator over the repaired documents of good text)."""
    c, = load(Reference, argv=argv)
    paths = sorted(p for p in glob.glob(c.text, recursive=True) if Path(p).is_file())
    return c, (doc.text for path in paths for doc in read.documents(path, c.unit)
               if doc.reason is None and clean.repair(doc) is None and doc.text)


def calibrate(argv):
    """Print the row of thresholds of a language: the general bounds, widened until its reference text passes. They are never
    narrowed, as what a sample of good text lacks is not therefore bad."""
    c, good = reference(argv)
    found = [measure.measures(text) for text in good]
    if len(found) < 10:
        raise ValueError(f"{c.text}: {len(found)} documents; ten at least are needed to say what is usual")
    row = {}
    for name, (least, most) in thresholds.GENERAL.items():
        low, high = np.quantile([m[name] for m in found], [1 - c.keep, c.keep])
        low, high = min(least, math.floor(low * 100) / 100), max(most, math.ceil(high * 100) / 100)
        row |= {name: (low, high)} if (low, high) != (least, most) else {}
    print(f"{c.language!r}: {row},  # of {len(found)} documents, {sum(m['chars'] for m in found):,} characters")


def learn_perplexity(argv):
    """Write a perplexity model of good text, with the bound that nearly all of its held-out tenth stays below."""
    c, good = reference(argv)
    if not c.out:
        raise ValueError("perplexity: out= names the file to write, for example kk.npz")
    try:
        model = perplexity.train(good, c.keep)
    except ValueError as e:
        raise ValueError(f"{c.text}: {e}") from None
    perplexity.save(c.out, model)
    print(f"{c.out}: {model['total']:,} characters; documents above {model['most']:.2f} bits per character will be dropped")


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in (["calibrate"], ["perplexity"]):
        return (calibrate if words[0] == "calibrate" else learn_perplexity)(words[1:])
    c, = load(Prepare, argv=words)
    out, rank, size = Path(c.out), int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    files = [(source, i, path) for source in c.sources for i, path in enumerate(files_of(c, source))]  # looked up before any work
    if c.tokenizer and tokenizer.load(c.tokenizer).chat_template is None and not c.template and any(map(chats, c.sources)):
        raise ValueError(f"{c.tokenizer} has no chat template; set template= to one of {', '.join(tokenizer.TEMPLATES)}")
    if rank == 0:
        for index in out.glob("*/index.json"):
            os.replace(index, index.with_name("index.old"))  # not this run's until its text is found to be the same
    start_together(out / "work", rank, size)
    with naming(out), ProcessPoolExecutor(c.workers or os.cpu_count()) as pool:
        do = partial(run_tasks, pool, rank, size)
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
        account(c, out, books, [more["sizes"] for more in made])
        report(c, books, [more["sizes"] for more in made])


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
    if "vectors" in source and len(found) > 1:
        raise ValueError(f"source {source['name']}: its vectors are of one file, its path finds {len(found)}; make each a source")
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
    ranked_file = Path(c.out) / "ranked" / f"{source['name']}.tsv"
    outputs += [ranked_file] if "vectors" in source and c.filter_bitext else []
    about = [(p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in path.split("|")]
    facts = fingerprint(CODE, about, source, {k: v for k, v in asdict(c).items() if k not in LATER}, beside(c, source))
    if up_to_date(mark, facts, outputs):
        return
    for file in outputs:
        file.parent.mkdir(parents=True, exist_ok=True)
    scores, ranked = margins(c, source, path), []
    steps, book, dropped, damaged, told = steps_of(c, source), Counter(), Counter(), [], progress(path)
    with (open(passed_file, "w", encoding="utf-8") as passed, open(dropped_file, "w", encoding="utf-8") as aside,
          open(key_file, "wb") as keys):
        for doc in documents_of(c, source, path):
            book["read"] += 1
            told(book["read"], doc.offset)
            doc.language, original = source["language"], doc.text
            damaged += [f"{doc.file}, line {doc.line}: {doc.reason}"] if str(doc.reason).startswith("unreadable") else []
            row = {"file": doc.file, "offset": doc.offset, "line": doc.line}
            if scores is not None:
                at = (book["read"] if ".tmx" in Path(path).suffixes else doc.line) - 1
                if at >= len(scores):
                    raise ValueError(f"{path}, line {doc.line}: {source['vectors']} have {len(scores)} rows; embed this file")
                doc.more["score"] = float(scores[at])
                ranked.append((doc.more["score"], doc.text, doc.more.get("target") or ""))
            if source.get("clean") and str(doc.reason).startswith("no text"):
                answered(doc)
            doc.reason = doc.reason or run(steps, doc)
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
    if scores is not None:
        similarity.write_ranked(ranked_file, *zip(*ranked)) if ranked else ranked_file.write_text("")
    finish(mark, facts, outputs, read=book["read"], dropped=dropped, damaged=damaged)


def documents_of(c, source, path):
    if chats(source):
        return chat.read_chats(path, source["kind"])
    if "target" in source:
        return bitext_files.read_pairs(path, source["language"], source["target"])
    return read.documents(path, source.get("unit", c.unit))


def answered(doc):
    """Give a row without "text" the text of its question and answer (corpus/knowledge.py), or the reason why it has none."""
    try:
        row = json.loads(doc.text)
        doc.text, doc.reason = knowledge.format_knowledge(row if isinstance(row, dict) else {}), None
    except ValueError as e:
        doc.reason = f"no text: {e}"


# settings that cleaning does not look at
LATER = ("out", "sources", "workers", "keep_going", "tokenizer", "template", "vocab_size", "tokenizer_share", "tokenizer_bytes",
         "valid", "shard_tokens", "rehydrate")


def beside(c, source):
    """Digests of the other files that cleaning a source reads."""
    files = [p for q in c.evaluation for p in sorted(Path(c.raw).glob(q))]
    files += [Path(c.raw) / p for p in source.get("vectors", "").split("|") if p]
    files += [Path(c.raw) / c.perplexity[k] for k in c.perplexity if k == source["language"]]
    return [digest(p) for p in [*files, *([c.langid] if isinstance(c.langid, str) else [])]]


def margins(c, source, path):
    """The margin score of each line's pair (corpus/similarity.py), when the source names the vectors of both sides."""
    if "vectors" not in source or not c.filter_bitext:
        return None
    try:
        x, y = (np.load(Path(c.raw) / p, mmap_mode="r", allow_pickle=False) for p in source["vectors"].split("|"))
        if ".tmx" not in Path(path).suffixes and len(x) > (n := sum(1 for _ in read.places(path.split("|")[0]))):
            raise ValueError(f"{len(x)} rows for the {n} lines of {path}; embed this file")
        return similarity.margin_scores(*(similarity.align_languages(x, y) if source.get("align") else (x, y)))
    except (ValueError, EOFError) as e:
        raise ValueError(f"source {source['name']}: vectors {source['vectors']}: {e}") from None


def progress(path, every=10):
    """A function (documents, offset) that says every ten seconds how far a file is, how fast, and how long the rest will take."""
    begin = last = time.time()
    packed = Path(path.split("|")[0]).suffix in (".gz", ".bz2", ".xz", ".zst")
    size = os.stat(path.split("|")[0]).st_size

    def told(n, offset):
        nonlocal last
        now = time.time()
        if now - last > every:
            last, spent = now, now - begin
            left = f", {spent * (size - offset) / offset:,.0f} s left" if offset and not packed else ""  # packed: size unknown
            print(f"{path}: {n:,} documents, {n / spent:,.0f} a second{left}", flush=True)
    return told


def merge_files(c, source, mark):
    """The files of a source in their order, without duplicates: text/NAME.jsonl, dropped/NAME.jsonl. The mark is its book."""
    marks = [work(c, source) / f"{i:05}.json" for i in range(len(files_of(c, source)))]
    parts, web = [json.loads(p.read_text()) for p in marks], running(source)
    outputs = kept_file, dropped_file = [Path(c.out) / kind / f"{source['name']}.jsonl" for kind in ("text", "dropped")]
    facts = fingerprint(CODE, [part["outputs"] for part in parts], c.names, c.filter_bitext)
    if up_to_date(mark, facts, outputs):
        return
    book, dropped = Counter(), Counter()
    for p in outputs:
        p.parent.mkdir(parents=True, exist_ok=True)
    with open(mark.with_name("keys"), "wb") as keys:
        for p in marks:
            with open(p.with_suffix(".keys"), "rb") as some:
                shutil.copyfileobj(some, keys)
    head, exact = duplicates(mark.with_name("keys"), web and c.near)
    copies, alone = np.bincount(head), bitext.one_to_one()
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
                    if c.filter_bitext and (reason := alone(pair)) is not None:
                        drop(aside, dropped, row | {"target": other}, reason)
                        continue
                    codes = source["language"], source["target"]
                    translation_templates.format_pair(pair, c.names[codes[0]], c.names[codes[1]], codes)
                    row["text"] = pair.text
                elif copies[i - 1] > 1:
                    row["copies"] = int(copies[i - 1])  # of the text, itself among them
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
        reason = step(doc)
        if reason is not None:
            return reason
    return None


PLACE = ("file", "offset", "line", "reason")
SHOWN = 5  # of the dropped of a source and reason in samples.jsonl


def account(c, out, books, sizes=None):
    """Write account.json and rejects.jsonl; no document may be missing; ValueError for damaged files and empty sources."""
    for source, book in zip(c.sources, books):
        assert book["read"] == book["kept"] + sum(book["dropped"].values()), f"{source['name']}: documents lost"
    write_account(c, out, books, sizes)
    with open(out / "rejects.jsonl", "w", encoding="utf-8") as rejects, open(out / "samples.jsonl", "w", encoding="utf-8") as few:
        for source in c.sources:
            shown = Counter()
            files = [out / "dropped" / f"{source['name']}{suffix}.jsonl" for suffix in ("", UNFIT)]
            for line in (line for path in files if path.exists() for line in open(path, encoding="utf-8")):
                whole = json.loads(line)
                row = {"source": source["name"]} | {k: v for k, v in whole.items() if k in PLACE}
                rejects.write(json.dumps(row, ensure_ascii=False) + "\n")
                if (shown.update([row["reason"]]) or shown[row["reason"]]) <= SHOWN:
                    sides = {k: v[:2000] for k, v in whole.items() if k in ("text", "target") and isinstance(v, str)}
                    few.write(json.dumps(row | sides) + "\n")  # escaped: it may hold what UTF-8 cannot
    damaged = [text for book in books for text in book["damaged"]]
    if damaged and not c.keep_going:
        raise ValueError(f"{len(damaged)} damaged files: {'; '.join(damaged[:5])}; replace them, or keep what could be read with "
                         "keep_going=True")
    empty = [f"{s['name']} ({b['read']} read, dropped: {b['dropped'] or 'none'})" for s, b in zip(c.sources, books)
             if not b["kept"]]
    if empty:
        raise ValueError(f"nothing left of source {', '.join(empty)}; what was dropped, and why, is in {out}/dropped")


def write_account(c, out, books, sizes=None):
    """account.json: what became of the documents of each source; once the shards stand, their tokens, too."""
    told = ("read", "kept", "bytes", "dropped", "damaged", "control_tokens_as_text")
    rows = {s["name"]: {k: b[k] for k in told if k in b} | {k: s.get(k) for k in ("category", "language", "target", "licence")}
            for s, b in zip(c.sources, books)}
    for row, size in zip(rows.values(), sizes or ()):
        row["tokens"] = {split: n for split, (n, _, _) in size.items()}
    (out / "account.tmp").write_text(json.dumps(rows, indent=1))
    os.replace(out / "account.tmp", out / "account.json")


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
    except (ValueError, OSError) as e:  # OSError: a full disk, above all
        sys.exit(f"{type(e).__name__}: {e}")
