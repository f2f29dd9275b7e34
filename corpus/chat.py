"""Chats and preference pairs: readers for the shapes in which people publish them. What is none is counted, with the reason.

A chat is a list of messages {"role", "content"}: perhaps one of the system, then user and assistant in turn, an answer last. A
pair is two chats, the chosen and the rejected one, with the same questions; the answers behind their common beginning compete.

    messages   {"messages": [{"role", "content"}, ...]}         pairs   {"prompt": text or messages, "chosen", "rejected"}
    ShareGPT   {"conversations": [{"from", "value"}, ...]}      arena   prompt, response_a, response_b (JSON lists of turns),
    Alpaca     {"instruction", "input", "output", "history"}            winner_model_a, winner_model_b, winner_tie
"""
import csv
import io
import json
from pathlib import Path

from corpus.files import DAMAGE, MAX_LINE, open_bytes
from corpus.read import Document, read_documents

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
         "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
KINDS = ("chat", "preference")


def conversations(path, kind):
    """Yield a Document for every row of a .jsonl, .json, .csv (each plain, .gz, .bz2, .xz or .zst) or .parquet file; more:
    {"messages"} of a chat, {"chosen", "rejected"} of a pair; text: what is said, line by line. Others come with .reason set."""
    for doc, row in rows(path):
        doc.file, doc.more = str(path), {}
        try:
            if doc.reason is None:
                doc.more = {"messages": checked(messages_of(row), "chat")} if kind == "chat" else pair_of(row)
                doc.text = "\n".join(m["content"] for m in said(doc.more))
                doc.text.encode("utf-8")
        except UnicodeEncodeError:
            doc.text, doc.reason = ascii(doc.text), "lone surrogate: the text cannot be written as UTF-8"
        except ValueError as e:
            doc.text, doc.reason = doc.text or json.dumps(row, default=str), str(e)
        yield doc


def said(row):
    """The messages of a chat; of a pair those of the chosen one and the rejected answers."""
    return row["messages"] if "messages" in row else row["chosen"] + row["rejected"][shared(row):]


def shared(pair):
    """How many messages two chats begin with alike."""
    both = zip(pair["chosen"], pair["rejected"])
    return next((n for n, (a, b) in enumerate(both) if a != b), min(len(pair["chosen"]), len(pair["rejected"])))


# ---------------------------------------------------------------------- rows of a file

def rows(path):
    """Yield (Document with the row's place and reason, row: a dict)."""
    kind = next((s for s in reversed(Path(path).suffixes) if s not in (".gz", ".bz2", ".xz", ".zst")), "")
    if kind in (".json", ".csv", ".parquet"):
        yield from {".json": _json, ".csv": _csv, ".parquet": _parquet}[kind](path)
        return
    if kind != ".jsonl":
        raise ValueError(f"{path}: unknown format {kind!r} of chats; expected .jsonl, .json, .csv or .parquet")
    for doc in read_documents(path):
        row = doc.more | {"text": doc.text}
        if (doc.reason or "").startswith("no text"):  # a row without "text", which is no fault here
            row, doc.reason = json.loads(doc.text), None
        yield _row(doc, row)


def _row(doc, row):
    if doc.reason is None and not isinstance(row, dict):
        doc.text, doc.reason = json.dumps(row), "no row: expected an object"
    return doc, row


def _json(path):
    """One array of rows, as Alpaca and ShareGPT are published; line: the row's number."""
    try:
        with open_bytes(path) as f:
            whole = json.loads(f.read().decode("utf-8-sig"))
    except (*DAMAGE, ValueError, RecursionError) as e:
        yield Document("", line=1, offset=0, reason=f"unreadable from here on: {e}"), None
        return
    if not isinstance(whole, list):
        raise ValueError(f"{path}: expected an array of rows; one object in a line is .jsonl")
    for number, row in enumerate(whole, 1):
        yield _row(Document("", line=number), row)


def _csv(path):
    """line: the last one of the row, as a field may hold line breaks."""
    csv.field_size_limit(MAX_LINE)
    with open_bytes(path) as f:
        reader = csv.DictReader(io.TextIOWrapper(f, "utf-8-sig", "surrogateescape", newline=""))
        try:
            for row in reader:
                uneven = None in row or None in row.values()
                yield Document("", line=reader.line_num, reason="no row: as many fields as columns" if uneven else None), row
        except (*DAMAGE, csv.Error) as e:
            yield Document("", line=reader.line_num, reason=f"unreadable from here on: {e}"), None


def _parquet(path):
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs a package: pip install pyarrow") from None
    try:
        table = pq.ParquetFile(path)
    except (OSError, ValueError) as e:  # pyarrow's errors are subclasses; they do not name the file
        raise ValueError(f"{path}: not a parquet file ({e})") from None
    every = (row for batch in table.iter_batches(batch_size=1024) for row in batch.to_pylist())
    for number, row in enumerate(every, 1):
        yield Document("", line=number), row


# ---------------------------------------------------------------------- shapes of a row

def messages_of(row):
    """The turns of a row in any of the shapes, unchecked."""
    if row.get("messages") is not None:
        return row["messages"]
    if row.get("conversations") is not None:
        turns = row["conversations"]
        if not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
            raise ValueError("chat: a message is not a role and a text")
        return _system(row) + [{"role": t.get("from", t.get("role")), "content": t.get("value", t.get("content"))} for t in turns]
    if row.get("instruction") is not None and "output" in row:
        more, history = row.get("input"), row.get("history") or []
        if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
            raise ValueError("chat: history is not a list of pairs of question and answer")
        asked = f"{row['instruction']}\n{more}" if isinstance(more, str) and more.strip() else row["instruction"]
        return _system(row) + [{"role": role, "content": text} for turn in [*history, [asked, row["output"]]]
                               for role, text in zip(("user", "assistant"), turn)]
    raise ValueError("chat: none of the fields messages, conversations, or instruction and output")


def _system(row):
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


def checked(turns, kind):
    """Messages of role and content only, answers without space around them (a template's prompt ends with its own); ValueError
    names the fault: of a chat and of a pair, the same words."""
    if not isinstance(turns, list) or not all(isinstance(t, dict) and isinstance(t.get("content"), str)
                                              and isinstance(t.get("role"), str) for t in turns):
        raise ValueError(f"{kind}: a message is not a role and a text")
    out = [{"role": ROLES.get(t["role"].lower()), "content": t["content"]} for t in turns]
    if None in (m["role"] for m in out):
        raise ValueError(f"{kind}: unknown role")
    if out and out[0]["role"] == "system" and not out[0]["content"].strip():
        del out[0]
    order = [m["role"] for m in out[bool(out and out[0]["role"] == "system"):]]
    if "assistant" not in order:
        raise ValueError(f"{kind}: nothing to learn from, no answer in it")
    if order != ["user", "assistant"] * (len(order) // 2) + ["user"] * (len(order) % 2):
        raise ValueError(f"{kind}: roles out of order, user and assistant must take turns")
    if order[-1] != "assistant":
        raise ValueError(f"{kind}: the last question has no answer")
    for m in out:
        m["content"] = m["content"].strip() if m["role"] == "assistant" else m["content"]
        if not m["content"].strip():
            raise ValueError(f"{kind}: a message is empty")
    return out


def pair_of(row):
    """{"chosen", "rejected"} of a row, both checked; ValueError names the fault."""
    both = arena(row) if "response_a" in row or "conversation_a" in row else sides(row)
    if not all(isinstance(turns, list) and all(isinstance(m, dict) for m in turns) for turns in both):
        raise ValueError("pair: a message is not a role and a text")
    if any(not turns or not str(turns[-1].get("content") or "").strip() for turns in both):
        raise ValueError("pair: one side is empty")
    pair = {name: checked(turns, "pair") for name, turns in zip(("chosen", "rejected"), both)}
    asked = [[m for m in turns if m["role"] != "assistant"] for turns in pair.values()]
    if asked[0] != asked[1]:
        raise ValueError("pair: the two sides answer different questions")
    if pair["chosen"] == pair["rejected"]:
        raise ValueError("pair: chosen and rejected are identical")
    return pair


def sides(row):
    """The chosen and the rejected chat of {"prompt", "chosen", "rejected"}: answers as text or as messages, with or without
    those of the prompt."""
    if not {"chosen", "rejected"} <= set(row):
        raise ValueError("pair: none of the fields prompt, chosen and rejected, or response_a and response_b")
    prompt = row.get("prompt") or []
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    out = []
    for answer in (row["chosen"], row["rejected"]):
        answer = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer or []
        if not all(isinstance(turns, list) and all(isinstance(m, dict) for m in turns) for turns in (prompt, answer)):
            raise ValueError("pair: a message is not a role and a text")
        whole = not answer or ROLES.get(str(answer[0].get("role")).lower()) != "assistant"
        out.append(answer if whole else prompt + answer)
    return out


def arena(row):
    """The winner's and the loser's chat of LMSYS's arena rows. Nobody won a tie, so no pair is made of one: ties and "both bad"
    are counted, each under its own name."""
    winner = row.get("winner") or next((name for name in ("model_a", "model_b", "tie")
                                        if str(row.get(f"winner_{name}")).strip() in ("1", "1.0", "True")), None)
    if winner in ("tie", "tie (bothbad)"):
        raise ValueError("pair: a tie" if winner == "tie" else "pair: a tie, both are bad")
    if winner not in ("model_a", "model_b"):
        raise ValueError("pair: no winner is named")
    if "conversation_a" in row:
        chats = {x: row[f"conversation_{x}"] for x in "ab"}
    else:
        try:
            turns = {k: json.loads(row[k]) for k in ("prompt", "response_a", "response_b")}
        except (ValueError, TypeError, KeyError):
            raise ValueError("pair: prompt, response_a or response_b is no JSON list of turns") from None
        if not all(isinstance(t, list) and len(t) == len(turns["prompt"]) and all(isinstance(x, str) for x in t)
                   for t in turns.values()):
            raise ValueError("pair: a turn is missing")
        chats = {x: [{"role": role, "content": text} for turn in zip(turns["prompt"], turns[f"response_{x}"])
                     for role, text in zip(("user", "assistant"), turn)] for x in "ab"}
    return [chats["a"], chats["b"]] if winner == "model_a" else [chats["b"], chats["a"]]
