"""Self-instruct: prompts of two seeds and a task of the pool, parsing of numbered lists, ROUGE-L, rules, the rounds."""
import json

import pytest

from corpus.self_instruct import Pool, make_prompt, parse_tasks, rouge_l
from recipes import self_instruct


def task(instruction, input="", output="yes"):
    return {"instruction": instruction, "input": input, "output": output}


SEEDS = [task(f"Name {n} things that are {word}.", "", "a, b") for n, word in
         ((2, "red"), (3, "made of wood"), (5, "found in a kitchen drawer"))]

# ---------------------------------------------------------------------- ROUGE-L by hand


@pytest.mark.parametrize("a, b, wanted", [
    ("the cat sat", "the cat sat", 1.0), ("a b c d", "e f", 0.0),
    ("the cat sat on the mat", "the cat is on a mat", 2 * 4 / 12),  # the cat on mat
    ("b a", "a b", 2 * 1 / 4), ("", "", 0.0), ("a", "", 0.0), ("The CAT!", "the cat", 1.0),
    ("写一首诗", "写一首歌", 2 * 3 / 8),  # without spaces, characters are words
    ("書く", "書け", 2 * 1 / 4), ("กขค", "กขง", 2 * 2 / 6)])
def test_rouge_l(a, b, wanted):
    assert rouge_l(a, b) == pytest.approx(wanted) == rouge_l(b, a)


# ---------------------------------------------------------------------- prompts

def test_a_prompt_shows_two_seeds_and_a_task_of_the_pool():
    pool = [task("Pool task one.", "with input"), task("Pool task two.")]
    prompt = make_prompt(SEEDS, pool, "Kazakh", "0")
    assert "list of 20 varied tasks in Kazakh" in prompt and prompt.endswith("###\n4. Instruction:")
    assert sum(s["instruction"] in prompt for s in SEEDS) == 2 and sum(p["instruction"] in prompt for p in pool) == 1
    assert prompt == make_prompt(SEEDS, pool, "Kazakh", "0")
    assert len({make_prompt(SEEDS, pool, "Kazakh", str(n)) for n in range(20)}) > 10
    assert "<noinput>" in prompt


def test_before_there_is_a_pool_a_third_seed_is_shown():
    prompt = make_prompt(SEEDS, [], "Thai", "0")
    assert all(s["instruction"] in prompt for s in SEEDS) and prompt.endswith("4. Instruction:")
    with pytest.raises(ValueError, match="shows 3 seed tasks, there are 2"):
        make_prompt(SEEDS[:2], [], "Thai", "0")


# ---------------------------------------------------------------------- parsing

ANSWER = """ Sum up the text.
4. Input: A long text.
4. Output: Short.
###
5. Instruction: Say hello.
5. Input: <noinput>
5. Output: Hello
there.
###
6. Instruction: Count to three.
6. Input:
6. Output: 1. 2. 3."""


def test_numbered_tasks():
    tasks, reasons = parse_tasks(ANSWER)
    assert reasons == []
    assert tasks == [task("Sum up the text.", "A long text.", "Short."), task("Say hello.", "", "Hello\nthere."),
                     task("Count to three.", "", "1. 2. 3.")]
    assert parse_tasks("4. Instruction:" + ANSWER) == (tasks, [])  # the answer repeats the head
    assert parse_tasks(ANSWER.replace("5.", "1.").replace("6.", "2.")) == (tasks, [])  # the list begins again at 1


def test_the_last_task_of_a_cut_answer_is_dropped():
    tasks, reasons = parse_tasks(ANSWER, cut=True)
    assert len(tasks) == 2 and reasons == ["cut: last task of an answer that was cut off"]


@pytest.mark.parametrize("text, wanted", [
    ("", ["unparsable: no instruction"]), (" Do it.", ["unparsable: no output"]),
    (" Do it.\n4. Input: x", ["unparsable: no output"]),
    (" Do it.\n4. Output: Done.\n5. Output: Twice.", ["unparsable: no instruction"])])
def test_what_is_no_task_is_counted(text, wanted):
    tasks, reasons = parse_tasks(text)
    assert reasons == wanted and len(tasks) == (text.count("Output") > 1)


@pytest.mark.parametrize("nothing", ["<noinput>", "No input", "None", "N/A", "null", "-", ""])
def test_spellings_of_no_input(nothing):
    assert parse_tasks(f" Do it.\n4. Input: {nothing}\n4. Output: Done.")[0] == [task("Do it.", "", "Done.")]


# ---------------------------------------------------------------------- what is kept

def test_a_task_must_be_unlike_every_other_one():
    """Also unlike the first of many, and the seeds; exactly 0.7 is too like."""
    pool = Pool("en", SEEDS)
    ten = "one two three four five six seven eight nine ten"
    assert pool.add(task(ten)) is None
    for n in range(20):
        assert pool.add(task(" ".join(f"w{n}x{k}" for k in range(9)))) is None
    seven = "one two three four five six seven A B C"
    assert rouge_l(ten, seven) == pytest.approx(0.7)
    assert pool.add(task(seven)) == "novelty: too like an instruction of the pool"
    assert pool.add(task(seven.replace("seven", "D"))) is None
    assert pool.add(task(SEEDS[0]["instruction"])) == "novelty: too like an instruction of the pool"
    assert len(pool.tasks) == 22


def test_the_filter_is_idempotent():
    pool = Pool("en", SEEDS)
    for n in range(60):
        pool.add(task(" ".join(f"w{(n * k * k) % 17}" for k in range(1, 9))))
    again = Pool("en", SEEDS)
    assert 5 < len(pool.tasks) < 60 and all(again.add(t) is None for t in pool.tasks)


def test_links_are_dropped_wherever_they_are():
    for bad in (task("See https://x.example/a now."), task("Read this.", "www.site.example"),
                task("Go on then.", "", "It is on site.com")):
        assert Pool("en", []).add(bad) == "link"


def test_an_input_that_repeats_the_instruction():
    pool = Pool("en", [])
    assert pool.add(task("Translate the word cat.", "the word cat")) is None
    assert pool.tasks[-1]["input"] == ""
    # 4 of 6 words: 2 * 4 / 12 > 0.5
    assert pool.add(task("Say which animal sleeps most here.", "which animal sleeps most in summer")) == \
        "input: too like its instruction"


@pytest.mark.parametrize("language, kept", [("en", True), ("de", True), ("ko", False), ("vi", False), ("ar", False)])
def test_thresholds_of_the_input_by_language(language, kept):
    """2 * 2 / 10 = 0.4: above 0.3 (ko, vi) and 0.2 (ar), below 0.5."""
    t = task("alpha beta gamma delta epsilon", "alpha beta x y z")
    assert rouge_l(t["instruction"], t["input"]) == pytest.approx(0.4)
    assert (Pool(language, []).add(t) is None) == kept
    assert Pool(language, [], input_rouge={language: 0.45}).add(t) is None


def test_tasks_without_words():
    assert Pool("en", []).add(task("???")) == Pool("en", []).add(task("Say it.", "", "...")) == "empty: no words"


# ---------------------------------------------------------------------- the rounds

def settings(tmp_path, **changes):
    for code in ("en", "kk"):
        (tmp_path / f"{code}.jsonl").write_text("".join(json.dumps(t | {"input": None}) + "\n" for t in SEEDS))
    values = dict(seeds=f"{tmp_path}/{{lang}}.jsonl", languages=["en", "kk"], out=str(tmp_path / "out"), rounds=3,
                  prompts=4, prompts_first=2, endpoint="http://h/v1", name="m")
    return [f"{k}={v}" for k, v in (values | changes).items()]


@pytest.fixture
def generator(monkeypatch):
    """A generator that writes two tasks for each prompt, the second one an old one; it counts its prompts."""
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        first = len(asked)
        words = (" ".join(f"v{first + n}q{k}" for k in range(6)) for n in range(len(prompts)))
        rest = f"\n4. Output: ok\n5. Instruction: {SEEDS[0]['instruction']}\n5. Output: no\n6. Instruction: x"
        return [{"text": f" {w}{rest}", "finish": "length"} for w in words]
    monkeypatch.setattr(self_instruct, "make_generator", lambda c: ask)
    return asked


def test_rounds_and_account(tmp_path, generator, capsys):
    self_instruct.main(settings(tmp_path))
    account = json.loads((tmp_path / "out/account.json").read_text())
    assert account["kk"] == {"prompts": 10, "tasks": 30, "kept": 10, "dropped": {
        "cut: last task of an answer that was cut off": 10, "novelty: too like an instruction of the pool": 10}}
    kept = [json.loads(line) for line in (tmp_path / "out/kk.jsonl").read_text().splitlines()]
    assert len(kept) == 10 and set(kept[0]) == {"instruction", "input", "output"}
    assert len((tmp_path / "out/kk.rejects.jsonl").read_text().splitlines()) == 10
    assert len(generator) == 20
    assert any(kept[0]["instruction"] in p or kept[1]["instruction"] in p for p in generator[12:])  # the pool is shown


def test_a_finished_round_is_not_asked_again(tmp_path, generator):
    self_instruct.main(settings(tmp_path))
    first = (tmp_path / "out/kk.jsonl").read_bytes()
    for path in (tmp_path / "out").glob("*.json*"):
        path.unlink()
    asked = len(generator)
    self_instruct.main(settings(tmp_path))
    assert len(generator) == asked and (tmp_path / "out/kk.jsonl").read_bytes() == first
    with pytest.raises(ValueError, match="answers to other prompts"):
        self_instruct.main(settings(tmp_path, seed=1))


@pytest.mark.parametrize("changes, message", [
    (dict(endpoint=None), "set model, or endpoint and name"), (dict(model="m"), "set model, or endpoint and name"),
    (dict(languages=["xx"]), "languages must be codes"), (dict(languages=[]), "languages must be codes"),
    (dict(shown=[2]), "shown must be two counts"), (dict(last=3), "last must be above the 3 tasks"),
    (dict(rouge=0), "rouge must be above 0"), (dict(rounds=0), "rounds must be at least 1"),
    (dict(seeds="s.jsonl"), "seeds must hold {lang}"), (dict(seeds="no/{lang}.jsonl"), "no such file of seed tasks")])
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        self_instruct.main(settings(tmp_path, **changes))


@pytest.mark.parametrize("line", ["{", '{"instruction": "a"}', '{"instruction": 3, "output": "b"}', "[]"])
def test_a_seed_that_is_no_task(tmp_path, line):
    words = settings(tmp_path)
    (tmp_path / "kk.jsonl").write_text(json.dumps(SEEDS[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"kk.jsonl: line 2 is no task"):
        self_instruct.main(words)


def test_with_a_local_checkpoint(tmp_path):
    """The shipped base writes no tasks: all it answers is dropped and counted."""
    self_instruct.main(settings(tmp_path, endpoint=None, name=None, model="tinyworld/base", languages=["en"], rounds=1,
                                max_new=8))
    account = json.loads((tmp_path / "out/account.json").read_text())["en"]
    assert account["prompts"] == 2 and account["kept"] == 0
    assert account["tasks"] == sum(account["dropped"].values()) >= 2
