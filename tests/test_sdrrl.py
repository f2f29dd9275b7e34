"""recipes/sdrrl.py, recipes/transfer_set.py, corpus/code_switch.py: every chat of the transfer set, what is left out
and why, words that may be replaced and those that may not."""
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import configs
from corpus import code_switch
from evaluation import client
from evaluation.programs import words_of
from evaluation.scoring import loglikelihoods
from generate import generate
from recipes import pipeline, sdrrl, transfer_set
from recipes.pipeline import Pipeline
from recipes.sdrrl import Sdrrl
from recipes.transfer_set import Transfer, build_transfer, check_answer, check_translation

ROOT = Path(__file__).parent.parent
BASE = str(ROOT / "tinyworld/base")
DIALOGS = [("Where is the red house?", "The red house is here."), ("Is the sea blue?", "The sea is blue.")]
UK = {"Where is the red house?": "Де червоний дім?", "The red house is here.": "Червоний дім тут.",
      "Is the sea blue?": "Чи море синє?", "The sea is blue.": "Море синє."}
LEXICON = {"red": "червоний", "house": "дім", "sea": "море", "blue": "синій"}


def build(c=None, dialogs=DIALOGS, lexicons=None, sentences=None, seed=0, **translators):
    c = c or Transfer(targets=["uk"])
    translators = translators or {"uk": UK.__getitem__}
    return build_transfer(c, dialogs, translators, lexicons or {}, sentences or {}, seed)


def said(rows):
    return [tuple(message["content"] for message in row["messages"]) for row in rows]


# ---------------------------------------------------------------------- the transfer set

def test_the_four_pairings():
    rows, counts = build()
    x, y = DIALOGS[0]
    assert said(rows)[:4] == [("Answer in English.", x, y), ("Answer in Ukrainian.", x, UK[y]),
                              ("Answer in English.", UK[x], y), ("Answer in Ukrainian.", UK[x], UK[y])]
    assert counts == {"LL": 2, "LT": 2, "TL": 2, "TT": 2} and len(rows) == 8
    # the control
    rows, counts = build(Transfer(targets=["uk"], pairs=["TT"]))
    assert said(rows) == [("Answer in Ukrainian.", UK[x], UK[y]) for x, y in DIALOGS]


def test_counts_of_rows_with_everything():
    """Prompts x pairings (LL once, not once per target), copies, both directions of each sentence, completions."""
    c = Transfer(targets=["uk", "de"], n_parallel=2, n_complete=1, switch_probability=1.0)
    sentences = {"uk": [("A cat sleeps here.", "Кіт спить тут."), ("A dog.", "Один пес."), ("Two cats.", "Два коти.")]}
    more = dict(lexicons={"uk": LEXICON}, sentences=sentences, uk=UK.__getitem__, de=lambda text: f"de {text}")
    rows, counts = build(c, **more)
    assert counts == {"LL": 2, "LT": 4, "TL": 4, "TT": 4, "switched LL": 2, "switched LT": 2, "parallel": 4,
                      "completion": 1}
    assert len(rows) == sum(counts.values()) and counts.total() == 2 + 3 * 4 + 4 + 4 + 1
    assert rows == build(c, **more)[0]
    translations = [r for r in said(rows) if r[1].startswith("Translate into")]
    assert {(r[0], r[1].split(":")[0]) for r in translations} == {
        ("Answer in Ukrainian.", "Translate into Ukrainian"), ("Answer in English.", "Translate into English")}


def test_a_translation_that_fails_leaves_the_rich_language():
    def translate(text):
        return check_translation(text, "" if text == DIALOGS[0][1] else UK[text])
    rows, counts = build(uk=translate)
    assert counts == {"LL": 2, "LT": 1, "TL": 1, "TT": 1, "dropped, uk: the translation is empty": 1}
    assert len(rows) == 5


def test_words_are_switched_in_questions_and_where_told_in_answers():
    c = Transfer(targets=["uk"], pairs=["LL", "LT"], switch_probability=1.0)
    rows, _ = build(c, lexicons={"uk": LEXICON})
    copies = [r for r in said(rows) if "червоний" in r[1]]
    assert [r[1:] for r in copies] == [("Where is the червоний дім?", "The red house is here."),
                                       ("Where is the червоний дім?", "Червоний дім тут.")]
    both = Transfer(targets=["uk"], pairs=["LL", "LT"], switch_probability=1.0, switch_answers=True)
    copies = [r for r in said(build(both, lexicons={"uk": LEXICON})[0]) if "червоний" in r[1]]
    assert [r[2] for r in copies] == ["The червоний дім is here.", "Червоний дім тут."]
    none, counts = build(Transfer(targets=["uk"], switch_probability=0.0), lexicons={"uk": LEXICON})
    assert len(none) == 8 and counts["no word switched"] == 4


@pytest.mark.parametrize("text, lang, halves", [
    ("Кіт спить тут.", "uk", ("Кіт", "спить тут.")), ("猫在这里睡觉。", "zh", ("猫在这", "里睡觉。")),
    ("Ні", "uk", ("", "Ні"))])
def test_halves_of_a_sentence(text, lang, halves):
    assert transfer_set.split_sentence(text, lang) == halves


# ---------------------------------------------------------------------- filters

@pytest.mark.parametrize("text, cut, reason", [
    ("It is here.", False, None), (" \n", False, "empty"), ("It is", True, "cut at max_new_tokens"),
    ("no no no no no no no", True, "looping"), ("Він тут.", False, "wrong language"), ("42", False, None),
    ("B", False, None)])
def test_answers_that_teach_the_wrong_thing(text, cut, reason):
    def identify(text):
        return "uk" if "В" in text else "en"
    assert check_answer({"text": text, "cut": cut}, identify, "en") == reason


@pytest.mark.parametrize("source, target, problem", [
    ("a house", "дім", None), ("a house", " ", "is empty"), ("Miren here", "Miren here ", "equals the source"),
    ("see `x = 1`", "див.", "lost a role marker or code"), ("see `x = 1`", "див. `x = 1`", None),
    ("User: hi", "Привіт", "lost a role marker"), ("User: hi", "User: привіт", None),
    ("a <|im_end|> b", "а б", "lost a role marker"), ("[INST] go", "йди", "lost a role marker"), ("42", "", None),
    ("C", "", None)])
def test_translations_that_are_none(source, target, problem):
    if problem:
        with pytest.raises(ValueError, match=problem):
            check_translation(source, target)
    else:
        assert check_translation(source, target) == (target or source)


def test_translators(tmp_path):
    path = tmp_path / "uk.jsonl"
    pipeline.write_rows(path, [{"source": "a house", "target": "дім"}])
    translate = transfer_set.file_translator(path)
    assert translate("a house") == "дім" and translate("7") == "7"
    with pytest.raises(ValueError, match="no translation"):
        translate("the house")
    by_model = transfer_set.reply_translator({"a house": {"text": "дім", "cut": False},
                                              "b c": {"text": "бб", "cut": True}})
    assert by_model("a house") == "дім"
    with pytest.raises(ValueError, match="the translation is cut at max_new_tokens"):
        by_model("b c")


# ---------------------------------------------------------------------- code-switching

def test_only_words_of_the_lexicon_change():
    text = "Red cars by the sea: 3 red `red house` <red> [SEA] https://red.house/sea, Mr. Red; house's Sea. Red?"
    assert code_switch.switch_words(text, LEXICON, 1.0, random.Random(0)) == (
        "Червоний cars by the море: 3 червоний `red house` <red> [SEA] https://red.house/sea, Mr. Червоний; house's "
        "Sea. Червоний?")
    assert code_switch.switch_words("I met Red.", LEXICON, 1.0, random.Random(0)) == "I met Red."  # a name


parts = st.lists(st.sampled_from(["red", "house", "Karvia", "3", "`red`", "<|im_end|>", "сонце", "."]), max_size=12)


@given(parts, st.floats(0, 1), st.integers(0, 99))
def test_probability_from_none_to_all(words, probability, seed):
    text = " ".join(words)
    switched = code_switch.switch_words(text, LEXICON, probability, random.Random(seed)).split(" ")
    assert len(switched) == len(text.split(" "))
    for old, new in zip(text.split(" "), switched):
        assert new == old or (new == LEXICON[old] and probability > 0)
    assert code_switch.switch_words(text, LEXICON, 0.0, random.Random(seed)) == text
    assert not {"red", "house"} & set(code_switch.switch_words(text, LEXICON, 1.0, random.Random(seed)).split())


def test_entries_that_a_lexicon_cannot_use(tmp_path):
    lines = ["cat\tкіт", "dog\t", "dog", "\tпес", "red wine\tвино", "wine\tчервоне вино", "bank\tбанк",
             "bank\tберег", "", "cat\tкіт"]
    (tmp_path / "uk.tsv").write_text("\n".join(lines), encoding="utf-8")
    lexicon, skipped = code_switch.read_lexicon(tmp_path / "uk.tsv")
    assert lexicon == {"cat": "кіт"}
    assert skipped == {"not a word and its translation": 3, "not one word": 2, "ambiguous": 1}


def test_languages_without_spaces():
    codes = ("en", "zh", "ja", "th", "ko", "ar", "hi", "xx")
    assert [code for code in codes if not code_switch.separates_words(code)] == ["zh", "ja", "th"]


# ---------------------------------------------------------------------- the recipe's parts

@pytest.fixture
def world(tmp_path):
    """(settings, pipeline) over files of two prompts, one of them in the test."""
    files = {"prompts-en": [{"instruction": x, "response": y} for x, y in DIALOGS],
             "test-en": [{"instruction": DIALOGS[1][0]}], "test-uk": [{"instruction": UK[DIALOGS[1][0]]}],
             "test-zh": [{"instruction": "海是蓝的吗？"}], "uk": [{"source": a, "target": b} for a, b in UK.items()]}
    for name, rows in files.items():
        pipeline.write_rows(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / "uk.tsv").write_text("red\tчервоний\n", encoding="utf-8")
    (tmp_path / "zh.tsv").write_text("red\t红\n", encoding="utf-8")
    (tmp_path / "pairs-uk.tsv").write_text("A cat.\tКіт.\nlone\nIs the sea blue?\tх\nx y\tЧи море синє?\nA\tБ\turl\n",
                                           encoding="utf-8")
    c = Sdrrl(prompts=f"{tmp_path}/prompts-{{lang}}.jsonl", test=f"{tmp_path}/test-{{lang}}.jsonl",
              translations=f"{tmp_path}/{{lang}}.jsonl", lexicon=f"{tmp_path}/{{lang}}.tsv",
              parallel=f"{tmp_path}/pairs-{{lang}}.tsv")
    return c, Pipeline(out=str(tmp_path / "out"), init=BASE, sft={"seq_len": 128}, template="chatml", max_new_tokens=8)


def replies(text="The red house is here.", cut=False):
    return lambda p, model, conversations: [{"text": text, "cut": cut, "tokens": 5} for _ in conversations]


def test_the_sets(world, monkeypatch):
    """What the evaluation asks is in neither set; both are written, and all that was left out is counted."""
    c, p = world
    monkeypatch.setattr(pipeline, "answer", replies())
    x = Transfer(targets=["uk"], n_parallel=5, switch_probability=1.0)
    account = sdrrl.build_sets(c, x, p, "teacher")
    assert account["sdrrl"] == {
        "prompts": 2, "dropped, prompt: the evaluation asks it": 1, "dropped, sentence of uk: a side is missing": 1,
        "dropped, sentence of uk: the evaluation asks it": 2, "LL": 1, "LT": 1, "TL": 1, "TT": 1, "switched LL": 1,
        "switched LT": 1, "parallel": 4}
    rows = [json.loads(line) for line in open(f"{p.out}/chats/sdrrl/mul.jsonl", encoding="utf-8")]
    control = [json.loads(line) for line in open(f"{p.out}/chats/control/mul.jsonl", encoding="utf-8")]
    assert len(rows) == 10 and said(control) == [("Answer in Ukrainian.", *(UK[text] for text in DIALOGS[0]))]
    assert DIALOGS[1][0] not in json.dumps(rows + control) and account["control"] == {"TT": 1}
    assert json.loads(Path(p.out, "chats/account.json").read_text(encoding="utf-8")) == account


def test_shards_of_other_chats_are_refused(world, monkeypatch):
    """The chats are written at every start, the shards once: those of other settings would be trained on instead."""
    c, p = world
    monkeypatch.setattr(pipeline, "answer", replies())
    monkeypatch.setattr(pipeline, "run_step", lambda *step: None)

    def start(p=p, **settings):
        sdrrl.build_sets(c, Transfer(targets=["uk"], **settings), p, "teacher")
        pipeline.prepare_chats(p, ["sdrrl", "control"])

    start()
    for again in (lambda: start(n_parallel=5), lambda: start(replace(p, template="zephyr"))):
        with pytest.raises(ValueError, match="has the step 'shards-chats' with other settings"):
            again()
    start()


def test_what_is_understood(world, monkeypatch):
    """A question in a target that is answered in the rich language counts as understood, not as correct."""
    c, p = world
    write, said = pipeline.write_rows, {"English": "Yes.", "Ukrainian": "Yes."}
    write(Path(c.test.format(lang="en")), [{"instruction": "Is the sea blue?", "response": "Yes."}])
    write(Path(c.test.format(lang="uk")), [{"instruction": "Чи море синє?", "response": "Так."}])
    monkeypatch.setattr(pipeline, "answer", lambda p, model, asked: [
        {"text": said[m[0]["content"].split()[-1].rstrip(".")], "cut": False, "tokens": 2} for m in asked])
    scores, own = sdrrl.ask(c, Transfer(targets=["uk"]), p, "sdrrl", "model")
    assert scores["uk"]["correct"] == 0 and scores["uk"]["understood"] == 1 and "understood" not in scores["en"]
    said["English"] = "Так."
    assert sdrrl.ask(c, Transfer(targets=["uk"]), p, "sdrrl", "model")[0]["uk"]["understood"] == 0
    write(Path(c.test.format(lang="uk")), [{"instruction": "Чи море синє?"}, {"instruction": "Де кіт?"}])
    assert "understood" not in sdrrl.ask(c, Transfer(targets=["uk"]), p, "sdrrl", "model")[0]["uk"]  # other questions
    assert own == ["Yes."]


def test_no_answer_is_left(world, monkeypatch):
    c, p = world
    monkeypatch.setattr(pipeline, "answer", replies("x", cut=True))
    with pytest.raises(ValueError, match=r"no answer of teacher passes the filters: .*cut at max_new_tokens': 1"):
        sdrrl.build_sets(c, Transfer(targets=["uk"]), p, "teacher")


def test_a_language_without_spaces_is_said_to_be_skipped(world, capsys):
    c, p = world
    counts = Counter()
    assert list(sdrrl.read_lexicons(c, Transfer(targets=["uk", "zh"]), p, counts)) == ["uk"]
    assert "note: en or zh has no spaces between words" in capsys.readouterr().out
    assert counts == {"not switched, zh: no spaces between words": 1}


def test_another_teacher_is_warned_of(world, tmp_path, capsys):
    c, p = world
    x = Transfer(targets=["uk"])
    assert sdrrl.make_teacher(c, x, p, BASE) == (BASE, BASE) and not capsys.readouterr().out
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model.safetensors").write_bytes(b"other")
    other = configs.load(Sdrrl, argv=[f"{k}={v}" for k, v in vars(c).items() if v] + [f"teacher={tmp_path}/other"])[0]
    assert sdrrl.make_teacher(other, x, p, BASE)[1] == f"{tmp_path}/other"
    assert "warning: the teacher" in (out := capsys.readouterr().out) and "not self-distillation" in out


def test_the_teachers_answers_are_its_own_greedy_ones(tmp_path):
    """Rendered for training, an answer has the ids that were generated, and each is the model's most likely next one:
    generation and training use one template. It holds for the beginning of an answer, too."""
    t = pipeline.prepare_tokenizer(Pipeline(out=str(tmp_path), init=BASE, sft={"seq_len": 8}, template="chatml"))
    model, _ = client.load_model(BASE, needs_template=False)
    c, pairs = Transfer(targets=["uk"]), []
    prompts = [transfer_set.prompt(c, x, "en") for x, _ in DIALOGS]
    outputs = generate(model, [t.encode_chat(messages) for messages in prompts], 12, t.stop_ids)
    for (x, _), messages, ids in zip(DIALOGS, prompts, outputs):
        chat = transfer_set.chat(c, x, t.decode(ids, prefix=t.encode_chat(messages)), "en")["messages"]
        rendered, mask = t.encode_with_loss_mask(chat)
        first = mask.index(True)
        assert rendered[:first] == t.encode_chat(messages) and rendered[first:first + len(ids)] == ids
        pairs.append((rendered[:first], ids))
    assert all(is_greedy for _, is_greedy in loglikelihoods(model, pairs, 1024))


@pytest.fixture
def chatty(tmp_path):
    """A pipeline, and the base with a chat template as its OUT/tokenizer."""
    p = Pipeline(out=str(tmp_path), init=BASE, sft={"seq_len": 8}, template="chatml", max_new_tokens=6)
    pipeline.prepare_tokenizer(p)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "tokenizer" / name).write_bytes((ROOT / "tinyworld/base" / name).read_bytes())
    return p


def test_answers_are_generated_once(chatty, monkeypatch):
    model, c = f"{chatty.out}/tokenizer", Transfer(targets=["uk"])
    asked = [transfer_set.prompt(c, x, "en") for x, _ in DIALOGS]
    first = pipeline.answer(chatty, model, asked)
    assert [set(reply) for reply in first] == [{"text", "cut", "tokens"}] * 2 and first[0]["tokens"] <= 6
    monkeypatch.setattr(client, "load_model", lambda model: 1 / 0)
    assert pipeline.answer(chatty, model, asked) == first
    with pytest.raises(ZeroDivisionError):
        pipeline.answer(chatty, model, asked[:1])


def test_loglikelihood_of_answers(chatty, tmp_path):
    """The mean over the tokens of the answers and their ends, as adding them up shows."""
    c = Transfer(targets=["uk"])
    chats = [transfer_set.chat(c, x, y, "en")["messages"] for x, y in DIALOGS]
    model, t = client.load_model(str(tmp_path / "tokenizer"))
    total = n = 0
    for messages in chats:
        prompt = t.encode_chat(messages[:-1])
        answer = [*t.encode(messages[-1]["content"]), t.added_tokens["<|im_end|>"]]
        total += loglikelihoods(model, [(prompt, answer)], 64)[0][0]
        n += len(answer)
    assert pipeline.loglikelihood(str(tmp_path / "tokenizer"), chats) == pytest.approx(total / n, abs=1e-4)


# ---------------------------------------------------------------------- settings

@pytest.mark.parametrize("settings, message", [
    ({"targets": ["uk", "en"]}, "targets contains the rich language, en"), ({"pairs": ["LX"]}, "pairs are some of LL"),
    ({"pairs": []}, "pairs are some of"), ({"switch_probability": 1.5}, "switch_probability must be from 0 to 1"),
    ({"n_parallel": -1}, "n_parallel and n_complete")])
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Transfer(**{"targets": ["uk"]} | settings)
    with pytest.raises(ValueError, match="set translations= or translator=, one of the two"):
        Sdrrl(prompts="", test="")


def test_configs():
    import train
    from model import ModelConfig
    for name in ("tiny", "full"):
        c, x, p = configs.load(Sdrrl, Transfer, Pipeline, argv=[str(ROOT / f"configs/sdrrl/{name}.py")])
        for stage in filter(None, (p.sft, p.adapt)):
            words = words_of({"tokens": 10 ** 9} | stage)
            configs.load(train.Train, ModelConfig, train.Estimate, argv=["out=x", "data=x", "mixture={'a': 1}", *words])
    assert x.pairs == ["LL", "LT", "TL", "TT"] and c.teacher is None


@pytest.mark.slow
def test_all_of_it_in_small(tmp_path, capsys):
    """Every step, with a hundredth of the training; started again, nothing is trained twice."""
    small = "dict(seq_len=128, batch_size=2, micro_batch_size=2, threads=1, max_epochs=99.0)"
    config = tmp_path / "small.py"
    config.write_text(f"""from configs.sdrrl.tiny import *
targets = ["it"]
world = world | dict(languages=["en", "it"], web={{"en": 20, "low": 20}}, pairs=40, items=4)
_few = [s for s in text["sources"] if s["language"] in ("en", "it") and s.get("target") in (None, "it")]
text = text | dict(sources=_few)
sft = {small}
adapt = {small} | dict(mixture={{"parallel": 1, "low": 1}}, tokens=512)
chat_epochs, epochs, n_parallel, n_complete = 8.0, 0.05, 3, 2
""")
    argv = [str(config), f"out={tmp_path}/out"]
    sdrrl.main(argv)
    first = json.loads((tmp_path / "out/outcome.json").read_text())
    assert first["system"] == "sdrrl" and set(first["controls"]) == {"translate-then-tune"} and first["method"] < 0
    models = [d["model"] for d in first["details"] if "model" in d]
    assert models[:2] == ["teacher", "sdrrl"] and len(models) == 3 and first["details"][0]["same wording"] == 1
    capsys.readouterr()
    sdrrl.main(argv)
    assert " s\n" not in capsys.readouterr().out
    again = json.loads((tmp_path / "out/outcome.json").read_text())
    assert again | {"seconds": 0} == first | {"seconds": 0}
