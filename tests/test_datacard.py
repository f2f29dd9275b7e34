"""datacard.py: the funnel adds up, every reason has a stage, the card shows the sources; quality.py counts junk."""
import json
import re

import pytest

import report
from bench import quality
from corpus import measure
from reports import datacard


def row(read, dropped, category, language, target=None, licence=None, tokens=100):
    return {"read": read, "kept": read - sum(dropped.values()), "bytes": 5 * tokens, "dropped": dropped, "damaged": [],
            "category": category, "language": language, "target": target, "licence": licence,
            "tokens": {"train": tokens, "valid": 7}}


ROWS = {"web-en": row(100, {"url: casino": 3, "script: not Latin": 2, "language: de": 4, "full_stops: too low": 5,
                            "dup_5: too high": 6, "perplexity: too high": 7, "evaluation: xcopa": 8,
                            "duplicate: near": 9,
                            "not UTF-8 at byte 3": 1}, "en", "en", licence="CC0", tokens=300),
        "web-kk": row(10, {"duplicate: exact": 1}, "low", "kk"),
        "more-kk": row(20, {"no text: the row's text is null": 2}, "low", "kk"),
        "bitext": row(50, {"pair: a copy": 10, "pair: score too low": 5}, "parallel", "en", "kk")}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "account.json").write_text(json.dumps(ROWS))
    return tmp_path


def test_the_funnel_adds_up():
    found = datacard.funnel(ROWS)
    assert found["en"] == {"read": 100, "unreadable": 1, "address": 3, "language": 6, "heuristics": 11, "perplexity": 7,
                           "pair rules": 0, "evaluation": 8, "duplicates": 9, "kept": 55}
    assert found["kk"]["read"] == 30 and found["kk"]["unreadable"] == 2 and found["kk"]["kept"] == 27
    assert found["parallel"]["pair rules"] == 15
    for line in found.values():
        assert line["read"] == line["kept"] + sum(line[s] for s in datacard.STAGES)


def test_every_measure_is_a_heuristic():
    for name in measure.measures(""):
        assert datacard.stage_of(f"{name}: too low") == datacard.stage_of(f"{name}: too high") == "heuristics"
    assert datacard.stage_of("perplexity: too high") == "perplexity"


def test_the_card(folder, capsys):
    report.main(["datacard", f"data={folder}"])
    shown, card = (re.sub(" +", " ", text) for text in (capsys.readouterr().out, (folder / "card.md").read_text()))
    assert "| en | 100 | 1 | 3 | 6 | 11 | 7 | | 8 | 9 | 55 | 55.0% |" in card and "| kk | 30 | 2 |" in shown
    assert "| en | 300 | 50.00% | 30.13% |" in card  # 90.4 of 300 B
    assert "| web-en | en | en | CC0 | 100 | 55 | 300 |" in card
    assert "| bitext | parallel | en-kk | not stated |" in card
    assert (folder / "funnel.png").stat().st_size > 1000


@pytest.mark.parametrize("spoil, message", [
    (lambda rows: rows["web-kk"].update(kept=8), "web-kk does not add up: 10 read, 8 kept, 1 dropped"),
    (lambda rows: rows["bitext"].pop("tokens"), "bitext has no tokens yet: prepare.py has not finished")])
def test_what_is_wrong_is_said(tmp_path, spoil, message):
    rows = json.loads(json.dumps(ROWS))
    spoil(rows)
    (tmp_path / "account.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        report.main(["datacard", f"data={tmp_path}"])
    with pytest.raises(ValueError, match="nowhere/account.json is missing; run prepare.py"):
        report.main(["datacard", f"data={tmp_path}/nowhere"])


def test_what_one_change_does(tmp_path, capsys):
    """Two runs, one model: 1 and 2 without, 3 and 6 with: +2 and +4, so 3 with a standard error of 1."""
    for i, (without, with_) in enumerate(((1.0, 3.0), (2.0, 6.0))):
        (tmp_path / str(i)).mkdir()
        rows = [{"checkpoint": f"small-{kind}", "task": "into", "metric": "chrf++", "lang": lang, "score": s + d}
                for kind, s in (("off", without), ("on", with_))
                for lang, d in (("kk-en", -0.5), ("de-en", 0.5), ("de-kk", -0.5), ("kk-de", 0.5), ("mean", 70))]
        (tmp_path / str(i) / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    saved = tmp_path / "results/on.json"
    report.main(["ablation", "baseline=off", "variant=on", f"runs=['{tmp_path}/0', '{tmp_path}/1']", f"save={saved}"])
    out = capsys.readouterr().out
    for row in ("into en: low 1.000 4.000 +3.000", "into en: high 2.000 5.000 +3.000", "pairs 1.500 4.500 +3.000"):
        assert f"small into chrf++ {row} ± 1.000 +2.00 +4.00" in " ".join(out.split())
    report.main(["ablation", f"saved={saved}"])
    assert capsys.readouterr().out == out
    with pytest.raises(ValueError, match="saved= stands alone"):
        report.main(["ablation", f"saved={saved}", "baseline=off"])
    with pytest.raises(ValueError, match="nowhere.json: cannot be read"):
        report.main(["ablation", "saved=nowhere.json"])
    with pytest.raises(ValueError, match="no result of both a checkpoint NAME-off and NAME-no"):
        report.main(["ablation", "baseline=off", "variant=no", f"runs=['{tmp_path}/0', '{tmp_path}/1']"])


def test_quality_counts_what_was_planted(tmp_path):
    """Three documents and two pairs, of which the junk and one good document went."""
    (tmp_path / "tokens/dropped").mkdir(parents=True)
    (tmp_path / "raw/web").mkdir(parents=True)
    (tmp_path / "raw/bitext").mkdir()
    account = {"web-en": row(3, {"url: casino": 1, "ends: too low": 1}, "en", "en"),
               "bitext-en-kk": row(2, {}, "parallel", "en", "kk")}
    (tmp_path / "tokens/account.json").write_text(json.dumps(account))
    (tmp_path / "tokens/dropped/web-en.jsonl").write_text(
        '{"line": 1, "reason": "url: casino"}\n{"line": 3, "reason": "ends: too low"}\n')
    (tmp_path / "tokens/dropped/bitext-en-kk.jsonl").write_text('{"line": 2, "reason": "pair: a copy"}\n')
    (tmp_path / "raw/web/en.jsonl").write_text('{"label": "spam_url"}\n{"label": "clean"}\n{"label": "clean"}\n')
    (tmp_path / "raw/bitext/en-kk.tsv").write_text("a\tb\tu\tclean\na\ta\tu\tcopy\n")
    web, pairs = quality.count_planted(quality.Quality(raw=str(tmp_path / "raw"), tokens=str(tmp_path / "tokens")))
    assert web["en", "spam_url"] == {"url: casino": 1} and web["en", "clean"] == {"": 1, "ends: too low": 1}
    assert pairs["kk", "copy"] == {"pair: a copy": 1} and quality.precision(web) == {"en": 0.5}
