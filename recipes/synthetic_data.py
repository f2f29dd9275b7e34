"""Synthetic text: prompts from keywords and personas, answers of a checkpoint or an endpoint, filters, an account of everything.

    python recipes/synthetic_data.py keywords=kw.txt personas=p.txt seeds=seed.jsonl language=kk n=1000 out=OUT model=FOLDER
    python recipes/synthetic_data.py ... endpoint=http://localhost:8000/v1 name=MODEL        # key: $OPENAI_API_KEY

OUT/raw.jsonl gets every answer as it comes: killed at any moment, the same command goes on. OUT/synthetic.jsonl is what is kept,
OUT/rejects.jsonl the rest, OUT/account.json the sum; neither threads nor where a run was stopped show in these three.
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
from configs import load  # noqa: E402
from configs import language_table  # noqa: E402
from corpus import clean, read, synthesize  # noqa: E402
from evaluation import client as ask  # noqa: E402


@dataclass(frozen=True)
class Synthetic:
    language: str                 # to write in: a code of the paper's, or an English name
    n: int                        # requests
    out: str                      # folder
    keywords: str | None = None   # .txt, one a line, in any language
    personas: str | None = None   # .txt of lines "role" or "role<TAB>subject"
    seeds: str | None = None      # .jsonl of {"text"} or questions with answers: shown as samples; no answer may be like one
    kinds: list = field(default_factory=lambda: list(synthesize.TEMPLATES))  # in turn; one may stand there twice
    each: int = 3                 # keywords in a prompt
    shots: int = 3                # seeds in a prompt
    seed: int = 0                 # of the prompts, and of a checkpoint's random numbers
    model: str | None = None      # who answers: a Hugging Face folder or a checkpoint of train.py; or
    endpoint: str | None = None   # the address of an OpenAI-compatible server, and
    name: str | None = None       # the model's name there
    body: dict = field(default_factory=dict)  # more fields of the requests to a server; None takes one away
    threads: int = 8              # requests at a time
    timeout: float = 120.0        # seconds for an answer
    batch: int = 16               # prompts that a checkpoint answers together
    max_new: int = 1024           # tokens of an answer
    temperature: float = 0.8
    least_words: int = 20         # of an answer; in scripts without spaces, characters
    most_words: int = 4000
    banned: list = field(default_factory=lambda: synthesize.BANNED)  # phrases that no answer holds
    novelty: float = 0.7          # ROUGE-L with every seed and answer kept is below this (Self-Instruct's value)
    langid: list | None = None    # codes that py3langid may find; None: the language's; []: it is not asked

    def __post_init__(self):
        wrong = [f"{name} must be {need}, got {getattr(self, name)!r}" for name, need, right in (
            ("kinds", f"of {', '.join(synthesize.TEMPLATES)}", self.kinds and all(k in synthesize.TEMPLATES for k in self.kinds)),
            ("endpoint", "http(s)://...", (self.endpoint or "http://").startswith(("http://", "https://"))),
            ("model", "set where endpoint is not", bool(self.model) != bool(self.endpoint)),
            ("langid", f"set, as {self.language} is not the paper's", self.langid is not None or self.language in language_table.NAMES),
            ("banned", "phrases with words", all(isinstance(p, str) and synthesize.words(p) for p in self.banned)),
            ("name", "set with endpoint", bool(self.name) == bool(self.endpoint)), ("novelty", "0 to 1", 0 < self.novelty <= 1),
            *((k, "above 0", getattr(self, k) > 0) for k in ("n", "threads", "timeout", "batch", "max_new"))) if not right]
        if wrong:
            raise ValueError("Synthetic: " + "; ".join(wrong))


def main(argv=None):
    c, = load(Synthetic, argv=argv)
    out, seeds = Path(c.out), texts(c.seeds)
    requests, steps = partial(plan, c, texts(c.keywords), texts(c.personas), seeds), steps_of(c, seeds)
    out.mkdir(parents=True, exist_ok=True)
    with ask.locked(out / "raw.jsonl") as raw:
        places = places_of(out / "raw.jsonl", requests())
        (out / "account.json").unlink(missing_ok=True)
        begin, last, before = time.monotonic(), 0, len(places)
        for row, answer in (ask_model if c.model else ask_endpoint)(c, requests(), set(places)) if before < c.n else ():
            places[row["id"]] = raw.seek(0, os.SEEK_END)
            raw.write((json.dumps({"id": row["id"]} | answer) + "\n").encode())  # escaped: it may hold what UTF-8 cannot
            raw.flush()
            took, done = time.monotonic() - begin, len(places) - before
            if len(places) == c.n or took > last + 5 and (c.endpoint or len(places) % c.batch == 0):  # a batch comes at once
                last, left = took, (c.n - len(places)) * took / done
                print(f"{len(places)} of {c.n} answers, {done / took:.2f} a second, {left:.0f} s left", flush=True)
        sort_out(c, out, requests(), places, steps)


def texts(path):
    """The lines of a .txt, or the documents of a .jsonl (questions with answers are rendered), each once; none without a path."""
    out = {}
    for doc in read.read_documents(path, "line") if path else ():
        try:
            out[(synthesize.render_knowledge(json.loads(doc.text)) if doc.reason else doc.text).strip()] = None
        except (TypeError, ValueError, AttributeError) as e:
            raise ValueError(f"{path}: line {doc.line}: {doc.reason} ({e})") from None
    return [text for text in out if text]


def plan(c, keywords, personas, seeds):
    """The n requests, with ids: the number, and a hash of all that the answer depends on."""
    language = language_table.NAMES.get(c.language, c.language)
    rows = synthesize.requests(c.kinds, c.seed, language, keywords, personas, seeds, c.each, c.shots)
    for i, row in zip(range(c.n), rows):
        asked = json.dumps([row["prompt"], c.model or c.name, c.max_new, c.temperature, c.body, c.seed])
        yield {"id": f"{i:07}-{hashlib.blake2b(asked.encode(), digest_size=4).hexdigest()}"} | row


def steps_of(c, seeds):
    """What an answer goes through, in order: each step keeps it or names the reason why not."""
    wanted = [c.language] if c.langid is None else c.langid
    identify = clean.load_langid({*language_table.NAMES, *wanted}) if wanted else None
    if wanted and identify is None:
        raise ValueError("checking the language needs a package: pip install py3langid (or set langid=[])")
    return [partial(synthesize.answered, least=c.least_words, most=c.most_words, banned=c.banned, refusals=synthesize.REFUSALS),
            partial(synthesize.said_before, prompt=0.3, itself=0.3),  # of 861 news articles in 7 languages none comes above 0.26
            *([partial(clean.filter_language, identify=identify, wanted=wanted)] if wanted else []),
            synthesize.novelty(c.novelty, seeds)]


def places_of(path, rows):
    """{id: where its answer begins} in raw.jsonl. A last line that a kill has cut is taken away, to be asked again."""
    places, end, ids = {}, 0, {row["id"] for row in rows}
    with open(path, "r+b") as f:
        for number, line in enumerate(f, 1):
            try:
                if line.endswith(b"\n"):
                    places.setdefault(json.loads(line)["id"], end)
                    end += len(line)
            except (ValueError, LookupError, TypeError):
                raise ValueError(f"{path}: line {number} is no answer; take the line out, and it is asked again") from None
        f.truncate(end)
    if strange := [id for id in places if id not in ids and id[:7] < f"{len(ids):07}"]:  # those beyond are of a larger n
        raise ValueError(f"{path}: {strange[0]} answers a request that these settings do not make; set out= another folder")
    return {id: place for id, place in places.items() if id in ids}


def conversation(row):
    return [{"role": "user", "content": row["prompt"]}]


def ask_endpoint(c, rows, done):
    """Yield (request, answer), in order; those that overtake a slow one wait in memory, 8 for each thread at most."""
    chat = ask.server(c.endpoint, c.name, {"max_tokens": c.max_new, "temperature": c.temperature} | c.body, c.timeout)
    left = (row for row in rows if row["id"] not in done)
    with ThreadPoolExecutor(c.threads) as pool:
        while some := list(islice(left, 8 * c.threads)):
            yield from zip(some, pool.map(chat, [conversation(row) for row in some]))


def ask_model(c, rows, done):
    """Yield (request, answer). Batches are cut from all requests: random numbers do not depend on where a run was stopped."""
    from generate import Decoding, generate, ids_of  # only here: an endpoint does without
    model, t = ask.local(c.model, chats=False)
    for first in range(0, c.n, c.batch):
        some = list(islice(rows, c.batch))
        if not {row["id"] for row in some} <= done:
            prompts = [t.encode_chat(conversation(row)) if t.chat_template else ids_of(t, row["prompt"] + "\n") for row in some]
            out = generate(model, prompts, c.max_new, t.stop_ids, Decoding(c.temperature, seed=c.seed + first), c.batch)
            for row, prompt, ids in zip(some, prompts, out):
                if row["id"] not in done:  # only of a conversation is it known that it ends
                    finish = "length" if t.chat_template and len(ids) == c.max_new else "stop"
                    yield row, {"text": t.decode(ids, before=prompt), "finish": finish}


def sort_out(c, out, rows, places, steps):
    """Write what is kept and what is not, and the account."""
    book, n, files = Counter(), 0, [out / name for name in ("synthetic.jsonl", "rejects.jsonl", "account.json")]
    good, bad, last = (open(f"{file}.tmp", "w", encoding="utf-8") for file in files)
    with open(out / "raw.jsonl", "rb") as raw, good, bad, last:
        for n, row in enumerate(rows, 1):
            raw.seek(places[row["id"]])
            answer = json.loads(raw.readline())
            doc = read.Document(answer["text"].strip(), more=row | {"finish": answer["finish"]})
            reason = next((reason for step in steps if (reason := step(doc)) is not None), None)
            book[reason] += 1
            made = {"id": row["id"], "reason": reason, "text": answer["text"]} if reason else {"text": doc.text} | row
            (bad if reason else good).write(json.dumps(made, ensure_ascii=bool(reason)) + "\n")  # a reject may hold no UTF-8
        kept = book.pop(None, 0)
        assert n == c.n == kept + sum(book.values()), f"{c.n} requests, {n} answers, {kept} kept, dropped: {book}"
        json.dump({"read": n, "kept": kept, "dropped": dict(sorted(book.items()))}, last, indent=1)
    for file in files:
        os.replace(f"{file}.tmp", file)
    print(f"{out}: {kept} of {n} kept; dropped: {dict(book.most_common()) or 'none'}")
    if not kept:
        raise ValueError(f"nothing is left; what was dropped, and why, is in {files[1]}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, ConnectionError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
