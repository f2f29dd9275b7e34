"""Multiple choice whose options are words, phrases or sentences."""
import ast
import re

from evaluation.tasks import names
from evaluation.tasks.define import LETTERS, define_task, lower_first, parse_list


def xcopa(preset):
    for lang, (because, therefore) in names.XCOPA.items():
        def context(row, because=because, therefore=therefore):
            premise = row["premise"].strip()[:-1]  # without its last character, whatever that is
            word = {"cause": because, "effect": therefore}[row["question"]]
            return f"{premise} {word}"

        yield define_task(
            f"xcopa_{lang}", preset, "xcopa", lang, "cambridgeltl/xcopa", paper=("val", 5),
            folders=("xcopa",), path_words=(lang,), fewshot_split="val", fewshot_order="random",
            context=context, choices=lambda row: [lower_first(row["choice1"]), lower_first(row["choice2"])],
            gold=lambda row: row["label"])


def belebele(preset):
    def context(row):
        return (f"P: {row['flores_passage']}\nQ: {row['question'].strip()}\nA: {row['mc_answer1']}\n"
                f"B: {row['mc_answer2']}\nC: {row['mc_answer3']}\nD: {row['mc_answer4']}\nAnswer:")

    for code in names.BELEBELE:
        yield define_task(
            f"belebele_{code}", preset, "belebele", code, "facebook/belebele", paper=("test", 1),
            folders=("belebele",), path_words=(code,), metrics=("acc", "acc_norm"),
            context=context, gold=lambda row: int(row["correct_answer_num"]) - 1, **LETTERS)


def xstorycloze(preset):
    for lang in "ar en es eu hi id my ru sw te zh".split():
        yield define_task(
            f"xstorycloze_{lang}", preset, "xstorycloze", lang, "juletxara/xstory_cloze",
            ("eval", 0), ("eval", 5),
            folders=("xstorycloze", "xstory_cloze"), path_words=(lang,),
            fewshot_split="train", fewshot_order="random", convert_row=convert_xstorycloze,
            context=lambda row: " ".join(row[f"input_sentence_{i}"] for i in range(1, 5)),
            choices=lambda row: [row["sentence_quiz1"], row["sentence_quiz2"]],
            gold=lambda row: int(row["answer_right_ending"]) - 1)


def convert_xstorycloze(row):
    """A row with Hugging Face's columns, from those of the published TSV files."""
    if "InputSentence1" not in row:
        return row
    sentences = {f"input_sentence_{i}": row[f"InputSentence{i}"] for i in range(1, 5)}
    return sentences | {"sentence_quiz1": row["RandomFifthSentenceQuiz1"],
                        "sentence_quiz2": row["RandomFifthSentenceQuiz2"],
                        "answer_right_ending": row["AnswerRightEnding"]}


# ---------------------------------------------------------------------- ARC and HellaSwag

def arc(preset):
    for name in ("challenge", "easy"):
        yield define_task(
            f"arc_{name}", preset, "arc", "en", "allenai/ai2_arc", paper=("test", 25),
            folders=("arc", "ai2_arc"), path_words=(name,), fewshot_split="train", fewshot_order="random",
            metrics=("acc", "acc_norm"), convert_row=convert_arc,
            context=lambda row: f"Question: {row['question']}\nAnswer:",
            choices=lambda row: list(row["choices"]["text"]),
            gold=lambda row: list(row["choices"]["label"]).index(row["answerKey"]))


def convert_arc(row):
    """ARC's rows as Hugging Face has them, from those of AI2's own jsonl or of a CSV file."""
    question = row["question"]
    if isinstance(question, dict) and "stem" in question:
        options = question["choices"]
        choices = {"text": [o["text"] for o in options], "label": [o["label"] for o in options]}
        return row | {"question": question["stem"], "choices": choices}
    if isinstance(row["choices"], str):
        return row | {"choices": ast.literal_eval(row["choices"])}
    return row


def m_arc(preset):
    for lang in names.M_ARC:
        yield define_task(
            f"arc_{lang}", preset, "m_arc", lang, "alexandrainst/m_arc",
            folders=("m_arc", "arc_multilingual"), path_words=(lang,), fewshot_split="train", fewshot_order="random",
            metrics=("acc", "acc_norm"), gold=lambda row: "ABCDE".index(row["answer"]),
            context=lambda row: f"Question: {clean_wikihow(row['instruction'])}\nAnswer:",
            choices=lambda row: [clean_wikihow(row[f"option_{k}"]) for k in "abcde" if row.get(f"option_{k}")])


def hellaswag(preset):
    def context(row):
        return clean_wikihow(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")

    common = dict(
        metrics=("acc", "acc_norm"), fewshot_order="random", context=context, gold=lambda row: row["label"],
        choices=lambda row: [clean_wikihow(ending) for ending in parse_list(row["endings"])])
    yield define_task("hellaswag", preset, "hellaswag", "en", "Rowan/hellaswag", ("val", 0),
                      folders=("hellaswag",), fewshot_split="train", **common)
    for lang in names.M_HELLASWAG:
        yield define_task(f"hellaswag_{lang}", preset, "m_hellaswag", lang, "alexandrainst/m_hellaswag",
                          ("val", 0), folders=("m_hellaswag", "hellaswag_multilingual"),
                          path_words=(lang,), **common)


def clean_wikihow(text):
    """HellaSwag's clean-up of WikiHow's markup; two blanks become one in a single pass."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


# ---------------------------------------------------------------------- one word of a sentence differs

def xnli(preset):
    for lang, (right, entailment, neutral, contradiction) in names.XNLI.items():
        def choices(row, right=right, words=(entailment, neutral, contradiction)):
            return [f"{row['premise']}, {right}? {word}, {row['hypothesis']}" for word in words]

        yield define_task(
            f"xnli_{lang}", preset, "xnli", lang, "facebook/xnli", ("val", 0),
            folders=("xnli",), path_words=(lang,), fewshot_split="train", fewshot_order="random",
            context=lambda row: "", choices=choices, gold=lambda row: row["label"])


def paws_x(preset):
    for lang, (right, no, yes) in names.PAWSX.items():
        def choices(row, right=right, words=(no, yes)):
            return [f"{row['sentence1']}, {right}? {word}, {row['sentence2']}" for word in words]

        european = lang in ("de", "en", "es", "fr")
        yield define_task(
            f"paws_{lang}", preset, "pawsx", lang, "google-research-datasets/paws-x",
            folders=("paws-x", "pawsx", "paws_x"), path_words=(lang,), fewshot_split="train", fewshot_order="random",
            delimiter="", keep=(lambda row: bool(row["sentence1"] and row["sentence2"])) if european else None,
            convert_row=convert_paws_x if european else None,
            context=lambda row: "", choices=choices, gold=lambda row: row["label"])


def convert_paws_x(row):
    """PAWS-X's sentences without the tokenizer's blanks.

    The prompt continues the first sentence with a comma, so its last mark goes; the second then begins in lower case.
    """
    first, second = (remove_tokenizer_blanks(row[key]) for key in ("sentence1", "sentence2"))
    if first.endswith((".", ",", ";")):
        first = first[:-1]
    return row | {"sentence1": first, "sentence2": lower_first(second)}


def remove_tokenizer_blanks(text):
    text = text.replace(" n't", "n't").replace(" )", ")").replace("( ", "(").replace('" ', '"').replace(' "', '"')
    return re.sub(r" (['.,])", r"\1", text).strip()


def winograd(preset):
    """XWinograd and WinoGrande: the text up to the blank with each option in it, and one continuation for both."""
    common = dict(
        fewshot_order="random", gold=lambda row: int(row["answer"]) - 1,
        context=lambda row: [row["sentence"].split("_", 1)[0] + row[option] for option in ("option1", "option2")],
        choices=lambda row: [row["sentence"].split("_", 1)[1].strip()] * 2)
    for lang in "en fr jp pt ru zh".split():
        yield define_task(f"xwinograd_{lang}", preset, "xwinograd", lang, "Muennighoff/xwinograd",
                          folders=("xwinograd",), path_words=(lang,), **common)
    yield define_task("winogrande", preset, "winogrande", "en", "allenai/winogrande", ("val", 0),
                      folders=("winogrande",), fewshot_split="train", **common)


def sib200(preset):
    topics = "science/technology travel politics sports health entertainment geography".split()  # its order of labels
    for code in sorted(set(names.BELEBELE) | set(names.FLORES.values())):
        yield define_task(
            f"sib200_{code}", preset, "sib200", code, "Davlan/sib200",
            folders=("sib200", "sib200-flores", "sib-200"), path_words=(code,), fewshot_split="train",
            metrics=("acc", "acc_norm"), context=lambda row: f"{row['text']}\nTopic:",
            choices=lambda row: topics, gold=lambda row: topics.index(row["category"]))


BENCHMARKS = (xcopa, belebele, xstorycloze, arc, m_arc, hellaswag, xnli, paws_x, winograd, sib200)
