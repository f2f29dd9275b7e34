"""PolyLM's curriculum: its mixtures and stages, its tokenizer, what is refused, and the recipe in small."""
from dataclasses import replace
from pathlib import Path

import pytest

import tokenizer
import train
from configs import load
from evaluation import outcomes
from recipes import polylm

FIRST, SECOND = {"en": 70, "zh": 20, "low": 10}, {"en": 40, "zh": 25, "low": 25, "parallel": 10}


def settings(**changes):
    return polylm.PolyLM(**dict(out="o", model="m", languages=["en", "kk"], tokens=1000, first=FIRST,
                                second=SECOND) | changes)


# ---------------------------------------------------------------------- the curriculum

@pytest.mark.parametrize("mixture, share", [({"en": 1}, 0), ({"en": 1, "zh": 1}, 0.5), ({"en/en": 2, "low": 3}, 0.6),
                                            ({"en": 70, "parallel": 30}, 0.3), ({}, 0)])
def test_the_share_of_other_languages(mixture, share):
    assert polylm.share_of_others(mixture) == pytest.approx(share)


def test_mixtures_on_the_line():
    """The ends are the two mixtures, 45 % is halfway, 75 % is beyond; each has the share asked for and sums to 1."""
    at = {share: polylm.mixture_at(FIRST, SECOND, share) for share in (0.3, 0.45, 0.6, 0.75)}
    assert at[0.3] == {"en": 0.7, "zh": 0.2, "low": 0.1, "parallel": 0}
    assert at[0.6] == {"en": 0.4, "zh": 0.25, "low": 0.25, "parallel": 0.1}
    assert at[0.45] == pytest.approx({"en": 0.55, "zh": 0.225, "low": 0.175, "parallel": 0.05})
    for share, mixture in at.items():
        assert sum(mixture.values()) == pytest.approx(1) and polylm.share_of_others(mixture) == pytest.approx(share)
    with pytest.raises(ValueError, match="no mixture of 10% .* parallel would be negative"):
        polylm.mixture_at(FIRST, SECOND, 0.1)


def test_stages_have_the_control_tokens_and_train_takes_them():
    c = settings(tokens=400_000)
    control, ours = polylm.make_stages(c, None, 400_000), polylm.make_stages(c, 0.6, 400_000)
    assert [s["tokens"] for s in control] == [400_000] and [s["tokens"] for s in ours] == [340_000, 60_000]
    assert ours[0] == control[0] | {"tokens": 340_000} and "data" not in ours[0]
    assert ours[1]["data"] == "o/tokens-library"  # the better sources only
    data = list(polylm.folders(c)[:2])
    steps = [train.Train(out="o", data=data, stages=s, batch_size=4, seq_len=256).steps for s in (control, ours)]
    assert steps == [390, 390]
    assert polylm.make_stages(replace(c, data="a", better="b", tests="t"), 0.6, 1000)[1]["data"] == "b"


@pytest.mark.parametrize("changes, message", [
    (dict(second=FIRST), "second must have a larger share of non-English text than first, got 30% after 30%"),
    (dict(first={"en": 0}), "larger share"), (dict(second_tokens=1.0), "second_tokens must be between 0 and 1"),
    (dict(languages=["kk", "en"]), "en first"), (dict(languages=["en", "xx"]), "languages must be codes"),
    (dict(data="d"), "data, better and tests belong together"),
])
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.parametrize("name", ["tiny", "full"])
def test_configs(root, name):
    """30 to 60 % in the last 15 % of the tokens; the published budget is 152,500 steps of 2,048 x 2,048 tokens."""
    c, = load(polylm.PolyLM, argv=[str(root / f"configs/polylm/{name}.py")])
    shares = polylm.share_of_others(c.first), polylm.share_of_others(c.second)
    assert shares == pytest.approx((0.3, 0.6), abs=0.03) and c.second_tokens == pytest.approx(97 / 640, abs=0.01)
    stages = polylm.make_stages(c, shares[1], c.tokens)
    t = train.Train(out="o", data="d", init=c.model, stages=stages, ramp=c.ramp, **c.train)
    assert t.steps == (390 if name == "tiny" else pytest.approx(152_500, rel=0.01))
    assert t.residual_fp32 == (name == "full")


def test_what_the_full_run_needs(root, tmp_path, capsys):
    polylm.main([str(root / "configs/polylm/full.py"), "estimate=True", f"out={tmp_path}"])
    printed = capsys.readouterr().out
    assert "7,615,616,512 parameters" in printed and "640.0 B tokens" in printed


# ---------------------------------------------------------------------- its tokenizer

def test_digits_stand_alone_and_unseen_characters_are_bytes(tmp_path):
    """What prepare.py trains has both choices: digits one by one, and bytes for what the text never showed."""
    text = [f"In {year} the river rose {n} times and the mill stood still." for year, n in
            zip(range(1900, 2100), range(200))]
    tokenizer.train(text, 340, tmp_path)
    t = tokenizer.load(tmp_path)
    assert [t.decode([i]) for i in t.encode("2024")] == ["2", "0", "2", "4"]
    for unseen in ("🦜", "👨‍👩‍👧", "қазақ", "\u0e01"):
        ids = t.encode(unseen)
        assert t.decode(ids) == unseen and len(ids) >= len(unseen.encode()) and t.sp.unk_id() not in ids


@pytest.mark.slow
def test_the_recipe_in_small(root, tmp_path, capsys):
    web = "{'en': 60, 'zh': 40, 'high': 40, 'low': 60}"
    words = [str(root / "configs/polylm/tiny.py"), f"out={tmp_path / 'out'}", "tokens=8192", "curve=True",
             "sentences=2", "curve_tokens=4096", "languages=['en', 'zh', 'de', 'it']", "curve_shares=[0.45]",
             f"crawl={{'web': {web}, 'junk': 0.2, 'pairs': 0, 'knowledge': 0, 'synthetic': 0, 'items': 2, 'test': 2}}"]
    words.append(f"library={{'web': {web}, 'junk': 0.0, 'pairs': 40, 'knowledge': 0, 'synthetic': 0, 'items': 2, "
                 "'test': 4, 'heldout': 4}")
    polylm.main(words)
    printed = capsys.readouterr().out
    outcome = outcomes.load(tmp_path / "out/outcome.json")
    assert [row["run"] for row in outcome.details] == ["base", "control", "curriculum", "curve-45"]
    assert outcome.english_before != outcome.english_after and "one stage" in outcome.controls
    assert f"{outcome.details[2]['low']:.3f}" in printed
    before = {p: p.stat().st_mtime_ns for p in Path(tmp_path).rglob("*.safetensors")}
    polylm.main(words)
    assert before == {p: p.stat().st_mtime_ns for p in Path(tmp_path).rglob("*.safetensors")}
    assert len(list(tmp_path.glob("out/*/model.safetensors"))) == 3
