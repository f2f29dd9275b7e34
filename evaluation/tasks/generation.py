"""Generated texts: question answering, mathematics, translation, conversations."""
from configs import language_table
from evaluation.tasks import names
from evaluation.tasks.define import define_task, parse_list

# ---------------------------------------------------------------------- question answering and mathematics

def reference_answers(row):
    """The answers of SQuAD's rows: {"text": [...]} or [{"text": ...}]."""
    answers = row["answers"]
    if isinstance(answers, dict):
        return parse_list(answers["text"])
    return [answer["text"] for answer in parse_list(answers)]


def passage_prompt(labels):
    """Context, question and the label of the answer, a function of a row. labels: the three words in a language."""
    passage, question, answer = labels
    return lambda row: f"{passage} {row['context']}\n\n{question} {row['question']}\n\n{answer}"


def tydiqa(preset):
    """TyDiQA-GoldP. The paper's preset scores by SQuAD's rules, as XTREME does; lm-eval's by its own, which know Arabic
    articles and the punctuation of all scripts."""
    full_names = dict(ar="arabic", bn="bengali", en="english", fi="finnish", id="indonesian", ko="korean",
                      ru="russian", sw="swahili", te="telugu")
    harness = preset == "lm-eval"
    for lang, labels in names.TYDIQA.items():
        language = full_names[lang]

        def keep(row, language=language):
            return row["id"].startswith(language) or not row["id"].split("-")[0].isalpha()  # ids without a language

        yield define_task(
            f"tydiqa_goldp_{lang}", preset, "tydiqa", lang, "google-research-datasets/tydiqa, secondary_task",
            ("val", 0), ("val", 1), kind="generate",
            folders=("tydiqa-goldp", "tydiqa_goldp", "tydiqa/secondary_task"), path_words=(f"{lang}|{language}|",),
            fewshot_split="train", fewshot_order="random", fewshot_spare=False, keep=keep,
            context=passage_prompt(labels), gold=reference_answers, metrics=("qa_tydi",) if harness else ("qa",),
            stop_strings=["\n"], max_new_tokens=256 if harness else 50)


def xquad(preset):
    for lang, labels in names.XQUAD.items():
        yield define_task(
            f"xquad_{lang}", preset, "xquad", lang, "google/xquad", ("val", 0), kind="generate",
            folders=("xquad",), path_words=(lang,), fewshot_order="random", context=passage_prompt(labels),
            gold=reference_answers, metrics=("qa",), stop_strings=["\n"], max_new_tokens=256)


def mgsm(preset):
    for lang, (question, answer, stop) in names.MGSM.items():
        def context(row, question=question, answer=answer):
            prefix = "" if row.get("answer") else question  # few-shot examples hold the word already
            return f"{prefix}{row['question']}\n{answer}"

        yield define_task(
            f"mgsm_direct_{lang}", preset, "mgsm", lang, "juletxara/mgsm", kind="generate",
            folders=("mgsm",), path_words=(lang,), fewshot_split="train", fewshot_order="random", delimiter="",
            header=("question", "answer_number"), context=context, gold=lambda row: [str(row["answer_number"])],
            metrics=("number",), stop_strings=[stop, "</s>", "<|im_end|>"], max_new_tokens=256)


# ---------------------------------------------------------------------- PLUG's benchmarks (arXiv 2311.08711)

def plug_tasks(preset, name, published, folder, **fields):
    """The tasks of a benchmark, with rows {"id", "instruction", ...}. published: its name on the Hugging Face hub.

    Files are named as there (english.json) or as in the paper's code (zh/svamp_zh.json).
    """
    for lang in ("en", "zh", "ko", "it", "es"):
        yield define_task(
            f"{name}_{lang}", preset, name, lang, f"zhihz0535/{published} on the Hugging Face hub",
            folders=(name.replace("_", "-"), name, published, folder),
            path_words=(f"{language_table.NAMES[lang].lower()}|{lang}",), **fields)


def to_conversation(row):
    """A row as a conversation, after its "system" prompt if it has one; correct answers are the judge's reference."""
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": [*system, {"role": "user", "content": row["instruction"]}],
            "reference": row.get("correct_answers")}


def x_svamp(preset):
    """Word problems; the answer is the last number, read as the language writes numbers."""
    yield from plug_tasks(preset, "x_svamp", "X-SVAMP_en_zh_ko_it_es", "svamp", kind="generate",
                          context=lambda row: row["instruction"], gold=lambda row: [str(row["answer"])],
                          metrics=("exact_number",), stop_strings=[], max_new_tokens=512)


def x_truthfulqa(preset):
    yield from plug_tasks(preset, "x_truthfulqa", "X-TruthfulQA_en_zh_ko_it_es", "truthfulqa", kind="chat",
                          convert_row=to_conversation, max_new_tokens=512)


def x_alpacaeval(preset):
    yield from plug_tasks(preset, "x_alpacaeval", "X-AlpacaEval", "alpacaeval", kind="chat",
                          convert_row=to_conversation, max_new_tokens=1024)


# ---------------------------------------------------------------------- translation

def flores(preset):
    """FLORES-200 between all of the paper's languages; groups: en to xx, xx to en, the 42 pairs of Table 12."""
    for source in names.FLORES:
        for target in names.FLORES:
            if source == target:
                continue
            groups = ["flores_en-xx" if source == "en" else "flores_xx-en" if target == "en" else "flores_xx-xx"]
            if f"{source}-{target}" in names.TABLE12:
                groups.append("flores_table12")

            def context(row, source=language_table.NAMES[source], target=language_table.NAMES[target]):
                return f"{source} sentence: {row['source']}\n{target} sentence:"

            yield define_task(
                f"flores_{source}-{target}", preset, tuple(groups), f"{source}-{target}",
                "openlanguagedata/flores_plus", ("devtest", 0), ("devtest", 1), kind="translate",
                folders=("flores", "flores_plus", "flores200", "flores200_dataset", "sib200-flores"),
                sides=(names.FLORES[source], names.FLORES[target]), fewshot_split="dev", fewshot_order="random",
                delimiter="", context=context, gold=lambda row: [row["target"]],
                stop_strings=["\n"], max_new_tokens=256)


def wmt16(preset):
    languages = {"de": "German", "en": "English", "ro": "Romanian"}
    for source, target, pair in (("de", "en", "de-en"), ("en", "de", "de-en"),
                                 ("ro", "en", "ro-en"), ("en", "ro", "ro-en")):
        def context(row, source=source, target=target):
            return f"{languages[source]} phrase: {texts_of(row)[source]}\n{languages[target]} phrase:"

        yield define_task(
            f"wmt16-{source}-{target}", preset, "wmt16", f"{source}-{target}", "wmt/wmt16", paper=("test", 1),
            kind="translate", folders=("wmt16",), path_words=(f"{pair}|{source}-{target}",),
            answer_prefix=" " if preset == "lm-eval" else "",  # lm-eval has two blanks before the answer of an example
            fewshot_split="val", fewshot_order="random", context=context,
            gold=lambda row, target=target: [texts_of(row)[target]], stop_strings=["\n"], max_new_tokens=256)


def texts_of(row):
    """{language: text} of a row of parallel text."""
    return row.get("translation", row)


# ---------------------------------------------------------------------- conversations, whose answers a judge reads

def mt_bench(preset):
    """MT-bench, and its translations: one file per language."""
    yield define_task(
        "mt_bench", preset, "mt_bench", "en", "lm-sys/FastChat, llm_judge/data/mt_bench/question.jsonl", kind="chat",
        folders=("mt-bench", "mt_bench"), path_words=("question",), max_new_tokens=1024)
    for lang in language_table.MARCO:
        yield define_task(
            f"mt_bench_{lang}", preset, "m_mt_bench", lang, "a translation of MT-bench's question.jsonl", kind="chat",
            folders=("m-mt-bench", "mt-bench", "mt_bench"), path_words=(lang,), max_new_tokens=1024)


def marco_bench_mif(preset):
    for lang in ("ar_local", "de", "en", "ja", "zh_local"):
        yield define_task(
            f"marco_bench_mif_{lang}", preset, "marco_bench_mif", lang[:2],
            "AIDC-AI/Marco-LLM, Marco-Bench-MIF/data", kind="chat",
            folders=("marco-bench-mif",), path_words=(lang,), max_new_tokens=1024)


BENCHMARKS = (tydiqa, xquad, mgsm, x_svamp, x_truthfulqa, x_alpacaeval, flores, wmt16, mt_bench, marco_bench_mif)
