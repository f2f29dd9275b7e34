"""What a folder declares about its tokenizer: control tokens, ends, flags and names in any of its files; limits on all
of it."""
import io
import json
import sys
import time

import pytest

import tokenizer
from hf import chat_template, folder

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HI = [{"role": "user", "content": "Hi"}]


def put(where, template=None, **files):
    """A folder with JSON files by name, and chat_template.jinja."""
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (where / f"{name}.json").write_text(json.dumps(content))
    if template is not None:
        (where / "chat_template.jinja").write_text(template)
    return where


def byte_level(where, special, plain=(), **files):
    """A byte-level BPE of 256 pieces without merges, with special and plain added tokens from id 256 on."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import decoders, models, pre_tokenizers
    t = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    t.add_special_tokens(list(special))
    t.add_tokens([tokenizers.AddedToken(x, normalized=False) for x in plain])
    put(where, **files)
    t.save(str(where / "tokenizer.json"))
    return where


def sentencepiece_folder(where, user=(), rule="identity", strip=False, prefix=True, **files):
    """A sentencepiece BPE of some 290 pieces with byte fallback."""
    import sentencepiece
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello there old town"] * 20), model_writer=model, vocab_size=290, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, normalization_rule_name=rule, remove_extra_whitespaces=strip,
        add_dummy_prefix=prefix, user_defined_symbols=list(user), minloglevel=2)
    put(where, **files)
    (where / "tokenizer.model").write_bytes(model.getvalue())
    return where


def added(first, *contents, **flags):
    """added_tokens_decoder of tokenizer_config.json."""
    return {str(first + i): {"content": content, "special": True} | flags for i, content in enumerate(contents)}


# ---------------------------------------------------------------------- B: what is a control token

@pytest.mark.parametrize("symbol", ["<|im_end|>", "<end_of_turn>", "[/INST]"])
def test_user_defined_symbols_are_control(tmp_path, symbol):
    template = "{% for m in messages %}{{ m.content }}" + symbol + "{% endfor %}"
    t = tokenizer.load(sentencepiece_folder(tmp_path, user=[symbol, "<|im_start|>"], template=template))
    control = t.sp.piece_to_id(symbol)
    assert control not in t.encode(f"a{symbol}b") and t.decode(t.encode(f"a{symbol}b")) == f"a{symbol}b"
    assert t.encode(symbol, special=True) == [control] and t.contains_control_text(f"x{symbol}")
    ids = t.encode_chat([{"role": "user", "content": f"a{symbol}"}])
    assert ids.count(control) == 1 and ids[-1] == control


def test_white_space_among_user_defined_symbols_stays_text(tmp_path):
    """Gemma's model has runs of newlines and spaces among them."""
    t = tokenizer.load(sentencepiece_folder(tmp_path, user=["\n\n", "\u2581\u2581"]))
    assert t.sp.piece_to_id("\n\n") in t.encode("hello\n\nthere") and not t.contains_control_text("a\n\nb")
    assert t.decode(t.encode("hello\n\nthere  old")) == "hello\n\nthere  old"


@pytest.mark.parametrize("where", ["template", "eos_token", "pad_token", "additional", "extra as a map",
                                   "special_tokens_map"])
def test_tokens_with_a_role_are_control_though_not_flagged(tmp_path, where):
    """special: false in tokenizer.json, and a role in another file."""
    name = "<|turn|>"
    files = {"template": {"template": "{% for m in messages %}" + name + "{{ m.content }}{% endfor %}"},
             "additional": {"tokenizer_config": {"additional_special_tokens": [{"content": name}]}},
             "extra as a map": {"tokenizer_config": {"extra_special_tokens": {"turn_token": name}}},
             "special_tokens_map": {"special_tokens_map": {"sep_token": {"content": name}}}}
    t = tokenizer.load(byte_level(tmp_path, ["<|endoftext|>"], [name, "<tool>"],
                                  **files.get(where, {"tokenizer_config": {where: name}})))
    i = t.added_tokens[name]
    assert i not in t.encode(f"a{name}") and t.decode(t.encode(f"a{name}")) == f"a{name}"
    assert t.encode(f"a{name}", special=True)[-1] == i and t.contains_control_text(name)
    assert t.added_tokens["<tool>"] in t.encode("a<tool>")  # without a role it is what it is for transformers


def test_a_pad_token_that_is_a_word_stays_text(tmp_path):
    t = tokenizer.load(byte_level(tmp_path, ["<|endoftext|>"],
                                  tokenizer_config={"pad_token": "!", "unk_token": "<|endoftext|>"}))
    assert len(t.encode("a!")) == 2 and t.decode(t.encode("a!")) == "a!" and not t.contains_control_text("!")


def test_chats_of_a_model_whose_marks_are_not_flagged(tmp_path):
    t = tokenizer.load(byte_level(tmp_path, ["<|endoftext|>"], CHATML[1:], template=tokenizer.TEMPLATES["chatml"]))
    turns = [{"role": "user", "content": "<|im_start|>system"}, {"role": "assistant", "content": "<|im_end|>x"}]
    ids, mask = t.encode_with_loss_mask(turns)
    assert ids.count(t.added_tokens["<|im_start|>"]) == ids.count(t.added_tokens["<|im_end|>"]) == 2
    assert t.stop_ids[0] == t.added_tokens["<|im_end|>"]
    assert t.decode([i for i, m in zip(ids, mask) if m][:-1]) == "<|im_end|>x"


# ---------------------------------------------------------------------- C: where a text ends

def test_ends_of_generation_config(tmp_path):
    """Llama 3's kind: the list of generation_config.json, in front of what config.json says."""
    end = "<|end|>"
    where = byte_level(tmp_path, ["<|begin_of_text|>", "<|end_of_text|>", end], tokenizer_config={"eos_token": end},
                       config={"eos_token_id": 3})
    assert tokenizer.load(where).stop_ids == [3, 258]
    put(where, generation_config={"eos_token_id": [257, 258, 5]})
    t = tokenizer.load(where)
    assert t.stop_ids == [257, 258, 5] and t.eot_id == 257


@pytest.mark.parametrize("files", [
    {"tokenizer_config": {"eos_token": "<｜end▁of▁sentence｜>"}},
                                   {"special_tokens_map": {"eos_token": "<｜end▁of▁sentence｜>"}},
    {"tokenizer_config": {"eos_token": {"content": "<｜end▁of▁sentence｜>", "lstrip": False}}},
                                   {"config": {"eos_token_id": 256}},
    {"generation_config": {"eos_token_id": [256]}}], ids=str)
def test_an_end_of_any_name(tmp_path, files):
    t = tokenizer.load(byte_level(tmp_path, ["<｜end▁of▁sentence｜>", "<|User|>"], **files))
    assert t.eot_id == 256 and t.stop_ids == [256] and t.prefix_token_id == 256


def test_an_untrained_pad_does_not_separate_documents(tmp_path):
    where = sentencepiece_folder(tmp_path)
    n = tokenizer.load(where).vocab_size
    put(where, tokenizer_config={"eos_token": "</s>", "pad_token": "<|endoftext|>",
                                 "added_tokens_decoder": added(n, "<|endoftext|>")})
    assert tokenizer.load(where).eot_id == 2 and tokenizer.load(where).stop_ids == [2]


def test_a_turns_end_does_not_separate_documents(tmp_path):
    """Qwen's chat models name <|im_end|> as eos_token; texts end with <|endoftext|>."""
    t = tokenizer.load(byte_level(tmp_path, CHATML, tokenizer_config={"eos_token": "<|im_end|>"}))
    assert (t.eot_id, t.stop_ids) == (256, [258, 256])


def test_no_end_is_refused_with_what_to_set(tmp_path):
    with pytest.raises(ValueError, match="set eos_token in tokenizer_config.json"):
        tokenizer.load(byte_level(tmp_path / "a", ["<|x|>"]))
    with pytest.raises(ValueError, match="eos_token '<eos>' is not a token"):
        tokenizer.load(byte_level(tmp_path / "b", ["<|endoftext|>"], tokenizer_config={"eos_token": "<eos>"}))
    with pytest.raises(ValueError, match="generation_config.json: eos_token_id is 'x'"):
        tokenizer.load(byte_level(tmp_path / "c", ["<|endoftext|>"], generation_config={"eos_token_id": "x"}))


# ---------------------------------------------------------------------- D: one reader, and files that agree

@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
@pytest.mark.parametrize("where", ["tokenizer.json", "tokenizer.model", "vocab.json", "special_tokens_map.json",
                                   "eos_token"])
def test_flags_are_refused_wherever_they_are_declared(tmp_path, flag, where):
    token = {"content": "<|endoftext|>", "special": True, flag: True}
    decoder = {"tokenizer_config": {"added_tokens_decoder": {"400": token}}}
    if where == "tokenizer.model":
        sentencepiece_folder(tmp_path, **decoder)
    elif where == "tokenizer.json":
        byte_level(tmp_path, CHATML)
        whole = json.loads((tmp_path / "tokenizer.json").read_text())
        whole["added_tokens"][0][flag] = True
        put(tmp_path, tokenizer=whole)
    elif where == "vocab.json":
        byte_level(tmp_path, CHATML)
        put(tmp_path, vocab=json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"], **decoder)
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    elif where == "eos_token":
        byte_level(tmp_path, CHATML, tokenizer_config={"eos_token": token})
    else:
        byte_level(tmp_path, CHATML, special_tokens_map={"eos_token": token})
    with pytest.raises(ValueError, match=f"{flag} of token '<|endoftext|>'".replace("|", r"\|")):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["<|call|>", "hello", "<x y>"])
def test_normalized_tokens_beside_sentencepiece_are_refused(tmp_path, content):
    """Hugging Face finds them behind spaces only."""
    token = {"content": content, "special": False, "normalized": True}
    where = sentencepiece_folder(tmp_path, tokenizer_config={"added_tokens_decoder": {"400": token}})
    with pytest.raises(ValueError, match="normalized=true of added token"):
        tokenizer.load(where)


@pytest.mark.parametrize("files, words", [
    ({"tokenizer_config": {"added_tokens_decoder": added(300, "<|im_end|>")}},
     ["<|im_end|>", "300", "258", "tokenizer.json"]),
    ({"added_tokens": {"<|im_start|>": 258}}, ["<|im_start|>", "258", "257"]),
    ({"added_tokens": {"<|new|>": 258}}, ["<|new|>", "258", "<|im_end|>"]),
    ({"tokenizer_config": {"eos_token": "<|im_end|>"}, "special_tokens_map": {"eos_token": "<|endoftext|>"}},
     ["eos_token", "<|im_end|>", "<|endoftext|>", "special_tokens_map.json", "tokenizer_config.json"]),
    ({"tokenizer_config": {"bos_token": "<|im_end|>"},
      "special_tokens_map": {"bos_token": {"content": "<|im_start|>"}}},
     ["bos_token", "<|im_end|>", "<|im_start|>"])], ids=str)
def test_files_that_disagree_are_refused_by_name(tmp_path, files, words):
    with pytest.raises(ValueError) as e:
        tokenizer.load(byte_level(tmp_path, CHATML, **files))
    assert all(word in str(e.value) for word in [str(tmp_path), *words]), e.value


def test_files_that_agree_are_read_together(tmp_path):
    t = tokenizer.load(byte_level(tmp_path, CHATML, tokenizer_config={
        "eos_token": {"content": "<|im_end|>"}, "bos_token": None, "added_tokens_decoder": added(256, *CHATML)},
        special_tokens_map={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, added_tokens={"<|new|>": 259}))
    assert t.names == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} and t.added_tokens["<|new|>"] == 259


def test_special_tokens_map_reaches_the_template(tmp_path):
    template = ("{{ bos_token }}{% for m in messages %}{{ m.content }}"
                "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}")
    t = tokenizer.load(sentencepiece_folder(tmp_path, template=template,
                                            special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"}))
    text = t.render_chat([*HI, {"role": "assistant", "content": "Ho"}], add_generation_prompt=False)
    assert text == "<s>HiHo</s>"


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_gives_no_space_back(tmp_path, rule, strip, prefix):
    t = tokenizer.load(sentencepiece_folder(tmp_path, rule=rule, strip=strip, prefix=prefix))
    for text in ("hello there", "a", "old\ntown" if rule == "identity" else "old town"):
        assert t.decode(t.encode(text)) == text


def test_rows_that_text_cannot_reach_are_not_needed(tmp_path):
    """A <pad> with id = vocab_size of the model, as fine-tunes have it."""
    t = tokenizer.load(byte_level(tmp_path, [*CHATML, "<pad>"], template=tokenizer.TEMPLATES["chatml"],
                                  tokenizer_config={"pad_token": "<pad>", "eos_token": "<|im_end|>"}))
    assert (t.vocab_size, t.min_rows) == (260, 259)
    t = tokenizer.load(byte_level(tmp_path / "b", [*CHATML, "<pad>"]))
    assert (t.vocab_size, t.min_rows) == (260, 257)
    t = tokenizer.load(byte_level(tmp_path / "c", CHATML, ["<tool>"]))
    assert t.min_rows == 260  # a plain added token is found in text


# ---------------------------------------------------------------------- E: templates

def transformers_text(where, messages, **variables):
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(where))
    return theirs.apply_chat_template(messages, tokenize=False, **variables)


TOOL = {"type": "function", "function": {"name": "weather", "description": "é <b>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {
    "name": "weather", "arguments": {"city": "Алматы"}}}]}
# In the shape of Qwen2.5's and Qwen3's: tools first, calls and thinking of answers, thinking of earlier turns dropped
QWEN = (
    "{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | "
    "tojson }}"
    "{%- endfor %}{{- '\\n</tools><|im_end|>\\n' }}{%- endif %}{%- set ns = namespace(last=0) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set content = m.content if m.content is string else '' %}"
    "{%- if m.role == 'assistant' %}{%- set thinking = '' %}{%- if m.reasoning_content is string %}"
    "{%- set thinking = m.reasoning_content %}{%- elif '</think>' in content %}"
    "{%- set thinking = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.index0 > ns.last %}{{- '<think>\\n' + thinking.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}{{- "
    "content }}"
    "{%- if m.tool_calls %}{%- for call in m.tool_calls %}{{- '<tool_call>\\n{\"name\": \"' + call.function.name }}"
    "{{- '\", \"arguments\": ' }}{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}{%- "
    "endif %}"
    "{{- '<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif "
    "%}{%- endif %}")
MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


@pytest.fixture
def qwen(tmp_path):
    return byte_level(tmp_path, CHATML, MARKS, template=QWEN, tokenizer_config={"eos_token": "<|im_end|>"})


@pytest.mark.parametrize("template", [
    "{% if tools is not none %}T{% endif %}{% if documents is not none %}D{% endif %}{{ messages[0].content }}",
    "{{ tools is defined }}{{ documents is defined }}{{ eos_token is defined }}{{ cls_token is defined }}{{ foo_token "
    "is defined }}",
    "{{ messages | tojson(indent=2) }}{{ tools | tojson(ensure_ascii=True) }}{{ tools | tojson(sort_keys=True) }}",
    "{{ messages | tojson(separators=(',', ':')) }}{{ messages[0].name is defined }}", QWEN,
    "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}{{ dict(a=1).a }}"])
@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_variables_and_filters_are_those_of_transformers(tmp_path, template, tools):
    where = byte_level(tmp_path, CHATML, MARKS, template=template,
                       tokenizer_config={"eos_token": "<|im_end|>", "foo_token": "<|im_end|>",
                                         "tokenizer_class": "PreTrainedTokenizerFast"})
    t, messages = tokenizer.load(where), [{"role": "user", "content": "é", "name": None}]
    variables = {} if tools is None else {"tools": tools}
    assert t.render_chat(messages, False, **variables) == transformers_text(where, messages, **variables)


def test_tool_calls_are_learned(qwen):
    t = tokenizer.load(qwen)
    turns = [*HI, CALL, {"role": "tool", "content": "sunny"}, {"role": "assistant", "content": "It is sunny."}]
    ids, mask = t.encode_with_loss_mask(turns, tools=[TOOL])
    learned = t.decode([i for i, m in zip(ids, mask) if m], special=True)
    assert learned == ('<think>\n\n</think>\n\n<tool_call>\n{"name": "weather", "arguments": {"city": '
                       '"Алматы"}}\n</tool_call><|im_end|>'
                       "<think>\n\n</think>\n\nIt is sunny.<|im_end|>")
    assert "sunny" in t.decode(ids) and t.decode(ids).count("# Tools") == 1
    assert ids.count(t.added_tokens["<tool_call>"]) == 1


@pytest.mark.parametrize("change", [{"tools": [TOOL]}, {"tool_calls": CALL["tool_calls"]},
                                    {"reasoning_content": "hm"}], ids=str)
def test_what_a_template_ignores_is_refused_by_name(tmp_path, change):
    t = tokenizer.load(byte_level(tmp_path, CHATML, template=tokenizer.TEMPLATES["chatml"]))
    answer = {"role": "assistant", "content": "x"} | {k: v for k, v in change.items() if k != "tools"}
    with pytest.raises(ValueError, match=f"ignores '{next(iter(change))}'"):
        t.encode_with_loss_mask([*HI, answer], **({"tools": change["tools"]} if "tools" in change else {}))
    t.encode_with_loss_mask([*HI, answer | {k: None for k in change if k != "tools"}], tools=None)


@pytest.mark.parametrize("as_field", [True, False])
def test_earlier_answers_are_learned_without_their_thinking(qwen, as_field):
    """Qwen3: the last answer with its thinking, earlier ones as the template renders them."""
    t = tokenizer.load(qwen)

    def answer(thought, text):
        if as_field:
            return {"role": "assistant", "content": text, "reasoning_content": thought}
        return {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{text}"}
    turns = [*HI, answer("first thought", "One."), *HI, answer("second thought", "Two.")]
    ids, mask = t.encode_with_loss_mask(turns)
    learned = t.decode([i for i, m in zip(ids, mask) if m], special=True)
    assert learned == "One.<|im_end|><think>\nsecond thought\n</think>\n\nTwo.<|im_end|>"
    assert ids.count(t.added_tokens["<think>"]) == 1 == ids.count(t.added_tokens["</think>"])
    assert t.encode_chat(turns, False) == t.encode(transformers_text(qwen, turns), special=True)


def test_thinking_is_text_in_the_mouth_of_others(qwen):
    """</think> of a user does not end anything; of a web page neither."""
    t = tokenizer.load(qwen)
    think = t.added_tokens["</think>"]
    ids = t.encode_chat([{"role": "user", "content": "a</think>b<tool_call>"}])
    assert think not in ids and "a</think>b<tool_call>" in t.decode(ids) and think not in t.encode("x</think>")
    ids = t.encode_chat([*HI, {"role": "assistant", "content": "<|im_end|><think>\nq\n</think>\n\nb<tool_call>"}],
                        False)
    assert ids.count(think) == 1 and ids.count(t.added_tokens["<|im_end|>"]) == 2
    assert t.added_tokens["<tool_call>"] not in ids
    assert t.decode([think]) == "</think>"  # it is shown, as it is not flagged special


def test_other_changes_of_earlier_answers_are_refused(tmp_path):
    template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content[1:] "
                "}}<|im_end|>\n"
                "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    t = tokenizer.load(byte_level(tmp_path, CHATML, template=template))
    turns = [{"role": "assistant", "content": "abc"}, {"role": "assistant", "content": "d"}]
    with pytest.raises(ValueError, match="differently than after its own prompt"):
        t.encode_with_loss_mask(turns)


# ---------------------------------------------------------------------- limits

@pytest.mark.parametrize("template", [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% "
    "endfor %}",
    "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(50) }}", "{{ 'a' * 10 ** 11 }}",
                                      "{{ 10 ** (10 ** 10) }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{{ '%999999999d' % 1 }}", "{{ ('a' * 99999) | center(99999999) }}"], ids=lambda x: x[:40])
def test_templates_that_never_end(tmp_path, monkeypatch, template):
    """In seconds, by name; and the next conversation is rendered."""
    t = tokenizer.load(byte_level(tmp_path, CHATML, template=template))
    began = time.process_time()
    with pytest.raises(ValueError, match="chat template"):
        t.encode_chat(HI)
    assert time.process_time() - began < 5  # of this process; the child has its own limit
    good = tokenizer.load(byte_level(tmp_path / "good", CHATML, template="{{ messages[0].content }}!"))
    assert good.decode(good.encode_chat(HI)) == "Hi!"


def test_a_forked_process_has_a_renderer_of_its_own(tmp_path):
    import multiprocessing
    t = tokenizer.load(byte_level(tmp_path, CHATML, template="{{ messages[0].content }}!"))
    t.encode_chat(HI)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        texts = pool.map(t.render_chat, [[{"role": "user", "content": str(i)}] for i in range(20)])
    assert texts == [f"{i}!" for i in range(20)] and t.render_chat(HI) == "Hi!"


def test_a_long_template_is_refused(tmp_path):
    where = byte_level(tmp_path, CHATML, template="x" * (folder.MAX_TEMPLATE_LENGTH + 1))
    with pytest.raises(ValueError, match="chat template has"):
        tokenizer.load(where)


def test_our_templates_need_no_child(tmp_path):
    t = tokenizer.load(byte_level(tmp_path, CHATML, template=tokenizer.TEMPLATES["chatml"]))
    chat_template._renderer.stop()
    t.encode_chat(HI)
    assert chat_template._renderer.child is None


@pytest.mark.parametrize("count", [folder.MAX_ADDED_TOKENS + 1, 200_000])
def test_too_many_added_tokens(tmp_path, count):
    where = byte_level(tmp_path, CHATML, added_tokens={f"<|{i}|>": 300 + i for i in range(count)})
    began = time.process_time()
    with pytest.raises(ValueError, match="more than 20000 added tokens"):
        tokenizer.load(where)
    assert time.process_time() - began < 5


PATTERNS = [r"(?=(a+))\1+b", r"(?<=(a+))b", r"(a|aa)+(?=x)", r"x*", r"a{0,100000}", r"(\p{L}{1000}){1000}", "(",
            r"(?P<n>a)(?P=n)",
            r"(?>a+)b", r"(?!(a+)+b)c", "a" * 5000]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda x: x[:20])
def test_patterns_that_panic_or_never_end_are_refused(tmp_path, pattern):
    where = byte_level(tmp_path, CHATML)
    whole = json.loads((where / "tokenizer.json").read_text())
    whole["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    put(where, tokenizer=whole)
    with pytest.raises(ValueError, match="tokenizer.json"):
        tokenizer.load(where)


def test_a_pattern_that_panics_on_a_text(tmp_path):
    """tiktoken's panic is no Exception; it must not pass through everything."""
    where = byte_level(tmp_path, CHATML)
    whole = json.loads((where / "tokenizer.json").read_text())
    whole["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"(?:(?:(?:q*)*)*)*(?!\S)z"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    put(where, tokenizer=whole)
    try:
        t = tokenizer.load(where)
        t.encode("q" * 50_000)
    except ValueError as e:
        assert "pattern" in str(e)
    assert sys.exc_info() == (None, None, None)


# ---------------------------------------------------------------------- training

def test_long_lines_are_trained_on(tmp_path):
    """Chinese documents on one line each, longer than sentencepiece reads."""
    line = "天地玄黄宇宙洪荒日月盈昃辰宿列张" * 3000
    tokenizer.train([line, "hello there old town " * 5000, *["abc def"] * 50], 370, tmp_path)
    t = tokenizer.load(tmp_path)
    assert len(line.encode()) > 1 << 16 and len(t.encode("天地玄黄")) <= 4
    assert t.decode(t.encode(line)) == line
