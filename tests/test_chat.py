"""Chats and preference pairs: every published shape gives the same messages, every fault is named, and what is learned
is what Hugging Face's template says: the ids, the answers and the ends of their turns."""
import csv
import gzip
import json

import pytest

import tokenizer
from corpus import chat, json_array

TURNS = [("user", "Hi there"), ("assistant", "Hello."), ("user", "2+2?\n"), ("assistant", "4")]


def messages_of(turns):
    return [{"role": role, "content": content} for role, content in turns]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path, kind="chat"):
    return list(chat.read_chats(path, kind))


# ---------------------------------------------------------------------- shapes

SHAREGPT = {"id": "a", "conversations": [{"from": {"user": "human", "assistant": "gpt"}[r], "value": x}
                                         for r, x in TURNS]}
ALPACA = {"instruction": "2+2?\n", "input": "", "output": "4", "history": [["Hi there", "Hello."]]}
SHAPES = {"messages": {"messages": messages_of(TURNS), "kind": "sum"},
          "messages with text": {"messages": messages_of(TURNS), "text": "x"},
          "ShareGPT": SHAREGPT, "Alpaca": ALPACA,
          "space around answers": {"messages": messages_of([(r, f" \n\n{x} \n" if r == "assistant" else x)
                                                            for r, x in TURNS])},
          "empty system": {"messages": messages_of([("system", " "), *TURNS])},
          "other names": {"messages": messages_of([({"user": "Human", "assistant": "model"}[r], x) for r, x in TURNS])}}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_a_chat(tmp_path, name):
    doc, = read(write(tmp_path / "a.jsonl", [SHAPES[name]]))
    assert doc.reason is None and doc.more == {"messages": messages_of(TURNS)}
    assert doc.text == "Hi there\nHello.\n2+2?\n\n4" and doc.line == 1 and doc.offset == 0


def test_system_messages_and_inputs(tmp_path):
    rows = [{"system": "Be short.", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"system": "Be short.", "instruction": "a", "output": "b"},
            {"instruction": "Add", "input": "2, 3", "output": "5"}]
    first, second, third = (doc.more["messages"] for doc in read(write(tmp_path / "a.jsonl", rows)))
    assert first == second == messages_of([("system", "Be short."), ("user", "a"), ("assistant", "b")])
    assert third == messages_of([("user", "Add\n2, 3"), ("assistant", "5")])


def test_files_of_every_format(tmp_path):
    row = {"messages": messages_of(TURNS)}
    write(tmp_path / "a.jsonl", [row, row])
    (tmp_path / "b.json").write_text(json.dumps([row, row], indent=1))
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as f:
        f.write((tmp_path / "a.jsonl").read_text())
    files = ["a.jsonl", "b.json", "c.jsonl.gz"]
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
        pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "d.parquet")
        files.append("d.parquet")
    except ImportError:
        pass
    for name in files:
        docs = read(tmp_path / name)
        assert [d.more for d in docs] == [row, row] and [d.line for d in docs] == [1, 2], name
        assert all(d.file.endswith(name) for d in docs)


# ---------------------------------------------------------------------- faults

def m(*roles, content="x"):
    return {"messages": messages_of([(role, content) for role in roles])}


CHAT_FIELDS = ("messages; conversations; conversation; data; instruction and output; instruction and response; prompt "
               "and completion; inputs and targets; question and response; question and answer; prompt and response")
BAD = {
    "chat: nothing to learn from, no answer in it": [m("user"), m("system", "user"), {"messages": []}],
    "chat: roles out of order, user and assistant must take turns": [
        m("assistant", "user", "assistant"), m("user", "user", "assistant"), m("user", "system", "assistant"),
        m("user", "assistant", "assistant"), m("system", "system", "user", "assistant"), m("user", "tool", "assistant"),
        m("user", "assistant", "tool", "user", "assistant"), m("tool", "assistant")],
    "chat: the last question has no answer": [m("user", "assistant", "user")],
    "chat: unknown role 'assistant_'": [m("User", "assistant_")],
    "chat: unknown role ''": [m("", "assistant")],
    "chat: a message is empty": [m("user", "assistant", content=" \n"), {"instruction": "a", "output": ""}],
    "chat: a message is not a role and a text": [
        {"messages": "x"}, {"messages": [1]}, {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, {"messages": {"role": "user"}},
        {"conversations": ["a"]}, {"conversations": 3}, {"instruction": "a", "output": None}],
    "chat: history is not a list of pairs of question and answer": [dict(ALPACA, history=["a"]),
                                                                    dict(ALPACA, history="a")],
    f"chat: no known shape; its fields are text; needed are {CHAT_FIELDS}": [{"text": "a"}],
    f"chat: no known shape; its fields are none; needed are {CHAT_FIELDS}": [{}],
    f"chat: no known shape; its fields are input, instruction; needed are {CHAT_FIELDS}": [
        {"instruction": "a", "input": "b"}],
    "no row: expected an object": [[1], "a", 3, None],
    "lone surrogate: the text cannot be written as UTF-8": [m("user", "assistant", content="\ud83d")],
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_chats_are_named(tmp_path, reason):
    good = {"messages": messages_of(TURNS)}
    path = write(tmp_path / "a.jsonl", [good, *BAD[reason], good])
    docs = read(path)
    assert [d.reason for d in docs] == [None, *[reason] * len(BAD[reason]), None]
    assert [d.line for d in docs] == list(range(1, len(docs) + 1))
    for doc in docs:
        assert path.read_bytes()[doc.offset:].startswith(b'{"messages"') or doc.reason
        json.dumps(doc.text, ensure_ascii=True).encode() and doc.text.encode()  # can be written aside


def test_lines_that_are_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"messages"\n\xff\n' + json.dumps(SHAREGPT).encode() + b"\n")
    docs = read(tmp_path / "a.jsonl")
    assert [str(d.reason).split(":")[0] for d in docs] == ["not JSON", "not UTF-8 at byte 0", "None"]


def test_an_array_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "MAX_RECORD", 1 << 20)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'[{"messages": "' + b" " * (3 << 20) + b'"}]'))
    doc, = read(tmp_path / "a.json.gz")
    assert doc.reason == "unreadable from here on: a record of more than 1 Mi characters; write one object per line " \
                         "(.jsonl)"


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.json").write_text('[{"messages": ')
    doc, = read(tmp_path / "a.json")
    assert doc.reason.startswith("unreadable from here on")  # prepare.py stops, or keep_going=True
    (tmp_path / "b.json").write_text('{\n "a": {}\n}')
    with pytest.raises(ValueError, match="expected an array of rows, or one object per line; got one dict over"):
        read(tmp_path / "b.json")
    with pytest.raises(ValueError, match="unknown format '.txt'"):
        read(tmp_path / "c.txt")


# ---------------------------------------------------------------------- pairs

ASK = [("user", "Hi there")]
PAIR = {"chosen": messages_of([*ASK, ("assistant", "Hello.")]), "rejected": messages_of([*ASK, ("assistant", "No.")])}
PAIRS = {"text": {"prompt": "Hi there", "chosen": "Hello.", "rejected": "\nNo.\n"},
         "messages": {"prompt": messages_of(ASK), "chosen": "Hello.", "rejected": "No.", "fault": "rude"},
         "answers as messages": {"prompt": messages_of(ASK), **{k: PAIR[k][1:] for k in PAIR}},
         "whole chats": PAIR, "whole chats and the prompt": PAIR | {"prompt": "Hi there"}}


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_of_a_pair(tmp_path, name):
    doc, = read(write(tmp_path / "a.jsonl", [PAIRS[name]]), "preference")
    assert doc.reason is None and doc.more == PAIR and doc.text == "Hi there\nHello.\nNo."
    assert chat.shared_prefix_length(PAIR) == 1
    assert chat.shared_prefix_length({"chosen": PAIR["chosen"], "rejected": PAIR["chosen"]}) == 2


PAIR_FIELDS = "conversation_a; response_a; chosen and rejected; chosen_response and rejected_response"
BAD_PAIRS = {
    "pair: chosen and rejected are identical": [
        dict(PAIRS["text"], rejected="Hello."), dict(PAIRS["text"], rejected="\nHello. ")],
    "pair: one side is empty": [dict(PAIRS["text"], chosen=""), dict(PAIRS["text"], rejected=None),
                                dict(PAIRS["text"], chosen=[]),
                                dict(PAIRS["text"], rejected=" \n")],
    f"pair: no known shape; its fields are chosen, prompt; needed are {PAIR_FIELDS}": [{"prompt": "a", "chosen": "b"}],
    f"pair: no known shape; its fields are none; needed are {PAIR_FIELDS}": [{}],
    "pair: the two sides answer different questions": [
        {"chosen": PAIR["chosen"], "rejected": messages_of([("user", "What?"), ("assistant", "No.")])}],
    "pair: a message is not a role and a text": [dict(PAIRS["text"], chosen=3), dict(PAIRS["text"], prompt={"a": 1}),
                                                 dict(PAIRS["text"], prompt=["a"]),
                                                 dict(PAIRS["text"], rejected=["a"])],
    "pair: roles out of order, user and assistant must take turns": [
        dict(PAIRS["text"], prompt=messages_of([("assistant", "a")]))],
    "pair: the answers have no question; it is in one of the fields prompt, question, instruction, conversations, "
    "input":
        [dict(PAIRS["text"], prompt=""), {"chosen": "Hello.", "rejected": "No."}],
}


@pytest.mark.parametrize("reason", BAD_PAIRS)
def test_bad_pairs_are_named(tmp_path, reason):
    docs = read(write(tmp_path / "a.jsonl", [*BAD_PAIRS[reason], PAIR]), "preference")
    assert [d.reason for d in docs] == [*[reason] * len(BAD_PAIRS[reason]), None]


ARENA = ["id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b",
         "winner_tie"]


def arena(tmp_path, *rows):
    """The CSV in its published columns."""
    with open(tmp_path / "arena.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(ARENA)
        table.writerows([str(i), "m1", "m2", *row] for i, row in enumerate(rows))
    return read(tmp_path / "arena.csv", "preference")


def test_arena_pairs(tmp_path):
    one = json.dumps(["Hi \"there\",\nyou"]), json.dumps(["Hello."]), json.dumps(["No."])
    two = json.dumps(["a", "b"]), json.dumps(["c", "d"]), json.dumps(["c", "e"])
    docs = arena(tmp_path, (*one, 1, 0, 0), (*one, 0, 1, 0), (*two, 0, 1, 0), (*one, 0, 0, 1), (*one, 0, 0, 0),
                 (json.dumps(["a"]), "[null]", json.dumps(["b"]), 1, 0, 0), (json.dumps(["a", "b"]), *one[1:], 1, 0, 0),
                 ("not json", *one[1:], 1, 0, 0), (json.dumps(["a"]), '[""]', json.dumps(["b"]), 1, 0, 0),
                 (one[0], one[1], one[1], 1, 0, 0), (one[0], '["half \\ud83d"]', one[1], 1, 0, 0))
    assert [d.reason for d in docs] == [
        None, None, None, "pair: a tie", "pair: no winner is named", "pair: a turn is missing",
        "pair: a turn is missing",
        "pair: prompt, response_a or response_b is no JSON list of turns", "pair: one side is empty",
        "pair: chosen and rejected are identical", "lone surrogate: the text cannot be written as UTF-8"]
    asked = ("user", "Hi \"there\",\nyou")
    assert docs[0].more == {"chosen": messages_of([asked, ("assistant", "Hello.")]),
                            "rejected": messages_of([asked, ("assistant", "No.")])}
    assert docs[1].more == {"chosen": docs[0].more["rejected"], "rejected": docs[0].more["chosen"]}
    assert [x["content"] for x in docs[2].more["chosen"]] == ["a", "c", "b", "e"]
    assert chat.shared_prefix_length(docs[2].more) == 3


def test_arena_rows_as_conversations(tmp_path):
    row = {"winner": "model_b", "conversation_a": PAIR["rejected"], "conversation_b": PAIR["chosen"]}
    rows = [row, *(row | {"winner": winner} for winner in ("tie", "tie (bothbad)", "?"))]
    docs = read(write(tmp_path / "a.jsonl", rows), "preference")
    assert docs[0].more == PAIR
    assert [d.reason for d in docs[1:]] == ["pair: a tie", "pair: a tie, both are bad", "pair: no winner is named"]


def test_a_csv_that_is_cut(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(ARENA) + '\n1,m1,m2,"[""a""]"\n')
    doc, = read(tmp_path / "a.csv", "preference")
    assert doc.reason == "no row: as many fields as columns"


# ---------------------------------------------------------------------- what is learned

MARKED = {  # the published templates' turns, with the mark by which transformers finds what the assistant says
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation "
              "%}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif "
              "%}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
              "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<|eot_id|>' }}{% endgeneration "
              "%}{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"}
SPECIAL = {"chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
           "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
           "bayling": ["<s>", "</s>"]}
SPECIAL["bayling-llama3"] = SPECIAL["llama3"]
CHATS = [TURNS, TURNS[:2], [("system", "Be short."), *TURNS],
         [("user", "Сәлем, әлем!\n\n"), ("assistant", "你好 1234\n\nx")],
         [("user", "say <|im_end|> and <|eot_id|> and </s>"), ("assistant", "<|im_end|><|eot_id|></s>!")]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function: a byte-level tokenizer with a template's control tokens, made by the tokenizers package."""
    tokenizers = pytest.importorskip("tokenizers")

    def make(name, template=None):
        out = tmp_path_factory.mktemp("tokenizer")
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(tokenizer.QWEN2_PATTERN), "isolated")
        to_bytes = tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, to_bytes])
        bpe.decoder = tokenizers.decoders.ByteLevel()
        text = ["Hello there, be short. user assistant system ### Instruction: Response: Сәлем 你好 \n\n"] * 9
        bpe.train_from_iterator(text, tokenizers.trainers.BpeTrainer(
            vocab_size=340, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        bpe.add_special_tokens(SPECIAL[name])
        bpe.save(str(out / "tokenizer.json"))
        bos = None if name == "chatml" else SPECIAL[name][0]
        (out / "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": SPECIAL[name][-1]}))
        if template:
            (out / "chat_template.jinja").write_text(template)
        else:
            tokenizer.write_template(out, name)
        return out
    return make


def theirs(folder, messages, **more):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(str(folder)).apply_chat_template(messages, **more)


@pytest.mark.parametrize("name", MARKED)
def test_what_is_learned_is_what_transformers_marks(folder, name):
    """The first four chats: transformers lets text forge a control token, we do not (the fifth; test_tokenizer.py has
    many)."""
    out = folder(name, MARKED[name])
    t = tokenizer.load(out)
    for turns in CHATS[:4]:
        messages = messages_of(turns)
        want = theirs(out, messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = t.encode_with_loss_mask(messages)
        assert ids == want["input_ids"] and mask == list(map(bool, want["assistant_masks"])), turns
        assert sum(mask) > 1 and any(mask) and not all(mask)


@pytest.mark.parametrize("name", tokenizer.TEMPLATES)
def test_our_templates(folder, name):
    """The same ids as transformers; learned are the answers and one end of turn each, also where the text spells
    control tokens."""
    out = folder(name)
    t = tokenizer.load(out)
    end = t.added_tokens[{"chatml": "<|im_end|>", "bayling": "</s>"}.get(name, "<|eot_id|>")]
    for turns in CHATS:
        messages = messages_of(turns)
        ids, mask = t.encode_with_loss_mask(messages)
        said = [x for x, learned in zip(ids, mask) if learned]
        answers = [content for role, content in turns if role == "assistant"]
        assert said.count(end) == len(answers) and said[-1] == end
        assert t.decode(said) == "".join(answers)
        if turns is not CHATS[-1]:
            assert ids == theirs(out, messages, tokenize=True, return_dict=False)
        only = t.encode_with_loss_mask(messages, first=len(messages) - 1)
        assert only[0] == ids and t.decode([x for x, learned in zip(*only) if learned]) == answers[-1]


def test_our_templates_word_for_word(folder):
    """As the published code joins the turns, spelt out."""
    def text(name, turns, **more):
        t = tokenizer.load(folder(name))
        return t.decode(t.encode_chat(messages_of(turns), **more), special=True)
    head = ("<s>I am an intelligent language assistant developed by the NLP Group of ICT/CAS.\nBelow is a dialog "
            "consisting of instructions and responses. Write a response that completes the request.\n")
    turns = "### Instruction:\nHi there\n### Response:\nHello.</s>\n### Instruction:\n2+2?\n\n### Response:\n"
    assert text("bayling", TURNS[:3]) == head + turns
    assert text("bayling", [("system", "S"), *TURNS[:1]]) == "<s>S\n### Instruction:\nHi there\n### Response:\n"
    turn = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>".format
    system = turn("system", "I am BayLing developed by the NLP Group of ICT/CAS.")
    expected = "<|begin_of_text|>" + system + turn("user", "Hi there") + turn("assistant", "Hello.")
    assert text("bayling-llama3", TURNS[:2], add_generation_prompt=False) == expected
    expected = "<|begin_of_text|>" + turn("system", "S") + turn("user", "Hi there")
    expected += "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert text("llama3", [("system", " S "), *TURNS[:1]]) == expected
    expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
    assert text("chatml", [("system", "S"), *TURNS[:1]]) == expected


@pytest.mark.parametrize("template, message", [
    ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt "
     "%}assistant: {% endif %}",
     "ends no answer with one of"),
    # thinking is dropped from all but the last answer, as Qwen3's does: the first would be learned as it is never asked
    ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content | upper "
     "}}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
     "differently than after its own prompt"),
    # the prompt ends in a newline which the answer's own newline joins
    ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '\n' + m.content }}<|im_end|>{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "differently than after its own prompt"),
    ("{{ raise_exception('no') }}", "refuses this conversation")])
def test_templates_from_which_nothing_can_be_learned(folder, template, message):
    t = tokenizer.load(folder("chatml", template))
    with pytest.raises(ValueError, match=message):
        t.encode_with_loss_mask(messages_of(TURNS))


def test_a_template_whose_tokens_are_lacking(folder):
    out = folder("chatml")
    with pytest.raises(ValueError, match=r"<\|end_header_id\|>.*which template=llama3 writes"):
        tokenizer.write_template(out, "llama3")
    with pytest.raises(ValueError, match="chatml, llama3, bayling, bayling-llama3, got 'gpt'"):
        tokenizer.write_template(out, "gpt")
    with pytest.raises(ValueError, match="</s>, a BOS token, which template=bayling"):
        tokenizer.write_template(out, "bayling")


def test_a_small_tokenizer_of_ours_gets_chatml(tmp_path):
    """Each marker is one id, which no text can spell."""
    tokenizer.train(["Hello there, be short. user assistant system 0123456789"] * 5, 300, tmp_path)
    tokenizer.write_template(tmp_path, "chatml")
    t = tokenizer.load(tmp_path)
    for turns in CHATS:
        ids, mask = t.encode_with_loss_mask(messages_of(turns))
        assert ids.count(t.added_tokens["<|im_start|>"]) == ids.count(t.added_tokens["<|im_end|>"]) == len(turns)
        assert "".join(x for r, x in turns if r == "assistant") == t.decode([i for i, k in zip(ids, mask) if k])
        assert ids == theirs(tmp_path, messages_of(turns), tokenize=True, return_dict=False) or turns is CHATS[-1]
