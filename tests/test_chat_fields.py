"""Rows of chats as people publish them: every shape is read, and no field that changes what is learned is lost
silently."""
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from test_chat import folder, messages_of, read, write  # noqa: F401

import prepare
import tokenizer
import train
from corpus import chat, chat_tokens

Q, A = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Four."}
SYSTEM = {"role": "system", "content": "Be a pirate."}


def read_row(tmp_path, row, kind="chat", **settings):
    """(what is learned of one row, or the reason why nothing is; names of the fields that were ignored, and not
    read)."""
    counts = {"ignored_fields": Counter(), "unread_fields": Counter()}
    doc, = chat.read_chats(write(tmp_path / "row.jsonl", [row]), kind, counts=counts, **settings)
    assert (doc.more == {}) == (doc.reason is not None)
    return doc.reason or doc.more, sorted(counts["ignored_fields"]), sorted(counts["unread_fields"])


# ---------------------------------------------------------------------- published shapes

HI = messages_of([("user", "Hi"), ("assistant", "Hello.")])
FOUR = messages_of([("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "See you.")])
CHATS = {  # name: (row with its published columns, messages, fields that nothing reads)
    "Aya": ({"inputs": "Hi", "targets": "Hello.", "language": "Kazakh", "language_code": "kaz", "user_id": "x",
             "annotation_type": "original-annotations"}, HI,
            ["annotation_type", "language", "language_code", "user_id"]),
    "LMSYS-Chat": ({"conversation_id": "7", "model": "m", "conversation": FOUR, "turn": 2, "language": "English",
                    "openai_moderation": [{"flagged": False}], "redacted": False}, FOUR,
                   ["conversation_id", "language", "model", "openai_moderation", "redacted", "turn"]),
    "WildChat": ({"conversation": [HI[0] | {"toxic": False}, HI[1] | {"toxic": False}], "model": "m"}, HI,
                 ["message toxic", "model"]),
    "UltraChat": ({"id": "0", "data": ["Hi", "Hello.", "Bye", "See you."]}, FOUR, ["id"]),
    "UltraChat 200k": ({"prompt": "Hi", "prompt_id": "a1", "messages": HI}, HI, ["prompt", "prompt_id"]),
    "OpenOrca": ({"id": "t0", "system_prompt": "Be a pirate.", "question": "Hi", "response": "Hello."}, [SYSTEM, *HI],
                 ["id"]),
    "Dolly": ({"instruction": "Hi", "context": "", "response": "Hello.", "category": "open_qa"}, HI, ["category"]),
    "Dolly with a context": ({"instruction": "Who?", "context": "Anna came.", "response": "Anna."},
                             messages_of([("user", "Who?\nAnna came."), ("assistant", "Anna.")]), []),
    "Alpaca": ({"instruction": "Hi", "input": "", "output": "Hello.", "text": "Below is"}, HI, ["text"]),
    "prompt and completion": ({"prompt": "Hi", "completion": "Hello."}, HI, []),
    "prompt and completion as messages": ({"prompt": FOUR[:3], "completion": FOUR[3:]}, FOUR, []),
    "KTO, wanted": ({"prompt": "Hi", "completion": "Hello.", "label": True}, HI, []),
    "KTO as messages, wanted": ({"prompt": HI[:1], "completion": HI[1:], "label": True}, HI, []),
    "GSM8K": ({"question": "Hi", "answer": "Hello."}, HI, []),
    "a label of a class": ({"messages": HI, "label": "greeting"}, HI, ["label"]),
    "nulls of a table": ({"messages": [m | {"tool_calls": None, "name": None, "weight": None} for m in HI],
                          "tools": None,
                          "system": None, "label": None}, HI, []),
}


@pytest.mark.parametrize("name", CHATS)
def test_published_chats(tmp_path, name):
    row, messages, unread = CHATS[name]
    assert read_row(tmp_path, row) == ({"messages": messages}, [], unread)


HELLO = {"chosen": HI, "rejected": messages_of([("user", "Hi"), ("assistant", "Go away.")])}
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye\n\nAssistant: {}"
LONG = {side: [*FOUR[:3], {"role": "assistant", "content": text}]
        for side, text in (("chosen", "See you.\n\nSoon."), ("rejected", "Go: away."))}
PAIRS = {
    "HH-RLHF": ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away."},
                HELLO,
                []),
    "HH-RLHF with more turns": ({"chosen": HH.format("See you.\n\nSoon."), "rejected": HH.format("Go: away.")}, LONG,
                                []),
    "Orca pairs": ({"system": "Be a pirate.", "question": "Hi", "chosen": "Hello.", "rejected": "Go away."},
                   {side: [SYSTEM, *HELLO[side]] for side in HELLO}, []),
    "Orca pairs of distilabel": ({"system": "", "input": "Hi", "chosen": "Hello.", "rejected": "Go away.",
                                  "rating": [8, 2], "status": "unchanged"}, HELLO, ["rating", "status"]),
    "an instruction": ({"instruction": "Hi", "input": "", "chosen": "Hello.", "rejected": "Go away."}, HELLO, []),
    "UltraFeedback": ({"prompt": "Hi", "prompt_id": "a", "messages": HI, "score_chosen": 8.0, "score_rejected": 2.0}
                      | HELLO,
                      HELLO, ["messages", "prompt_id", "score_chosen", "score_rejected"]),
    "UltraFeedback of Argilla": ({"source": "x", "instruction": "Hi", "chosen_response": "Hello.", "chosen_model": "a",
                                  "rejected_response": "Go away."}, HELLO, ["chosen_model", "source"]),
    "pairs of LLaMA-Factory": ({"conversations": [{"from": "human", "value": "Hi"}],
                                "chosen": {"from": "gpt", "value": "Hello."},
                                "rejected": {"from": "gpt", "value": "Go away."}}, HELLO, []),
    "a history": ({"instruction": "Bye", "history": [["Hi", "Hello."]], "chosen": "See you.\n\nSoon.",
                   "rejected": "Go: away."}, LONG, []),
    "a system prompt": ({"system": "Be a pirate.", "prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."},
                        {side: [SYSTEM, *HELLO[side]] for side in HELLO}, []),
}


@pytest.mark.parametrize("name", PAIRS)
def test_published_pairs(tmp_path, name):
    row, pair, unread = PAIRS[name]
    assert read_row(tmp_path, row, "preference") == (pair, [], unread)


@pytest.mark.parametrize("row, kind, reason", [
    ({"prompt": "Hi", "completion": "Go away.", "label": False}, "chat", "not to be learned: 'label' is off"),
    ({"prompt": "Hi", "completion": "Go away.", "label": "False"}, "chat", "not to be learned: 'label' is off"),
    ({"messages": HI, "label": False}, "chat", "not to be learned: 'label' is off"),
    ({"prompt": "Hi", "completion": "Hello.", "label": True}, "preference", "a row of KTO ('label') is one answer"),
    ({"prompt": "Hi", "completion": "Hello.", "label": False}, "preference", "a row of KTO ('label') is one answer"),
    ({"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}, "preference", "no answer in it"),
    ({"data": "Hi"}, "chat", "a message is not a role and a text"),
    ({"data": ["Hi", None]}, "chat", "a message is not a role and a text"),
    ({"text": "A tree of messages", "role": "prompter", "parent_id": None}, "chat",
     "no known shape; its fields are parent_id, role, text; needed are messages;")])
def test_rows_that_are_none(tmp_path, row, kind, reason):
    assert reason in read_row(tmp_path, row, kind)[0]


@pytest.mark.parametrize("name", ["lines.json", "lines.json.gz", "array.json", "one.json"])
def test_json_lines_and_arrays(tmp_path, name):
    """Hugging Face names JSON Lines .json; an array may begin on its first line or later."""
    import gzip
    rows = [{"messages": HI}, {"messages": FOUR}]
    text = {"lines": "\n" + "\n".join(map(json.dumps, rows)), "array": "\ufeff" + json.dumps(rows, indent=1),
            "one": json.dumps(rows)}[name.split(".")[0]]
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert [doc.more for doc in read(tmp_path / name)] == rows


# ---------------------------------------------------------------------- fields that change what is learned

def switched(*switches, field="train"):
    """A chat of as many answers, the loss of some switched off."""
    return [m for n, value in enumerate(switches) for m in (
        {"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"} | {field: value})]


@pytest.mark.parametrize("row, learned", [
    ({"system": "Be a pirate.", "messages": [Q, A]}, [SYSTEM, Q, A]),
    ({"system": "Be a pirate.", "messages": [SYSTEM, Q, A]}, [SYSTEM, Q, A]),
    ({"system": "Be a pirate.", "messages": [{"role": "system", "content": " "}, Q, A]}, [SYSTEM, Q, A]),
    ({"system": " ", "messages": [Q, A]}, [Q, A]),
    ({"system": "Be kind.", "messages": [SYSTEM, Q, A]}, "'system' differs from the system message"),
    ({"system": ["Be kind."], "messages": [Q, A]}, "'system' is not a text"),
    ({"messages": [Q, A | {"weight": 0}, Q, A]}, [Q, A | {"train": False}, Q, A]),
    ({"messages": [Q, A | {"weight": 0.0}, Q, A | {"weight": 1}]}, [Q, A | {"train": False}, Q, A]),
    ({"messages": [Q, A, Q, A | {"train": False}]}, [Q, A, Q, A | {"train": False}]),
    ({"messages": [Q | {"train": False}, A | {"train": True}]}, [Q, A]),
    ({"messages": [Q | {"train": True}, A]}, "'train' asks for the loss on a message that is no answer"),
    ({"messages": [Q, A | {"weight": 0}]}, "nothing to learn from, the loss of every answer is switched off"),
    ({"messages": [Q, A | {"weight": 0.5}]}, "'weight' is neither 0 nor 1"),
    ({"messages": [Q, A], "weight": 0}, "not to be learned: 'weight' is off"),
    ({"messages": [Q, A], "weight": 2}, "'weight' is neither 0 nor 1"),
    ({"messages": [Q, A], "train": False}, "not to be learned: 'train' is off"),
    ({"messages": [Q, A, Q, A], "loss_mask": [0, 0, 0, 1]}, [Q, A | {"train": False}, Q, A]),
    ({"messages": [Q, A], "loss_mask": [False, True]}, [Q, A]),
    ({"messages": [Q, A], "loss_mask": [1, 1]}, "'loss_mask' asks for the loss on a message that is no answer"),
    ({"messages": [Q, A], "loss_mask": [0, 0, 1]}, "'loss_mask' has not one value per message"),
    ({"messages": [Q, A], "loss_mask": "01"}, "'loss_mask' has not one value per message"),
    ({"messages": [Q, A], "images": ["a.png"]}, "the field 'images' is not supported"),
    ({"messages": [Q, A], "functions": [{"name": "add"}]}, "the field 'functions' is not supported"),
    ({"messages": [Q, A], "chat_template_kwargs": {"thinking": False}},
     "the field 'chat_template_kwargs' is not supported"),
    ({"messages": [Q, A | {"function_call": {"name": "add"}}]},
     "the field 'function_call' of a message is not supported"),
    ({"messages": [Q, A], "tools": "add"}, "'tools' is not JSON"),
    ({"messages": [Q, A], "tools": {"name": "add"}}, "'tools' is not a list of functions"),
    ({"messages": [Q, A | {"tool_calls": "add"}]}, "'tool_calls' is not JSON"),
    ({"messages": [Q, A | {"tool_calls": [{"id": "1"}]}]}, "'tool_calls' has a call without a name"),
    ({"messages": [Q, A | {"tool_calls": [{"function": {"name": "add", "arguments": "{a"}}]}]},
     "'tool_calls' has arguments that are not JSON")])
def test_fields_are_honored_or_named(tmp_path, row, learned):
    expected = {"messages": learned} if isinstance(learned, list) else f"chat: {learned}"
    assert read_row(tmp_path, row)[0] == expected


@pytest.mark.parametrize("change, reason", [
    ({"weight": 0}, "not to be learned: 'weight' is off"),
    ({"loss_mask": [0, 0]}, "the loss of an answer is switched off, which pairs cannot honor"),
    ({"chosen": [A | {"weight": 0}], "rejected": [A | {"content": "Five."}]}, "the loss of an answer is switched off"),
    ({"documents": ["x"]}, "the field 'documents' is not supported")])
def test_fields_of_pairs(tmp_path, change, reason):
    row = {"prompt": "2+2?", "chosen": "Four.", "rejected": "Five."} | change
    assert read_row(tmp_path, row, "preference")[0].startswith(f"pair: {reason}")


def test_ignored_fields(tmp_path):
    """A field that the user does not want is taken out of rows and messages, and counted once per row."""
    row = {"messages": [Q | {"weight": 0}, A | {"weight": 0}], "weight": 0.5, "images": ["a.png"], "id": 3}
    assert read_row(tmp_path, row, ignore_fields=["weight", "images"]) == (
        {"messages": [Q, A]}, ["images", "weight"], ["id"])
    pair = {"prompt": "2+2?", "chosen": [A | {"weight": 0}], "rejected": "Five.", "weight": 3}
    assert read_row(tmp_path, pair, "preference", ignore_fields=["weight"])[1:] == (["weight"], [])
    assert read_row(tmp_path, {"messages": [Q, A], "label": False}, ignore_fields=["label"])[0] == {"messages": [Q, A]}


CODE = "    if x:\n        return 1\n    return 0"


@pytest.mark.parametrize("text, learned", [(CODE, CODE), (f"\n \n{CODE}\n\n", CODE), ("\tpass\n", "\tpass"),
                                           (" a\n b ", " a\n b"),
                                           ("\u3000全角", "\u3000全角")])
def test_the_indentation_of_an_answer_stays(tmp_path, text, learned):
    messages = read_row(tmp_path, {"messages": [Q, A | {"content": text}]})[0]["messages"]
    assert messages[1]["content"] == learned
    pair = read_row(tmp_path, {"prompt": "  2+2?", "chosen": text, "rejected": "Five."}, "preference")[0]
    assert pair["chosen"] == [{"role": "user", "content": "  2+2?"}, {"role": "assistant", "content": learned}]


# ---------------------------------------------------------------------- tools, reasoning, switches: ids and mask

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
CALLED = [Q, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "4"}, A]
# the way of Qwen2.5 and Qwen3: tools in the system message, calls and reasoning in tags, results in the user's turn
TOOLS = ("{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
         "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
         "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
         "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} "
         "{{ c.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@pytest.fixture(scope="module")
def tools(folder):
    return tokenizer.load(folder("chatml", TOOLS))


@pytest.fixture(scope="module")
def plain(folder):
    return tokenizer.load(folder("chatml"))


def learned(t, row):
    """(the text of each chat, the text that is learned, bytes)."""
    return [(t.decode(ids, special=True), t.decode([i for i, m in zip(ids, mask) if m], special=True), size)
            for ids, mask, size in chat_tokens.tokenize_chats(t, row)]


@pytest.mark.parametrize("calls", [[CALL], [{"id": "1"} | CALL], [CALL["function"] | {"name": "add"}],
                                   [{"function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}]])
def test_calls_are_learned_and_results_are_not(tmp_path, tools, calls):
    row = read_row(tmp_path, {"messages": [Q, {"role": "assistant", "content": None, "tool_calls": calls}, *CALLED[2:]],
                              "tools": [ADD]})[0]
    if "function" not in calls[0]:  # a call in short: the template of this test wants the long form
        row["messages"][1]["tool_calls"] = [{"function": row["messages"][1]["tool_calls"][0]}]
    (text, said, size), = learned(tools, row)
    assert said == '<tool_call>add {"a": 2, "b": 2}</tool_call><|im_end|>Four.<|im_end|>'
    assert '"name": "add"' in text.split("<|im_end|>")[0] and "user\n4<|im_end|>" in text and size > len("Four.")


@pytest.mark.parametrize("calls, arguments", [
    (json.dumps([CALL]), {"a": 2, "b": 2}),                                      # a column of a table
    ([{"function": {"name": "add", "arguments": json.dumps(json.dumps({"a": 2}))}}], {"a": 2}),  # encoded twice
    ([{"function": {"name": "now"}}], {}), ([{"function": {"name": "now", "arguments": None}}], {}),
    ([{"function": {"name": "now", "arguments": " "}}], {})])
def test_calls_and_arguments_as_text(tmp_path, calls, arguments):
    row = read_row(tmp_path, {"messages": [Q, {"role": "assistant", "tool_calls": calls}, *CALLED[2:]]})[0]
    assert [call["function"]["arguments"] for call in row["messages"][1]["tool_calls"]] == [arguments]


@pytest.mark.parametrize("calls, said", [
    ("[{", "'tool_calls' is not JSON"), ('{"name": "add"}', "'tool_calls' is not a list of calls"),
    ([{"function": {"name": "add", "arguments": "a=2"}}], "arguments that are not JSON"),
    ([{"function": {"name": "add", "arguments": "[2, 2]"}}], "arguments that are no JSON object"),
    ([{"function": {"name": "add", "arguments": [2]}}], "arguments that are no JSON object"),
    ([{"function": {"name": "add", "arguments": json.dumps(json.dumps("2"))}}], "arguments that are no JSON object"),
    ([{"function": {"arguments": "{}"}}], "a call without a name")])
def test_calls_that_are_none(tmp_path, calls, said):
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    assert said in read_row(tmp_path, {"messages": [Q, message, *CALLED[2:]]})[0]


@pytest.mark.parametrize("join", ["'' + c.function.arguments", "'' ~ c.function.arguments", "c.function.arguments",
                                  "c.function.arguments if c.function.arguments is string else 'an object'"])
def test_templates_that_take_arguments_as_text(folder, join):
    """DeepSeek's and Mistral's join them to a string; one that asks for the kind is given the object."""
    t = tokenizer.load(folder("chatml", TOOLS.replace("c.function.arguments | tojson", join)))
    (_, said, _), = learned(t, {"messages": CALLED, "tools": [ADD]})
    wanted = "an object" if "is string" in join else '{"a": 2, "b": 2}'
    assert said == f"<tool_call>add {wanted}</tool_call><|im_end|>Four.<|im_end|>"


def test_tools_as_text_and_sharegpt_calls(tmp_path, tools):
    """As LLaMA-Factory writes them."""
    turns = [("human", "2+2?"), ("function_call", '{"name": "add", "arguments": {"a": 2, "b": 2}}'),
             ("observation", "4"),
             ("gpt", "Four.")]
    row = read_row(tmp_path, {"conversations": [{"from": a, "value": b} for a, b in turns],
                              "tools": json.dumps([ADD])})[0]
    assert row == {"messages": CALLED, "tools": [ADD]}
    assert learned(tools, row) == learned(tools, {"messages": CALLED, "tools": [ADD]})


def test_tools_of_pairs(tmp_path, tools):
    row = read_row(tmp_path, {"prompt": "2+2?", "chosen": CALLED[1:2], "rejected": "Five.", "tools": [ADD]},
                   "preference")[0]
    chosen, rejected = learned(tools, row)
    assert chosen[1] == '<tool_call>add {"a": 2, "b": 2}</tool_call><|im_end|>' and rejected[1] == "Five.<|im_end|>"
    assert "parameters" in chosen[0] and "parameters" in rejected[0]


def test_reasoning_is_learned(tmp_path, tools):
    row = read_row(tmp_path, {"messages": [Q, A | {"reasoning_content": "2 and 2 are 4"}]})[0]
    (_, said, size), = learned(tools, row)
    assert said == "<think>2 and 2 are 4</think>Four.<|im_end|>" and size == len("2 and 2 are 4\nFour.")


@pytest.mark.parametrize("row, field", [
    ({"messages": CALLED, "tools": [ADD]}, "tools"), ({"messages": CALLED}, "tool_calls"),
    ({"messages": [Q, A | {"reasoning_content": "2 and 2"}]}, "reasoning_content"),
    ({"messages": [Q, A | {"thinking": "2 and 2"}]}, "thinking"), ({"messages": [Q | {"name": "Anna"}, A]}, "name")])
def test_what_the_template_leaves_out_is_named(tmp_path, plain, row, field):
    row = read_row(tmp_path, row)[0]
    with pytest.raises(ValueError, match=re.escape(f"the chat template does not render '{field}'")):
        chat_tokens.tokenize_chats(plain, row)


def test_names_of_results_need_not_be_rendered(tools):
    result = CALLED[2] | {"name": "add", "tool_call_id": "1"}
    assert learned(tools, {"messages": [*CALLED[:2], result, A]}) == learned(tools, {"messages": CALLED})


@pytest.mark.parametrize("switches", [(0, 1), (1, 0), (1, 1, 0), (0, 1, 0), (1, 1)])
@pytest.mark.parametrize("field", ["train", "weight"])
def test_switched_off_answers_are_read_but_not_learned(tmp_path, plain, switches, field):
    row = read_row(tmp_path, {"messages": switched(*switches, field=field)})[0]
    (text, said, size), = learned(plain, row)
    expected = [f"a{n}" for n, on in enumerate(switches) if on]
    assert said == "".join(f"{answer}<|im_end|>" for answer in expected) and size == 2 * len(expected)
    assert all(f"q{n}<|im_end|>" in text and f"a{n}<|im_end|>" in text for n in range(len(switches)))


def test_a_shared_system_prompt_is_rendered(tmp_path, plain):
    row = read_row(tmp_path, {"system": "Be a pirate.", "prompt": "Hi", "chosen": "Arr", "rejected": "Hello"},
                   "preference")[0]
    for text, _, _ in learned(plain, row):
        assert text.startswith("<|im_start|>system\nBe a pirate.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")


# ---------------------------------------------------------------------- prepare.py and train.py

def prepare_rows(out, rows, folder, kind="chat", **settings):
    """prepare.py on one source of rows: (folder, account of the source)."""
    out.mkdir()
    write(out / "x.jsonl", rows)
    source = dict(name=f"{kind}-{out.name}", path="x.jsonl", category=kind, language="en", **(
        {} if kind == "text" else {"kind": kind}))
    given = dict(raw=str(out), out=str(out / "data"), sources=[source], language_names={}, valid_fraction=0.0,
                 langid=False,
                 workers=1, tokenizer=str(folder), thresholds={"*": {"chars": (1, 1000)}}) | settings
    prepare.main([f"{k}={v!r}" for k, v in given.items()])
    return out / "data", json.loads((out / "data/account.json").read_text())[source["name"]]


def test_the_account_names_the_fields(tmp_path, folder):
    rows = [{"messages": [Q, A], "weight": 0.5, "id": 1}, {"messages": [Q, A | {"content": "4"}], "id": 2},
            {"messages": [Q, A | {"content": "5"}], "images": ["a.png"]},
            {"messages": CALLED, "tools": [ADD]}, {"system": "Be a pirate.", "messages": [Q, A | {"content": "Arr"}]}]
    data, account = prepare_rows(tmp_path / "a", rows, folder("chatml"), ignore_fields=["weight"])
    assert account["dropped"] == {"chat: the field 'images' is not supported": 1,
                                  "template: the chat template does not render 'tools'": 1}
    assert (account["kept"], account["ignored_fields"], account["unread_fields"]) == (3, {"weight": 1}, {"id": 2})
    t = tokenizer.load(data / "tokenizer")
    ids = np.fromfile(data / "chat-a/shard-00000.bin", "uint16")
    assert "<|im_start|>system\nBe a pirate.<|im_end|>" in t.decode(ids.tolist(), special=True)
    data, account = prepare_rows(tmp_path / "b", rows, folder("chatml", TOOLS))
    assert account["dropped"] == {"chat: the field 'images' is not supported": 1,
                                  "chat: 'weight' is neither 0 nor 1": 1}
    assert account["kept"] == 3 and "ignored_fields" not in account and account["unread_fields"] == {"id": 1}


@pytest.fixture(scope="module")
def shards(tmp_path_factory, folder):
    """{name: folder of shards}: text, and chats by two templates of one tokenizer."""
    root, first = tmp_path_factory.mktemp("shards"), folder("chatml")
    chats = [{"messages": [Q, A | {"content": f"Four {i}."}]} for i in range(40)]
    out = {"chats": prepare_rows(root / "chats", chats, first)[0]}
    other = shutil.copytree(first, root / "other")
    (other / "chat_template.jinja").write_text(tokenizer.TEMPLATES["chatml"].replace("<|im_end|>\\n",
                                                                                     "<|im_end|>\\n\\n"))
    out["others"] = prepare_rows(root / "others", chats, other)[0]
    (other / "chat_template.jinja").unlink()
    out["text"] = prepare_rows(root / "text", [{"text": f"Some text, number {i}, of a few words."} for i in range(40)],
                               other, "text")[0]
    return out


def train_on(folders, out, mixture):
    train.main([f"{k}={v!r}" for k, v in dict(
        data=[str(f) for f in folders], out=str(out), mixture=mixture, tokens=2 * 2 * 64, seq_len=64, batch_size=2,
        micro_batch_size=2, lr=1e-3, threads=1, dtype="float32", vocab_size=512, hidden_size=32, intermediate_size=64,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1).items()])


def test_the_model_gets_the_template_of_the_chats(tmp_path, shards, monkeypatch):
    """Whatever the order of the folders: the first one here is of text, and its tokenizer has no template."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for i, folders in enumerate(([shards["text"], shards["chats"]], [shards["chats"], shards["text"]])):
        train_on(folders, tmp_path / f"run{i}", {"text": 1, "chat": 1})
        assert tokenizer.load(tmp_path / f"run{i}").chat_template == tokenizer.TEMPLATES["chatml"]
    train_on([shards["text"], shards["chats"]], tmp_path / "text", {"text": 1})  # no chat is read
    assert tokenizer.load(tmp_path / "text").chat_template is None


def test_two_templates_are_refused(tmp_path, shards, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    indexes = [json.loads((shards[name] / f"chat-{name}/index.json").read_text()) for name in ("chats", "others")]
    assert indexes[0]["tokenizer"] == indexes[1]["tokenizer"]
    assert indexes[0]["chat_template"] != indexes[1]["chat_template"]
    with pytest.raises(ValueError, match="chats/data and .*others/data were rendered by different chat templates"):
        train_on([shards["chats"], shards["others"]], tmp_path / "run", {"chat": 1})
    assert not (tmp_path / "run/config.json").exists()
