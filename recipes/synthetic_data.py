"""Synthetic text: prompts from keywords and personas, answered by a checkpoint or an endpoint, then filtered.

    python recipes/synthetic_data.py keywords=kw.txt personas=p.txt seeds=seeds.jsonl language=kk n=1000 out=OUT model=M
    python recipes/synthetic_data.py ... endpoint=http://localhost:8000/v1 name=M        # key: $API_KEY_LOCALHOST

It writes OUT/synthetic.jsonl (what is kept), OUT/rejects.jsonl (the rest) and OUT/account.json (the counts).
OUT/raw.jsonl gets every answer as it arrives, so the same command resumes after a kill. The first three files do not
depend on the number of threads or on where a run was stopped.
"""
import hashlib
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import language_table, load
from configs.refusals import REFUSALS
from corpus import clean, knowledge, read, synthesize
from evaluation import client, results


@dataclass(frozen=True)
class Synthetic:
    language: str                 # to write in: a code of configs/language_table.py, or an English name
    n: int                        # requests
    out: str                      # folder
    keywords: str | None = None   # .txt, one per line, in any language
    personas: str | None = None   # .txt of lines "role" or "role<TAB>subject"
    seeds: str | None = None      # .jsonl of {"text"} or questions with answers: examples; no answer may resemble one
    kinds: list = field(default_factory=lambda: list(synthesize.PROMPTS))  # in turn; a kind may occur twice
    keywords_each: int = 3        # keywords in a prompt
    shots: int = 3                # seeds in a prompt
    seed: int = 0                 # of the prompts, and of a checkpoint's sampling
    model: str | None = None      # the writer: a Hugging Face folder or a checkpoint of train.py; or
    endpoint: str | None = None   # the address of an OpenAI-compatible server, and
    name: str | None = None       # the model's name there
    body: dict = field(default_factory=dict)  # more fields of the requests to a server; None removes a field
    threads: int = 8              # concurrent requests
    timeout: float = 120.0        # seconds for an answer
    batch: int = 16               # prompts that a checkpoint answers together
    max_new: int = 1024           # tokens of an answer
    temperature: float = 0.8
    min_words: int = 20           # of an answer; in scripts without spaces, characters
    max_words: int = 4000
    banned: list = field(default_factory=lambda: synthesize.BANNED)  # phrases that no answer may contain
    novelty: float = 0.7          # ROUGE-L with every seed and kept answer must be below this (Self-Instruct's value)
    langid: list | None = None    # codes that py3langid may find; None: the language's; []: no check

    def __post_init__(self):
        problems = []

        def require(ok, name, need):
            if not ok:
                problems.append(f"{name} must be {need}, got {getattr(self, name)!r}")

        kinds = synthesize.PROMPTS
        require(self.kinds and all(kind in kinds for kind in self.kinds), "kinds", f"of {', '.join(kinds)}")
        require((self.endpoint or "http://").startswith(("http://", "https://")), "endpoint", "http(s)://...")
        require(bool(self.model) != bool(self.endpoint), "model", "set where endpoint is not")
        require(self.langid is not None or self.language in language_table.NAMES, "langid",
                f"set, as {self.language} is not the paper's")
        require(all(isinstance(phrase, str) and synthesize.split_words(phrase) for phrase in self.banned), "banned",
                "phrases with words")
        require(bool(self.name) == bool(self.endpoint), "name", "set with endpoint")
        require(0 < self.novelty <= 1, "novelty", "0 to 1")
        for name in ("n", "threads", "timeout", "batch", "max_new"):
            require(getattr(self, name) > 0, name, "above 0")
        if problems:
            raise ValueError("Synthetic: " + "; ".join(problems))


def main(argv=None):
    c, = load(Synthetic, argv=argv)
    out, seeds = Path(c.out), read_texts(c.seeds)
    requests = partial(make_requests, c, read_texts(c.keywords), read_texts(c.personas), seeds)
    filters = make_filters(c, seeds)
    out.mkdir(parents=True, exist_ok=True)
    with results.open_locked(out / "raw.jsonl") as raw:
        offsets = index_answers(out / "raw.jsonl", requests())
        (out / "account.json").unlink(missing_ok=True)
        if len(offsets) < c.n:
            ask_all(c, raw, requests(), offsets)
        filter_answers(c, out, requests(), offsets, filters)


def read_texts(path):
    """The distinct lines of a .txt or documents of a .jsonl (questions with answers as text); none without a path."""
    out = {}
    for doc in read.read_documents(path, "line") if path else ():
        try:
            text = knowledge.format_knowledge(json.loads(doc.text)) if doc.reason else doc.text
        except (TypeError, ValueError, AttributeError) as e:
            raise ValueError(f"{path}: line {doc.line}: {doc.reason} ({e})") from None
        out[text.strip()] = None
    return [text for text in out if text]


def make_requests(c, keywords, personas, seeds):
    """Yield the n requests, each with an id: its number, and a hash of all that the answer depends on."""
    language = language_table.NAMES.get(c.language, c.language)
    requests = synthesize.make_requests(c.kinds, c.seed, language, keywords, personas, seeds, c.keywords_each, c.shots)
    for i, request in enumerate(islice(requests, c.n)):
        facts = json.dumps([request["prompt"], c.model or c.name, c.max_new, c.temperature, c.body, c.seed])
        yield {"id": f"{i:07}-{hashlib.blake2b(facts.encode(), digest_size=4).hexdigest()}"} | request


def make_filters(c, seeds):
    """The filters of an answer, in order: each returns None to keep it, or the reason to drop it."""
    filters = [partial(synthesize.check_answer, min_words=c.min_words, max_words=c.max_words, banned=c.banned,
                       refusals=REFUSALS),
               # of 861 news articles in 7 languages none repeats more than 0.26
               partial(synthesize.check_repetition, max_echo=0.3, max_repeated=0.3)]
    wanted = [c.language] if c.langid is None else c.langid
    if wanted:
        identify = clean.load_langid({*language_table.NAMES, *wanted})
        if identify is None:
            raise ValueError("checking the language needs a package: pip install py3langid (or set langid=[])")
        filters.append(partial(clean.filter_language, identify=identify, wanted=wanted))
    return [*filters, synthesize.novelty_filter(c.novelty, seeds)]


# ---------------------------------------------------------------------- answers

def index_answers(path, requests):
    """{id: offset of its answer} in raw.jsonl. A last line cut by a kill is removed, and asked again."""
    offsets, end, ids = {}, 0, {request["id"] for request in requests}
    with open(path, "r+b") as f:
        for number, line in enumerate(f, 1):
            try:
                if line.endswith(b"\n"):
                    offsets.setdefault(json.loads(line)["id"], end)
                    end += len(line)
            except (ValueError, LookupError, TypeError):
                raise ValueError(f"{path}: line {number} is no answer; remove the line to ask again") from None
        f.truncate(end)
    foreign = [id for id in offsets if id not in ids and id[:7] < f"{len(ids):07}"]  # later ones come from a larger n
    if foreign:
        raise ValueError(f"{path}: {foreign[0]} answers a request that these settings do not make; set out= another "
                         "folder")
    return {id: offset for id, offset in offsets.items() if id in ids}


def ask_all(c, raw, requests, offsets):
    """Request all missing answers; append them to raw and record their offsets."""
    start, last_print, before = time.monotonic(), 0, len(offsets)
    for request, answer in (ask_model if c.model else ask_endpoint)(c, requests, set(offsets)):
        offsets[request["id"]] = raw.seek(0, os.SEEK_END)
        raw.write((json.dumps({"id": request["id"]} | answer) + "\n").encode())  # escaped: it may hold lone surrogates
        raw.flush()
        seconds, done = time.monotonic() - start, len(offsets) - before
        batch_is_done = c.endpoint or len(offsets) % c.batch == 0
        if len(offsets) == c.n or seconds > last_print + 5 and batch_is_done:
            last_print, left = seconds, (c.n - len(offsets)) * seconds / done
            print(f"{len(offsets)} of {c.n} answers, {done / seconds:.2f} a second, {left:.0f} s left", flush=True)


def conversation(request):
    return [{"role": "user", "content": request["prompt"]}]


def ask_endpoint(c, requests, done):
    """Yield (request, answer) in order; at most 8 answers per thread wait in memory for a slow one."""
    body = {"max_tokens": c.max_new, "temperature": c.temperature} | c.body
    send = client.connect(c.endpoint, c.name, body, c.timeout)
    missing = (request for request in requests if request["id"] not in done)
    with ThreadPoolExecutor(c.threads) as pool:
        while batch := list(islice(missing, 8 * c.threads)):
            yield from zip(batch, pool.map(send, map(conversation, batch)))


def ask_model(c, requests, done):
    """Yield (request, answer). Batches are cut from all requests: sampling does not depend on where a run stopped."""
    from generate import Decoding, encode_prompt, generate  # imported here: an endpoint needs no torch
    model, t = client.load_model(c.model, needs_template=False)
    for first in range(0, c.n, c.batch):
        batch = list(islice(requests, c.batch))
        if {request["id"] for request in batch} <= done:
            continue
        if t.chat_template:
            prompts = [t.encode_chat(conversation(request)) for request in batch]
        else:
            prompts = [encode_prompt(t, request["prompt"] + "\n") for request in batch]
        replies = generate(model, prompts, c.max_new, t.stop_ids, Decoding(c.temperature, seed=c.seed + first), c.batch)
        for request, prompt, ids in zip(batch, prompts, replies):
            if request["id"] not in done:
                # without a template, a text has no required end
                is_cut = t.chat_template and len(ids) == c.max_new
                yield request, {"text": t.decode(ids, prefix=prompt), "finish": "length" if is_cut else "stop"}


def filter_answers(c, out, requests, offsets, filters):
    """Write what is kept, what is rejected, and the account."""
    counts, n = Counter(), 0
    files = [out / name for name in ("synthetic.jsonl", "rejects.jsonl", "account.json")]
    kept, rejected, account = (open(f"{file}.tmp", "w", encoding="utf-8") for file in files)
    with open(out / "raw.jsonl", "rb") as raw, kept, rejected, account:
        for request in requests:
            n += 1
            raw.seek(offsets[request["id"]])
            answer = json.loads(raw.readline())
            doc = read.Document(answer["text"].strip(), more=request | {"finish": answer["finish"]})
            reason = next((reason for step in filters if (reason := step(doc)) is not None), None)
            counts[reason] += 1
            if reason is None:
                kept.write(json.dumps({"text": doc.text} | request, ensure_ascii=False) + "\n")
            else:  # escaped: it may hold lone surrogates
                rejected.write(json.dumps({"id": request["id"], "reason": reason, "text": answer["text"]}) + "\n")
        n_kept = counts.pop(None, 0)
        assert n == c.n == n_kept + counts.total(), f"{c.n} requests, {n} answers, {n_kept} kept, dropped: {counts}"
        json.dump({"read": n, "kept": n_kept, "dropped": dict(sorted(counts.items()))}, account, indent=1)
    for file in files:
        os.replace(f"{file}.tmp", file)
    print(f"{out}: {n_kept} of {n} kept; dropped: {dict(counts.most_common()) or 'none'}")
    if not n_kept:
        raise ValueError(f"nothing is left; what was dropped, and why, is in {files[1]}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
