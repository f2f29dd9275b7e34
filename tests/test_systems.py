"""Outcomes of recipes: written, read, refused, and averaged over seeds."""
import json
from dataclasses import asdict, replace

import pytest

from evaluation.outcomes import Outcome, load, save
from reports import systems

PLUG = Outcome(
    system="plug", title="PLUG", paper="2311.08711", claim="Pivoting helps.", metric="exact match, %", seed=0,
    method=50.0, controls={"direct": 20.0, "pivot response": 40.0}, english_metric="facts, %", english_before=100.0,
    english_after=99.0, right_language=97.0, tokens=900_000, control_tokens=300_000, base="0123456789ab", seconds=100.0,
    details=[{"kk": 1.0, "form": "full"}])


def write(folder, *outcomes):
    for outcome in outcomes:
        save(outcome, folder / f"{outcome.system}-{outcome.seed}")
    return folder


def test_an_outcome_is_read_as_it_was_written(tmp_path):
    assert load(save(PLUG, tmp_path)) == PLUG


@pytest.mark.parametrize("text, named", [("{", "not JSON"), ("[]", "lacks"),
                                         (json.dumps(asdict(PLUG) | {"speed": 1}), "unknown ['speed']")])
def test_a_file_that_is_no_outcome_is_named(tmp_path, text, named):
    path = tmp_path / "outcome.json"
    path.write_text(text)
    with pytest.raises(ValueError) as e:
        load(path)
    assert str(path) in str(e.value) and named in str(e.value)


def test_an_outcome_needs_a_control():
    with pytest.raises(ValueError, match="needs at least one control"):
        replace(PLUG, controls={})


def test_differences_are_paired_by_seed(tmp_path, capsys):
    """Both vary by 30 from seed to seed, their difference by 2: the standard error is that of the difference."""
    second = replace(PLUG, seed=1, method=82.0, controls={"direct": 50.0, "pivot response": 60.0}, right_language=None)
    systems.write_systems(systems.Systems(str(write(tmp_path / "o", PLUG, second)), out=str(tmp_path)))
    out = capsys.readouterr().out
    assert "+31.0 ± 1.00" in out and "97 % (1 of 2 seeds)" in out and "PLUG: Pivoting helps.\n" in out
    text = (tmp_path / "systems.md").read_text()
    assert "pivot response" in text and "+16.0 ± 6.00" in text and "| 1.00 | full |" in text


def test_one_seed_has_no_standard_error(tmp_path, capsys):
    systems.write_systems(systems.Systems(str(write(tmp_path, PLUG))))
    line, = (line for line in capsys.readouterr().out.splitlines() if line.startswith("PLUG ("))
    assert "+30.0 " in line and "±" not in line and "0.90 M / 0.30 M" in line


def test_english_that_was_not_measured(tmp_path, capsys):
    systems.write_systems(systems.Systems(str(write(tmp_path, replace(PLUG, english_before=None)))))
    assert "→ 99" not in capsys.readouterr().out


@pytest.mark.parametrize("change, named", [({"metric": "chrF++"}, "metric"), ({"base": "ffff"}, "base"),
                                           ({"controls": {"direct": 1.0}}, "controls")])
def test_unlike_runs_are_not_averaged(tmp_path, change, named):
    with pytest.raises(ValueError, match=named):
        systems.read_outcomes(write(tmp_path, PLUG, replace(PLUG, seed=1, **change)))


def test_two_runs_of_one_seed_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no outcome"):
        systems.read_outcomes(tmp_path)
    save(PLUG, tmp_path / "a"), save(PLUG, tmp_path / "b")
    with pytest.raises(ValueError, match="both seed 0 of plug"):
        systems.read_outcomes(tmp_path)
