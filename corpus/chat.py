"""Chats and preference pairs: rows in any shape of corpus/chat_shapes.py -> checked messages, or a reason to drop it.

A chat is a list of messages {"role", "content"}: an optional system message, then user and assistant in turn, ending
with an answer. An answer may call tools, whose results follow as messages of the role "tool". A pair is two chats,
chosen and rejected, with the same questions; the answers after their shared beginning compete.

No field that changes what is learned is ignored silently. A row's "system" becomes the first message, its "tools" go to
the chat template, and an answer whose loss is switched off is marked {"train": False}. What cannot be honored drops the
row with a reason that names the field; setting ignore_fields keeps the row without the field. All other fields are
counted by name.
"""
import json
from collections import Counter

from corpus.chat_messages import EMPTY, SWITCHES, SYSTEM, UNSUPPORTED, check_messages, message_text, read_switch
from corpus.chat_shapes import CHAT_SHAPES, NO_MESSAGE, PAIR_SHAPES, find_shape
from corpus.rows import read_rows

KINDS = ("chat", "preference")


def read_chats(path, kind, ignore_fields=(), counts=None, start=0, end=None):
    """Yield a Document for every row of a file; kind: "chat" or "preference".

    more is {"messages"} of a chat, {"chosen", "rejected"} of a pair, with {"tools"} where the row has some; text is the
    messages' text, joined by newlines. A row that is none comes with `reason` set.
    ignore_fields: fields to remove. counts: {"ignored_fields": Counter, "unread_fields": Counter},
    to which the rows add, by name, the fields that were removed and those that nothing reads.
    start, end: only the rows that begin in these bytes of a plain .jsonl file.
    """
    counts = counts or {"ignored_fields": Counter(), "unread_fields": Counter()}
    for doc, row in read_rows(path, start, end):
        doc.file, doc.more = str(path), {}
        try:
            if doc.reason is None:
                row = remove_fields(row, ignore_fields, counts["ignored_fields"])
                doc.more, unread = (read_chat if kind == "chat" else read_pair)(row)
                counts["unread_fields"].update(unread)
                doc.text = "\n".join(map(message_text, distinct_messages(doc.more)))
                json.dumps(doc.more, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            doc.text, doc.more = ascii(doc.text), {}
            doc.reason = "lone surrogate: the text cannot be written as UTF-8"
        except ValueError as e:
            prefix = "chat" if kind == "chat" else "pair"
            doc.text, doc.reason, doc.more = doc.text or json.dumps(row, default=str), f"{prefix}: {e}", {}
        yield doc


def remove_fields(row, names, counter):
    """The row without the fields `names`, also of its messages; counted once per row."""
    if not names:
        return row
    removed = set()

    def clean(value):
        if isinstance(value, dict):
            removed.update(name for name in names if name in value)
            return {k: v for k, v in value.items() if k not in names}
        return [clean(item) for item in value] if isinstance(value, list) else value

    row = {name: clean(value) for name, value in clean(row).items()}
    counter.update(removed)
    return row


def distinct_messages(row):
    """The messages of a chat; of a pair those of the chosen chat and the rejected answers."""
    return row["messages"] if "messages" in row else row["chosen"] + row["rejected"][shared_prefix_length(row):]


def shared_prefix_length(pair):
    """The number of messages at the beginning that are the same in both chats of a pair."""
    for n, (a, b) in enumerate(zip(pair["chosen"], pair["rejected"])):
        if a != b:
            return n
    return min(len(pair["chosen"]), len(pair["rejected"]))


# ---------------------------------------------------------------------- rows

def read_chat(row):
    """({"messages"[, "tools"]}, names of the fields that were not read) of a row; ValueError names the fault."""
    shape = find_shape(row, CHAT_SHAPES)
    unread = check_row(row, shape)
    messages, unread_in_messages = check_messages(shape.convert(row), row)
    if not any(m["role"] == "assistant" and m.get("train", True) for m in messages):
        raise ValueError("nothing to learn from, the loss of every answer is switched off")
    return {"messages": messages} | read_tools(row), [*unread, *unread_in_messages]


def read_pair(row):
    """({"chosen", "rejected"[, "tools"]}, names of the fields that were not read); ValueError names the fault."""
    if "chosen" not in row and type(row.get("label")) in (bool, int):
        raise ValueError("a row of KTO ('label') is one answer, not a pair")
    shape = find_shape(row, PAIR_SHAPES)
    unread = check_row(row, shape)
    sides = shape.convert(row)
    if not all(isinstance(messages, list) and all(isinstance(m, dict) for m in messages) for messages in sides):
        raise ValueError(NO_MESSAGE)
    for messages in sides:
        last = messages[-1] if messages else {}
        if not str(last.get("content") or last.get("value") or "").strip() and not last.get("tool_calls"):
            raise ValueError("one side is empty")
    checked = [check_messages(messages, row) for messages in sides]
    pair = dict(zip(("chosen", "rejected"), (messages for messages, _ in checked)))
    questions = [[m for m in messages if m["role"] != "assistant"] for messages in pair.values()]
    if questions[0] != questions[1]:
        raise ValueError("the two sides answer different questions")
    if pair["chosen"] == pair["rejected"]:
        raise ValueError("chosen and rejected are identical")
    if any("train" in m for messages in pair.values() for m in messages):
        raise ValueError("the loss of an answer is switched off, which pairs cannot honor")
    return pair | read_tools(row), [*unread, *{name for _, names in checked for name in names}]


def check_row(row, shape):
    """Names of the fields that neither the shape nor this file reads; ValueError names a field that drops the row."""
    for name in UNSUPPORTED:
        if row.get(name) not in EMPTY:
            raise ValueError(f"the field '{name}' is not supported")
    switches = [name for name in SWITCHES if row.get(name) not in EMPTY]
    if isinstance(row.get("label"), bool | int) or str(row.get("label")).lower() in ("true", "false"):
        switches.append("label")  # KTO's; a text is the label of a class
    for name in switches:
        if not read_switch(name, row[name]):
            raise ValueError(f"not to be learned: '{name}' is off")
    read = {*shape.needs, *shape.takes, *SYSTEM, *SWITCHES, *switches, *UNSUPPORTED, "tools", "loss_mask"}
    return sorted(str(name) for name, value in row.items() if name not in read and value not in EMPTY)


def read_tools(row):
    """{"tools": list of functions} of a row, or nothing; some publish the list as JSON text."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError:
            raise ValueError("'tools' is not JSON") from None
    if tools in EMPTY or isinstance(tools, str):
        return {}
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError("'tools' is not a list of functions")
    return {"tools": tools}
