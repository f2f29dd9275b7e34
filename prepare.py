"""Raw text -> token shards: a visible list of steps, every document accounted for, no torch.

    python prepare.py configs/tiny/data.py
    python prepare.py calibrate language=kk text='good/kk/*.txt'              # its row of configs/thresholds.py
    python prepare.py perplexity language=kk text='good/kk/*.txt' out=kk.npz  # a model for perplexity_models

    out/text/NAME.jsonl       what was kept, clean           out/tokenizer/          the tokenizer
    out/dropped/NAME.jsonl    what was dropped, and why      out/NAME/, NAME-valid/  token shards with index.json
    out/account.json          read = kept + dropped by reason, per source
    out/rejects.jsonl         source, file, offset (bytes), line and reason of everything dropped
    out/samples.jsonl         a few dropped documents of each reason, to be read
"""
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import tokenizer
from configs import load, thresholds
from configs.errors import errors_name, explain
from corpus import (
    account,
    bitext,
    bitext_files,
    calibrate,
    chat,
    clean,
    decontaminate,
    files,
    jobs,
    knowledge,
    measure,
    merge,
    pair_scores,
    perplexity,
    read,
    shards,
    sources,
)
from corpus.read import Document


@dataclass(frozen=True)
class Prepare:
    raw: str                     # folder that the sources' paths are relative to
    out: str
    # of {"name", "path" (file or pattern), "category", "language"}; bitext: also a "target"
    sources: list
    #                              language; chats and pairs: also a "kind"; more keys: corpus/sources.py
    language_names: dict         # {language code: English name}, used by the translation templates
    tokenizer: str | None = None   # folder of the tokenizer to use; None: train one of vocab_size
    template: str | None = None    # chat template to give it, of tokenizer.TEMPLATES; None: its own
    vocab_size: int = 4096
    tokenizer_alpha: float = 0.3   # a language's weight in the tokenizer's text is its size ** this (0: all equal)
    tokenizer_bytes: int = 8_000_000  # of text the tokenizer is trained on
    unit: str = "paragraph"      # what one document is in a .txt file: line, paragraph or file
    fix_encoding: bool = False   # repair text that was decoded wrongly (pip install ftfy)
    # identify languages: True: by py3langid (pip install py3langid), a path: a fastText model
    langid: bool | str = True
    scripts: dict = field(default_factory=dict)     # {language: Unicode scripts}, beyond configs/language_table.py
    confusable_languages: list = field(default_factory=lambda: [["id", "ms"]])  # groups an identifier may confuse
    thresholds: dict = field(default_factory=dict)  # {language: {measure: (min, max)}}: rows that replace those of
    #                              configs/thresholds.py; a row "*" replaces the whole table
    perplexity_models: dict = field(default_factory=dict)  # {language: file under raw, by `prepare.py perplexity`}
    ignore_fields: list = field(default_factory=list)  # fields of chats and pairs to remove, as if they were absent:
    #                              a field that changes what is learned and cannot be honored drops its row otherwise
    filter_bitext: bool = True   # False: keep all pairs with two sides, whatever their score (Marco-LLM's Figure 7)
    near_dedup: bool = True      # also drop near-duplicates of web documents
    rehydrate: bool = False      # repeat a document that had many copies, up to 8 times (FineWeb-2's table)
    evaluation: list = field(default_factory=list)  # files under raw: drop documents that share 12 words with them
    keep_going: bool = False     # continue when a file is damaged; what could be read of it is kept
    blocked_url_words: list = field(default_factory=list)  # drop documents whose address contains one
    valid_fraction: float = 0.02  # of the documents, held out for validation (bits per byte)
    shard_tokens: int = 1 << 26
    workers: int | None = None   # processes; None: one per core. The output does not depend on it

    def __post_init__(self):
        problems = sources.check_sources(self.sources, self.language_names)
        if self.unit not in sources.UNITS:
            problems.append(f"unit must be line, paragraph or file, got {self.unit!r}")
        problems += filter(None, map(clean.check_scripts, self.scripts.values()))
        if any(map(sources.has_chats, self.sources)) and not (self.template or self.tokenizer):
            problems.append(f"chats need a template: set template= to one of {', '.join(tokenizer.TEMPLATES)}")
        if not 0 <= self.valid_fraction < 1:
            problems.append(f"valid_fraction must be at least 0 and below 1, got {self.valid_fraction}")
        for row in self.thresholds.values():
            for name, bounds in row.items():
                if name not in measure.NAMES or not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
                    problems.append(f"thresholds: {name!r}: {bounds!r} is not a measure with (min, max); "
                                    f"the measures are {', '.join(measure.NAMES)}")
        if problems:
            raise ValueError("Prepare: " + "; ".join(problems))


def main(argv: list[str] | None = None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["calibrate"]:
        calibrate.calibrate_bounds(argv[1:])
        return
    if argv[:1] == ["perplexity"]:
        calibrate.train_perplexity(argv[1:])
        return
    c, = load(Prepare, argv=argv)
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    ranks, error = jobs.Ranks(Path(c.out) / "work", rank, world_size), None
    try:
        check_inputs(c)  # before anything is written
        if rank == 0 and c.evaluation:
            decontaminate.print_counts(c)
        with errors_name(Path(c.out)), ExitStack() as held:
            if rank == 0:
                sources.check_output(c)
                held.enter_context(jobs.run_lock(Path(c.out) / "work"))
            run_stages(c, ranks)
    except BaseException as e:
        error = e
        raise
    finally:
        if world_size > 1:
            ranks.finish(error)


def check_inputs(c):
    """ValueError for what no stage can work with: missing or unknown files, no chat template, unknown languages."""
    for source in c.sources:
        sources.check_formats(source, sources.find_files(c, source))
    check_chat_template(c)
    if c.langid and not all(map(sources.has_chats, c.sources)):
        check_languages(c)
    decontaminate.find_evaluation_files(c)


def run_stages(c, ranks: jobs.Ranks):
    """Every stage is a list of tasks with a stamp each, shared by all ranks; it begins when the one before ends."""
    out = Path(c.out)
    if ranks.world_size > 1:
        jobs.exit_with_parent(os.getppid())
    if ranks.rank == 0:
        for index in out.glob("*/index.json"):
            os.replace(index, index.with_name("index.old"))  # not of this run until its text is found to be the same
    ranks.start()

    with ProcessPoolExecutor(c.workers or os.cpu_count(), initializer=jobs.exit_with_parent,
                             initargs=(os.getpid(),)) as pool:
        run = partial(jobs.run_tasks, pool, ranks)
        # each file, or part of a large one: read, run the steps, write what passed and what was dropped
        parts = [(source, *part) for source in c.sources for part in sources.find_parts(c, source)]
        cleaned = [sources.work_folder(c, source) / f"{name}.json" for source, name, *_ in parts]
        run("clean", clean_part, [(c, source, *place) for source, _, *place in parts], cleaned)
        # each source: put its files together, without duplicates
        merged = [sources.work_folder(c, source) / "merged.json" for source in c.sources]
        run("merge", merge.merge_source, [(c, source) for source in c.sources], merged)
        accounts = [json.loads(path.read_text()) for path in merged]
        # the tokenizer
        ready = out / "work" / "tokenizer.json"
        if ranks.rank == 0:
            account.write_account(c, accounts)
            make_tokenizer(c, accounts)
            jobs.write_stamp(ready, "", [])
        ranks.wait_for([ready])
        # each source: token shards
        tokenized = [sources.work_folder(c, source) / "shards.json" for source in c.sources]
        run("tokenize", tokenize_source, [(c, source) for source in c.sources], tokenized)

    if ranks.rank == 0:
        account.finish_account(c, accounts, [json.loads(path.read_text()) for path in tokenized])


def check_chat_template(c):
    """ValueError when there are chats and neither the settings nor the tokenizer have a template for them."""
    if c.tokenizer and not c.template and any(map(sources.has_chats, c.sources)):
        if tokenizer.load(c.tokenizer).chat_template is None:
            raise ValueError(f"{c.tokenizer} has no chat template; "
                             f"set template= to one of {', '.join(tokenizer.TEMPLATES)}")


# ---------------------------------------------------------------------- clean: the steps

def steps_of(c, source: dict) -> list:
    """The steps of a source in order: each takes a Document and returns None (keep) or the reason to drop it."""
    if sources.has_chats(source):
        return evaluation_steps(c)  # chosen by people; only what the evaluation asks must not be among them
    if "target" in source:
        return bitext_steps(c, source)
    if source.get("clean"):
        return curated_steps(c)
    return web_steps(c, source)


def web_steps(c, source):
    """The cascade for web documents."""
    language = source["language"]
    confusable = {code for group in c.confusable_languages if language in group for code in group}
    scripts = (clean.SCRIPTS | c.scripts).get(language)
    steps = [partial(clean.filter_url, words=c.blocked_url_words), partial(clean.repair, fix=load_ftfy(c))]
    if scripts:
        steps.append(partial(clean.filter_script, pattern=clean.script_pattern(scripts), name=scripts))
    if c.langid:
        steps.append(partial(clean.filter_language, identify=load_identifier(c), wanted={language} | confusable))
    steps.append(partial(clean.filter_heuristics, bounds=bounds_of(c, language)))
    if language in c.perplexity_models:
        model = perplexity.load(Path(c.raw) / c.perplexity_models[language])
        steps.append(partial(perplexity.filter_perplexity, model=model))
    return [*steps, clean.mask, *evaluation_steps(c)]


def curated_steps(c):
    """Knowledge and synthetic text is already clean: it is only repaired, and deduplicated later."""
    return [partial(clean.repair, fix=load_ftfy(c)), partial(clean.filter_heuristics, bounds={"chars": (1, 1 << 30)})]


def bitext_steps(c, source):
    """The rules for sentence pairs; those that pass and are no duplicates fill one of eleven templates, in one
    direction.
    """
    if not c.filter_bitext:
        return [bitext.require_two_sides]
    return [partial(bitext.filter_pair, max_ratio=4.0, source=source["language"], target=source["target"],
                    min_score=source.get("min_score"), identify=load_identifier(c) if c.langid else None,
                    alike=c.confusable_languages)]


def evaluation_steps(c):
    return [decontaminate.load_filter(c)] if c.evaluation else []


def bounds_of(c, language):
    """The bounds of a language: its row of the table over the general row."""
    table = c.thresholds if "*" in c.thresholds else thresholds.thresholds | c.thresholds
    return table["*"] | table.get(language, {})


def load_identifier(c):
    """text -> language code, by the identifier that the settings name."""
    codes = {*c.language_names, *(code for source in c.sources for code in sources.language_of(source).split("-"))}
    return _load_identifier(c.langid, tuple(sorted(codes)))


def check_languages(c):
    """ValueError when the identifier does not know the language of a source: it would drop all of its documents."""
    known = clean.known_languages(c.langid)
    for source in c.sources:
        if known is None or source.get("clean") or sources.has_chats(source):
            continue
        for code in filter(None, (source["language"], source.get("target"))):
            if code not in known:
                raise ValueError(f"source {source['name']}: the language identifier does not know {code!r} "
                                 f"({clean.suggest_codes(code, known)}); use its code, or set langid=False, or langid= "
                                 "to a fastText model that knows the language (GlotLID)")


@cache
def _load_identifier(langid, codes):
    """Loaded once per process, as it takes longer than to clean a small file."""
    if isinstance(langid, str):
        return clean.load_fasttext(langid)
    identify = clean.load_langid(codes)
    if identify is None:
        raise ValueError("langid=True needs a package: pip install py3langid (or set langid=False)")
    return identify


def load_ftfy(c):
    if not c.fix_encoding:
        return None
    try:
        from ftfy import fix_text
    except ImportError:
        raise ValueError("fix_encoding=True needs a package: pip install ftfy") from None
    return fix_text


# ---------------------------------------------------------------------- clean: one file

LATER = ("out", "sources", "workers", "keep_going", "tokenizer", "template", "vocab_size", "tokenizer_alpha",
         "tokenizer_bytes", "valid_fraction", "shard_tokens", "rehydrate")  # settings that do not affect cleaning


def clean_part(c, source: dict, path: str, start: int, end: int | None, stamp: Path):
    """Run the steps over one file, or a part of it: what passes is written with its keys, the rest aside."""
    passed, dropped, keys = outputs = [stamp.with_suffix(f".{kind}") for kind in ("passed", "dropped", "keys")]
    scored = "vectors" in source and c.filter_bitext
    if scored:
        outputs = [*outputs, pair_scores.ranked_file(c, source)]
    before = file_states(path)
    settings = {k: v for k, v in asdict(c).items() if k not in LATER}
    hashes = hash_small_files(path), hash_other_inputs(c, source)
    inputs = jobs.fingerprint(before, start, end, source, settings, hashes)
    if jobs.up_to_date(stamp, inputs, outputs):
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    fields: dict = {"ignored_fields": Counter(), "unread_fields": Counter()}
    documents = read_source(c, source, path, start, end, fields)
    if scored:
        documents = pair_scores.score_pairs(c, source, path, documents)
    documents = run_steps(c, source, documents)
    result = merge.write_cleaned(c, source, documents, passed, dropped, keys)
    if before != file_states(path):
        raise ValueError(f"{path} changed while it was read; let its writer finish, then run this again")
    jobs.write_stamp(stamp, inputs, outputs, **result, **fields)


def read_source(c, source: dict, path: str, start: int, end: int | None, fields: dict) -> Iterator[Document]:
    """The documents of one file of a source, or of a part of it, unreadable ones with their reason.

    fields: counts the fields of chats that were not used.
    """
    if sources.has_chats(source):
        documents = chat.read_chats(path, source["kind"], c.ignore_fields, fields, start, end)
    elif "target" in source:
        documents = bitext_files.read_pairs(path, source["language"], source["target"], start, end)
    else:
        documents = read.read_documents(path, source.get("unit", c.unit), start, end)
    for doc in report_progress(path, documents, start, end):
        doc.language, doc.original = source["language"], doc.text
        if source.get("clean") and str(doc.reason).startswith("no text"):
            render_answer(doc)
        yield doc


def report_progress(path: str, documents: Iterable[Document], start=0, end=None, every=10.0) -> Iterator[Document]:
    """Print every ten seconds how far a file is, how fast, and how long the rest will take."""
    begin = last = time.time()
    first = Path(path.split("|")[0])
    if end is None and first.suffix not in files.COMPRESSED:  # offsets are of what is compressed
        end = os.stat(first).st_size
    for n, doc in enumerate(documents, 1):
        if time.time() - last > every:
            last = time.time()
            elapsed = last - begin
            share = (doc.offset - start) / (end - start) if end and doc.offset else 0
            left = f", {elapsed * (1 - share) / share:,.0f} s left" if share > 0 else ""
            print(f"{path}: {n:,} documents, {n / elapsed:,.0f} per second{left}", flush=True)
        yield doc


def render_answer(doc):
    """Give a row without "text" the text of its question and answer (corpus/knowledge.py), or the reason why it has
    none.
    """
    try:
        row = json.loads(doc.text)
        doc.text, doc.reason = knowledge.format_knowledge(row if isinstance(row, dict) else {}), None
    except ValueError as e:
        doc.reason = f"no text: {e}"


def run_steps(c, source: dict, documents: Iterable[Document]) -> Iterator[Document]:
    """Set the reason of every document that a step drops."""
    steps = steps_of(c, source)
    for doc in documents:
        for step in steps if doc.reason is None else ():
            doc.reason = step(doc)
            if doc.reason is not None:
                break
        yield doc


def file_states(path):
    """Name, size and time of the one or two files of a path."""
    return [(p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in path.split("|")]


def hash_small_files(path):
    """Hashes of the files of a path that are cleaned whole: tools that copy may keep size and time of another file."""
    files_of_path = path.split("|")
    return [jobs.file_sha256(p) for p in files_of_path if os.stat(p).st_size < 2 * sources.PART_BYTES]


def hash_other_inputs(c, source):
    """Hashes of the other files that cleaning a source reads."""
    paths = decontaminate.find_evaluation_files(c)
    paths += [Path(c.raw) / p for p in source.get("vectors", "").split("|") if p]
    if source["language"] in c.perplexity_models:
        paths.append(Path(c.raw) / c.perplexity_models[source["language"]])
    if isinstance(c.langid, str):
        paths.append(Path(c.langid))
    return [jobs.file_sha256(path) for path in paths]


# ---------------------------------------------------------------------- tokenizer, shards

def make_tokenizer(c, accounts: list[dict]):
    """The folder of the tokenizer: a copy of c.tokenizer, or a new one trained on text balanced towards small
    languages.
    """
    folder, stamp = Path(c.out) / "tokenizer", Path(c.out) / "work" / "trained.json"
    inputs = jobs.fingerprint([book["outputs"] for book in accounts], c.vocab_size, c.tokenizer_alpha,
                              c.tokenizer_bytes, c.template)
    if not c.tokenizer and jobs.up_to_date(stamp, inputs, sorted(folder.glob("*"))):
        return
    if not c.tokenizer or Path(c.tokenizer).resolve() != folder.resolve():  # else that of an earlier run: keep it
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if c.tokenizer:
        for file in tokenizer.list_tokenizer_files(c.tokenizer, with_generation_config=True):
            if not (folder / file.name).exists():
                shutil.copy(file, folder / file.name)
    else:
        tokenizer.train(shards.sample_text(c, shards.split_budget(c, accounts)), c.vocab_size, folder)
    if c.template:
        tokenizer.write_template(folder, c.template)
    if not c.tokenizer:
        jobs.write_stamp(stamp, inputs, sorted(folder.glob("*")))


def tokenize_source(c, source: dict, stamp: Path):
    shards.write_shards(c, source, tokenizer.load(Path(c.out) / "tokenizer"), stamp)


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(f"{type(e).__name__}: {e}")
    except OSError as e:
        sys.exit(explain(e))
