"""recipes/plug.py: what the assistant writes in each mode, and the target part out of it again; what is left out is
counted; direct is ordinary SFT. recipes/pipeline.py: each step once."""
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import configs
import prepare
import tokenizer
from evaluation.programs import words_of
from recipes import pipeline, plug
from recipes.pipeline import Pipeline
from recipes.plug import MODES, Plug, build_chat, extract_target
from tinyworld import aligned, tasks, world

ROOT = Path(__file__).parent.parent
BASE = str(ROOT / "tinyworld/base")
C = Plug(languages=["it", "zh"], rows="{lang}.jsonl", test="{lang}-test.jsonl")
EN, IT = plug.LABELS["en"], plug.LABELS["it"]
ROW = {"instruction": "Chi sei?", "response": "Sono io.", "instruction_pivot": "Who are you?", "response_pivot": "Me."}


def pipe(out, **more):
    return Pipeline(out=str(out), init=BASE, sft={"seq_len": 128}, template="chatml", max_new_tokens=8, **more)


def write(folder, rows, lang="it"):
    pipeline.write_rows(folder / f"{lang}.jsonl", rows)


def built(tmp_path, rows, c=C, **more):
    """The account of Italian rows, and the chats by mode."""
    p = pipe(tmp_path / "out", **more)
    write(tmp_path, rows)
    c = Plug(languages=["it"], rows=str(tmp_path / "{lang}.jsonl"), test="", modes=c.modes)
    account = plug.build_chats(c, p, pipeline.prepare_tokenizer(p))["it"]
    assert account["read"] == len(rows) == account["kept"] + sum(account["dropped"].values())
    read = {mode: [json.loads(line)["messages"] for line in open(tmp_path / f"out/chats/{mode}/it.jsonl")]
            for mode in c.modes}
    return account, read


# ---------------------------------------------------------------------- one chat

def test_the_three_modes():
    said = {mode: build_chat(C, ROW, "it", mode)["messages"] for mode in MODES}
    assert {mode: m[2]["content"] for mode, m in said.items()} == {
        "plug": "English instruction: Who are you?\nEnglish response: Me.\nRisposta in italiano: Sono io.",
        "pivot_response": "English response: Me.\nRisposta in italiano: Sono io.", "direct": "Sono io."}
    assert [m["role"] for m in said["plug"]] == ["system", "user", "assistant"]
    assert said["plug"][0]["content"] == ("Please interpret the instruction in English, and then respond both in "
                                          "English and in Italian.")
    assert said["direct"][0]["content"] == "Please respond to the following user message in Italian."
    assert all(m[1]["content"] == "Chi sei?" for m in said.values())


words = st.lists(st.sampled_from([*"ab :\n：1。", EN, IT]), max_size=8).map("".join).filter(str.strip)


@given(words, words, words, words, st.sampled_from(["plug", "pivot_response"]))
def test_the_target_part_comes_back_or_the_row_is_refused(x, y, x_pivot, y_pivot, mode):
    row = {"instruction": x, "response": y, "instruction_pivot": x_pivot, "response_pivot": y_pivot}
    try:
        answer = build_chat(C, row, "it", mode)["messages"][2]["content"]
    except ValueError as e:
        assert str(e) == "a label inside the text" and (EN in x_pivot or IT in y_pivot)
    else:
        assert extract_target(answer, EN, IT) == (y.strip(), "ok")


def test_a_cut_response_has_no_target_part():
    answer = build_chat(C, ROW, "it", "plug")["messages"][2]["content"]
    whole = answer.index(IT) + len(IT)
    for n in range(whole):
        assert extract_target(answer[:n], EN, IT) == ("", "not found")
    assert extract_target(answer[:whole + 4], EN, IT) == ("Son", "ok")


@pytest.mark.parametrize("text, expected", [
    (f"English instruction: say {IT} x\n{EN} y\n{IT} z", "z"),       # a label in the restated instruction is text
    (f"{EN} y\n{IT} z\n{IT} w", f"z\n{IT} w"),                       # the first of several
    (f"{IT} z\n{EN} y", None), (f"{IT} z", None), (f"{EN} y", None), ("", None),
    (f"{EN} y\nRisposta in italiano： z", "z"), (f"{EN} y {IT}", "")])
def test_where_the_target_part_begins(text, expected):
    assert extract_target(text, EN, IT) == (("", "not found") if expected is None else (expected, "ok"))


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_on_the_assistants_part_and_its_end(tmp_path, mode):
    t = pipeline.prepare_tokenizer(pipe(tmp_path))
    messages = build_chat(C, ROW, "it", mode)["messages"]
    ids, mask = t.encode_with_loss_mask(messages)
    learned = [i for i, is_learned in zip(ids, mask) if is_learned]
    assert t.decode(learned, special=True) == messages[2]["content"] + "<|im_end|>"
    assert not any(mask[:len(t.encode_chat(messages[:2]))])


# ---------------------------------------------------------------------- all rows

def test_what_is_left_out_is_counted_and_left_out_of_all_modes(tmp_path):
    rows = [ROW, ROW | {"response_pivot": ""}, {"instruction": "a", "response": "b"}, ROW | {"response": None},
            ROW | {"response_pivot": f"Say {IT} yes."}, ROW | {"response": "parola " * 90},
            ROW | {"instruction": "Chi?"}]
    account, chats = built(tmp_path, rows)
    assert account["kept"] == 2 and account["dropped"] == {
        "no response_pivot": 1, "no instruction_pivot": 1, "no response": 1, "a label inside the text": 1,
        "the target part would be truncated": 1}
    for mode in MODES:
        assert [messages[1]["content"] for messages in chats[mode]] == ["Chi sei?", "Chi?"]
    assert json.loads((tmp_path / "out/chats/account.json").read_text())["it"] == account


def test_a_row_as_long_as_a_training_row_is_kept(tmp_path):
    """The last id of a chat is only predicted: one of seq_len + 1 ids fits."""
    t = pipeline.prepare_tokenizer(pipe(tmp_path / "t"))
    size = max(len(t.encode_chat(build_chat(C, ROW, "it", mode)["messages"], False)) for mode in MODES) - 1
    for seq_len, kept in ((size, 1), (size - 1, 0)):
        p = Pipeline(out=str(tmp_path / f"{seq_len}"), init=BASE, sft={"seq_len": seq_len}, template="chatml")
        write(tmp_path, [ROW, ROW | {"instruction_pivot": "W", "response_pivot": "M"}])
        c = Plug(languages=["it"], rows=str(tmp_path / "{lang}.jsonl"), test="")
        assert plug.build_chats(c, p, t)["it"]["kept"] == 1 + kept


def test_no_row_left(tmp_path):
    with pytest.raises(ValueError, match=r"it.jsonl: no row can be used; dropped: \{'no response_pivot': 1\}"):
        built(tmp_path, [ROW | {"response_pivot": " "}])
    with pytest.raises(ValueError, match="no row can be used; dropped: none, it is empty"):
        built(tmp_path, [])
    with pytest.raises(ValueError, match="neither .*raw/de.jsonl nor de.jsonl is a file; correct the pattern or lang"):
        pipeline.locate(pipe(tmp_path), "{lang}.jsonl", "de")


def test_direct_is_ordinary_sft_bit_for_bit(tmp_path):
    """The same shards as from Alpaca's columns, and no pivot field is needed."""
    rows = [{"instruction": f"Domanda {i}?", "response": f"Risposta {i}."} for i in range(20)]
    built(tmp_path, rows, Plug(languages=["it"], rows="", test="", modes=["direct"]))
    pipeline.prepare_chats(pipe(tmp_path / "out"), ["direct"])
    system = "Please respond to the following user message in Italian."
    (tmp_path / "raw").mkdir()
    plain = [{"instruction": r["instruction"], "output": r["response"], "system": system} for r in rows]
    write(tmp_path / "raw", plain)
    prepare.main([f"raw={tmp_path}/raw", f"out={tmp_path}/plain", f"tokenizer={BASE}", "template=chatml",
                  "language_names={'it': 'Italian'}", "valid_fraction=0.0", "workers=1",
                  "sources=[{'name': 'direct-it', 'path': 'it.jsonl', 'category': 'direct', 'language': 'it', "
                  "'kind': 'chat'}]"])
    ours, plain = (sorted((tmp_path / name / "direct-it").iterdir()) for name in ("out/shards", "plain"))
    assert len(ours) == 3 and [f.name for f in ours] == [f.name for f in plain]
    assert [f.read_bytes() for f in ours] == [f.read_bytes() for f in plain]


# ---------------------------------------------------------------------- answers

def test_answers_are_scored_behind_their_label(tmp_path, monkeypatch):
    facts = world.make_facts(0)
    rows = list(aligned.make_rows(tasks.split_pools(facts, 0)["test"], "it", "en", far_only=True))[:4]
    write(tmp_path, rows)
    right = f"{EN} x\n{IT} {rows[0]['response']}"
    texts = [right, f"{EN} x\n{IT} non so", rows[2]["response"], f"{right} {rows[3]['response']}"]
    seen = []

    def answer(p, model, conversations):
        seen.extend(conversations)
        return [{"text": text, "cut": i == 2, "tokens": 10 * i} for i, text in enumerate(texts)]
    monkeypatch.setattr(pipeline, "answer", answer)
    c = Plug(languages=["it"], rows="", test=str(tmp_path / "{lang}.jsonl"))
    scores = plug.ask(c, pipe(tmp_path), "run", "plug", "model")["it"]
    assert scores == {"found": 0.75, "cut": 0.25, "tokens": 15, "correct": 0.25, "language": pytest.approx(0.75)}
    assert seen[0] == build_chat(c, rows[0], "it", "plug")["messages"][:2]
    samples = [json.loads(line) for line in open(tmp_path / "answers/run.jsonl")]
    assert [s["status"] for s in samples] == ["ok", "ok", "not found", "ok"] and samples[2]["response"] == [""]
    # without labels the whole answer counts
    assert plug.ask(c, pipe(tmp_path), "run", "direct", "model")["it"]["found"] == 1


def test_answers_without_the_tinyworld():
    score = pipeline.score_answer
    assert score({"answer": 1000}, "Sono 1.000.", "it")["correct"]
    assert not score({"answer": 1}, "1.000", "it")["correct"] and not score({}, "il po", "it")["correct"]
    assert score({"response": "Il Po."}, "il po", "it")["correct"]
    assert score({"response": "x"}, "", "it") == {"correct": False, "language": False}


def test_rows_of_the_outcome_name_the_language_beside_its_share(tmp_path):
    p = pipeline.Pipeline(out=str(tmp_path), init=str(tmp_path), sft={"seq_len": 8})
    score = {"found": 1.0, "cut": 0.0, "tokens": 2.0, "correct": 0.5, "language": 0.25}
    plug.save_outcome(plug.Plug(languages=["it"], rows="r", test="t"), p,
                      {name: {"it": score} for name in ("plug", "direct")}, {"plug": 20, "direct": 10}, 1.0)
    rows = json.loads((tmp_path / "outcome.json").read_text())["details"]
    assert [(row["model"], row["code"], row["language"]) for row in rows] == [("plug", "it", 0.25),
                                                                              ("direct", "it", 0.25)]


def test_merged_verdicts(tmp_path, capsys):
    rows = [{"lang": "it", "doc_id": i, "order": order, "verdict": verdict, "error": None if verdict else "refusal"}
            for i, pair in enumerate(["BA", "BC", "AA", "B", "AB"])
            for order, verdict in zip(("ab", "ba"), [*pair, None])]
    path = tmp_path / "verdicts.jsonl"
    pipeline.write_rows(path, rows)
    plug.main(["merge", f"verdicts={path}"])
    assert capsys.readouterr().out.splitlines()[1].split() == "it 5 20.0 20.0 20.0 0.0 20.0 20.0 20.0".split()
    pipeline.write_rows(path, rows[:-1])
    with pytest.raises(ValueError, match="document 4 of it was judged in one order only"):
        plug.main(["merge", f"verdicts={path}"])


# ---------------------------------------------------------------------- settings

@pytest.mark.parametrize("settings, message", [
    ({"languages": ["it", "en"]}, "languages contains the pivot, en"),
    ({"languages": ["kk"]}, r"labels lacks \['kk'\]"),
    ({"modes": ["plugg"]}, "modes are some of plug, pivot_response, direct"), ({"modes": []}, "modes are some of"),
    ({"labels": {"en": "A:", "it": "A:"}}, "two labels are alike"),
    ({"instruction_label": EN}, "two labels are alike")])
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Plug(**{"languages": ["it"], "rows": "", "test": ""} | settings)


@pytest.mark.parametrize("settings, message", [
    ({"sft": {"seq_len": 8, "tokens": 9}}, "the recipe sets tokens"), ({"sft": {}}, "sft needs seq_len"),
    ({"replay": {"en": 1.0}, "text": {"a": 1}}, "sum to less than 1"),
    ({"replay": {"en": 0.5}}, "text=, which is not set")])
def test_settings_of_the_pipeline_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Pipeline(**{"out": "x", "init": "y", "sft": {"seq_len": 8}} | settings)


def test_configs():
    """The full one has the values of the published run.sh; train.py accepts the training of both."""
    import train
    from model import ModelConfig
    for name in ("tiny", "full"):
        c, p = configs.load(Plug, Pipeline, argv=[str(ROOT / f"configs/plug/{name}.py")])
        for stage in filter(None, (p.sft, p.adapt)):
            words = words_of({"tokens": 10 ** 9} | stage)
            configs.load(train.Train, ModelConfig, train.Estimate,
                         argv=["out=x", "data=x", "mixture={'plug': 1}", *words])
    sft = p.sft
    assert (sft["lr"], sft["batch_size"], sft["seq_len"], c.epochs, p.seed) == (5e-6, 64, 4096, 4, 42)
    assert (sft["lr_schedule"], sft["warmup_ratio"], sft["weight_decay"]) == ("linear", 0.03, 0)


# ---------------------------------------------------------------------- steps

def test_the_tokenizer_gets_the_template_it_lacks(tmp_path):
    assert pipeline.prepare_tokenizer(pipe(tmp_path)).chat_template == tokenizer.TEMPLATES["chatml"]
    with pytest.raises(ValueError, match="base has no chat template; set template= to one of chatml"):
        pipeline.prepare_tokenizer(Pipeline(out=str(tmp_path / "x"), init=BASE, sft={"seq_len": 8}))


@pytest.mark.slow
def test_all_of_it_in_small(tmp_path, capsys):
    """Every step, with a hundredth of the training; started again, nothing runs twice."""
    small = "dict(seq_len=128, batch_size=2, micro_batch_size=2, threads=1, max_epochs=99.0)"
    config = tmp_path / "small.py"
    config.write_text(f"""from configs.plug.tiny import *
languages = ["it"]
world = world | dict(languages=["en", "it"], web={{"en": 20, "low": 20}}, pairs=40, items=4)
_few = [s for s in text["sources"] if s["language"] in ("en", "it") and s.get("target") in (None, "it")]
text = text | dict(sources=_few)
sft = {small}
adapt = {small} | dict(mixture={{"parallel": 1, "low": 1}}, tokens=512)
epochs, max_new_tokens, replay = 0.05, 8, {{"parallel": 0.2}}
""")
    argv = [str(config), f"out={tmp_path}/out"]
    plug.main(argv)
    first = json.loads((tmp_path / "out/outcome.json").read_text())
    assert set(first["controls"]) == {"direct", "pivot_response", "direct-matched"} and first["system"] == "plug"
    assert first["tokens"] > 512 and first["english_before"] > 90
    models = [d["model"] for d in first["details"] if "model" in d]
    assert models == ["plug", "pivot_response", "direct", "direct-matched"]
    assert {"facts acc", "facts acc_norm"} < {d["english"] for d in first["details"] if "english" in d}
    capsys.readouterr()
    plug.main(argv)
    assert " s\n" not in capsys.readouterr().out.split("exact %")[0]
    again = json.loads((tmp_path / "out/outcome.json").read_text())
    assert again | {"seconds": 0} == first | {"seconds": 0}
