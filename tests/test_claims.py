"""recipes/claims.py, ladder.py and bayling.py: what each run trains on and starts from, and what their tables say."""
import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import report
from evaluation import outcomes
from recipes import bayling, claims, demo, ladder


@pytest.fixture
def steps(monkeypatch):
    """Every step that a recipe takes, {name: settings}, instead of running it."""
    taken = {}
    for recipe in (claims, ladder, bayling):
        monkeypatch.setattr(recipe, "run_step", lambda out, step, program, settings: taken.__setitem__(
            (out, step), {"program": program} | settings))
    return taken


def shares(mixture):
    return {name: share / sum(mixture.values()) for name, share in mixture.items()}


def test_two_stages_are_the_demos():
    for mixture, stage in zip(claims.stage_mixtures("two_stages"), ("stage1", "stage2"), strict=True):
        assert mixture == runpy.run_path(f"configs/tiny/{stage}.py")["mixture"]


def test_what_a_variant_reads():
    two, half, none = (claims.stage_mixtures(name) for name in ("two_stages", "half_replay", "no_replay"))
    for full, less, without in zip(two, half, none, strict=True):
        replayed = {"en", "zh", "parallel/en-zh"}
        assert less == full | {name: full[name] / 2 for name in replayed}
        assert without == {name: share for name, share in full.items() if name not in replayed}
    once, = claims.stage_mixtures("one_stage")
    for name, share in shares(once).items():  # as many tokens of everything as in both stages
        assert share == pytest.approx((8 * shares(two[0])[name] + 7 * shares(two[1])[name]) / 15, abs=2e-3)


def test_variants_differ_in_one_thing(steps):
    c = claims.Claims(seeds=[3, 4], tokens=1500)
    for name in ("two_stages", "unfiltered", *claims.ABLATIONS):
        claims.train_variant(c, "r", name, 3)
    first, second = steps["r", "two_stages-1"], steps["r", "two_stages-2"]
    assert (first["init"], second["init"]) == ("tinyworld/base", first["out"]) and second["out"] == "r/two_stages"
    assert (first["tokens"], second["tokens"]) == (800, 700) and steps["r", "one_stage-1"]["tokens"] == 1500
    assert second["lr"] == 0.6 * first["lr"] and second["seed"] != first["seed"]
    for name, changed in (("half_replay", {"mixture"}), ("no_replay", {"mixture"}), ("low_lr", {"lr"}),
                          ("high_lr", {"lr"}), ("filtered", {"mixture", "data"})):
        other = steps["r", f"{name}-1"]
        assert {key for key in first if first[key] != other[key]} == changed | {"out"}
    noisy = [steps["r", f"tokens-{name}"] for name in ("filtered", "unfiltered")]
    assert [step["filter_bitext"] for step in noisy] == [True, False] and noisy[0]["raw"] == noisy[1]["raw"]
    assert steps["r", "merged"]["models"] == ["r/two_stages", "tinyworld/base"]


@pytest.mark.parametrize("wrong, message", [
    (dict(parts=["stage"]), "unknown stage in parts; known are stages, ablations"),
    (dict(variants=["no-replay"]), "unknown no-replay in variants"), (dict(parts=[["stages"]]), "in parts; known are"),
    *((dict(seeds=seeds), "two or more different") for seeds in ([], [1], [1, 1], [1, 1, 2], [True, 2], [[1], [2]])),
    (dict(tokens=0), "tokens must be at least 15"), (dict(lr=-1e-3), "lr above 0")])
def test_settings_of_claims(wrong, message):
    with pytest.raises(ValueError, match=message):
        claims.Claims(**wrong)


@pytest.mark.parametrize("recipe", [claims, bayling])
def test_a_missing_base_is_told_before_any_work(steps, recipe, tmp_path):
    with pytest.raises(ValueError, match="none: no such folder"):
        recipe.main([f"base={tmp_path}/none", "out=r"])
    assert not steps


@pytest.mark.parametrize("recipe", [claims, bayling])
def test_a_base_with_other_weights_is_refused(steps, recipe, tmp_path, monkeypatch):
    """A second start would mix results of two bases; the path may be the same."""
    shutil.copytree("tinyworld/base", tmp_path / "base")
    monkeypatch.setattr(recipe, "evaluate", lambda *args: (_ for _ in ()).throw(RuntimeError))
    argv = [f"base={tmp_path}/base", f"out={tmp_path}/out"]
    with pytest.raises(RuntimeError):
        recipe.main(argv)
    weights = tmp_path / "base/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    steps.clear()
    with pytest.raises(ValueError, match="out has the step 'base' with other settings"):
        recipe.main(argv)
    assert not steps


@pytest.mark.parametrize("damage, languages, message", [
    (lambda base: None, "en xx", "LANGUAGES: unknown xx"),
    (lambda base: (base / "config.json").unlink(), "", "make base trains it"),
    (lambda base: (base / "model.safetensors").write_bytes(b""), "", "not a whole safetensors file"),
    (lambda base: [file.unlink() for file in base.glob("tokenizer*")], "", "no tokenizer"),
    (lambda base: save_file({"model.embed_tokens.weight": torch.zeros(64, 128)}, base / "model.safetensors"), "",
     "its tokenizer has 8192 tokens, its embedding 64 rows")])
def test_the_demo_removes_nothing_before_it_can_start(tmp_path, monkeypatch, damage, languages, message):
    shutil.copytree("tinyworld/base", tmp_path / "base")
    damage(tmp_path / "base")
    monkeypatch.setenv("LANGUAGES", languages)
    with pytest.raises(ValueError, match=message):
        demo.check_start(str(tmp_path / "base"))
    monkeypatch.setattr(demo, "check_start", lambda: (_ for _ in ()).throw(ValueError("no")))
    monkeypatch.setattr(demo.shutil, "rmtree", lambda *args, **more: pytest.fail("out/demo was removed"))
    with pytest.raises(ValueError, match="no"):
        demo.main()


def test_the_outcome_of_both_stages(tmp_path):
    """Means over the low-resource languages; where none was chosen there is no such row."""
    def write(*languages):
        rows = [{"checkpoint": name, "task": task, "metric": metric, "lang": lang, "score": score + step}
                for name, step in (("base", 0), ("stage2", 0.25)) for lang, score in (("en", 1.0), *languages)
                for task, metric in (("mmmlu_stated", "acc"), ("heldout", "bits_per_byte"))]
        (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        demo.save_outcome(tmp_path, 3, 9.0)

    write(("de", 0.5))
    assert not (tmp_path / "outcome.json").exists()
    write(("de", 0.5), ("kk", 0.25), ("uk", 0.35))
    outcome = outcomes.load(tmp_path / "outcome.json")
    assert (outcome.seed, outcome.method, outcome.controls) == (3, pytest.approx(55), {"base": pytest.approx(30)})
    assert (outcome.english_before, outcome.english_after, outcome.right_language) == (1, 1.25, None)


# ---------------------------------------------------------------------- the ladder

def checkpoints(folder, *steps):
    """A run that has these checkpoints, of 500 tokens a step."""
    for step in steps:
        (folder / f"checkpoints/step-{step:08}").mkdir(parents=True)
    (folder / "log.jsonl").write_text(json.dumps({"step": max(steps), "tokens": 500 * max(steps)}) + "\n")
    return str(folder)


def test_rungs_are_the_nearest_checkpoints(tmp_path):
    base = checkpoints(tmp_path / "model", 1953, 2010, 4040, 5800, 7812)
    (tmp_path / "model/checkpoints/step-00008000.tmp").mkdir()  # it is being written
    rungs = ladder.find_rungs(ladder.Ladder(base=base, sizes=[1, 2, 3, 4, 8]))
    assert rungs == {1_000_000: f"{base}/checkpoints/step-00002010", 2_000_000: f"{base}/checkpoints/step-00004040",
                     38_000_000: "tinyworld/base"}  # 2.9 M tokens are not the rung of 3, which the base will reach
    with pytest.raises(ValueError, match="none/checkpoints has no checkpoint; make base trains the base"):
        ladder.find_rungs(ladder.Ladder(base=str(tmp_path / "none")))


def test_rungs_come_before_any_work_and_have_folders_of_their_own(steps, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="has no checkpoint"):
        ladder.main([f"base={tmp_path}/none", "out=r"])
    assert not steps
    monkeypatch.setattr(ladder.report, "main", lambda words: None)
    ladder.main([f"base={checkpoints(tmp_path / 'model', 400, 800)}", "out=r", "sizes=[0.2, 0.4]"])
    assert steps["r/0.2M", "eval-base"]["model"] != steps["r/0.4M", "eval-base"]["model"]


@pytest.mark.parametrize("sizes", [[], [0], ["1"], [None]])
def test_sizes_of_the_ladder(sizes):
    with pytest.raises(ValueError, match="sizes must be millions of tokens"):
        ladder.Ladder(sizes=sizes)


def test_tokens_of_the_ladder():
    with pytest.raises(ValueError, match="tokens and sft_tokens must be at least 15"):
        ladder.Ladder(sft_tokens=14)


def test_a_rung_trains_each_stage_on_the_one_before(steps):
    ladder.climb(ladder.Ladder(tokens=1500), "r", "model", "raw", "shards", "chats")
    assert [steps["r", name]["init"] for name in ("stage1", "stage2", "sft")] == ["model", "r/stage1", "r/stage2"]
    assert [steps["r", f"eval-{name}"]["model"] for name in ("base", "stage2")] == ["model", "r/stage2"]
    assert steps["r", "stage1"]["tokens"] + steps["r", "stage2"]["tokens"] == 1500


# ---------------------------------------------------------------------- BayLing 2

def test_every_model_starts_from_stage_one_and_has_its_own_chats(steps, monkeypatch):
    monkeypatch.setattr(bayling, "report", lambda c, seconds: None)
    bayling.main(["out=b", "seed=2", "tokens=100"])
    for name in bayling.MODELS:
        kind = name if name in bayling.CROSSLINGUAL else "into"
        step = steps["b", name]
        assert step["init"] == "b/stage1" and step["data"] == [f"b/chats-{kind}", "b/tokens"] and step["seed"] == 23
        assert step["tokens"] == (50 if name == "without" else 100)
        assert steps["b", f"world-{kind}"]["crosslingual_kind"] == kind


def test_the_table_of_bayling(tmp_path, capsys):
    """Scores by group are means over its languages; the outcome is the method against the model without."""
    rows = []
    for n, name in enumerate(("stage1", *bayling.MODELS)):
        def add(metric, lang, score, name=name):
            rows.append({"checkpoint": name, "metric": metric, "lang": lang, "score": score})
        for lang in ("en", "zh", "de", "kk", "uk"):
            add("bits_per_byte", lang, 1.0)
            if name != "stage1":
                add("answer_score", lang, 0.1 * n + (0.02 if lang == "kk" else 0))
                add("right_language", lang, 0.5)
        add("chrf++", "kk-uk", 10 * n)
        add("answer_score", "mean", 9.0)
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bayling.report(bayling.BayLing(out=str(tmp_path)), 1.0)
    outcome = outcomes.load(tmp_path / "outcome.json")
    place = 1 + list(bayling.MODELS).index(bayling.METHOD)
    assert outcome.method == pytest.approx(10 * place + 1)  # kk 2 more than uk
    assert list(outcome.controls) == ["without", "translation", "mixed", "native"]
    assert outcome.controls["without"] == pytest.approx(11) and outcome.right_language == 50
    assert outcome.details[0]["answer score, low"] is None and outcome.details[place]["xx-yy chrF++"] == 10 * place
    assert "native" in capsys.readouterr().out


# ---------------------------------------------------------------------- results/

def test_the_stored_tables_print(capsys):
    """Those that RESULTS.md names; the ablations are of known variants."""
    results = Path(__file__).parent.parent / "results"
    report.main(["claims", f"saved={results}/claims.json"])
    assert "bits per byte saved, documents" in capsys.readouterr().out
    stored = {path.stem: path for path in results.glob("ablations/*.json")}
    assert stored and set(stored) <= set(claims.ABLATIONS)
    for name, path in stored.items():
        report.main(["ablation", f"saved={path}"])
        header = capsys.readouterr().out.splitlines()[0].split()
        assert header[4:6] == [claims.ABLATIONS[name][0], name]
