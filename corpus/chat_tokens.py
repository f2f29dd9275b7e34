"""Chats -> token ids with their loss mask, by the tokenizer's chat template."""
import json
from contextlib import suppress

import numpy as np

from corpus.chat import shared_prefix_length
from corpus.chat_messages import RENDERED, message_text


def tokenize_chats(t, row: dict) -> list[tuple[list[int], np.ndarray, int]]:
    """[(ids, mask, bytes to learn)] of a chat, or of both chats of a pair, whose answers count from where they differ.

    ValueError when the template cannot render the chat, leaves out one of its fields, or renders an answer differently
    than after its own prompt.
    """
    chats = [row["messages"]] if "messages" in row else [row["chosen"], row["rejected"]]
    first = 0 if "messages" in row else shared_prefix_length(row)
    variables = {"tools": row["tools"]} if row.get("tools") else {}
    return [tokenize_chat(t, messages, first, variables) for messages in chats]


def tokenize_chat(t, messages, first, variables):
    rendered = choose_arguments(t, [rendered_fields(t, message) for message in messages], variables)
    check_rendered(t, rendered, variables)
    ids, mask = t.encode_with_loss_mask(rendered, first, **variables)
    mask, size = np.array(mask, np.uint8), 0
    for n, message in enumerate(messages):
        if n < first or message["role"] != "assistant":
            continue
        if message.get("train", True):
            size += len(message_text(message).encode())
        else:  # the answer's part of the mask: what the mask from n on has, and the mask from n + 1 on has not
            from_n, after_n = (t.encode_with_loss_mask(rendered, k, **variables)[1] for k in (n, n + 1))
            mask[np.array(from_n, np.uint8) > np.array(after_n, np.uint8)] = 0
    return ids, mask, size


def rendered_fields(t, message):
    """The fields of a message for the template. Only some need the name and the id of a call in its result."""
    optional = ("name", "tool_call_id") if message["role"] == "tool" else ()
    unused = [name for name in optional if name not in t.chat_template]
    return {name: value for name, value in message.items() if name != "train" and name not in unused}


def choose_arguments(t, messages, variables):
    """The messages with the arguments of their calls as the template takes them: as objects, else as JSON text.

    Templates that join them to a string (DeepSeek's, Mistral's) fail on an object or write Python's form of it.
    """
    arguments = [call.get("function", call)["arguments"] for m in messages for call in m.get("tool_calls", ())]
    if not arguments:
        return messages
    with suppress(ValueError):
        text = t.render_chat(messages, False, **variables)
        if not any(str(each) in text for each in arguments if each):
            return messages
    return [m | {"tool_calls": [call_as_text(call) for call in m["tool_calls"]]} if m.get("tool_calls") else m
            for m in messages]


def call_as_text(call):
    function = call.get("function", call)
    function = function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    return call | {"function": function} if "function" in call else function


def check_rendered(t, messages, variables):
    """ValueError for a field of the chat that the template does not render: it would be lost without a trace."""
    for name in variables:
        others = {k: v for k, v in variables.items() if k != name}
        if is_same(t, messages, variables, messages, others):
            raise ValueError(f"the chat template does not render '{name}'")
    for name in RENDERED:
        without = [m if m["role"] == "tool" else {k: v for k, v in m.items() if k != name} for m in messages]
        if without != messages and is_same(t, messages, variables, without, variables):
            raise ValueError(f"the chat template does not render '{name}'")


def is_same(t, messages, variables, other_messages, other_variables):
    """Whether the template gives two chats the same ids; not if it refuses the second."""
    ids = t.encode_chat(messages, add_generation_prompt=False, **variables)
    try:
        return ids == t.encode_chat(other_messages, add_generation_prompt=False, **other_variables)
    except ValueError:
        return False
