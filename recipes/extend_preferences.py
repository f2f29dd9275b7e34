"""Preference pairs for a language that has none: translated from another language, or sampled from a checkpoint.

    python recipes/extend_preferences.py pairs='raw/preferences/en/*' translations='mt/en-kk.tsv' out=OUT
    python recipes/extend_preferences.py questions='raw/chat/kk/*' model=runs/sft judge=exact out=OUT
    python recipes/extend_preferences.py ... judge=FOLDER          # or https://host/v1 with name=; key: $API_KEY_HOST

The first command translates existing pairs. The others sample several answers to each question and have a judge rate
them; the best and the worst form a pair. It writes OUT/preferences.jsonl (the pairs), OUT/rejects.jsonl (file, line
and reason of the rows without one) and OUT/account.json (the counts). Answers and ratings are saved as they arrive:
the same command resumes after a kill.
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
from configs import load
from corpus import bitext_files, chat, synthesize
from evaluation import client

JUDGE_PROMPT = (
    "Somebody was asked this:\n\n{question}\n\nand answered:\n\n{answer}\n\nHow good is that? It should be true, do "
    "what was asked and no more, and be in the language that was asked for or, where none was, that of the question. "
    "Give a number from 1 (useless) to 10 (nothing to improve). Write one sentence of reasons, then a last line "
    "\"Rating: N\".")


@dataclass(frozen=True)
class Extend:
    out: str                      # folder
    pairs: str | None = None      # files of pairs in another language (corpus/chat.py; a pattern), and
    translations: str | None = None  # files of aligned texts (corpus/bitext_files.py; a pattern): messages or lines
    questions: str | None = None  # or files of chats, whose last answer is sampled again; "exact" compares with the old
    model: str | None = None      # to answer: a Hugging Face folder or a checkpoint of train.py, with a chat template
    judge: str = "exact"          # exact: match the old answer; else a model folder or a server's address
    name: str | None = None       # the judge's name at the server
    samples: int = 4              # answers to each question
    temperature: float = 1.0      # of the answers; the judge decodes at 0
    max_new: int = 256            # tokens of an answer, and of a verdict
    gap: float = 2.0              # minimum difference between the ratings of a pair; with "exact" they are 0 and 10
    batch: int = 16               # questions that a checkpoint answers together
    threads: int = 8              # concurrent requests to a server
    seed: int = 0

    def __post_init__(self):
        given = [name for name in ("pairs", "translations", "questions", "model") if getattr(self, name)]
        if given not in (["pairs", "translations"], ["questions", "model"]):
            raise ValueError("Extend: give pairs= and translations=, or questions= and model=; "
                             f"got {' and '.join(given) or 'none'}")
        if self.judge.startswith(("http://", "https://")) != bool(self.name):
            raise ValueError("Extend: name= is the judge's at a server: set both or neither")
        if self.samples < 2 or min(self.batch, self.threads, self.max_new) < 1 or min(self.temperature, self.gap) <= 0:
            raise ValueError("Extend: samples must be 2 or more, batch, threads, max_new, temperature and gap above 0")


def main(argv=None):
    c, = load(Extend, argv=argv)
    out, counts = Path(c.out), Counter()
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in ("preferences.jsonl", "rejects.jsonl", "account.json")]
    with (open(f"{files[0]}.tmp", "w", encoding="utf-8") as kept,
          open(f"{files[1]}.tmp", "w", encoding="utf-8") as rejects):
        for doc, pair in (translate_pairs if c.pairs else sample_pairs)(c):
            counts["read"] += 1
            if pair is not None and pair["chosen"] == pair["rejected"]:
                doc.reason, pair = "pair: chosen and rejected are identical", None
            if pair is not None:
                counts["kept"] += 1
                kept.write(json.dumps(pair, ensure_ascii=False) + "\n")
            else:
                counts[doc.reason] += 1
                rejects.write(json.dumps({"file": doc.file, "line": doc.line, "reason": doc.reason}) + "\n")
    n_read, n_kept = counts.pop("read", 0), counts.pop("kept", 0)
    assert n_read == n_kept + counts.total(), f"{n_read} rows, {n_kept} kept, dropped: {counts}"
    account = {"read": n_read, "kept": n_kept, "dropped": dict(sorted(counts.items()))}
    Path(f"{files[2]}.tmp").write_text(json.dumps(account, indent=1))
    for file in files:
        os.replace(f"{file}.tmp", file)
    print(f"{out}: {n_kept} pairs of {n_read} rows; dropped: {dict(counts.most_common()) or 'none'}")
    if not n_kept:
        raise ValueError(f"nothing is left; what was dropped, and why, is in {files[1]}")


def files_of(pattern):
    paths = sorted(path for path in glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise ValueError(f"{pattern}: no such file")
    return paths


# ---------------------------------------------------------------------- translation

def translate_pairs(c):
    """Yield (Document, pair or None): a pair if all its texts have a translation, whole or line by line."""
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
            pair = None
            try:
                if doc.reason is None:
                    pair = {side: [m | {"content": translate(m["content"])} for m in doc.more[side]]
                            for side in ("chosen", "rejected")}
            except KeyError:
                doc.reason = "translation: a text has none"
            yield doc, pair


# ---------------------------------------------------------------------- sampling

def sample_pairs(c):
    """Yield (Document, pair or None): the best and the worst answer to each question, if far enough apart."""
    docs = [doc for path in files_of(c.questions) for doc in chat.read_chats(path, "chat")]
    for doc in docs:
        if "tools" in doc.more:
            doc.reason = "chat: 'tools' are not sampled"
    chats = [[{name: value for name, value in m.items() if name != "train"} for m in doc.more["messages"]]
             for doc in docs if doc.reason is None]
    settings = {name: value for name, value in asdict(c).items()
                if name in ("questions", "model", "samples", "temperature", "max_new", "batch", "seed")}
    settings["asked"] = sha256(chats)
    answers = resume(Path(c.out) / "answers.jsonl", settings, len(chats), partial(sample_answers, c, chats))
    rate = rate_exact if c.judge == "exact" else rate_by_server if c.name else rate_by_model
    settings |= {"judge": c.judge, "name": c.name}
    ratings = resume(Path(c.out) / "ratings.jsonl", settings, len(chats), partial(rate, c, chats, answers))
    rated = iter(zip(chats, answers, ratings))
    for doc in docs:
        if doc.reason is not None:
            yield doc, None
            continue
        messages, texts, scores = next(rated)
        ranked = sorted((score, text) for text, score in zip(texts, scores) if score is not None and text)
        pair = None
        if len(ranked) < 2:
            doc.reason = "judge: fewer than two answers that it could rate"
        elif ranked[-1][0] - ranked[0][0] < c.gap:
            doc.reason = "judge: no two answers far enough apart"
        else:
            pair = {side: [*messages[:-1], {"role": "assistant", "content": text}]
                    for side, (_, text) in (("chosen", ranked[-1]), ("rejected", ranked[0]))}
        yield doc, pair


def sha256(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def resume(path, settings, n, make):
    """n rows of a file of JSON lines whose first line identifies the settings; make(k) yields the rows from k on."""
    header, rows = json.dumps({"settings": sha256(settings)}), []
    if path.exists():
        content = path.read_bytes()
        content = content[:content.rfind(b"\n") + 1]  # a kill may have cut the last line
        os.truncate(path, len(content))
        first, *rest = content.decode().split("\n")[:-1] or [header]
        if first != header:
            raise ValueError(f"{path} is of other settings or questions; delete it, or set out= another folder")
        rows = [json.loads(line) for line in rest]
    with open(path, "a") as f:
        if not f.tell():
            f.write(header + "\n")
        for row in make(len(rows)) if len(rows) < n else ():
            rows.append(row)
            f.write(json.dumps(row) + "\n")
            f.flush()
            if len(rows) % 100 == 0:
                print(f"{path.name}: {len(rows)} of {n}", flush=True)
    return rows


def sample_answers(c, chats, begin):
    """Yield [c.samples answers] to each question from number `begin` on; they do not depend on where a run stopped."""
    from generate import Decoding, generate
    model, t = client.load_model(c.model)
    for first in range(begin // c.batch * c.batch, len(chats), c.batch):
        prompts = [t.encode_chat(messages[:-1]) for messages in chats[first:first + c.batch] for _ in range(c.samples)]
        decoding = Decoding(c.temperature, seed=c.seed + first)
        replies = generate(model, prompts, c.max_new, t.stop_ids, decoding, c.batch * c.samples)
        texts = []
        for prompt, ids in zip(prompts, replies):
            text = t.decode(ids, prefix=prompt).strip() if len(ids) < c.max_new else ""
            texts.append("" if "\ufffd" in text else text)  # a cut answer or half a character is no answer
        by_question = [texts[k:k + c.samples] for k in range(0, len(texts), c.samples)]
        yield from by_question[max(0, begin - first):]


def rate_exact(c, chats, answers, begin):
    """10 for the words of the chat's own answer, else 0; case, width and marks do not matter."""
    for messages, texts in list(zip(chats, answers))[begin:]:
        words = synthesize.split_words(messages[-1]["content"])
        yield [10 * (synthesize.split_words(text) == words) for text in texts]


def judge_prompt(messages, text):
    question = messages[0]["content"]
    if len(messages) > 2:
        question = "\n\n".join(f"[{m['role']}] {m['content']}" for m in messages[:-1])
    return [{"role": "user", "content": JUDGE_PROMPT.format(question=question, answer=text)}]


def parse_rating(verdict):
    """The number after a verdict's last "Rating:", or None."""
    numbers = re.findall(r"(?i)rating\W*(\d+(?:\.\d+)?)", verdict)
    return float(numbers[-1]) if numbers and 1 <= float(numbers[-1]) <= 10 else None


def rate_by_model(c, chats, answers, begin):
    from generate import generate
    model, t = client.load_model(c.judge)
    for messages, texts in list(zip(chats, answers))[begin:]:
        prompts = [t.encode_chat(judge_prompt(messages, text)) for text in texts]
        replies = generate(model, prompts, c.max_new, t.stop_ids)
        yield [parse_rating(t.decode(ids, prefix=prompt)) for prompt, ids in zip(prompts, replies)]


def rate_by_server(c, chats, answers, begin):
    send = client.connect(c.judge, c.name, {"max_tokens": c.max_new, "temperature": 0})
    with ThreadPoolExecutor(c.threads) as pool:
        for messages, texts in list(zip(chats, answers))[begin:]:
            replies = pool.map(send, [judge_prompt(messages, text) for text in texts])
            yield [parse_rating(reply["text"]) for reply in replies]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
