"""Chats and preference pairs in the shapes in which people publish them; rows in no known shape are counted by reason.

A chat is a list of messages {"role", "content"}: an optional system message, then user and assistant in turn, ending
with an answer. A pair is two chats, chosen and rejected, with the same questions; the answers after their shared
beginning compete.

    messages   {"messages": [{"role", "content"}, ...]}
    ShareGPT   {"conversations": [{"from", "value"}, ...]}
    Alpaca     {"instruction", "input", "output", "history"}
    pairs      {"prompt": text or messages, "chosen", "rejected"}
    arena      prompt, response_a, response_b (JSON lists of turns), winner_model_a, winner_model_b, winner_tie

corpus/chat_files.py reads the files.
"""
import json

from corpus.chat_files import read_rows

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
         "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
KINDS = ("chat", "preference")


def read_chats(path, kind):
    """Yield a Document for every row of a file; kind: "chat" or "preference".

    more is {"messages"} of a chat, {"chosen", "rejected"} of a pair; text is the messages' text, joined by newlines.
    A row that is none comes with `reason` set.
    """
    for doc, row in read_rows(path):
        doc.file, doc.more = str(path), {}
        try:
            if doc.reason is None and kind == "chat":
                doc.more = {"messages": check_messages(extract_messages(row), "chat")}
            elif doc.reason is None:
                doc.more = extract_pair(row)
            if doc.reason is None:
                doc.text = "\n".join(m["content"] for m in distinct_messages(doc.more))
                doc.text.encode("utf-8")
        except UnicodeEncodeError:
            doc.text, doc.reason = ascii(doc.text), "lone surrogate: the text cannot be written as UTF-8"
        except ValueError as e:
            doc.text, doc.reason = doc.text or json.dumps(row, default=str), str(e)
        yield doc


def distinct_messages(row):
    """The messages of a chat; of a pair those of the chosen chat and the rejected answers."""
    return row["messages"] if "messages" in row else row["chosen"] + row["rejected"][shared_prefix_length(row):]


def shared_prefix_length(pair):
    """The number of messages at the beginning that are the same in both chats of a pair."""
    for n, (a, b) in enumerate(zip(pair["chosen"], pair["rejected"])):
        if a != b:
            return n
    return min(len(pair["chosen"]), len(pair["rejected"]))


# ---------------------------------------------------------------------- chats

def extract_messages(row):
    """The messages of a row in any of the shapes, unchecked; ValueError names the fault."""
    if row.get("messages") is not None:
        return row["messages"]
    if row.get("conversations") is not None:
        turns = row["conversations"]
        if not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
            raise ValueError("chat: a message is not a role and a text")
        messages = [{"role": t.get("from", t.get("role")), "content": t.get("value", t.get("content"))} for t in turns]
        return system_message(row) + messages
    if row.get("instruction") is not None and "output" in row:
        return system_message(row) + alpaca_messages(row)
    raise ValueError("chat: none of the fields messages, conversations, or instruction and output")


def alpaca_messages(row):
    history, question = row.get("history") or [], row["instruction"]
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise ValueError("chat: history is not a list of pairs of question and answer")
    if isinstance(row.get("input"), str) and row["input"].strip():
        question = f"{question}\n{row['input']}"
    return messages_from_turns([*history, [question, row["output"]]])


def messages_from_turns(turns):
    """Messages of pairs (question, answer)."""
    return [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn)]


def system_message(row):
    return [{"role": "system", "content": row["system"]}] if row.get("system") else []


def check_messages(messages, kind):
    """Messages with normalized roles and no other fields; ValueError names the fault and, in front, the kind.

    White space around answers is removed, since the prompt of a template ends with its own.
    """
    if not isinstance(messages, list) or not all(isinstance(m, dict) and isinstance(m.get("content"), str)
                                                 and isinstance(m.get("role"), str) for m in messages):
        raise ValueError(f"{kind}: a message is not a role and a text")
    out = [{"role": ROLES.get(m["role"].lower()), "content": m["content"]} for m in messages]
    if None in (m["role"] for m in out):
        raise ValueError(f"{kind}: unknown role")
    if out and out[0]["role"] == "system" and not out[0]["content"].strip():
        del out[0]
    order = [m["role"] for m in out]
    if order and order[0] == "system":
        del order[0]
    if "assistant" not in order:
        raise ValueError(f"{kind}: nothing to learn from, no answer in it")
    if order != ["user", "assistant"] * (len(order) // 2) + ["user"] * (len(order) % 2):
        raise ValueError(f"{kind}: roles out of order, user and assistant must take turns")
    if order[-1] != "assistant":
        raise ValueError(f"{kind}: the last question has no answer")
    for m in out:
        if m["role"] == "assistant":
            m["content"] = m["content"].strip()
        if not m["content"].strip():
            raise ValueError(f"{kind}: a message is empty")
    return out


# ---------------------------------------------------------------------- preference pairs

def extract_pair(row):
    """{"chosen", "rejected"} of a row, both checked; ValueError names the fault."""
    both = arena_chats(row) if "response_a" in row or "conversation_a" in row else preference_chats(row)
    if not all(isinstance(messages, list) and all(isinstance(m, dict) for m in messages) for messages in both):
        raise ValueError("pair: a message is not a role and a text")
    if any(not messages or not str(messages[-1].get("content") or "").strip() for messages in both):
        raise ValueError("pair: one side is empty")
    pair = {name: check_messages(messages, "pair") for name, messages in zip(("chosen", "rejected"), both)}
    questions = [[m for m in messages if m["role"] != "assistant"] for messages in pair.values()]
    if questions[0] != questions[1]:
        raise ValueError("pair: the two sides answer different questions")
    if pair["chosen"] == pair["rejected"]:
        raise ValueError("pair: chosen and rejected are identical")
    return pair


def preference_chats(row):
    """The chosen and the rejected chat of {"prompt", "chosen", "rejected"}.

    The answers are text or messages, and the messages may include those of the prompt.
    """
    if not {"chosen", "rejected"} <= set(row):
        raise ValueError("pair: none of the fields prompt, chosen and rejected, or response_a and response_b")
    prompt = row.get("prompt") or []
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    chats = []
    for answer in (row["chosen"], row["rejected"]):
        if isinstance(answer, str):
            answer = [{"role": "assistant", "content": answer}]
        answer = answer or []
        for messages in (prompt, answer):
            if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
                raise ValueError("pair: a message is not a role and a text")
        is_answer_only = answer and ROLES.get(str(answer[0].get("role")).lower()) == "assistant"
        chats.append(prompt + answer if is_answer_only else answer)
    return chats


def arena_chats(row):
    """The winner's and the loser's chat of a row of LMSYS's arena; ValueError for a tie, which gives no pair."""
    winner = arena_winner(row)
    if "conversation_a" in row:
        a, b = row.get("conversation_a"), row.get("conversation_b")
    else:
        try:
            prompt, response_a, response_b = (json.loads(row[name]) for name in ("prompt", "response_a", "response_b"))
        except (ValueError, TypeError, KeyError):
            raise ValueError("pair: prompt, response_a or response_b is no JSON list of turns") from None
        for turns in (prompt, response_a, response_b):
            if not (isinstance(turns, list) and len(turns) == len(prompt) and all(isinstance(x, str) for x in turns)):
                raise ValueError("pair: a turn is missing")
        a, b = messages_from_turns(zip(prompt, response_a)), messages_from_turns(zip(prompt, response_b))
    return (a, b) if winner == "model_a" else (b, a)


def arena_winner(row):
    """"model_a" or "model_b"; ValueError names a tie, "both bad", or a row without a winner."""
    winner = row.get("winner")
    for name in ("model_a", "model_b", "tie"):
        if not winner and str(row.get(f"winner_{name}")).strip() in ("1", "1.0", "True"):
            winner = name
    if winner == "tie":
        raise ValueError("pair: a tie")
    if winner == "tie (bothbad)":
        raise ValueError("pair: a tie, both are bad")
    if winner not in ("model_a", "model_b"):
        raise ValueError("pair: no winner is named")
    return winner
