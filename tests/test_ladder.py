"""report.py ladder: abilities over the size of the base, from results whose numbers can be worked out by hand."""
import json

import pytest
from test_report import KS, accuracy, bits, cells, chrf, rows

import report
from reports import figures, ladder

FEW = ["en", "zh", "de", "kk", "uk"]
SIZES = (1_000_000, 4_000_000, 16_000_000)


def write_rung(folder, size, langs=FEW, more=(), shift=0.0):
    """A base of that many tokens: chance at 1 M; the numbers of test_report at 4 M; twice as far at 16 M."""
    factor = {1_000_000: 0, 4_000_000: 1, 16_000_000: 2}[size]

    def scaled(k, lang, task):
        chance = 0.5 if task == "xcopa" else 0.25
        return chance + factor * (accuracy(k, lang, task) + shift - chance)

    made = [r | {"stderr": 0.01 if r["metric"] == "chrf++" else r["stderr"]}
            for r in rows(KS, bits, scaled, lambda k, pair: factor * chrf(k, pair))]
    folder.mkdir(parents=True, exist_ok=True)
    keep = [r for r in made if set(r["lang"].split("-")) <= set(langs)]
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*keep, *more]))
    return str(folder)


def judged(group, score, checkpoint="sft"):
    return {"checkpoint": checkpoint, "weights": "w", "task": "chat", "lang": "mean", "group": group, "n": 90,
            "metric": "stated_facts", "score": score, "stderr": 0.02, "low": score - 0.04, "high": score + 0.04}


def show(out, *words):
    """(table of ladder.md {(ability, languages): cells}, rows of ladder.json {(tokens, ability, group): row})."""
    report.main(["ladder", *words])
    table = cells("\n".join(line for line in (out / "ladder.md").read_text().splitlines() if line.startswith("|")))
    stored = json.loads((out / "ladder.json").read_text())
    return ({tuple(row[:2]): row[2:] for row in table},
            {(row["tokens"], row["ability"], row["group"]): row for row in stored})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("ladder")
    runs = {}
    for size in SIZES:
        chat = [judged("low", size / 32e6), judged("low", size / 20e6, "dpo")]
        runs[size] = write_rung(out / str(size), size, more=chat)
    return out, *show(out, f"runs={runs}")


def test_the_table_and_the_stored_rows(made):
    out, table, stored = made
    assert table["ability", "languages"] == ["1 M", "4 M", "16 M", "appears", "gain"]
    # low-resource: 25 + 5 points at 4 M, 10 at 16 M, with an error of 6 / sqrt(2) = 4.2: never 3 errors above chance,
    # and never 2 x 6 = 12 above the base
    assert table["reading, %", "low-resource"] == ["25 → 25", "25 → 30", "25 → 35", "no", "no"]
    row = stored[16_000_000, "reading", "low-resource"]
    assert row["before"] == pytest.approx(25) and row["after"] == pytest.approx(35) and row["chance"] == 25
    assert row["after_stderr"] == pytest.approx(6 / 2 ** 0.5) and row["places"] == ["uk", "kk"] and row["seeds"] == 1
    # 20 + 3 into English, twice that at 16 M; an error of 0.01 / sqrt(2): the gain holds from 4 M on; no chance level
    assert table["translation into English, chrF++", "low-resource"] == ["0 → 0", "20 → 23", "40 → 46", "", "4 M"]
    assert stored[4_000_000, "translation out of English", "Chinese"]["places"] == ["en-zh"]
    assert table["bits per byte, less is better", "English"] == ["1.00 → 1.00"] * 3 + ["", "no"]
    assert table["bits per byte, less is better", "low-resource"][-1] == "1 M"  # smaller is better
    # of two judged checkpoints the later: 1/20, 4/20, 16/20
    assert table["answers: right fact, %", "low-resource"] == ["5", "20", "80", "", ""]
    assert ("reading, %", "English") in table and not any(language == "all" for _, language in table)
    assert (out / "ladder.png").read_bytes()[:4] == b"\x89PNG" and "](ladder.png)" in (out / "ladder.md").read_text()


@pytest.mark.parametrize("scores, size", [
    ((25, 25, 60), "16 M"), ((25, 60, 60), "4 M"), ((60, 60, 60), "1 M"), ((60, 25, 60), "16 M"), ((60, 60, 25), "no")])
def test_an_ability_appears_where_it_stays(scores, size):
    points = [{"tokens": tokens, "after": score, "after_stderr": 2, "chance": 25}
              for tokens, score in zip(SIZES, scores)]
    assert ladder.from_size(points, ladder.above_chance) == size
    assert ladder.from_size([point | {"after_stderr": None} for point in points], ladder.above_chance) == ""


def test_the_panel_draws_before_and_after_over_tokens(made):
    plt = figures.pyplot()
    figure, ax = plt.subplots()
    points = [made[2][size, "reading", "low-resource"] for size in SIZES]
    ladder.draw_panel(ax, {"low-resource": points}, figures.LIGHT)
    after, before, chance = ax.lines
    assert list(after.get_xdata()) == list(before.get_xdata()) == list(SIZES) and ax.get_xscale() == "log"
    assert list(after.get_ydata()) == pytest.approx([25, 30, 35])
    assert list(before.get_ydata()) == pytest.approx([25] * 3)
    assert after.get_color() == figures.LIGHT.colors["low"] and before.get_linestyle() == "--"
    assert list(chance.get_ydata()) == [25, 25]
    assert [x.get_text() for x in ax.get_xticklabels()] == ["1 M", "4 M", "16 M"]
    plt.close(figure)


def test_folders_by_step_and_their_tokens(tmp_path):
    for step, size in ((250, SIZES[0]), (1000, SIZES[1])):
        write_rung(tmp_path / f"step-{step}", size)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"step": s, "tokens": 4000 * s}) + "\n" for s in (1, 1000)))
    table, _ = show(tmp_path, f"run={tmp_path}")
    assert table["ability", "languages"] == ["1 M", "4 M", "appears", "gain"]


def test_seeds_are_averaged_and_give_the_error(tmp_path):
    seeds = [write_rung(tmp_path / f"seed{i}", SIZES[1], shift=i / 100) for i in range(3)]  # 0, 1 and 2 points more
    runs = {SIZES[0]: [write_rung(tmp_path / f"small{i}", SIZES[0]) for i in range(3)], SIZES[1]: seeds}
    table, stored = show(tmp_path / "out", f"runs={runs}", f"out={tmp_path}/out")
    row = stored[SIZES[1], "reading", "low-resource"]
    assert row["after"] == pytest.approx(31) and row["after_stderr"] == pytest.approx(1 / 3 ** 0.5)
    assert row["seeds"] == 3
    # 6 points above chance are 10 errors; 31 - 26 = 5 points are more than 2 x 0.82
    assert table["reading, %", "low-resource"] == ["25 → 25", "26 → 31", "4 M", "4 M"]


def test_what_cannot_be_compared(tmp_path):
    one, two = write_rung(tmp_path / "one", SIZES[0]), write_rung(tmp_path / "two", SIZES[1], langs=FEW[:-1])
    with pytest.raises(ValueError, match="low-resource: at 1,000,000 tokens measured in uk kk, at 4,000,000 in kk;"):
        report.main(["ladder", f"runs={ {SIZES[0]: one, SIZES[1]: two} }"])
    with pytest.raises(ValueError, match="were not measured alike: mmmlu_stated acc in"):
        report.main(["ladder", f"runs={ {SIZES[0]: [one, two]} }"])


@pytest.mark.parametrize("words, message", [
    ([], "set one of run=out/ladder and runs="), (["run=x", "runs={1: 'y'}"], "set one of run=out/ladder and runs="),
    (["runs={}"], "runs must map numbers of tokens to folders"), (["runs={'1M': 'x'}"], "runs must map numbers"),
    (["run=nowhere"], "nowhere has no folder step-N with a results.jsonl")])
def test_settings_that_show_nothing(words, message):
    with pytest.raises(ValueError, match=message):
        report.main(["ladder", *words])


def test_without_matplotlib_the_table_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "pyplot", lambda: None)
    runs = {size: write_rung(tmp_path / str(size), size) for size in SIZES[:2]}
    show(tmp_path, f"runs={runs}")
    assert "pip install matplotlib" in (tmp_path / "ladder.md").read_text() and not list(tmp_path.glob("*.png"))
