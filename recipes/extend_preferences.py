"""Preference pairs for a language that has none: translations of another's, or a checkpoint's answers, ranked by a judge.

    python recipes/extend_preferences.py pairs='raw/preferences/en/*' translations='mt/en-kk.tsv' out=OUT
    python recipes/extend_preferences.py questions='raw/chat/kk/*' model=runs/sft judge=exact out=OUT
    python recipes/extend_preferences.py ... judge=FOLDER            # or https://host/v1 with name=; key: $OPENAI_API_KEY

OUT/preferences.jsonl gets the pairs, OUT/rejects.jsonl the rows that gave none, with file, line and reason, OUT/account.json the
sum. Answers and ratings are written as they come: killed at any moment, the same command goes on.
"""
import hashlib
import json
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from configs import load  # noqa: E402
from corpus import bitext_files, chat, synthesize  # noqa: E402
from evaluation import client  # noqa: E402

RATE = ("Somebody was asked this:\n\n{question}\n\nand answered:\n\n{answer}\n\nHow good is that? It should be true, do what was "
        "asked and no more, and be in the language that was asked for or, where none was, that of the question. Give a number "
        "from 1 (useless) to 10 (nothing to improve). Write one sentence of reasons, then a last line \"Rating: N\".")


@dataclass(frozen=True)
class Extend:
    out: str                      # folder
    pairs: str | None = None      # files of pairs in another language (corpus/chat.py; a pattern), and
    translations: str | None = None  # files of aligned texts (corpus/bitext.py; a pattern): whole messages, or their lines
    questions: str | None = None  # or files of chats: their last answer is made anew, and "exact" compares with the old one
    model: str | None = None      # who answers: a Hugging Face folder or a checkpoint of train.py, with a chat template
    judge: str = "exact"          # exact: the words of that answer; else a folder, or an OpenAI-compatible server's address
    name: str | None = None       # the judge's name there
    samples: int = 4              # answers to each question
    temperature: float = 1.0      # of the answers; the judge is asked at 0
    max_new: int = 256            # tokens of an answer, and of a verdict
    gap: float = 2.0              # least difference between the ratings of a pair; with "exact" they are 0 and 10
    batch: int = 16               # questions that a checkpoint answers together
    threads: int = 8              # requests to a server at a time
    seed: int = 0

    def __post_init__(self):
        given = [name for name in ("pairs", "translations", "questions", "model") if getattr(self, name)]
        if given not in (["pairs", "translations"], ["questions", "model"]):
            raise ValueError("Extend: give pairs= and translations=, or questions= and model=; "
                             f"got {' and '.join(given) or 'none'}")
        if self.judge.startswith(("http://", "https://")) != bool(self.name):
            raise ValueError("Extend: name= is the judge's at a server: set both or neither")
        if self.samples < 2 or min(self.batch, self.threads, self.max_new) < 1 or self.temperature <= 0 or self.gap <= 0:
            raise ValueError("Extend: samples must be 2 or more, batch, threads, max_new, temperature and gap above 0")


def main(argv=None):
    c, = load(Extend, argv=argv)
    out, book = Path(c.out), Counter()
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in ("preferences.jsonl", "rejects.jsonl", "account.json")]
    with open(f"{files[0]}.tmp", "w", encoding="utf-8") as good, open(f"{files[1]}.tmp", "w", encoding="utf-8") as bad:
        for doc, pair in (translated if c.pairs else sampled)(c):
            book["read"] += 1
            if pair is not None and pair["chosen"] == pair["rejected"]:
                doc.reason, pair = "pair: chosen and rejected are identical", None
            book["kept" if pair else doc.reason] += 1
            row = pair or {"file": doc.file, "line": doc.line, "reason": doc.reason}
            (good if pair else bad).write(json.dumps(row, ensure_ascii=pair is None) + "\n")
    read, kept = book.pop("read", 0), book.pop("kept", 0)
    assert read == kept + book.total(), f"{read} rows, {kept} kept, dropped: {book}"
    Path(f"{files[2]}.tmp").write_text(json.dumps({"read": read, "kept": kept, "dropped": dict(sorted(book.items()))}, indent=1))
    for file in files:
        os.replace(f"{file}.tmp", file)
    print(f"{out}: {kept} pairs of {read} rows; dropped: {dict(book.most_common()) or 'none'}")
    if not kept:
        raise ValueError(f"nothing is left; what was dropped, and why, is in {files[1]}")


def files_of(pattern):
    found = sorted(p for p in glob(pattern, recursive=True) if Path(p).is_file())
    if not found:
        raise ValueError(f"{pattern}: no such file")
    return found


# ---------------------------------------------------------------------- translations

def translated(c):
    """Yield (Document, pair or None): every pair whose texts all have a translation, whole or line by line."""
    table = {}
    for path in files_of(c.translations):
        for doc in bitext_files.read_pairs(path):
            if doc.reason is None and doc.more["target"].strip():
                table.setdefault(doc.text.strip(), doc.more["target"].strip())

    def translate(text):
        if text.strip() in table:
            return table[text.strip()]
        return "\n".join(table[line.strip()] if line.strip() else "" for line in text.split("\n"))

    for path in files_of(c.pairs):
        for doc in chat.read_chats(path, "preference"):
            pair = {}
            try:
                for side, turns in doc.more.items():
                    pair[side] = [m | {"content": translate(m["content"])} for m in turns]
            except KeyError:
                doc.reason, pair = "translation: a text has none", {}
            yield doc, pair or None


# ---------------------------------------------------------------------- answers and ratings

def sampled(c):
    """Yield (Document, pair or None): the best and the worst answer to each question, where the judge sees a difference."""
    docs = [doc for path in files_of(c.questions) for doc in chat.read_chats(path, "chat")]
    asked = [doc.more["messages"] for doc in docs if doc.more]
    same = ("questions", "model", "samples", "temperature", "max_new", "batch", "seed")
    facts = {k: v for k, v in asdict(c).items() if k in same} | {"asked": digest(asked)}
    answers = as_they_come(Path(c.out) / "answers.jsonl", facts, len(asked), partial(answer, c, asked))
    rate = exact if c.judge == "exact" else by_server if c.name else by_model
    facts |= {"judge": c.judge, "name": c.name}
    ratings = as_they_come(Path(c.out) / "ratings.jsonl", facts, len(asked), partial(rate, c, asked, answers))
    made = iter(zip(asked, answers, ratings))
    for doc in docs:
        if not doc.more:
            yield doc, None
            continue
        messages, texts, scores = next(made)
        known = sorted((score, text) for text, score in zip(texts, scores) if score is not None and text)
        doc.reason = "judge: fewer than two answers that it could rate" if len(known) < 2 else \
            "judge: no two answers far enough apart" if known[-1][0] - known[0][0] < c.gap else None
        yield doc, None if doc.reason else {side: messages[:-1] + [{"role": "assistant", "content": text}]
                                            for side, (_, text) in (("chosen", known[-1]), ("rejected", known[0]))}


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def as_they_come(path, facts, n, make):
    """n rows, in a file of one JSON line each behind a line that tells the settings; make(k) yields those from number k on."""
    head, rows = json.dumps({"settings": digest(facts)}), []
    if path.exists():
        whole = path.read_bytes()
        whole = whole[:whole.rfind(b"\n") + 1]  # a kill may have cut the last line
        os.truncate(path, len(whole))
        first, *rest = whole.decode().split("\n")[:-1] or [head]
        if first != head:
            raise ValueError(f"{path} is of other settings or questions; delete it, or set out= another folder")
        rows = [json.loads(line) for line in rest]
    with open(path, "a") as f:
        f.write("" if f.tell() else head + "\n")
        for row in make(len(rows)) if len(rows) < n else ():
            rows.append(row)
            f.write(json.dumps(row) + "\n")
            f.flush()
            if len(rows) % 100 == 0:
                print(f"{path.name}: {len(rows)} of {n}", flush=True)
    return rows


def answer(c, asked, begin):
    """Yield [c.samples answers] to the questions from number `begin` on; where a run was stopped does not show in them."""
    from generate import Decoding, generate
    model, t = client.load_model(c.model)
    for first in range(begin // c.batch * c.batch, len(asked), c.batch):
        prompts = [t.encode_chat(messages[:-1]) for messages in asked[first:first + c.batch] for _ in range(c.samples)]
        how = Decoding(c.temperature, seed=c.seed + first)
        out = zip(generate(model, prompts, c.max_new, t.stop_ids, how, c.batch * c.samples), prompts)
        out = [t.decode(ids, before=p).strip() if len(ids) < c.max_new else "" for ids, p in out]
        out = ["" if "\ufffd" in text else text for text in out]  # neither what was cut nor half a character is an answer
        yield from [out[k:k + c.samples] for k in range(0, len(out), c.samples)][max(0, begin - first):]


def exact(c, asked, answers, begin):
    """10 for the words of the answer that the chat has, else 0; case, width and marks do not matter."""
    for messages, texts in list(zip(asked, answers))[begin:]:
        yield [10 * (synthesize.split_words(text) == synthesize.split_words(messages[-1]["content"])) for text in texts]


def verdict_prompt(messages, text):
    turns = [f"[{m['role']}] {m['content']}" for m in messages[:-1]]
    asked = RATE.format(question="\n\n".join(turns) if len(turns) > 1 else messages[0]["content"], answer=text)
    return [{"role": "user", "content": asked}]


def rating(verdict):
    """The number of a verdict's last "Rating:", or None."""
    found = re.findall(r"(?i)rating\W*(\d+(?:\.\d+)?)", verdict)
    return float(found[-1]) if found and 1 <= float(found[-1]) <= 10 else None


def by_model(c, asked, answers, begin):
    from generate import generate
    model, t = client.load_model(c.judge)
    for messages, texts in list(zip(asked, answers))[begin:]:
        prompts = [t.encode_chat(verdict_prompt(messages, text)) for text in texts]
        yield [rating(t.decode(ids, before=p)) for ids, p in zip(generate(model, prompts, c.max_new, t.stop_ids), prompts)]


def by_server(c, asked, answers, begin):
    put = client.connect(c.judge, c.name, {"max_tokens": c.max_new, "temperature": 0})
    with ThreadPoolExecutor(c.threads) as pool:
        for messages, texts in list(zip(asked, answers))[begin:]:
            yield [rating(reply["text"]) for reply in pool.map(put, [verdict_prompt(messages, text) for text in texts])]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, ConnectionError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
