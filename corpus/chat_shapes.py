"""The shapes in which people publish chats and preference pairs: a row -> unchecked messages.

A shape names the fields it needs and those it may take; corpus/chat.py checks the messages and counts all other fields.
"""
import json
import re
from collections.abc import Callable
from typing import NamedTuple


class Shape(NamedTuple):
    needs: tuple[str, ...]  # the first must have a value, the others must exist
    takes: tuple[str, ...]
    convert: Callable  # row -> messages, or the two chats (chosen, rejected); ValueError names the fault


NO_MESSAGE = "a message is not a role and a text"


def find_shape(row: dict, shapes: list[Shape]) -> Shape:
    """The first shape that a row has; ValueError lists its fields and the shapes."""
    for shape in shapes:
        if row.get(shape.needs[0]) is not None and all(name in row for name in shape.needs):
            return shape
    fields = ", ".join(sorted(map(str, row))[:12]) or "none"
    known = "; ".join(" and ".join(shape.needs) for shape in shapes)
    raise ValueError(f"no known shape; its fields are {fields}; needed are {known}")


def messages_from_turns(turns) -> list[dict]:
    """Messages of pairs (question, answer)."""
    return [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn)]


# ---------------------------------------------------------------------- chats

def sharegpt_messages(row):
    """{"from", "value"} instead of {"role", "content"}; calls and results of tools have roles of their own."""
    turns, messages = row["conversations"], []
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(NO_MESSAGE)
    for turn in turns:
        others = {name: value for name, value in turn.items() if name not in ("from", "value")}
        message = {"role": turn.get("from", turn.get("role")), "content": turn.get("value", turn.get("content"))}
        messages.append(others | message)
        if message["role"] == "function_call":
            messages[-1] |= {"role": "assistant", "content": "", "tool_calls": parse_calls(message["content"])}
    return messages


def parse_calls(text):
    """Tool calls in JSON: {"name", "arguments"}, or a list of such."""
    try:
        calls = json.loads(text)
    except (ValueError, TypeError):
        raise ValueError("a function_call is not JSON") from None
    return [{"type": "function", "function": call} for call in (calls if isinstance(calls, list) else [calls])]


def alpaca_question(row):
    """The instruction, and on the next line the input."""
    more = row.get("input") if isinstance(row.get("input"), str) else row.get("context")
    if isinstance(more, str) and more.strip():
        return f"{row['instruction']}\n{more}"
    return row["instruction"]


def alpaca_history(row):
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise ValueError("history is not a list of pairs of question and answer")
    return messages_from_turns(history)


def alpaca_messages(row):
    answer = row["output"] if "output" in row else row["response"]
    return [*alpaca_history(row), *messages_from_turns([(alpaca_question(row), answer)])]


def ultrachat_messages(row):
    """A list of texts, the user's first."""
    if not isinstance(row["data"], list):
        raise ValueError(NO_MESSAGE)
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(row["data"])]


def completion_messages(row):
    """Prompt and completion, each a text or messages."""
    return as_messages(row["prompt"], "user") + as_messages(row["completion"], "assistant")


def as_messages(value, role):
    """Messages of a text, a message or a list of messages."""
    if isinstance(value, str):
        value = {"role": role, "content": value}
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(m, dict) for m in value):
        raise ValueError(NO_MESSAGE)
    return [{("role" if k == "from" else "content" if k == "value" else k): x for k, x in m.items()} for m in value]


def turn_of(question, answer):
    """A shape of one question and one answer."""
    return Shape((question, answer), (), lambda row: messages_from_turns([(row[question], row[answer])]))


CHAT_SHAPES = [
    Shape(("messages",), (), lambda row: row["messages"]),
    Shape(("conversations",), (), sharegpt_messages),
    Shape(("conversation",), (), lambda row: row["conversation"]),  # LMSYS-Chat, WildChat
    Shape(("data",), (), ultrachat_messages),  # UltraChat
    Shape(("instruction", "output"), ("input", "history"), alpaca_messages),
    Shape(("instruction", "response"), ("input", "context", "history"), alpaca_messages),  # Dolly
    Shape(("prompt", "completion"), (), completion_messages),  # TRL, and KTO with its label
    turn_of("inputs", "targets"),  # Aya
    turn_of("question", "response"),  # OpenOrca
    turn_of("question", "answer"),
    turn_of("prompt", "response"),
]


# ---------------------------------------------------------------------- preference pairs

def preference_chats(row):
    """The answers are texts, messages or whole chats; only whole chats need no prompt."""
    sides = [row["chosen"], row["rejected"]]
    prompt = preference_prompt(row)
    if not prompt and all(isinstance(side, str) and TURN.match(side) for side in sides):
        return [parse_transcript(side) for side in sides]
    if not prompt and any(isinstance(side, str) and side.strip() for side in sides):
        raise ValueError(f"the answers have no question; it is in one of the fields {', '.join(PROMPTS)}")
    chats = []
    for side in sides:
        answer = as_messages(side if side is not None else [], "assistant")
        begins = str(answer[0].get("role")).lower() if answer else "user"
        chats.append(answer if begins in ("user", "human", "system") else prompt + answer)
    return chats


PROMPTS = ("prompt", "question", "instruction", "conversations", "input")  # the first that has a value


def preference_prompt(row):
    """The messages in front of the answers."""
    name = next((name for name in PROMPTS if row.get(name) not in (None, "", [])), None)
    if name is None:
        return []
    if name == "conversations":
        return sharegpt_messages(row)
    if name == "instruction":
        return [*alpaca_history(row), {"role": "user", "content": alpaca_question(row)}]
    return as_messages(row[name], "user")


TURN = re.compile(r"\s*(Human|Assistant):")


def parse_transcript(text):
    """Messages of HH-RLHF's transcripts: paragraphs that begin with "Human:" and "Assistant:"."""
    _, *parts = re.split(r"(?:\A\s*|\n\n)(Human|Assistant):", text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[name], "content": said.removeprefix(" ")} for name, said in zip(parts[::2], parts[1::2])]


def arena_chats(row):
    """The winner's and the loser's chat of a row of LMSYS's arena; ValueError for a tie, which gives no pair."""
    winner = arena_winner(row)
    if "conversation_a" in row:
        a, b = row.get("conversation_a"), row.get("conversation_b")
    else:
        try:
            prompt, response_a, response_b = (json.loads(row[name]) for name in ("prompt", "response_a", "response_b"))
        except (ValueError, TypeError, KeyError):
            raise ValueError("prompt, response_a or response_b is no JSON list of turns") from None
        for turns in (prompt, response_a, response_b):
            if not (isinstance(turns, list) and len(turns) == len(prompt) and all(isinstance(x, str) for x in turns)):
                raise ValueError("a turn is missing")
        a, b = messages_from_turns(zip(prompt, response_a)), messages_from_turns(zip(prompt, response_b))
    return (a, b) if winner == "model_a" else (b, a)


def arena_winner(row):
    """"model_a" or "model_b"; ValueError names a tie, "both bad", or a row without a winner."""
    winner = row.get("winner")
    for name in ("model_a", "model_b", "tie"):
        if not winner and str(row.get(f"winner_{name}")).strip() in ("1", "1.0", "True"):
            winner = name
    if winner == "tie":
        raise ValueError("a tie")
    if winner == "tie (bothbad)":
        raise ValueError("a tie, both are bad")
    if winner not in ("model_a", "model_b"):
        raise ValueError("no winner is named")
    return winner


WINNERS = ("winner", "winner_model_a", "winner_model_b", "winner_tie")
PAIR_SHAPES = [
    Shape(("conversation_a",), ("conversation_b", *WINNERS), arena_chats),
    Shape(("response_a",), ("prompt", "response_b", *WINNERS), arena_chats),
    Shape(("chosen", "rejected"), (*PROMPTS, "history"), preference_chats),
    Shape(("chosen_response", "rejected_response"), ("instruction", "prompt", "input"),  # Argilla's UltraFeedback
          lambda row: preference_chats(row | {"chosen": row["chosen_response"], "rejected": row["rejected_response"]})),
]
