"""Exams: questions with four lettered options, by subject."""
import re

from evaluation.tasks import names
from evaluation.tasks.define import LETTERS, define_task, lettered_question, parse_list

SUBJECTS = {subject: group for group, subjects in names.MMLU.items() for subject in subjects}
DESCRIPTION = "The following are multiple choice questions (with answers) about {}.\n\n"


def mmlu(preset):
    for subject, group in SUBJECTS.items():
        yield define_task(
            f"mmlu_{subject}", preset, ("mmlu", f"mmlu_{group}"), "en", "cais/mmlu", paper=("test", 5),
            folders=("mmlu", "mmlu-redux"), path_words=(subject,), fewshot_split="dev",
            header=("question", "A", "B", "C", "D", "answer"), convert_row=convert_mmlu,
            description=DESCRIPTION.format(subject.replace("_", " ")),
            context=lambda row: lettered_question(row["question"], row["choices"]),
            gold=lambda row: row["answer"], **LETTERS)


def convert_mmlu(row):
    """A row with `choices`: a list, a list as a CSV file spells it, or columns A to D as in the original files."""
    return row | {"choices": parse_list(row["choices"]) if "choices" in row else [row[k] for k in "ABCD"]}


def mmmlu(preset):
    for locale, language in names.MMMLU.items():
        for subject in SUBJECTS:
            def keep(row, subject=subject):
                return re.split(r"_test[.-]", row["Subject"])[0].replace(" ", "_") == subject

            yield define_task(
                f"mmmlu_{locale}_{subject}", preset, ("mmmlu", f"mmmlu_{locale}"), locale[:2], "openai/MMMLU",
                paper=("test", 0), folders=("mmmlu", "MMMLU"), path_words=(locale.replace("_", "-") + "|" + locale,),
                metrics=("acc", "acc_norm"), keep=keep,
                description=DESCRIPTION.format(f"{subject.replace('_', ' ')} ({language})"),
                context=lambda row: lettered_question(row["Question"], [row[k] for k in "ABCD"]),
                gold=lambda row: row["Answer"], **LETTERS)


def options_a_to_d(row):
    return [row[f"option_{k}"] for k in "abcd"]


def m_mmlu(preset):
    for lang in names.M_MMLU:
        yield define_task(
            f"m_mmlu_{lang}", preset, "m_mmlu", lang, "alexandrainst/m_mmlu", paper=("val", 5),
            folders=("m_mmlu", "x-mmlu"), path_words=(lang,), fewshot_split="train",
            context=lambda row: lettered_question(row["instruction"], options_a_to_d(row)),
            gold=lambda row: row["answer"], **LETTERS)


def global_mmlu(preset):
    common = dict(
        fewshot_split="dev", context=lambda row: lettered_question(row["question"], options_a_to_d(row)),
        gold=lambda row: row["answer"], **LETTERS)
    for lang in names.GLOBAL_MMLU:
        for subject in SUBJECTS:
            yield define_task(
                f"global_mmlu_full_{lang}_{subject}", preset, ("global_mmlu_full", f"global_mmlu_full_{lang}"), lang,
                "CohereForAI/Global-MMLU", folders=("global-mmlu", "global_mmlu", "Global-MMLU"), path_words=(lang,),
                keep=lambda row, subject=subject: row["subject"] == subject, **common)
    for lang in names.GLOBAL_MMLU_LITE:
        for category in ("Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences"):
            yield define_task(
                f"global_mmlu_{lang}_{category.lower().replace(' ', '_')}", preset,
                ("global_mmlu", f"global_mmlu_{lang}"), lang, "CohereLabs/Global-MMLU-Lite",
                folders=("global-mmlu-lite", "global_mmlu_lite", "Global-MMLU-Lite"), path_words=(lang,),
                fewshot_order="random", keep=lambda row, category=category: row["subject_category"] == category,
                **common)


def include(preset):
    """INCLUDE has one split. A question is never among its own examples; lm-eval's drawing differs."""
    for language in names.INCLUDE_LANGUAGES:
        lower = language.lower()
        for domain, title in names.INCLUDE.items():
            yield define_task(
                f"include_base_44_{lower}_{domain}", preset, ("include", f"include_base_44_{lower}"), lower,
                "CohereForAI/include-base-44", folders=("include", "include-base-44"),
                path_words=(language + "|" + lower,),
                keep=lambda row, title=title: row["domain"].lower() == title.lower(),
                description=f"The following is multiple-choice question about {title}.",  # lm-eval's: no line break
                context=lambda row: lettered_question(  # ... and a blank before D
                    row["question"], options_a_to_d(row), before_last="\n D. "),
                gold=lambda row: row["answer"], **LETTERS)


def ceval(preset):
    for subject, name in names.CEVAL.items():
        group = next((group for group, subjects in names.CEVAL_GROUPS.items() if subject in subjects), "other")
        yield define_task(
            f"ceval-valid_{subject}", preset, ("ceval", f"ceval_{group}"), "zh", "ceval/ceval-exam",
            ("val", 0), ("val", 5), folders=("ceval", "ceval-exam"), path_words=(subject,), fewshot_split="dev",
            metrics=("acc", "acc_norm"), description=f"以下是中国关于{name}的单项选择题，请选出其中的正确答案。\n\n",
            context=lambda row: lettered_question(row["question"], [row[k] for k in "ABCD"], "答案："),
            gold=lambda row: row["answer"], **LETTERS)


def cmmlu(preset):
    for subject, name in names.CMMLU.items():
        yield define_task(
            f"cmmlu_{subject}", preset, "cmmlu", "zh", "haonan-li/cmmlu",
            folders=("cmmlu",), path_words=(subject,), fewshot_split="dev",
            metrics=("acc", "acc_norm"), description=f"以下是关于{name}的单项选择题，请直接给出正确答案的选项。\n\n",
            context=lambda row: lettered_question(row["Question"], [row[k] for k in "ABCD"], "答案："),
            gold=lambda row: row["Answer"], **LETTERS)


BENCHMARKS = (mmlu, mmmlu, m_mmlu, global_mmlu, include, ceval, cmmlu)
