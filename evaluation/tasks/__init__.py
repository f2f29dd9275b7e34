"""The benchmarks, as data: which file, which prompt, which answer is right, and how Marco-LLM and lm-eval measure it.

    load_tasks("paper")["xcopa_zh"], load_tasks("lm-eval")["mmlu_anatomy"]  # lm-evaluation-harness's names

To add a benchmark, write a generator of tasks beside those of its kind and add it to the tuple at the file's end:
choice.py (options of several words), exams.py and agieval.py (lettered options), generation.py (answers, translations,
conversations). names.py holds languages and words. eval.py knows the kinds of task and no benchmark's name.

A task is a dict. define.py lists its fields and their defaults. Functions of one row (a dict of the file's columns):

    keep(row)         whether the row belongs to the task
    convert_row(row)  the row in the shape that the others expect
    context(row)      the prompt, or one prompt for each choice
    choices(row)      the continuations, without the delimiter
    gold(row)         the index or the letter of the right choice, or several; the references of a generated text

Its files are in one of the `folders` below data=; the path holds each of `path_words` and a word of the split (see
files.find_files). Few-shot examples come from `fewshot_split` in `fewshot_order` (see documents.choose_fewshot).
"""
from evaluation.tasks import agieval, choice, exams, generation, names

# Table 4: XCOPA and XStoryCloze in the languages that are among the paper's 29, Belebele in all of those but English
PAPER_SUITE = """
    ceval agieval arc_challenge mmlu m_mmlu tydiqa flores_en-xx flores_xx-en wmt16
    xcopa_id xcopa_it xcopa_th xcopa_tr xcopa_vi xcopa_zh
    xstorycloze_ar xstorycloze_en xstorycloze_es xstorycloze_id xstorycloze_ru xstorycloze_zh
""".split() + [f"belebele_{code}" for lang, code in names.FLORES.items() if lang != "en"]


def load_tasks(preset):
    """{name: task} of a preset: "paper" (Marco-LLM's splits and shots) or "lm-eval" (the harness's)."""
    if preset not in ("paper", "lm-eval"):
        raise ValueError(f"preset is {preset!r}; the presets are paper and lm-eval")
    families = (*choice.BENCHMARKS, *exams.BENCHMARKS, *agieval.BENCHMARKS, *generation.BENCHMARKS)
    return {task["name"]: task for benchmark in families for task in benchmark(preset)}
