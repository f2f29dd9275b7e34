"""configs/: settings apply left to right or are refused, every config fits its program, the paper's tables add up."""
import runpy
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

import configs
from configs import demo_languages, language_table
from configs.marco import paper
from configs.renamed import RENAMED
from data import check_mixture
from reports import published

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """For these tests."""
    out: str  # must be set
    rate: float = 0.5
    steps: int = 10
    name: str | None = None
    share: float | None = 1.0
    mixture: dict = field(default_factory=dict)
    words: list = field(default_factory=lambda: ["a"])
    resume: bool = False


@dataclass(frozen=True)
class Shape:
    hidden_size: int = 8


def load(*argv):
    return configs.load(Settings, Shape, argv=list(argv))


def write(tmp_path, text, name="c.py"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


# ---------------------------------------------------------------------- the loader

def test_defaults():
    assert load("out=x") == (Settings(out="x"), Shape())


def test_words_apply_from_left_to_right(tmp_path):
    path = write(tmp_path, "out = 'file'\nsteps = 20\nrate = 0.1\nhidden_size = 16\n")
    assert load(path) == (Settings(out="file", steps=20, rate=0.1), Shape(16))
    assert load(path, "steps=30", "steps=40")[0].steps == 40
    assert load("steps=30", path)[0].steps == 20
    other = write(tmp_path, "steps = 50\n", "d.py")
    s, = configs.load(Settings, argv=["out=x", other])
    assert s.steps == 50
    assert load(path, other)[0] == Settings(out="file", steps=50, rate=0.1)


@pytest.mark.parametrize("word, name, value", [
    ("rate=1e-3", "rate", 1e-3), ("rate=2", "rate", 2.0), ("share=3", "share", 3.0), ("share=None", "share", None),
    ("name=None", "name", None), ("name=kk", "name", "kk"), ("name='7'", "name", "7"), ("name=a=b", "name", "a=b"),
    ("name=", "name", ""), ("name=out/x y.z", "name", "out/x y.z"), ("steps=1_000", "steps", 1000),
    ("resume=True", "resume", True), ("words=['b', 'c']", "words", ["b", "c"]), ("words=[]", "words", []),
    ("mixture={'en': 1, 'kk': 0.5}", "mixture", {"en": 1, "kk": 0.5}), ("--steps=3", "steps", 3),
    ("-steps=3", "steps", 3),
])
def test_values(word, name, value):
    got = getattr(load("out=x", word)[0], name)
    assert got == value and type(got) is type(value)


def test_dashes_stand_for_underscores():
    assert load("out=x", "--hidden-size=32")[1] == Shape(32)
    assert load("out=x", "--name=a-b")[0].name == "a-b"  # only in the name


def test_none_where_it_is_not_allowed():
    with pytest.raises(ValueError, match="rate must be float, got None"):
        load("out=x", "rate=None")


@pytest.mark.parametrize("word, message", [
    ("stepz=3", "stepz=3: no setting named 'stepz'; did you mean 'steps'"),
    ("hidden_sise=3", "did you mean 'hidden_size'"),
    ("qqq=3", "no setting named 'qqq'; the settings are: out, rate, steps"),
    ("steps=3.0", r"steps must be int, got 3.0 \(float\)"), ("steps=many", "steps must be int, got 'many'"),
    ("steps=True", "steps must be int, got True"), ("rate=True", "rate must be float"),
    ("rate=fast", "rate must be float"), ("name=3", "name must be str or None, got 3"),
    ("words=a", "words must be list"), ("resume=1", "resume must be bool"), ("mixture=[1]", "mixture must be dict"),
    ("nowhere.py", "nowhere.py: neither a config file nor key=value"),
    ("steps", "neither a config file nor key=value"), ("=3", "no setting named ''"),
])
def test_refused(word, message):
    with pytest.raises(ValueError, match=message):
        load("out=x", word)


@pytest.mark.parametrize("old, new", [("rows", "batch_size"), ("warmup", "warmup_ratio"), ("plan", "estimate")])
def test_an_old_name_is_answered_with_the_new_one(old, new):
    with pytest.raises(ValueError, match=f"{old}=3: no setting named '{old}'; it is called '{new}' now"):
        configs.load(*schemas()["train"], argv=[f"{old}=3"])


def test_no_program_has_both_names_of_a_setting():
    for program, some in schemas().items():
        known = {f.name for schema in some for f in fields(schema)}
        for old, new in RENAMED.items():
            assert not (old in known and known & set(new.split())), f"{program}: {old} and {new}"


def test_all_problems_at_once():
    with pytest.raises(ValueError, match="Settings: out must be set.*rate must be float.*steps must be int"):
        load("steps=x", "rate=y")


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_prints_the_settings(word, capsys):
    with pytest.raises(SystemExit) as e:
        load("out=x", word)
    assert e.value.code == 0
    printed = capsys.readouterr().out
    assert "# must be set" in printed and all(f.name in printed for s in (Settings, Shape) for f in fields(s))


def test_a_config_varies_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path, "import math\nout = 'base'\nsteps = 5\nrate = math.pi\n_helper = 3\n", "base_for_test.py")
    child = write(tmp_path, "from base_for_test import *\nsteps = 7\n", "child.py")
    assert load(child)[0] == Settings(out="base", steps=7, rate=3.141592653589793)


def test_helpers_and_modules_are_no_settings(tmp_path):
    path = write(tmp_path, "import math\nfrom configs.marco import paper\n_n = 3\n"
                           "steps = _n + len([x for x in range(2)])\nout = 'x'\n")
    assert load(path)[0].steps == 5


def test_functions_and_leftovers_are_refused(tmp_path):
    path = write(tmp_path, "out = 'x'\ndef double(x):\n    return 2 * x\nsteps = double(2)\n")
    with pytest.raises(ValueError, match="no setting named 'double'"):
        load(path)
    path = write(tmp_path, "out = 'x'\nfor i in range(3):\n    steps = i\n")
    with pytest.raises(ValueError, match="no setting named 'i'"):
        load(path)


def test_shared_names_are_our_own_mistake():
    with pytest.raises(AssertionError):
        configs.load(Shape, Shape, argv=[])


# ---------------------------------------------------------------------- the configs of the repository

def schemas():
    import eval as evaluate
    import generate
    import prepare
    import train
    from model import ModelConfig
    from tinyworld import __main__ as tinyworld
    return {"train": (train.Train, ModelConfig, train.Estimate), "prepare": (prepare.Prepare,),
            "eval": (evaluate.Eval,),
            "generate": (generate.Sample, generate.Decoding), "tinyworld": (tinyworld.Sizes,)}


KNOWN = {"base": "train", "stage1": "train", "stage2": "train", "data": "prepare", "eval": "eval"}
TINY = sorted(p for p in (ROOT / "configs" / "tiny").glob("*.py") if not p.name.startswith("_"))


def test_the_known_configs_are_there():
    assert set(KNOWN) <= {p.stem for p in TINY}


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.stem)
def test_every_config_fits_its_program(path):
    """Unknown names, wrong types and invalid combinations stop; a config that KNOWN lacks must fit some program."""
    fits, problems = [], []
    for program, some in schemas().items():
        more = ["model=somewhere"] if program in ("eval", "generate") else []
        try:
            configs.load(*some, argv=[str(path), *more])
            fits.append(program)
        except ValueError as e:
            problems.append(f"{program}: {e}")
    wanted = KNOWN.get(path.stem)
    assert (wanted in fits) if wanted else fits, problems


def test_configs_load_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c, _, _ = configs.load(*schemas()["train"], argv=[str(ROOT / "configs/tiny/stage2.py")])
    assert c.mixture == paper.STAGE2 | demo_languages.REPLAYED_PAIRS and c.init.endswith("stage1")


def test_the_two_stages_follow_the_paper():
    paths = [str(ROOT / f"configs/tiny/{stage}.py") for stage in ("stage1", "stage2")]
    one, two = (configs.load(*schemas()["train"], argv=[path])[0] for path in paths)
    pairs = demo_languages.REPLAYED_PAIRS
    assert one.mixture == paper.STAGE1 | pairs and two.mixture == paper.STAGE2 | pairs
    assert one.tokens / two.tokens == pytest.approx(paper.STAGE1_TOKENS / paper.STAGE2_TOKENS)
    assert two.lr / one.lr == pytest.approx(paper.STAGE2_LR / paper.STAGE1_LR)
    assert two.init == one.out and one.seed != two.seed


@pytest.mark.parametrize("languages", ["all", "en zh kk", "en,de,it", "en zh"])
def test_the_demo_in_some_languages(languages, monkeypatch):
    """LANGUAGES picks the sources, and a group without a language leaves the mixture, which the sources can serve."""
    monkeypatch.setenv("LANGUAGES", languages)
    codes = language_table.MARCO if languages == "all" else languages.replace(",", " ").split()
    for name in ("data", "chats"):
        values = runpy.run_path(str(ROOT / f"configs/tiny/{name}.py"))
        named = {code for s in values["sources"] for code in s["language"].split("-")}
        assert named == set(codes) == set(values["language_names"])
    groups, there = {language_table.group(code) for code in codes}, {}
    for name in ("data", "chats"):
        for source in runpy.run_path(str(ROOT / f"configs/tiny/{name}.py"))["sources"]:
            language = source["language"] + (f"-{source['target']}" if "target" in source else "")
            there.setdefault(source["category"], {})[language] = []
    for name in ("stage1", "stage2", "sft"):
        mixture = runpy.run_path(str(ROOT / f"configs/tiny/{name}.py"))["mixture"]
        check_mixture(there, mixture)
        assert {k for k in mixture if k in ("en", "zh", "high", "low")} == groups
        assert ("parallel/en-zh" in mixture) == ("zh" in codes and len(codes) > 2) and "parallel" in mixture
        assert ("chat" in mixture) == (name == "sft" and bool(set(codes) - {"en", "zh"}))
        assert ("chat/zh" in mixture) == (name == "sft" and "zh" in codes)


@pytest.mark.parametrize("languages, message", [
    ("en xx", "LANGUAGES: unknown xx"), ("kk zh", "en must be among them"), ("en en", "and another language")])
def test_languages_of_the_demo_that_cannot_be(languages, message, monkeypatch):
    monkeypatch.setenv("LANGUAGES", languages)
    with pytest.raises(ValueError, match=message):
        runpy.run_path(str(ROOT / "configs/tiny/data.py"))


def test_data_config_names_every_language_once(monkeypatch):
    monkeypatch.setenv("LANGUAGES", "all")
    values = runpy.run_path(str(ROOT / "configs/tiny/data.py"))
    web = [s["language"] for s in values["sources"] if s["name"].startswith("web-")]
    assert sorted(web) == sorted(language_table.MARCO) and len(web) == 29
    targets = [(s["language"], s["target"]) for s in values["sources"] if "target" in s]
    assert len(targets) == len(set(targets)) == 28 + 27
    used = {s["category"] for s in values["sources"]}
    assert used == set(paper.STAGE1) == set(paper.STAGE2)


# ---------------------------------------------------------------------- the paper's numbers

def test_table_1_sums():
    rows = list(paper.TOKENS.values()) + list(paper.OTHER.values())
    available, used = (sum(column) for column in zip(*rows))
    assert available == pytest.approx(paper.TOTAL[0], abs=0.5) and paper.TOTAL[0] == 5115.9
    # the used column as printed sums to 301.1: its 32 numbers are rounded to 0.1; the exact shares are tested below
    assert used == pytest.approx(paper.TOTAL[1], abs=0.05 * len(rows)) and paper.TOTAL[1] == 300.0


def test_ten_high_and_nineteen_low_languages():
    assert len(language_table.MARCO) == 29 and len(language_table.HIGH) == 10 and len(language_table.LOW) == 19
    assert {"en", "zh"} <= set(language_table.HIGH) and not set(language_table.HIGH) & set(language_table.LOW)
    assert len(set(language_table.NAMES.values())) == 29
    assert [language_table.group(k) for k in ("en", "zh", "de", "kk")] == ["en", "zh", "high", "low"]


def test_mixtures_times_tokens_are_table_1():
    """Tables 2 and 3 and the tokens of each stage give Table 1's used column, each language within its rounding."""
    assert sum(paper.STAGE1.values()) == sum(paper.STAGE2.values()) == 100
    assert paper.STAGE1_TOKENS + paper.STAGE2_TOKENS == 300e9
    one, two = paper.STAGE1_TOKENS / 100e9, paper.STAGE2_TOKENS / 100e9
    total = {k: paper.STAGE1[k] * one + paper.STAGE2[k] * two for k in paper.STAGE1}
    assert sum(total.values()) == pytest.approx(300.0, abs=1e-9)
    sizes = {g: sum(language_table.group(k) == g for k in language_table.MARCO) for g in ("en", "zh", "high", "low")}
    assert sizes == {"en": 1, "zh": 1, "high": 8, "low": 19}
    for code, (_, used) in paper.TOKENS.items():
        g = language_table.group(code)
        assert abs(total[g] / sizes[g] - used) <= 0.05 + 1e-9, code
    for name, (_, used) in paper.OTHER.items():
        assert abs(total[name] - used) <= 0.05 + 1e-9, name


def test_tables_of_results_are_whole():
    for table in (published.TABLE6, published.TABLE7):
        assert set(table) == set(language_table.MARCO) and all(0 < a < 100 and 0 < b < 100 for a, b in table.values())
    assert all(len(row) == len(published.BENCHMARKS) for row in published.TABLE5.values())
    for pair in published.TABLE12:
        a, b = pair.split("-")
        assert a != b and {a, b} <= set(language_table.MARCO)
