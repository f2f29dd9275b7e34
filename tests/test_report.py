"""report.py against synthetic results whose numbers can be worked out by hand."""
import base64
import builtins
import html
import json
import re

import numpy as np
import pytest

import report
from configs import language_table
from evaluation import results
from reports import curve, demo, demo_figures, gains, page, paper, published, scores
from reports import figures as reports_figures

LANGS = list(language_table.MARCO)
TASKS = ("belebele", "xcopa", "mmmlu_unstated", "mmmlu_stated")
KS = ("base", "stage1", "stage2")
PAIRS = [f"en-{k}" for k in LANGS[1:]] + [f"{k}-en" for k in LANGS[1:]] + ["ar-ja", "ja-zh", "zh-ja", "es-fr"]
GROUPS = ("English", "Chinese", "other high-resource", "low-resource", "all")
SIGNATURE = {"chrf++": "nrefs:1|nc:6|nw:2", "bleu": "nrefs:1|tok:13a"}


def bits(k, lang):
    """Bits per byte: English 1.000, each further language 0.1 more; stage I saves a tenth of that excess, stage II a
    fifth."""
    i = LANGS.index(lang)
    return 1 + 0.1 * i - {"base": 0, "stage1": 0.01, "stage2": 0.02}[k] * i


def accuracy(k, lang, task):
    """A quarter everywhere at first; 2 points more after stage I, 4 after stage II, 5 for low-resource languages."""
    start = 0.5 if task == "xcopa" else 0.25
    bonus = 0.01 if k == "stage2" and language_table.group(lang) == "low" else 0
    return start + {"base": 0, "stage1": 0.02, "stage2": 0.04}[k] + bonus


def chrf(k, pair):
    start = 20 if pair.endswith("-en") else 10 if pair.startswith("en-") else 4
    return start + {"base": 0, "stage1": 1, "stage2": 3}[k]


def rows(ks=KS, bits=bits, accuracy=accuracy, chrf=chrf):
    out = []
    for k in ks:
        about = {"checkpoint": k, "weights": "w-" + k, "tokenizer": "t", "shots": 0, "prompt": "p", "signature": None}
        for x in LANGS:
            out += [{**about, "task": task, "lang": x, "metric": "bits_per_byte", "score": round(bits(k, x), 5),
                     "n": 64, "stderr": 0.03} for task in ("heldout", "flores")]
            out += [{**about, "task": task, "lang": x, "metric": metric, "score": accuracy(k, x, task), "n": 64,
                     "stderr": 0.06} for task in TASKS for metric in ("acc", "acc_norm")]
        for pair in PAIRS:
            out += [{**about, "task": "translation", "lang": pair, "metric": m, "score": chrf(k, pair) / half, "n": 16,
                     "stderr": None, "signature": SIGNATURE[m]} for m, half in (("chrf++", 1), ("bleu", 2))]
    return out


def write(folder, results, logs=KS):
    """A run's folder: results and training logs of 100 + 100 steps of 1,000 tokens at 500 and 1,000 tokens/s."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
    for k in logs:
        (folder / k).mkdir(exist_ok=True)
        lines = [{"step": s, "tokens": 1000 * s, "bpb": {f"web-{x}": 2 - s / 200 + i / 50 for i, x in enumerate(LANGS)}}
                 for s in (0, 100, 200)]
        lines += [{"step": s, "tokens": 1000 * s, "tokens_per_s": v} for s, v in ((100, 500), (200, 1000), (100, 500))]
        (folder / k / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    return folder


def make(folder, *words, figures=False):
    """Run the program on a folder; report.md's tables {header: {first cell of a row: the others}}, and its text."""
    with pytest.MonkeyPatch.context() as patch:
        if not figures:  # they take a second
            patch.setattr(demo, "draw_figures", lambda c, scores, theme: {})
        report.main(["demo", f"run={folder}", *words])
    text = (folder / "report.md").read_text(encoding="utf-8")
    blocks = [cells(block) for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    return {block[0][0]: {row[0]: row[1:] for row in block} for block in blocks}, text


def cells(block):
    """Rows of the cells of a Markdown table, without its rule and bold type."""
    rows = [[x.strip().replace("**", "") for x in line.strip().strip("|").split("|")] for line in block.splitlines()]
    return [row for row in rows if not row[0].startswith("---")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("report") / "run", rows())
    return (folder, *make(folder, figures=True))


# ---------------------------------------------------------------------- the tables

def test_main_table_has_all_languages_in_order_and_hand_computed_numbers(made):
    table = made[1]["bits per byte"]
    names = [language_table.NAMES[x] for x in LANGS]
    assert list(table) == ["bits per byte", *names[:10], "other high-resource (8)", *names[10:], "low-resource (19)",
                           "all (29)"]
    assert table["bits per byte"] == ["base", "stage1", "stage2", "gain", "gain, %", *TASKS]
    assert table["English"] == ["1.000", "1.000", "1.000", "+0.000 ± 0.042", "+0.0", "25/27/29 ± 8.5", "50/52/54 ± 8.5",
                                "25/27/29 ± 8.5", "25/27/29 ± 8.5"]  # 0.03 x sqrt(2) and 6 x sqrt(2)
    # Arabic is third: 1.2, 1.2 - 0.02, 1.2 - 0.04; 0.04 / 1.2 = 3.3 %
    arabic = ["1.200", "1.180", "1.160", "+0.040", "+3.3", "25/27/29", "50/52/54", "25/27/29", "25/27/29"]
    assert table["Arabic"] == arabic
    # places 2 to 9: 1 + 0.1 x 5.5 = 1.55, gain 0.02 x 5.5 = 0.11, error 0.042426 / sqrt(8) = 0.0150
    high = ["1.550", "1.495", "1.440", "+0.110 ± 0.015", "+7.1", "25/27/29 ± 3.0"]
    assert table["other high-resource (8)"][:6] == high
    # places 10 to 28: 1 + 0.1 x 19 = 2.9, gain 0.38; 0.042426 / sqrt(19) = 0.0097; 8.485 / sqrt(19) = 1.95
    assert table["low-resource (19)"][:6] == ["2.900", "2.710", "2.520", "+0.380 ± 0.010", "+13.1", "25/27/30 ± 1.9"]
    # mean place 14: 2.4, gain 0.28; accuracy 29 + 19 / 29 = 29.7
    assert table["all (29)"][:6] == ["2.400", "2.260", "2.120", "+0.280 ± 0.008", "+11.7", "25/27/30 ± 1.6"]
    assert "belebele 25 %, xcopa 50 %" in made[2] and "Toy scale" in made[2]


def test_translation(made):
    table, text = made[1]["direction"], made[2]
    assert table["direction"] == ["pairs", *(f"{m} {x}" for m in ("chrF++", "BLEU") for x in (*KS, "gain"))]
    assert table["en to xx, Chinese"] == ["1", "10.0", "11.0", "13.0", "+3.0", "5.0", "5.5", "6.5", "+1.5"]
    assert table["en to xx, other high-resource"][0] == "8" and table["en to xx, low-resource"][0] == "19"
    assert table["xx to en, all"] == ["28", "20.0", "21.0", "23.0", "+3.0", "10.0", "10.5", "11.5", "+1.5"]
    assert table["any to any, without English"] == ["4", "4.0", "5.0", "7.0", "+3.0", "2.0", "2.5", "3.5", "+1.5"]
    assert all(text.count(signature) == 1 for signature in SIGNATURE.values())


def test_gain_by_group_beside_the_paper(made):
    table = made[1]["mean gain"]
    # English: 77.9 - 77.4 and 86.0 - 84.6; Chinese: 76.0 - 75.8 and 86.4 - 83.7. Accuracy: 4 points, low-resource 5
    assert table["English"] == ["+0.0 %", "+4.0", "+0.5", "+1.4"]
    assert table["Chinese"] == ["+1.8 %", "+4.0", "+0.2", "+2.7"]  # 0.02 of 1.1
    high7 = (4.7 + 3.4 + 2.2 + 2.7 + 0.6 + 2.3 + 1.6 + 7.4) / 8  # Table 6: ar de es fr ja ko pt tr
    high72 = (3.5 + 3.0 + 2.3 + 2.4 - 0.4 + 1.8 + 1.9 + 5.4) / 8
    assert f"{high7:+.1f}" == "+3.1" and f"{high72:+.1f}" == "+2.5"
    assert table["other high-resource"] == ["+7.1 %", "+4.0", "+3.1", "+2.5"]
    assert table["low-resource"] == ["+13.1 %", "+5.0", "+8.0", "+5.0"]


def test_order_of_the_gains(made):
    def ranks(v):
        return [(np.searchsorted(np.sort(v), x) + np.searchsorted(np.sort(v), x, "right")) / 2 for x in v]

    theirs = []
    for table in (published.TABLE6, published.TABLE7):
        before, after = np.array([table[x] for x in LANGS]).T
        theirs.append(f"{np.corrcoef(ranks(-before.round(6)), ranks((after - before).round(6)))[0, 1]:+.2f}")
    assert made[1]["Spearman"]["the worse before, the higher the gain"] == ["+1.00", "+1.00", *theirs]
    assert theirs == ["+0.68", "+0.61"]


def test_scores_beside_tables_5_and_12(made):
    text = made[2]

    def row(*x):
        return re.search(r"\| *" + r" *\| *".join(map(re.escape, x)) + r" *\|", text)

    # all but English: 25 + (9 x 4 + 19 x 5) / 28 = 29.68; XCOPA: id it th vi gain 5, tr zh gain 4
    assert row("Belebele", "73.4", "78.8", "+5.4", "belebele acc", "28", "25.0", "29.7", "+4.7")
    assert row("XCOPA", "70.6", "76.6", "+6.0", "xcopa acc", "6", "50.0", "54.7", "+4.7")
    assert row("MMLU", "71.9", "74.4", "+2.5", "mmmlu_stated acc", "1", "25.0", "29.0", "+4.0")
    assert row("Flores", "27.1", "35.0", "+7.9", "translation bleu", "56", "7.5", "9.0", "+1.5")
    # ar-ja 16.2 21.8, ja-zh 19.5 22.9, zh-ja 19.2 27.7; es-fr is not in Table 12
    assert row("Table 12", "18.3", "24.1", "+5.8", "translation bleu", "3", "2.0", "3.5", "+1.5")


def test_cost_counts_repeated_steps_once(made):
    table = made[1]["run"]  # 100,000 tokens at 500/s and 100,000 at 1,000/s: 300 s, 667 tokens/s
    assert table["stage1"] == ["200,000", "667", "5.0"]
    assert table["together"] == ["600,000", "667", "15.0"]


def test_terminal_shows_the_abilities_at_a_glance(tmp_path, capsys):
    make(write(tmp_path, rows()))
    out = capsys.readouterr().out
    assert "English kept on documents: bits per byte +0.0%, bound +1.0%." in out and "*" not in out and "|" not in out
    shown = {re.split("  +", line)[0]: re.split("  +", line)[1:] for line in out.splitlines()}
    assert shown["base → stage2"] == ["chance", *GROUPS]
    assert shown["facts stated in its texts, %"] == ["25", "25 → 29", "25 → 29", "25 → 29", "25 → 30", "25 → 30"]
    assert shown["cause and effect, %"][:2] == ["50", "50 → 54"]
    assert shown["translation into English, chrF++"] == ["20 → 23"] * 4  # no English into English, no chance
    assert shown["translation out of English, chrF++"] == ["10 → 13"] * 4
    assert shown["bits per byte, less is better"] == ["1.00 → 1.00", "1.10 → 1.08", "1.55 → 1.44", "2.90 → 2.52",
                                                      "2.40 → 2.12"]
    assert len(out.splitlines()) < 20


# ---------------------------------------------------------------------- judgements

@pytest.mark.parametrize("after, word", [
    (0.9, "kept"), (1.0, "kept"), (1.0099, "kept"), (1.01, "kept"), (1.0101, "lost"), (1.5, "lost")])
def test_the_bound_on_english(tmp_path, after, word):
    run = write(tmp_path, rows(bits=lambda k, x: after if (k, x) == ("stage2", "en") else bits(k, x)))
    assert f"English {word} on documents: bits per byte {after - 1:+.1%}" in make(run)[1]
    assert "Chinese kept on documents: bits per byte -1.8%" in make(run)[1]  # (1.08 - 1.1) / 1.1


def test_the_bound_is_a_setting(tmp_path):
    run = write(tmp_path, rows(bits=lambda k, x: 1.05 if (k, x) == ("stage2", "en") else bits(k, x)))
    assert "English kept on documents: bits per byte +5.0%, bound +6.0%" in make(run, "max_rise=0.06")[1]


def test_reversed_order_is_minus_one(tmp_path):
    def reversed_gain(k, x):
        place = LANGS.index(x)
        return 1 + 0.1 * place - (0.3 - 0.01 * place) * (k == "stage2")

    run = write(tmp_path, rows(bits=reversed_gain))
    assert make(run)[0]["Spearman"]["the worse before, the higher the gain"][:2] == ["-1.00", "-1.00"]


@pytest.mark.parametrize("x, y, r", [
    ([1, 2, 3], [10, 20, 30], 1), ([1, 2, 3], [3, 2, 1], -1), ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),
    ([1, 1, 2], [1, 2, 3], 0.8660254), ([5, 1, 9], [2, 2, 2], None)])
def test_spearman(x, y, r):  # 0.8 = 1 - 6 x 2 / (4 x 15); ranks 1.5 1.5 3 against 1 2 3: 1.5 / sqrt(1.5 x 2)
    assert gains.spearman(x, y) == pytest.approx(r if r is not None else float("nan"), nan_ok=True)


# ---------------------------------------------------------------------- figures

def test_figures_are_written_and_shown(made):
    folder, _, text = made
    shown = (folder / "report.html").read_text(encoding="utf-8")
    for name in ("abilities", "curves", "gains", "translation"):
        data = (folder / f"{name}.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert text.count(f"]({name}.png)") == 1 and base64.b64encode(data).decode() in shown
    assert shown.count("<img src=\"data:image/png;base64,") == shown.count("prefers-color-scheme: dark)\" srcset=") == 4


@pytest.fixture(scope="module")
def figures(made):
    """The figures of that report as matplotlib's objects."""
    settings = demo.Demo(run=str(made[0]))
    table = gains.read_checkpoints(settings.run, settings.checkpoints, settings.chance)
    plt = reports_figures.pyplot()
    with plt.rc_context(reports_figures.style(reports_figures.LIGHT)):
        return demo_figures.build_figures(plt, settings, table, reports_figures.LIGHT)


def test_abilities_are_drawn_before_and_after(figures):
    axes = figures["abilities"].axes
    titles = [ax.get_title(loc="left").split("\n") for ax in axes]
    assert [t[0] for t in titles] == ["facts stated in its texts", "facts stated only elsewhere", "reading",
                                      "cause and effect", "translation into English", "translation out of English",
                                      "bits per byte"]
    assert [t[1] for t in titles] == ["low-resource 25 → 30", "low-resource 25 → 30", "low-resource 25 → 30",
                                      "low-resource 50 → 55", "low-resource 20 → 23", "low-resource 10 → 13",
                                      "low-resource 2.90 → 2.52"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [language_table.NAMES[x] for x in LANGS]
    for ax, score in ((axes[2], lambda k, x: 100 * accuracy(k, x, "belebele")), (axes[6], bits)):
        points = [tuple(marks.get_offsets()[0]) for marks in ax.collections]  # a ring and a dot for each language
        expected = [score(k, x) for x in LANGS for k in ("base", "stage2")]
        assert [x for x, _ in points] == pytest.approx(expected, abs=1e-4)
        assert all(points[i][1] == points[i + 1][1] for i in range(0, len(points), 2))
        assert [y for _, y in points] == sorted(y for _, y in points)  # in the order of the names
    assert [line.get_xdata()[0] for line in axes[3].lines if line.get_linestyle() == ":"] == [50]  # chance
    assert len(axes[4].collections) == 2 * 28 and not [x for x in axes[4].lines if x.get_linestyle() == ":"]


def test_the_heat_map_has_colors_and_the_numbers(figures):
    before, after, bar = figures["translation"].axes
    langs = ["en", "zh", "ar", "es", "ja"]  # those that translate into another language than English
    assert [x.get_text() for x in after.get_xticklabels()] == [language_table.NAMES[x] for x in langs]
    for ax, k in ((before, "base"), (after, "stage2")):
        image = ax.images[0]
        grid = np.ma.filled(image.get_array(), np.nan)
        for pair in ("en-zh", "ar-ja", "es-en"):
            a, b = (langs.index(x) for x in pair.split("-"))
            assert grid[a, b] == chrf(k, pair)
            assert str(chrf(k, pair)) in [t.get_text() for t in ax.texts if t.get_position() == (b, a)]
        assert np.isnan(grid[0, 0]) and image.get_clim() == (0, 23)
        assert len({tuple(image.to_rgba(x)) for x in np.unique(grid[~np.isnan(grid)])}) == 3  # a color for each score
    assert bar.get_ylim() == (0, 23)


def test_the_page_needs_nothing_else_and_its_tables_are_those_of_the_text(made):
    text = (made[0] / "report.html").read_text(encoding="utf-8")
    links = re.findall(r"(?:src|srcset|href)=\"(.*?)\"", text)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"https?://|@import|url\(", text)
    ids = set(re.findall(r" id=\"(.*?)\"", text))
    assert {link[1:] for link in links if link[0] == "#"} <= ids and len(ids) == 6
    for table, name in zip(re.findall("<table>.*?</table>", text), made[1], strict=True):
        shown = [[html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<t[hd]>(.*?)</t[hd]>", row)]
                 for row in re.findall("<tr>.*?</tr>", table)]
        assert {row[0]: row[1:] for row in shown} == made[1][name]


def test_text_is_escaped_in_the_page():
    shown = page.to_html(["# A <b> & c", [["<x>", "**y**"], ["`a<b`", 1]]])
    assert "<title>A &lt;b&gt; &amp; c</title>" in shown and "<button>&lt;x&gt;</button>" in shown
    assert "<b>y</b>" in shown and "<code>a&lt;b</code>" in shown and "<td>1</td>" in shown


def test_without_logs_there_are_no_curves(tmp_path):
    tables, text = make(write(tmp_path, rows(), logs=()), figures=True)
    assert "curves.png" not in text and not (tmp_path / "curves.png").exists() and (tmp_path / "gains.png").exists()
    assert tables["run"]["base"] == tables["run"]["together"] == ["no log", "", ""]


def test_a_base_without_a_log(tmp_path):
    tables, text = make(write(tmp_path, rows(), logs=KS[1:]), figures=True)
    assert "curves.png" in text and tables["run"]["base"][0] == "no log"
    assert tables["run"]["together"] == ["400,000", "667", "10.0"]


def test_without_matplotlib_the_tables_are_written(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def no_matplotlib(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    tables, text = make(write(tmp_path, rows()), figures=True)
    assert "pip install matplotlib" in capsys.readouterr().out and "pip install matplotlib" in text
    assert len(tables) == 7 and ".png" not in text and not list(tmp_path.glob("*.png"))


# ---------------------------------------------------------------------- what is missing, what is stale

def test_a_partial_run_reports_what_is_there(tmp_path):
    tables, text = make(write(tmp_path, rows(KS[:2]), logs=KS[:2]))
    assert tables["bits per byte"]["bits per byte"][:4] == ["base", "stage1", "gain", "gain, %"]
    assert tables["bits per byte"]["Arabic"][:4] == ["1.200", "1.180", "+0.020", "+1.7"]
    assert "Checkpoints found: base, stage1; requested: base, stage1, stage2." in text


def test_a_map_of_only_english_pairs(tmp_path):
    """Four rows: into and out of English, before and after."""
    english = [r for r in rows() if r["task"] != "translation" or "en" in r["lang"].split("-")]
    tables, text = make(write(tmp_path, english))
    settings = demo.Demo(run=str(tmp_path))
    table = gains.read_checkpoints(settings.run, settings.checkpoints, settings.chance)
    plt = reports_figures.pyplot()
    ax = demo_figures.build_figures(plt, settings, table, reports_figures.DARK)["translation"].axes[0]
    plt.close("all")
    assert [x.get_text() for x in ax.get_yticklabels()] == ["into English, base", "into English, stage2",
                                                            "out of English, base", "out of English, stage2"]
    assert ax.images[0].get_array().tolist() == [[20] * 28, [23] * 28, [10] * 28, [13] * 28]
    assert "any to any, without English" not in tables["direction"] and "Table 12" not in tables["benchmark"]


def test_other_choices(tmp_path):
    run = write(tmp_path, [r for r in rows() if r["task"] in ("heldout", "flores", "translation", "xcopa")])
    text = make(run, "chance={'xcopa': 50}")[1]
    assert "belebele" not in text and "XCOPA" in text


@pytest.mark.parametrize("keep, words", [
    (lambda r: r["checkpoint"] != "base", ["results.jsonl", "checkpoint base", "there is stage1, stage2"]),
    (lambda r: r["checkpoint"] == "base", ["results.jsonl", "stage1, stage2", "there is base"]),
    (lambda r: False, ["results.jsonl", "there is none"]),
    (lambda r: (r["checkpoint"], r["task"]) != ("stage1", "xcopa"),
     ["results.jsonl", "stage1", "xcopa", "29 of 29", "eval.py"]),
    (lambda r: r["task"] != "heldout", ["results.jsonl", "bits_per_byte", "heldout", "any of", "run eval.py"]),
    (lambda r: r["checkpoint"] != "stage1" or r["lang"] not in ("kk", "ne"),
     ["results.jsonl", "stage1", "bits_per_byte", "heldout", "kk, ne", "2 of 29"]),
    (lambda r: r["checkpoint"] == "stage2" or r["task"] != "translation",
     ["base has nothing", "chrf++", "translation"]),
    (lambda r: (r["checkpoint"], r["lang"]) != ("stage2", "ar-ja"),
     ["results.jsonl", "stage2", "translation", "ar-ja"]),
])
def test_what_is_missing_is_named(tmp_path, keep, words):
    run = write(tmp_path, [r for r in rows() if keep(r)])
    with pytest.raises(ValueError) as e:
        report.main(["demo", f"run={run}"])
    assert all(word in str(e.value) for word in words), str(e.value)


def test_a_line_cut_by_a_sudden_end_is_left_out(tmp_path):
    run = write(tmp_path, rows())
    for file in (run / "results.jsonl", run / "stage2" / "log.jsonl"):
        text = file.read_text()
        file.write_text(text[:100] + "\n\n" + text + '{"step": 300, "bpb": {"web-en": 1}')
    tables, _ = make(run)
    assert tables["bits per byte"]["Arabic"][:3] == ["1.200", "1.180", "1.160"]
    assert tables["run"]["stage2"] == ["200,000", "667", "5.0"]


def test_a_run_may_have_fewer_languages_and_tasks(tmp_path):
    """The demo's default languages: everything is about those, and what was not measured is named."""
    few = ["en", "zh", "ar", "kk", "uk"]
    keep = [r for r in rows() if set(r["lang"].split("-")) <= set(few) and r["task"] not in ("xcopa", "flores")]
    some = [r for r in keep if r["task"] != "belebele" or r["lang"] in ("kk", "en")]
    tables, text = make(write(tmp_path, some))
    assert "Languages: 5 of Marco-LLM's 29, without German, Spanish" in text
    assert "Not measured: xcopa, flores." in text and "parallel sentences" not in text
    assert list(tables["bits per byte"]) == ["bits per byte", "English", "Chinese", "Arabic", "other high-resource",
                                             "Ukrainian", "Kazakh", "low-resource (2)", "all (5)"]
    assert tables["bits per byte"]["bits per byte"][5:] == ["belebele", "mmmlu_unstated", "mmmlu_stated"]
    low = [sum(f(k, x) for x in ("kk", "uk")) / 2 for k in KS for f in (bits,)]
    assert tables["bits per byte"]["low-resource (2)"][:3] == [f"{x:.3f}" for x in low]
    assert tables["bits per byte"]["Arabic"][5] == "" and tables["bits per byte"]["Kazakh"][5] == "25/27/30"
    assert tables["base → stage2"]["reading, %"] == ["25", "25 → 29", "", "", "25 → 30", "25 → 30"]
    gain72 = ((84.8 - 70.3) + (91.7 - 88.2)) / 2  # Table 7 of the same two languages
    assert tables["mean gain"]["low-resource"][3] == f"{gain72:+.1f}"
    only_bits = [r for r in keep if r["task"] == "heldout"]
    tables, text = make(write(tmp_path, only_bits))
    assert "Not measured: belebele, xcopa, mmmlu_unstated, mmmlu_stated, flores, translation." in text
    assert "## Translation" not in text
    assert list(tables["base → stage2"]) == ["base → stage2", "bits per byte, less is better"]


def test_conversations_are_shown_where_the_exact_judge_ran(tmp_path):
    def judged(checkpoint, metric, group, score, **more):
        return {"checkpoint": checkpoint, "weights": "w", "task": "chat", "lang": "mean", "group": group, "n": 90,
                "metric": metric, "score": score, "stderr": 0.02, "low": score - 0.04, "high": score + 0.04} | more

    chat = [judged("sft", "stated_facts", "low", 0.5), judged("dpo", "stated_facts", "low", 0.7),
            judged("dpo", "win_rate", "low", 0.6, against="sft"), judged("dpo", "stated_facts", "en", 0.9),
            judged("dpo", "stated_facts", "kk", 0.1) | {"lang": "kk"}]
    text = make(write(tmp_path, rows() + chat))[1]
    shown = cells(text.split("## Conversations")[1].split("\n\n")[2])
    assert shown == [["judged exactly, %", "checkpoint", "English", "low-resource"],
                     ["stated facts", "sft", "", "50 [46, 54]"],
                     ["stated facts", "dpo", "90 [86, 94]", "70 [66, 74]"],
                     ["win rate against sft", "dpo", "", "60 [56, 64]"]]


def test_the_aligned_checkpoint_is_a_third_value_and_part_of_no_gain(tmp_path, capsys):
    dpo = [row | {"checkpoint": "dpo", "weights": "w-dpo", "score": row["score"] / 2}
           for row in rows() if row["checkpoint"] == "stage2"]
    tables = make(write(tmp_path, rows() + dpo))[0]
    out = capsys.readouterr().out
    assert "base → stage2 → dpo" in out and "1.00 → 1.00 → 0.50" in out and "10 → 13 → 6" in out
    assert tables["bits per byte"]["Arabic"][:3] == ["1.200", "1.180", "1.160"]


def test_rows_of_the_exact_judge_are_in_the_same_file(tmp_path):
    judged = {"checkpoint": "dpo", "weights": "w", "task": "chat", "lang": "en", "metric": "win_rate", "score": 0.6}
    tables = make(write(tmp_path, [*rows(), judged]))[0]
    assert tables["bits per byte"]["Arabic"][:3] == ["1.200", "1.180", "1.160"]


def test_no_results_file(tmp_path):
    with pytest.raises(ValueError, match="results.jsonl is missing; run eval.py"):
        report.main(["demo", f"run={tmp_path}"])


# ---------------------------------------------------------------------- the dispatcher

@pytest.mark.parametrize("argv, message", [
    ([], "the first word must name a report, got no word; the reports are: demo, datacard, claims, ablation, ladder, "
         "paper, curve, systems, tables"),
    (["run=out/demo"], "got 'run=out/demo'; the reports are: demo"), (["Demo"], "got 'Demo'; the reports are: demo"),
    (["demo"], "Demo: run must be set"), (["claims"], "set one of the two, runs=.* or saved="),
    (["claims", "runs=['a']"], r"runs must name two or more different folders, got \['a'\]; set runs="),
    (["ablation", "runs=['a', 'b']"], "set baseline=, variant= and runs=, or saved="),
    (["ablation", "baseline=x", "variant=y", "runs=['a']"], "runs must name two or more different folders"),
    (["curve", "runs=[]"], "runs must name a folder"), (["demo", "run=x", "paper=True"], "no setting named 'paper'"),
    (["demo", "run=x", "bound=0.02"], "no setting named 'bound'; it is called 'max_rise' now")])
def test_words_that_report_nothing(argv, message):
    with pytest.raises(ValueError, match=message):
        report.main(argv)


def test_help_lists_every_report_and_each_one_its_settings(capsys):
    report.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"report.py {name} " in text for name in report.REPORTS)
    for name, (schema, _) in report.REPORTS.items():
        with pytest.raises(SystemExit):
            report.main([name, "--help"])
        assert f"class {schema.__name__}" in capsys.readouterr().out


@pytest.mark.parametrize("field, value", [("n", 32), ("prompt", "q"), ("signature", "other")])
def test_scores_that_cannot_be_compared(tmp_path, field, value):
    one = ("stage2", "heldout", "ur")
    changed = [{**r, field: value} if (r["checkpoint"], r["task"], r["lang"]) == one else r for r in rows()]
    message = "stage2 and base differ in n, prompt or signature for bits_per_byte .* heldout in ur"
    with pytest.raises(ValueError, match=message):
        make(write(tmp_path, changed))


def test_the_newest_row_and_the_newest_weights_count(tmp_path):
    old = [{**r, "weights": "old", "score": 9.0} for r in rows(("stage2",))]
    twice = [{**r, "score": 1.16 + 1} for r in rows(("stage2",)) if (r["task"], r["lang"]) == ("heldout", "ar")]
    tables, _ = make(write(tmp_path, old + twice + rows()))
    assert tables["bits per byte"]["Arabic"][:4] == ["1.200", "1.180", "1.160", "+0.040"]
    # new weights, not all scored yet
    with pytest.raises(ValueError, match="stage2 has nothing for acc of task belebele"):
        new = [{**r, "weights": "new"} for r in rows(("stage2",)) if r["task"] in ("heldout", "flores")]
        make(write(tmp_path, rows() + new))


# ---------------------------------------------------------------------- claims

def claim(runs, capsys, *more):
    report.main(["claims", f"runs={[str(run) for run in runs]}", *more])
    out, text = capsys.readouterr().out, (runs[0].parent / "claims.md").read_text(encoding="utf-8")
    lines = [[x.strip() for x in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert len(out.splitlines()) == len(lines)  # header and a line per claim, and where the file is, but no rule
    report.main(["claims", f"saved={runs[0].parent / 'claims.json'}"])
    assert capsys.readouterr().out.splitlines() == out.splitlines()[:-1]
    return {(name, group): rest for name, group, *rest in lines}


def seeds(tmp_path, **change):
    return [write(tmp_path / f"seed{i}", rows(**{k: f(i) for k, f in change.items()}), logs=()) for i in range(3)]


def test_claims_mean_error_and_verdict(tmp_path, capsys):
    runs = seeds(tmp_path,
                 bits=lambda i: lambda k, x: bits(k, x) - (0.1 * i if k == "stage2" and x != "en" else 0),
                 chrf=lambda i: lambda k, pair:
                     chrf(k, pair) + (i * 3 - 3 if k == "stage2" and pair.endswith("-en") else 0),
                 accuracy=lambda i: lambda k, x, task:
                     accuracy(k, x, task) - (0.08 if k == "stage2" and task == "xcopa" else 0))
    found = claim(runs, capsys)
    # Chinese saves 0.02 + 0, 0.1, 0.2: mean 0.12, sd 0.1, over sqrt(3) 0.058; 0.12 > 0.1155
    assert found["bits per byte saved, documents", "Chinese"] == ["+0.120 ± 0.058", "+0.020 +0.120 +0.220", "yes"]
    assert found["bits per byte saved, documents", "English"] == ["+0.000 ± 0.000", "+0.000 +0.000 +0.000", "no"]
    assert found["bits per byte saved, documents", "low-resource"] == ["+0.480 ± 0.058", "+0.380 +0.480 +0.580", "yes"]
    # into English 3 + (-3, 0, 3): mean 3, error 1.73, less than twice below; out of English 3 in every run
    assert found["chrF++ xx to en", "all"] == ["+3.00 ± 1.73", "+0.00 +3.00 +6.00", "no"]
    assert found["chrF++ en to xx", "low-resource"] == ["+3.00 ± 0.00", "+3.00 +3.00 +3.00", "yes"]
    assert found["belebele, points", "low-resource"] == ["+5.0 ± 0.0", "+5.0 +5.0 +5.0", "yes"]
    assert found["xcopa, points", "other high-resource"] == ["-4.0 ± 0.0", "-4.0 -4.0 -4.0", "no"]
    order = found["least served gains most", "in bits"]
    assert order[1].startswith("+1.00") and order[2] == "yes"


@pytest.mark.parametrize("after, verdict", [
    ((1.0, 1.01, 1.02), "yes"), ((1.0, 1.02, 1.04), "no"), ((0.9, 0.9, 0.9), "yes")])
def test_claims_english_and_chinese(tmp_path, capsys, after, verdict):
    runs = seeds(tmp_path, bits=lambda i: lambda k, x: after[i] if (k, x) == ("stage2", "en") else bits(k, x))
    found = claim(runs, capsys)
    mean = 100 * (sum(after) / 3 - 1)
    got = found["bits per byte up at most 1 %, documents", "English"]
    assert got[0].startswith(f"{mean:+.1f} ± ") and got[2] == verdict
    assert got[1].split() == [f"{100 * (a - 1):+.1f}" for a in after]
    assert found["bits per byte up at most 1 %, documents", "Chinese"] == ["-1.8 ± 0.0", "-1.8 -1.8 -1.8", "yes"]


CLAIM = {"claim": "c", "group": "g", "values": [1.0, 2.0], "digits": 2, "at_most": None}
PLACE = {"place": ["m", "t", "acc", "low"], "baseline": [1.0, 2.0], "variant": [1.5, 2.5]}
CHANGE = {"baseline": "off", "variant": "on", "scores": [PLACE]}


@pytest.mark.parametrize("name, saved, message", [
    *(("claims", rows, "not the rows that this report saves") for rows in ([], {}, None, "x", CLAIM)),
    *(("claims", [CLAIM, CLAIM | wrong], "row 2 is damaged") for wrong in (
        {"values": ["1", "2"]}, {"values": [1.0]}, {"values": None}, {"values": [1.0, float("nan")]}, {"digits": "2"},
        {"digits": -1}, {"at_most": "1"}, {"claim": None})),
    *(("claims", [row], "row 1 is damaged") for row in (None, [1], {k: CLAIM[k] for k in CLAIM if k != "at_most"})),
    *(("ablation", found, "not what report.py ablation saves") for found in (
        [], {}, None, [PLACE], CHANGE | {"baseline": 1}, CHANGE | {"more": 1}, {"baseline": "off", "variant": "on"})),
    *(("ablation", CHANGE | {"scores": rows}, "not the rows") for rows in ([], {}, None)),
    *(("ablation", CHANGE | {"scores": [PLACE | wrong]}, "row 1 is damaged") for wrong in (
        {"variant": ["1", "2"]}, {"variant": []}, {"baseline": [1.0]}, {"baseline": None}, {"place": "mtal"},
        {"place": ["m"]}))])
def test_a_saved_report_that_is_damaged(tmp_path, name, saved, message):
    file = tmp_path / "saved.json"
    file.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=f"saved.json: {message}"):
        report.main([name, f"saved={file}"])


def test_runs_of_a_report(tmp_path):
    """One named twice would make standard errors smaller."""
    change = ["ablation", "baseline=off", "variant=on"]
    for words in (["claims"], change):
        for runs in (["a", "a"], ["a", "a/", "b"], [1, 2]):
            with pytest.raises(ValueError, match="two or more different folders"):
                report.main([*words, f"runs={runs}"])
        with pytest.raises(ValueError, match="saved=|cannot be read"):
            report.main([words[0], "saved="])
    with pytest.raises(ValueError, match="a/results.jsonl is missing"):
        report.main([*change, f"runs=['{tmp_path}/a', '{tmp_path}/b']"])


def test_claims_need_equal_runs(tmp_path):
    full, part = write(tmp_path / "a", rows(), logs=()), write(tmp_path / "b", rows(KS[:2]), logs=())
    with pytest.raises(ValueError, match="differ in checkpoints, languages or translation pairs"):
        report.main(["claims", f"runs={[str(full), str(part)]}"])
    report.main(["claims", f"runs={[str(full), str(part)]}", "checkpoints=['base', 'stage1']"])
    assert "claims.md" in {p.name for p in tmp_path.iterdir()}


def test_tables_take_any_languages_and_tasks(tmp_path, capsys):
    lines = [{"checkpoint": k, "task": "news", "metric": "bits_per_byte", "lang": x, "score": s}
             for k, scores in (("base", (2.0, 3.0)), ("stage2", (1.0, 2.4))) for x, s in zip(("kk", "sw"), scores)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    report.main(["tables", f"run={tmp_path}"])
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kk", "2.000", "1.000", "-50.0%"] in shown and ["sw", "3.000", "2.400", "-20.0%"] in shown
    assert ["mean", "2.500", "1.700", "-32.0%"] in shown and "| sw " in (tmp_path / "report.md").read_text()


# ---------------------------------------------------------------------- the published tables (paper.py)

CODES = {v: k for k, v in results.FLORES_CODES.items()}


def test_published_means_are_the_means_of_their_cells():
    """As far as they are: the exceptions are the paper's, and published.py names them."""
    odd = {}
    for number, t in published.TABLES.items():
        assert {len(row) for row in t["rows"].values()} == {len(t["cells"])} and len(set(t["cells"])) == len(t["cells"])
        for model, printed in t.get("average", {}).items():
            row = t["rows"][model]
            halves = (row[:14], row[14:]) if number == 11 else (row,)
            for half, mean in zip(halves, printed if number == 11 else (printed,)):
                if abs(np.mean(half) - mean) > 0.15:
                    odd[number, model] = round(float(np.mean(half)), 2)
    assert odd == {(9, "Marco-72B"): 76.37, (10, "Llama3.1-70B"): 84.58, (11, "GPT-4"): 39.47,
                   (15, "Qwen2.5-7B"): 37.68, (15, "Qwen2.5-72B"): 47.42, (15, "Marco-72B"): 61.69}


def test_published_tables_agree_with_each_other():
    """Table 8's MMMLU and Belebele are the printed means of 9 and 10; its AGIEval and C-Eval the averages of 17, 16."""
    for name, number in (("MMMLU", 9), ("Belebele", 10), ("TyDiQA", 15)):
        for model, row in published.TABLES[8]["rows"].items():
            printed = published.TABLES[number]["average"].get(model)
            assert printed == row[published.TABLES[8]["cells"].index(name)] or (model, name) == ("Llama3.1-8B", "MMMLU")
    for name, number in (("AGIEval", 17), ("CEval", 16)):
        t = published.TABLES[number]
        for model, row in published.TABLES[8]["rows"].items():
            assert t["rows"][model][t["cells"].index("average")] == row[published.TABLES[8]["cells"].index(name)]


def test_categories_give_the_published_means():
    """Which sets and subjects a mean is over: Marco's published set scores (Table 17) give the printed means, and the
    categories of the 52 subjects weigh Table 16's average."""
    t = published.TABLES[17]
    row = dict(zip(t["cells"], t["rows"]["Marco-Chat-7B"]))
    made = [{"task": "agieval_" + x.lower().replace(" w/o ", "_without_").replace("-", "_"), "lang": "zh",
             "metric": "acc", "score": row[x] / 100} for x in t["cells"] if x not in published.AGIEVAL]
    for name in published.AGIEVAL:
        assert paper.cell_score(17, name, {"AGIEval": made})[0] == pytest.approx(row[name], abs=0.06)
    assert paper.cell_score(8, "AGIEval", {"AGIEval": made})[0] == pytest.approx(61.5, abs=0.06)
    names = [x for k, v in published.CEVAL.items() if k not in ("average", "hard") for x in v]
    assert len(names) == len(set(names)) == 52 and set(published.CEVAL["hard"]) < set(published.CEVAL["STEM"])
    for model, row in published.TABLES[16]["rows"].items():
        row = dict(zip(published.TABLES[16]["cells"], row))
        whole = sum(row[k] * len(published.CEVAL[k]) for k in ("STEM", "social science", "humanities", "other")) / 52
        printed = 91.32 if model == "Qwen2-72B" else row["average"]  # the paper prints 90.6 for it
        assert whole == pytest.approx(printed, abs=0.06), model


def score(checkpoint, task, lang, value, metric="acc", shots=1, **more):
    return {"checkpoint": checkpoint, "weights": "w-" + checkpoint, "tokenizer": "t", "task": task, "lang": lang,
            "metric": metric, "score": value, "n": 50, "stderr": 0.02, "shots": shots, "prompt": f"{task} {lang}",
            "signature": None, "low": 0, "high": 1, "preset": "paper", "group": task} | more


def suite(k, up):
    """Belebele in all 28 languages, XCOPA in two of six, translation both ways, C-Eval, one set of AGIEval."""
    out = [score(k, f"belebele_{CODES[x]}", CODES[x], 0.5 + up) for x in LANGS[1:]]
    out += [score(k, f"xcopa_{x}", x, 0.6 + up, shots=5) for x in ("th", "vi")]
    out += [score(k, "flores", f"{CODES[a]}-{CODES[b]}", s + 100 * up, "bleu", stderr=None,
                  signature=f"nrefs:1|tok:{t}|version:2")
            for a, b, s, t in (("en", "ar", 10, "13a"), ("ar", "en", 30, "13a"), ("zh", "ja", 50, "ja-mecab"))]
    hard = published.CEVAL["hard"]
    out += [score(k, f"ceval-valid_{x}", "zh", 0.25 + up + 0.5 * (x in hard), shots=5)
            for x in published.CEVAL["average"]]
    out += [score(k, "agieval_sat_en_without_passage", "en", 0.3 + up, shots=5)]
    return out + [score(k, "belebele", "mean", 0.99, "acc_macro")]


def paper_tables(folder, lines, *words):
    """{table: {row name: {column: cell}}} of paper.md, and its text."""
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    report.main(["paper", f"run={folder}", *words])
    text, found = (folder / "paper.md").read_text(encoding="utf-8"), {}
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, *rest = cells(block)
        for name, *row in rest:
            found.setdefault(head[0], {}).setdefault(name, {}).update(zip(head[1:], row))
    return found, text


def test_ours_stand_under_the_published(tmp_path, capsys):
    found, text = paper_tables(tmp_path, suite("base", 0) + suite("mine", 0.05))
    assert set(found) == {f"Table {n}" for n in (5, 6, 7, 8, 10, 11, 12, 16, 17)}  # no MMMLU and TyDiQA: no Table 9, 15
    five = found["Table 5"]
    assert list(five) == [*published.TABLES[5]["rows"], "base", "base, ±", "mine", "mine, ±", "mine - base"]
    assert list(five["base"]) == ["AGIEval (1 of 21)", "Belebele", "CEval", "Flores (2 of 56)", "XCOPA (2 of 6)"]
    ceval = (44 * 25 + 8 * 75) / 52
    assert list(five["base"].values()) == ["30.0", "50.0", f"{ceval:.1f}", "20.0", "60.0"]
    assert five["Marco-7B"]["Belebele"] == "78.8"
    assert set(five["mine - base"].values()) == {"5.0"}
    half = {n: f"{1.96 * 2 / n ** 0.5:.1f}" for n in (1, 2, 28, 52)}  # of the mean of n scores, standard error 2 points
    assert list(five["mine, ±"].values()) == [half[1], half[28], half[52], "", half[2]]  # BLEU has no standard error
    six = found["Table 6"]
    assert six["base"]["th"] == "55.0" and six["base"]["kk"] == "50.0"  # Belebele and XCOPA; Belebele
    assert six["base"]["zh"] == f"{(50 + ceval) / 2:.1f}" and six["Marco-7B"]["kk"] == "66.1"
    assert six["Marco-7B"]["mean (29)"] == "75.5" and "Marco-72B" not in six and "Marco-72B" in found["Table 7"]
    assert "The paper does not say which benchmarks it averages" in text
    eleven = found["Table 11"]
    assert eleven["base"] == {"en-ar": "10.0", "ar-en": "30.0", "from English (1)": "10.0", "into English (1)": "30.0"}
    assert eleven["Google"]["into English (1)"] == "46.8"
    assert found["Table 12"]["mine"] == {"zh-ja": "55.0", "mean (1)": "55.0"}
    assert found["Table 16"]["base"]["hard"] == "75.0" and found["Table 16"]["base"]["humanities"] == "25.0"
    assert found["Table 17"]["mine"] == {"SAT-EN w/o passage": "35.0"}
    assert found["Table 10"]["mine"]["mean (20)"] == "55.0"
    assert ("Belebele. Paper: test, acc, 1-shot. Ours: acc, 1-shot, preset paper; 28 of 28 languages or sets, "
            "28 tasks, 1,") in text
    assert "`nrefs:1|tok:13a|version:2`" in text and "split and shots not published" in text
    assert text.replace("\n\n", "\n").split("\n")[0] in capsys.readouterr().out


def test_one_checkpoint_one_table(tmp_path):
    found, _ = paper_tables(tmp_path, suite("base", 0) + suite("mine", 0.05), "tables=[10]", "checkpoints=['mine']")
    assert list(found) == ["Table 10"] and list(found["Table 10"])[-2:] == ["mine", "mine, ±"]


def test_subjects_count_once_for_their_language(tmp_path):
    """MMMLU: the mean over a language's subjects; of tasks in Hugging Face's and in FLORES' codes alike."""
    lines = [score("m", f"mmmlu_{x}_{s}", x[:2], v, shots=0)
             for x, s, v in (("AR_XY", "anatomy", 0.2), ("AR_XY", "law", 0.4), ("SW_KE", "law", 0.4))]
    found, text = paper_tables(tmp_path, lines)
    assert found["Table 9"]["m"] == {"ar": "30.0", "sw": "40.0", "mean (2)": "35.0"}
    assert found["Table 8"]["m"] == {"MMMLU (2 of 14)": "35.0"}  # and not 33.3, the mean of three
    assert found["Table 9"]["GPT-4 (70B block)"]["mean (2)"] == f"{(71.1 + 68.1) / 2:.1f}"


def change(lines, pick, **values):
    return [row | values if pick(row) else row for row in lines]


BOTH = suite("base", 0) + suite("mine", 0.05)


@pytest.mark.parametrize("pick, values, said", [
    (lambda r: r["checkpoint"] == "mine" and r["task"].startswith("bel"), {"shots": 0},
     "Belebele: belebele_zho_Hans .* of base has shots 1, .* of mine has shots 0: not one measurement"),
    (lambda r: r["checkpoint"] == "mine" and r["task"] == "xcopa_th", {"prompt": "other"},
     r"XCOPA: xcopa_th \(th\) of base has prompt 'xcopa_th th', xcopa_th \(th\) of mine has prompt 'other'"),
    (lambda r: r["checkpoint"] == "mine" and r["metric"] == "bleu", {"signature": "nrefs:1|tok:13a"},
     "Flores: .* signature"),
    (lambda r: r["lang"] == "arb_Arab-eng_Latn", {"signature": "nrefs:1|tok:13a|version:1"},
     "Flores: .*eng_Latn-arb_Arab.* signature 'nrefs:1.version:2', .*arb_Arab-eng_Latn.* "
     "signature 'nrefs:1.version:1'"),
    (lambda r: r["checkpoint"] == "base", {"preset": "lm-eval"},
     "AGIEval: .* base has preset 'lm-eval', .* preset 'paper'"),
    (lambda r: r["task"] == "xcopa_vi" and r["checkpoint"] == "base", {"n": 49}, r"xcopa_vi \(vi\) of base has n 49"),
    (lambda r: r["task"] == "xcopa_vi" and r["checkpoint"] == "base", {"shots": 0},
     "xcopa_th .* shots 5, xcopa_vi .* shots 0"),
])
def test_scores_of_different_measurements_are_not_mixed(tmp_path, pick, values, said):
    with pytest.raises(ValueError, match=said):
        paper_tables(tmp_path, change(BOTH, pick, **values))


def test_means_over_other_languages_are_not_mixed(tmp_path):
    lines = [row for row in BOTH if (row["checkpoint"], row["lang"]) != ("mine", "kaz_Cyrl")]
    with pytest.raises(ValueError, match=r"Belebele: base has belebele_kaz_Cyrl kaz_Cyrl \(1 in all\), mine has not"):
        paper_tables(tmp_path, lines)
    assert "kk" in paper_tables(tmp_path, lines, "checkpoints=['base']")[0]["Table 10"]["base"]


def test_other_shots_than_the_papers(tmp_path):
    """They are left out by name; on request they are shown with their shots; of rows with both, the paper's count."""
    zero = change(BOTH, lambda r: r["task"].startswith("bel"), shots=0)
    found, text = paper_tables(tmp_path, zero)
    assert "Belebele" not in found["Table 5"]["base"] and "Belebele" in found["Table 8"]["base"]
    assert "Belebele is left out: ours has 0 shots, not 1; shots=0 shows it." in text
    found, text = paper_tables(tmp_path, zero, "shots=0")
    assert found["Table 5"]["base"]["Belebele"] == "50.0" and "Paper: test, acc, 1-shot. Ours: acc, 0-shot" in text
    assert "CEval is left out: ours has 5 shots, not 0" in text
    twice = BOTH + change([r for r in BOTH if r["task"].startswith("bel")], lambda r: True, shots=0, score=0.1)
    assert paper_tables(tmp_path, twice, "tables=[5]")[0]["Table 5"]["base"]["Belebele"] == "50.0"
    with pytest.raises(ValueError, match="has shots 1, .* has shots 0"):  # Table 8 says nothing of shots
        paper_tables(tmp_path, twice, "tables=[8]")
    assert paper_tables(tmp_path, twice, "tables=[8]", "shots=0")[0]["Table 8"]["base"]["Belebele"] == "10.0"


def test_custom_tests_are_not_the_published_ones(tmp_path):
    """The tinyworld's belebele is not Belebele."""
    found, text = paper_tables(tmp_path, change(BOTH, lambda r: r["task"].startswith("bel"), preset=None))
    assert "Belebele" not in found["Table 8"]["base"]
    assert "Belebele is left out: belebele_zho_Hans is a custom test" in text


def test_spbleu_is_preferred(tmp_path):
    more = [row | {"metric": "spbleu", "score": 33.0, "signature": "tok:flores200"} for row in suite("base", 0)
            if row["metric"] == "bleu"]
    found, text = paper_tables(tmp_path, suite("base", 0) + more)
    assert found["Table 11"]["base"]["en-ar"] == "33.0" and "Ours: spbleu" in text


def test_lines_cut_in_the_middle_are_skipped_and_damaged_ones_named(tmp_path):
    """A resumed eval.py ends the line that a kill has cut; wherever it was cut, the rest counts."""
    lines = suite("base", 0)
    texts = [json.dumps(row) for row in lines]
    for cut in ('{"checkp', '{"checkpoint": "base", "score": 0.', '{"checkpoint": "base", "more": {"a": 1}'):
        (tmp_path / "results.jsonl").write_text("\n".join([*texts[:3], cut, "", *texts[3:]]) + "\n")
        assert len(scores.read_scores(tmp_path / "results.jsonl")) == len(lines) - 1  # without the row of a group
    braces = lines[0] | {"signature": "{x"}  # a valid row, although its braces do not match
    (tmp_path / "results.jsonl").write_text(json.dumps(braces) + "\n")
    assert scores.read_scores(tmp_path / "results.jsonl") == [braces]
    for bad in ('{"checkpoint": "base", oops}', "[1, 2]", "12", '{"checkpoint": "\udce3"}'):
        raw = ("\n".join([*texts[:2], bad, *texts[2:]]) + "\n").encode("utf-8", "surrogateescape")
        (tmp_path / "results.jsonl").write_bytes(raw)
        with pytest.raises(ValueError, match="results.jsonl, line 3: (not JSON|not UTF-8|lacks one of checkpoint)"):
            scores.read_scores(tmp_path / "results.jsonl")


def test_newest_weights_only(tmp_path):
    old = change(suite("base", 0.3), lambda r: True, weights="old", shots=9)
    assert paper_tables(tmp_path, old + suite("base", 0))[0]["Table 5"]["base"]["Belebele"] == "50.0"


@pytest.mark.parametrize("lines, words, said", [
    ([], [], "has no row with a score"), (BOTH, ["preset='lm-eval'"], "no row with preset=lm-eval"),
    (BOTH, ["checkpoints=['other']"], r"no row with checkpoints=\['other'\]; its checkpoints: base"),
    (BOTH, ["tables=[13]"], r"tables=\[13\]: the paper's result tables"),
    (BOTH, ["tables=[9]"], "no score for any of the published tables"),
    (change(BOTH, lambda r: True, shots=3), ["tables=[5]"], "no score .* Belebele is left out: ours has 3 shots"),
    ([{"checkpoint": "x"}], [], "results.jsonl, line 1: lacks one of")])
def test_nothing_to_show(tmp_path, lines, words, said):
    with pytest.raises(ValueError, match=said):
        paper_tables(tmp_path, lines, *words)


# ---------------------------------------------------------------------- Figure 9 (curve.py)

def steps_run(folder, scores, per_step=1000, last=400):
    """A run with checkpoints step-N, {N: score in Arabic} (Kazakh has 0.1 more), and a log row every hundred steps."""
    folder.mkdir()
    lines = [score(f"step-{n}", f"mmmlu_{x}", x, s + 0.1 * (x == "kk"))
             for n, s in scores.items() for x in ("ar", "kk")]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [
        *lines, score("base", "mmmlu_ar", "ar", 0.9), score("step-100", "mmmlu", "mean", 0.3, "acc_macro")]))
    log = [{"step": n, "tokens": per_step * n} for n in range(0, last + 1, 100)] + [{"step": last, "bpb": {}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return folder


def test_benchmarks_by_tokens_seen(tmp_path, capsys):
    run = steps_run(tmp_path / "run", {400: 0.4, 100: 0.25, 250: 0.3})
    report.main(["curve", f"runs=['{run}']"])
    text = (run / "steps.md").read_text()
    rows = {row[0]: row[1:] for row in cells("\n".join(line for line in text.splitlines() if line.startswith("|")))}
    assert rows["mmmlu acc"] == ["0.10 M", "0.25 M", "0.40 M"]  # in order, without base; 250 is between two log rows
    assert rows["ar"] == ["25.00", "30.00", "40.00"] and rows["kk"] == ["35.00", "40.00", "50.00"]
    assert rows["all (2)"] == ["30.00", "35.00", "45.00"]
    assert "macro" not in text and "](steps-mmmlu-acc.png)" in text
    assert (run / "steps-mmmlu-acc.png").read_bytes()[:4] == b"\x89PNG"


def test_stages_are_laid_end_to_end(tmp_path):
    one, two = steps_run(tmp_path / "one", {200: 0.3, 300: 0.4}), steps_run(tmp_path / "two", {100: 0.5}, per_step=2000)
    report.main(["curve", f"runs=['{one}', '{two}']"])
    assert re.search(r"mmmlu acc +\| +0.20 M +\| +0.30 M +\| +0.60 M", (one / "steps.md").read_text())


def test_steps_that_cannot_be_shown(tmp_path):
    run = steps_run(tmp_path / "run", {100: 0.25, 500: 0.3})
    with pytest.raises(ValueError, match="log.jsonl does not reach step 500"):
        report.main(["curve", f"runs=['{run}']"])
    lines = [json.loads(x) for x in (run / "results.jsonl").read_text().splitlines()]
    mixed = change(lines, lambda r: r["checkpoint"] == "step-500", checkpoint="step-400", shots=5)
    for other, said in ((mixed, "has shots 1, .* shots 5"), (lines[-2:], "has no checkpoint named step-N")):
        (run / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
        with pytest.raises(ValueError, match=said):
            report.main(["curve", f"runs=['{run}']"])


def test_without_matplotlib_the_steps_are_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(curve, "pyplot", lambda: None)
    run = steps_run(tmp_path / "run", {100: 0.25, 200: 0.3})
    report.main(["curve", f"runs=['{run}']"])
    assert "pip install matplotlib" in (run / "steps.md").read_text() and not list(run.glob("*.png"))
