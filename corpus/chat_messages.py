"""The messages of a row -> messages with normalized roles, the fields that a chat template renders, and loss switches.

A message is {"role", "content"}. An answer may have "tool_calls" and reasoning, which go to the chat template, and
{"train": False} when its loss is switched off. ValueError names a fault; corpus/chat.py drops the row for it.
"""
import json
import re

from corpus.chat_shapes import NO_MESSAGE

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
         "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "tool": "tool", "function": "tool",
         "observation": "tool", "ipython": "tool"}
SYSTEM = ("system", "system_prompt")
SWITCHES = ("weight", "loss_weight", "sample_weight", "train")  # 1 or 0, of a row or a message: is it learned
UNSUPPORTED = ("functions", "function_call", "documents", "chat_template_kwargs", "image", "images", "video", "videos",
               "audio", "audios")
RENDERED = ("tool_calls", "reasoning_content", "reasoning", "thinking", "name", "tool_call_id")  # for the chat template
EMPTY: tuple = (None, "", [], {})


def check_messages(messages, row):
    """(messages with normalized roles, names of their unread fields); ValueError names the fault."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError(NO_MESSAGE)
    out, unread = [], set()
    for message in messages:
        out.append(check_message(message))
        names = {name for name, value in message.items() if value not in EMPTY}
        unread |= {f"message {name}" for name in names - {"role", "content", *RENDERED, *SWITCHES}}
    apply_loss_mask(out, row.get("loss_mask"))
    out = add_system(out, row)
    check_order(out)
    for m in out:
        if not m["content"].strip() and not m.get("tool_calls"):
            raise ValueError("a message is empty")
    return out, sorted(unread)


def check_message(message):
    """{"role", "content"}, fields for the template, and "train" if it is False; ValueError names the fault.

    White space after an answer is removed, and blank lines before it, since the prompt of a template ends with its own;
    the indentation of its first line stays.
    """
    role, content = message.get("role"), message.get("content")
    has_calls = message.get("tool_calls") not in EMPTY
    if content is None and has_calls:
        content = ""
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError(NO_MESSAGE)
    if role.lower() not in ROLES:
        raise ValueError(f"unknown role {role[:40]!r}")
    for name in UNSUPPORTED:
        if message.get(name) not in EMPTY:
            raise ValueError(f"the field '{name}' of a message is not supported")
    out = {"role": ROLES[role.lower()], "content": content}
    if out["role"] == "assistant":
        out["content"] = re.sub(r"\A([^\S\n]*\n)+", "", content).rstrip()
    out |= {name: message[name] for name in RENDERED if message.get(name) not in EMPTY}
    if has_calls:
        out["tool_calls"] = check_calls(message["tool_calls"])
    for name in SWITCHES:
        if message.get(name) in EMPTY:
            continue
        learned = read_switch(name, message[name])
        if out["role"] == "assistant" and not learned:
            out["train"] = False
        elif out["role"] != "assistant" and learned and name == "train":
            raise ValueError("'train' asks for the loss on a message that is no answer")
    return out


def check_calls(calls):
    """Tool calls with their arguments as an object; calls and arguments may be JSON text, as OpenAI's arguments are."""
    if isinstance(calls, str):
        calls = parse_json(calls, "'tool_calls' is not JSON")
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError("'tool_calls' is not a list of calls")
    out = []
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError("'tool_calls' has a call without a name")
        arguments = function.get("arguments")
        for _ in range(2):  # some are encoded twice
            if isinstance(arguments, str):
                arguments = parse_json(arguments.strip() or "{}", "'tool_calls' has arguments that are not JSON")
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, dict):
            raise ValueError("'tool_calls' has arguments that are no JSON object")
        function = function | {"arguments": arguments}
        out.append(call | {"function": function} if "function" in call else function)
    return out


def parse_json(text, problem):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(problem) from None


def apply_loss_mask(messages, mask):
    """Mark the answers that a row's loss_mask, one value per message, leaves out."""
    if mask in EMPTY:
        return
    if not isinstance(mask, list) or len(mask) != len(messages):
        raise ValueError("'loss_mask' has not one value per message")
    for message, value in zip(messages, mask):
        learned = read_switch("loss_mask", value)
        if message["role"] == "assistant" and not learned:
            message["train"] = False
        elif message["role"] != "assistant" and learned:
            raise ValueError("'loss_mask' asks for the loss on a message that is no answer")


def add_system(messages, row):
    """The messages with the row's system prompt in front, without an empty one."""
    if messages and messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
    for name in SYSTEM:
        if row.get(name) in EMPTY or not str(row[name]).strip():
            continue
        if not isinstance(row[name], str):
            raise ValueError(f"'{name}' is not a text")
        system = {"role": "system", "content": row[name]}
        if not messages or messages[0]["role"] != "system":
            messages = [system, *messages]
        elif messages[0]["content"].strip() != row[name].strip():
            raise ValueError(f"'{name}' differs from the system message")
    return messages


def check_order(messages):
    """ValueError unless user and assistant take turns after an optional system message, and an answer is last."""
    order = [m["role"] for m in messages]
    if order and order[0] == "system":
        del order[0]
    if "assistant" not in order:
        raise ValueError("nothing to learn from, no answer in it")
    allowed = {"user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}
    if order[0] != "user" or any(b not in allowed.get(a, ()) for a, b in zip(order, order[1:])):
        raise ValueError("roles out of order, user and assistant must take turns")
    if order[-1] != "assistant":
        raise ValueError("the last question has no answer")


def read_switch(name, value):
    """True or False of a field that switches learning on or off; ValueError for a value between."""
    if value in (1, "1", "1.0", "true", "True"):
        return True
    if value in (0, "0", "0.0", "false", "False"):
        return False
    raise ValueError(f"'{name}' is neither 0 nor 1")


def message_text(message):
    """All that a message says: its content, reasoning and calls."""
    parts = [message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "content")]
    if message.get("tool_calls"):
        parts.append(json.dumps(message["tool_calls"], ensure_ascii=False))
    return "\n".join(part for part in parts if part)
