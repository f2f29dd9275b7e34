"""The table of benchmarks: names, presets, prompts that lm-eval does not have, files, chat, means, resume."""
import json
from pathlib import Path

import pytest
from test_harness import benchmark_files, write_model

import eval as evaluate
import tokenizer
from evaluation import documents, files, metrics, prompts
from evaluation import run as runners
from evaluation.statistics import mean_interval
from evaluation.tasks import PAPER_SUITE, load_tasks
from evaluation.tasks.define import parse_list
from model import Qwen2

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny", False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return benchmark_files(tmp_path_factory.mktemp("data"))


def run(folder, data, out, *words):
    evaluate.main([str(folder), f"data={data}", f"out={out}", "threads=1", *words])
    return [[json.loads(line) for line in open(out / name, encoding="utf-8")]
            for name in ("results.jsonl", "samples.jsonl")]


def test_the_papers_suite():
    """Table 4: splits, shots, and as many languages as the paper says."""
    suite = load_tasks("paper")
    asked = {(name.split("_")[0], t["split"], t["shots"]) for name, t in suite.items()
             if name in PAPER_SUITE or set(t["groups"]) & set(PAPER_SUITE)}
    assert {("ceval-valid", "val", 5), ("agieval", "test", 5), ("arc", "test", 25), ("mmlu", "test", 5),
            ("xcopa", "val", 5),
            ("m", "val", 5), ("xstorycloze", "eval", 5), ("tydiqa", "val", 1), ("belebele", "test", 1),
            ("flores", "devtest", 1)} <= asked
    assert [sum(name.startswith(x) for name in PAPER_SUITE) for x in ("xcopa", "xstory", "belebele")] == [6, 6, 28]
    pairs = [t["lang"] for t in suite.values() if t["kind"] == "translate" and t["name"].startswith("flores")]
    assert len(pairs) == 29 * 28 and sum("flores_table12" in t["groups"] for t in suite.values()) == 42
    assert sum("agieval" in t["groups"] for t in suite.values()) == 21
    assert len({t["lang"] for t in suite.values() if "mmmlu" in t["groups"]}) == 14
    assert all(t["shots"] == 0 for t in load_tasks("lm-eval").values())
    with pytest.raises(ValueError, match="the presets are paper and lm-eval"):
        load_tasks("papers")


def test_agieval_as_the_paper_asks_it(tmp_path, folder):
    """AGIEval's numbered layout; a formula's {n} is no number of a question; shots that do not fit are left out."""
    def shot(i):
        return {"passage": None, "question": f"$a_{{n}}={i}$?", "options": ["(A)1", "(B)2"], "label": "B",
                "answer": None}

    (tmp_path / "agieval").mkdir()
    (tmp_path / "agieval/sat-math.jsonl").write_text(json.dumps(shot(9) | {"passage": "P."}) + "\n")
    cells = ['"' + repr(shot(i)).replace('"', '""') + '"' for i in range(5)]
    lines = "".join(f"sample {i},{cell}\nexplanation {i},x\n" for i, cell in enumerate(cells))
    (tmp_path / "agieval/few_shot_prompts.csv").write_text(",sat-math\n" + lines)
    c = evaluate.Eval(model="m", data=str(tmp_path), tasks="agieval_sat_math")
    task, = evaluate.select_tasks(c)
    doc, = evaluate.load_documents(c, task, tokenizer.load(folder))[0]
    text, delimiter = prompts.render_prompt(c, None, doc, doc["context"], task["delimiter"])
    assert text.startswith("Here are the answers for the problems in the exam.\nProblem 1.    $a_{n}=0$?\nChoose from "
                           "the following options:    (A)1 (B)2\nThe answer is therefore B\n\nProblem 2.    $a_{n}=1$?")
    assert text.endswith("B\n\nProblem 6.   P. $a_{n}=9$?\nChoose from the following options:    (A)1 (B)2\n"
                         "The answer is therefore")
    assert delimiter == " " and doc["choices"] == ["A", "B"] and doc["gold"] == [1] and doc["shots"] == 5
    c = evaluate.Eval(model="m", data=str(tmp_path), tasks="agieval_sat_math", max_length=300)
    assert 0 < evaluate.load_documents(c, task, tokenizer.load(folder))[0][0]["shots"] < 5


def test_files_are_found_by_their_words(tmp_path):
    def add(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("{}\n")

    def found(*a):
        return [str(p.relative_to(tmp_path)) for p in files.find_files(tmp_path, *a)]

    add("x/val.th.jsonl", "x/test.th.jsonl", "x/test.thx.jsonl", "x/README.md", "x/dev/b.csv", "x/test/b.csv")
    assert found(("y", "x"), ("th",), "test") == ["x/test.th.jsonl"]
    assert found(("x",), ("th",), "val") == ["x/val.th.jsonl"]
    assert found(("x",), ("b",), "dev") == ["x/dev/b.csv"] and found(("x",), ("th",), "train") == []
    add("z/ar/validation-00000-of-00002.parquet", "z/ar/validation-00001-of-00002.parquet", "w/sat-math.jsonl",
        "v/zho_Hans.jsonl")
    assert len(found(("z",), ("ar",), "val")) == 2 and found(("w",), ("=math",), "test") == []
    assert found(("v",), (), "dev", False) == [] and found(("x",), ("th",), "val", False) == ["x/val.th.jsonl"]
    assert found(("w",), ("=sat-math|math",), "test") == ["w/sat-math.jsonl"]
    assert found(("v",), ("ZHO_hans",), "test") == ["v/zho_Hans.jsonl"]


@pytest.mark.parametrize("name, task, is_its", [
    ("cmmlu/test/college_education.csv", "cmmlu_education", False),
    ("cmmlu/test/education.csv", "cmmlu_education", True),
    ("cmmlu/education_test.csv", "cmmlu_education", True), ("cmmlu/cmmlu-education-test.csv", "cmmlu_education", True),
    ("cmmlu/test/college-education.csv", "cmmlu_education", False),
    ("cmmlu/test/physical_education.csv", "cmmlu_education", False),  # of no subject that we know
    ("ceval/val/tax_accountant_val.csv", "ceval-valid_accountant", False),
    ("ceval/val/accountant_val.csv", "ceval-valid_accountant", True),
    ("mmlu/college_medicine_test.csv", "mmlu_college_medicine", True),
    ("cmmlu/test/law.csv", "cmmlu_college_law", False),
    ("belebele/data/zho_Hans.jsonl", "belebele_zho_Hans", True),
    ("belebele/zho_Hant.jsonl", "belebele_zho_Hans", False),
    ("tydiqa-goldp/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-swahili.json", "tydiqa_goldp_sw", True),
    ("xnli/th-old/val.jsonl", "xnli_th", False), ("mmmlu/mmlu_BN-BD.csv", "mmmlu_bn_bd_anatomy", True),
])
def test_a_file_is_this_tasks_or_another(tmp_path, name, task, is_its):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("{}\n")
    suite = load_tasks("lm-eval")
    found = files.find_files(str(tmp_path), suite[task]["folders"], suite[task]["path_words"], suite[task]["split"])
    assert [str(p.relative_to(tmp_path)) for p in found] == ([name] if is_its else [])


@pytest.mark.parametrize("name, task", [
    ("tydiqa/snapshots/0a1b2c/secondary_task/validation-00000-of-00001.jsonl", "tydiqa_goldp_sw"),
    ("datasets--google-research-datasets--tydiqa/snapshots/0a1b/secondary_task/validation.jsonl", "tydiqa_goldp_sw"),
    ("datasets--facebook--belebele/snapshots/9f/data/zho_Hans.jsonl", "belebele_zho_Hans"),
    ("include/North Macedonian/test-00000-of-00001.jsonl", "include_base_44_north_macedonian_stem"),
    ("xstorycloze/spring2016.val.zh.tsv.split_20_80_eval.tsv", "xstorycloze_zh"),
])
def test_files_as_published_and_cached(tmp_path, name, task):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("{}\n")
    fields = load_tasks("lm-eval")[task]
    found = files.find_files(str(tmp_path), fields["folders"], fields["path_words"], fields["split"])
    assert [str(p.relative_to(tmp_path)) for p in found] == [name]


def test_rows_as_published(tmp_path):
    """XStoryCloze's TSV columns; AGIEval's several letters; a file of other columns is named with those it has."""
    suite = load_tasks("lm-eval")
    story = dict(InputStoryid="1", **{f"InputSentence{i}": f"s{i}" for i in range(1, 5)}, RandomFifthSentenceQuiz1="a",
                 RandomFifthSentenceQuiz2="b", AnswerRightEnding="2")
    path = tmp_path / "xstorycloze/spring2016.val.zh.tsv.split_20_80_eval.tsv"
    path.parent.mkdir()
    path.write_text("\t".join(story) + "\n" + "\t".join(story.values()) + "\n")
    c = evaluate.Eval(model="m", data=str(tmp_path), tasks="xstorycloze_zh", preset="lm-eval")
    document, = documents.read_documents(c, suite["xstorycloze_zh"], "eval")[0]
    assert (document["context"], document["choices"], document["gold"]) == ("s1 s2 s3 s4", ["a", "b"], [1])
    gold = suite["agieval_jec_qa_kd"]["gold"]
    assert gold({"label": "A B D"}) == gold({"label": "ABD"}) == gold({"label": ["A", "B", "D"]}) == [0, 1, 3]
    assert gold({"label": "C"}) == gold({"label": ["C"]}) == [2]
    (tmp_path / "xcopa").mkdir()
    (tmp_path / "xcopa/test.sw.jsonl").write_text('{"Premise": "a", "label": 0}\n')
    complaints = documents.read_documents(c, suite["xcopa_sw"], "test")[1]
    assert complaints[0].endswith("test.sw.jsonl, line 1: it lacks 'premise'; its columns are Premise, label")


def test_wmt16_has_two_blanks_before_the_answer_of_an_example(tmp_path):
    """As lm-eval's prompt has them: the target's own and the delimiter's; the paper's preset has one."""
    row = {"translation": {"de": "Haus", "en": "house"}}
    (tmp_path / "wmt16/de-en").mkdir(parents=True)
    for split in ("val", "test"):
        (tmp_path / f"wmt16/de-en/{split}.jsonl").write_text((json.dumps(row) + "\n") * 2)
    for preset, blanks in (("lm-eval", "  "), ("paper", " ")):
        c = evaluate.Eval(model="m", data=str(tmp_path), tasks="wmt16-de-en", preset=preset, shots=1)
        task = load_tasks(preset)["wmt16-de-en"] | {"fewshot_order": "first"}
        document = prompts.format_prompts(c, task, documents.read_documents(c, task, "test")[0], None)[0]
        text, _ = prompts.render_prompt(c, None, document, document["context"], "")
        assert text == f"German phrase: Haus\nEnglish phrase:{blanks}house\n\nGerman phrase: Haus\nEnglish phrase:"
        assert document["gold"] == ["house"]


def test_published_shapes(tmp_path):
    """No header, semicolons, doubled quotes, SQuAD's articles, JSON Lines in a .json, a byte order mark."""
    def read(name, text, columns=None):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return [row or wrong for _, row, wrong in files.read_benchmark_file(tmp_path / name, columns)]
    assert read("a.tsv", 'say "x"\t3\nb\t4\n', ("q", "n")) == [{"q": 'say "x"', "n": "3"}, {"q": "b", "n": "4"}]
    doubled = read("b.tsv", 'q\tn\n"a ""b"" c"\t1\n"whole"\t2\n')
    assert doubled == [{"q": 'a "b" c', "n": "1"}, {"q": '"whole"', "n": "2"}]
    assert read("c.csv", "q;a;n\nx, y;['1', '2'];0\n") == [{"q": "x, y", "a": "['1', '2']", "n": "0"}]
    assert read("d.csv", "q,n\na,1,2\n") == ["3 cells, the header has 2"]
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "answers": []}]}]}]}
    assert read("e.json", json.dumps(squad)) == [{"id": "1", "question": "q", "answers": [], "context": "c"}]
    assert read("f.json", '\ufeff{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    assert parse_list("['a' 'b c'\n \"it's\"]") == parse_list("['a', 'b c', \"it's\"]") == ["a", "b c", "it's"]


def test_a_missing_file_says_where_to_get_it(tmp_path, folder, capsys):
    (tmp_path / "xcopa").mkdir()
    with pytest.raises(ValueError, match="task xcopa_sw: no file below .*xcopa whose path holds sw and the split "
                                         "test .* get it from cambridgeltl/xcopa"):
        evaluate.select_tasks(evaluate.Eval(model="m", data=str(tmp_path), tasks="xcopa_sw", preset="lm-eval"))
    with pytest.raises(ValueError, match="nothing is called 'xkopa'"):
        evaluate.select_tasks(evaluate.Eval(model="m", data=str(tmp_path), tasks="xkopa"))
    with pytest.raises(ValueError, match="no file of xcopa below"):
        evaluate.select_tasks(evaluate.Eval(model="m", data=str(tmp_path), tasks="xcopa"))
    assert "11 tasks are left out" in capsys.readouterr().err


def test_shots_never_come_from_the_measured_file(tmp_path):
    (tmp_path / "mmlu").mkdir()
    (tmp_path / "mmlu/anatomy.jsonl").write_text(json.dumps(dict(question="q", choices=list("abcd"), answer=0)) + "\n")

    def select(**more):
        return evaluate.select_tasks(evaluate.Eval(model="m", data=str(tmp_path), tasks="mmlu_anatomy", **more))

    with pytest.raises(ValueError, match="whose path holds anatomy and the split dev"):
        select()
    assert len(select(shots=0)) == 1


def test_means_of_a_group(data, folder, tmp_path):
    results, _ = run(folder, data, tmp_path, "tasks=global_mmlu_full_ny", "preset=lm-eval")
    two = [r for r in results if r["lang"] == "ny"]
    means = {r["metric"]: r for r in results if r["lang"] == "mean" and r["task"] == "global_mmlu_full_ny"}
    assert len(two) == 2 and set(means) == {"acc_micro", "acc_macro"} and two[0]["n"] != two[1]["n"]
    assert means["acc_macro"]["score"] == pytest.approx((two[0]["score"] + two[1]["score"]) / 2, abs=1e-4)
    micro = sum(r["score"] * r["n"] for r in two) / sum(r["n"] for r in two)
    assert means["acc_micro"]["score"] == pytest.approx(micro, abs=1e-4)


def test_killed_and_started_again(data, folder, tmp_path):
    """Whatever a kill leaves behind, the second run ends with the files of an undisturbed one and measures the rest."""
    words = ("tasks=xcopa_sw,belebele_fra_Latn", "preset=lm-eval")
    run(folder, data, tmp_path / "a", *words)
    whole = {name: (tmp_path / "a" / name).read_text(encoding="utf-8") for name in ("results.jsonl", "samples.jsonl")}
    lines = {name: text.splitlines(keepends=True) for name, text in whole.items()}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/results.jsonl").write_text("".join(lines["results.jsonl"][:2]),
                                              encoding="utf-8")  # acc of Belebele, not acc_norm
    (tmp_path / "b/samples.jsonl").write_text("".join(lines["samples.jsonl"][:12]) + lines["samples.jsonl"][12][:50],
                                              encoding="utf-8")
    results, samples = run(folder, data, tmp_path / "b", *words)

    def strip(text):
        return [json.loads(x) for x in text.splitlines()]

    assert samples == strip(whole["samples.jsonl"])
    new = [r for r in results if results.count(r) == 1 or r["metric"] != "acc"]
    assert new[-1] == strip(whole["results.jsonl"])[-1]
    before = (tmp_path / "b/results.jsonl").read_bytes()
    run(folder, data, tmp_path / "b", *words)
    assert (tmp_path / "b/results.jsonl").read_bytes() == before


def test_batch_size_changes_nothing(data, folder, tmp_path):
    words = ("tasks=xcopa_sw,cmmlu_agronomy,mgsm_direct_zh", "preset=lm-eval", "shots=1")
    (a, x), (b, y) = (run(folder, data, tmp_path / str(n), *words, f"batch_tokens={n}") for n in (64, 4096))
    assert a == b
    for s, r in zip(x, y, strict=True):
        small, large = ([p["loglikelihood"] for p in sample.get("pairs", ())] for sample in (s, r))
        assert s.get("response") == r.get("response") and small == pytest.approx(large, abs=1e-4)


def test_chat(folder, tmp_path):
    """Turns come one by one with the answers so far; messages as they are, without a reference at their end."""
    (tmp_path / "chat").mkdir()
    asked = [{"turns": ["river stone?", "house?"]}, {"messages": [{"role": "user", "content": "a"},
                                                                  {"role": "assistant", "content": "b"},
             {"role": "user", "content": "c"}, {"role": "assistant", "content": "gold"}]}, {"prompt": "walks"}]
    (tmp_path / "chat/en.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    task = dict(name="talk", kind="chat", path="chat/{lang}.jsonl", max_new_tokens=5)
    _, samples = run(folder, tmp_path, tmp_path / "out", f"tasks={[task]!r}", "languages=['en']")
    roles = [[m["role"][0] for m in s["messages"]] for s in samples]
    assert roles == [["u", "a", "u", "a"], ["u", "a", "u", "a"], ["u", "a"]]
    assert [len(s["responses"]) for s in samples] == [2, 1, 1]
    assert samples[1]["messages"][1]["content"] == "b"
    assert samples[1]["messages"][3]["content"] == samples[1]["response"] != "gold"
    t = tokenizer.load(folder)
    model = Qwen2.from_pretrained(folder).eval()
    ids = t.encode_chat(samples[0]["messages"][:3])
    assert samples[0]["response"] == t.decode(runners.generate(model, [ids], 5, t.stop_ids)[0])


def test_plugs_three_benchmarks(tmp_path, folder):
    """The published columns, under the hub's and the paper's file names; a system prompt comes first."""
    rows = {"X-SVAMP_en_zh_ko_it_es/spanish.json": {"id": 1, "instruction": "\u00bfCu\u00e1ntos?", "answer": 1000},
            "truthfulqa/zh/truthfulqa_zh.json": {"id": 1, "instruction": "水？", "correct_answers": ["湿", "冷"],
                                                 "incorrect_answers": ["干"]},
            "x-alpacaeval/italian.json": {"id": 1, "dataset": "koala", "instruction": "Chi?", "system": "Rispondi."}}
    for name, row in rows.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(json.dumps([row]), encoding="utf-8")
    tasks = load_tasks("paper")
    c = evaluate.Eval(model="m", data=str(tmp_path))
    read = {name: documents.read_documents(c, tasks[name], "test")[0]
            for name in ("x_svamp_es", "x_truthfulqa_zh", "x_alpacaeval_it")}
    assert [(d["context"], d["gold"]) for d in read["x_svamp_es"]] == [("\u00bfCu\u00e1ntos?", ["1000"])]
    assert read["x_truthfulqa_zh"][0]["gold"] == ["湿", "冷"] and not read["x_truthfulqa_zh"][0]["sequential"]
    assert [m["role"] for m in read["x_alpacaeval_it"][0]["messages"]] == ["system", "user"]
    results, _ = run(folder, tmp_path, tmp_path / "out", "tasks=x_svamp_es", "max_length=600")
    assert {r["metric"] for r in results} >= {"exact_match"}
    with pytest.raises(ValueError, match="x_svamp_ko: no file .*get it from zhihz0535/X-SVAMP_en_zh_ko_it_es"):
        evaluate.select_tasks(evaluate.Eval(model="m", data=str(tmp_path), tasks="x_svamp_ko"))


@pytest.mark.parametrize("text, lang, numbers", [
    ("3.5", "en", [3.5]), ("3.5", "es", [3.5]), ("3,5", "es", [3.5]), ("1.000", "es", [1000]), ("1.000", "en", [1]),
    ("1,000", "en", [1000]), ("1.234,5", "it", [1234.5]), ("1,234.5", "zh", [1234.5]), ("0.500", "es", [0.5]),
    ("1.234.567", "es", [1234567]), ("1\u202f000", "fr", [1000]), ("٣٫٥ ثم ١٬٠٠٠", "ar", [3.5, 1000]),
    ("答案是１２。", "zh", [12]), ("5 - 3 = 2, o -2.", "it", [5, 3, 2, -2]), ("5-3", "en", [5, 3]),
    ("1,2,3", "en", [1, 2, 3]), ("$1,250!", "en", [1250]), ("nada", "es", []), ("12.345.6", "es", [12, 345, 6])])
def test_numbers_as_a_language_writes_them(text, lang, numbers):
    assert metrics.read_numbers(text, lang) == numbers


def test_the_last_number_is_the_answer():
    said = metrics.exact_number
    assert said("Son 3 y 4, en total 1.007.", ["1007"], "es") == {"exact_match": 1.0}
    assert said("Son 1.007, no 3.", ["1007"], "es") == said("Nada.", ["0"], "es") == {"exact_match": 0.0}


def test_f1_and_exact_match():
    assert metrics.squad("The  Cat, sat!", ["a cat sat", "dog"], "en") == {"f1": 1.0, "em": 1.0}
    assert metrics.squad("cat sat down", ["cat"], "en") == {"f1": 0.5, "em": 0.0}
    assert metrics.squad("", ["x"], "en") == {"f1": 0.0, "em": 0.0}
    assert metrics.squad("河。", ["河"], "zh")["em"] == 0  # only ASCII punctuation is removed
    assert metrics.squad_tydi("河。", ["河"], "zh")["em"] == 1


@pytest.mark.parametrize("said, right, acc", [
    ("so $x=\\frac12$", "$\\frac{1}{2}$", 1), ("it is 3/4", "\\boxed{\\frac{3}{4}}", 0), ("the number 7.", "7", 1),
                                              ("none", "nothing", 1),
    ("$0.5$", "$\\frac{1}{2}$", 1), ("$\\sqrt3$", "$\\sqrt{3}$", 1), ("\\boxed{5}", "$6$", 0), ("k = 12", "12", 1)])
def test_math_equality(said, right, acc):
    assert metrics.math_answer(said, [right], "en")["acc"] == acc


def test_loops_and_languages():
    assert metrics.is_looping("la " * 9) and metrics.is_looping("x" + "河流" * 5)
    assert not metrics.is_looping("one two three four")
    pytest.importorskip("py3langid")
    assert metrics.in_language("这是一条很长的河流，两岸都是绿色的房子。", "en-zh")
    assert not metrics.in_language("The house is green.", "zho_Hans")


def test_wilson():
    mean, error, low, high = mean_interval([1.0] * 10)
    assert (mean, error) == (1, 0) and high == pytest.approx(1) and low == pytest.approx(0.7225, abs=1e-3)
    assert mean_interval([0.25, 0.75])[1:] == pytest.approx((0.25, 0.01, 0.99))


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/benchmarks")
def test_real_files(folder, tmp_path):
    names = "xcopa_zh,belebele_*,cmmlu_anatomy,mmlu_anatomy,agieval_lsat_ar,agieval_gaokao_mathqa,sib200_npi_Deva"
    results, samples = run(folder, SHARED, tmp_path, f"tasks={names}", "preset=lm-eval", "limit=1", "max_length=200")
    assert len({r["task"] for r in results if r["lang"] != "mean"}) == 12 == len(samples)
    assert not any(r["malformed"] for r in results)
