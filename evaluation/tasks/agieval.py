"""AGIEval: 18 choice sets, 2 cloze sets, and sat-en without its passage.

lm-eval measures it without examples; the paper with those that AGIEval publishes.
"""
from evaluation.tasks.define import define_task, parse_list

ENGLISH = "lsat-ar lsat-lr lsat-rc logiqa-en sat-math sat-en sat-en-without-passage aqua-rat gaokao-english".split()
CHINESE = """
    logiqa-zh jec-qa-kd jec-qa-ca gaokao-chinese gaokao-geography gaokao-history gaokao-biology gaokao-chemistry
    gaokao-physics gaokao-mathqa
""".split()
CLOZE = ["math", "gaokao-mathcloze"]
NUMBER = "\0"  # placeholder for the number of a question: the examples before it, plus one


def agieval(preset):
    for name in (*ENGLISH, *CHINESE, *CLOZE):
        english = name in ENGLISH or name == "math"
        cloze = name in CLOZE
        groups = ["agieval", "agieval_en" if english else "agieval_zh"]
        if name.startswith("gaokao"):
            groups.append("agieval_gaokao")
        layout = numbered_context if preset == "paper" else harness_context
        common = dict(
            folders=("agieval", "agieval-" + name), path_words=(f"={name}|=agieval-{name}",), fewshot_split=None,
            convert_row=convert_agieval, demonstrations=name.replace("-without-passage", ""), english=english,
            context=layout(english, cloze, with_passage=name != "sat-en-without-passage"))
        if cloze:
            common |= dict(kind="generate", stop_strings=["\n"] if preset == "paper" else ["Q:"], max_new_tokens=32,
                           metrics=("math",), gold=lambda row: [row["answer"]])
        else:
            common |= dict(metrics=("acc", "acc_norm"), choices=letters_of if preset == "paper" else options_of,
                           gold=gold_of)
        yield define_task(
            f"agieval_{name.replace('-', '_')}", preset, tuple(groups), "en" if english else "zh",
            "ruixiangcui/AGIEval on GitHub, data/v1, or hails/agieval-" + name, paper=("test", 5), **common)


def convert_agieval(row):
    """A row of the original files, or of Hugging Face's with query, choices and gold."""
    row = dict(row)
    for key in ("choices", "gold"):
        if isinstance(row.get(key), str):
            row[key] = parse_list(row[key])
    row["options"] = row.get("options") or row.get("choices")
    return row


def options_of(row):
    return row["options"]


def letters_of(row):
    return list("ABCDEFG"[:len(row["options"])])


def gold_of(row):
    """Indices of the right options; several letters may be a list, "ABD" or "A B D"."""
    if "gold" in row:
        return row["gold"]
    letters = "".join(row["label"]) if isinstance(row["label"], list) else row["label"]
    return ["ABCDEFG".index(letter) for letter in letters if letter not in " ,;"]


# ---------------------------------------------------------------------- prompts

def numbered_context(english, cloze, with_passage):
    """The prompt in AGIEval's own layout, a function of a row."""
    if english:
        problem, choose, answer = "Problem", "Choose from the following options:", "The answer is therefore"
    else:
        problem, choose, answer = "问题", "从以下选项中选择:", "答案是"

    def context(row):
        if cloze:
            return f"{problem} {NUMBER}.   {row['question']}\n{answer}"
        passage = row.get("passage") if with_passage else None
        return (f"{problem} {NUMBER}.   {passage or ''} {row['question']}\n"
                f"{choose}    {' '.join(row['options'])}\n{answer}")
    return context


def harness_context(english, cloze, with_passage):
    """The prompt that Hugging Face's files hold as `query`, or the same from the original files."""
    def context(row):
        if row.get("query"):
            return row["query"]
        question = row["question"]
        if cloze:
            return f"Q: {question}\nA: The answer is" if english else f"问题：{question}\n答案："
        passage = (row.get("passage") if with_passage else None) or ""
        options = " ".join(row["options"])
        if english:
            return (f"{passage}Q: {question} Answer Choices: {options}\n"
                    f"A: Among A through {last_letter(row, 5)}, the answer is")
        return f"{passage}问题：{question} 选项：{options}\n答案：从A到{last_letter(row, 4)}, 我们应选择"
    return context


def last_letter(row, if_single):
    """The letter of the last option; a single option counts as `if_single` of them, as in AGIEval's own program."""
    n = len(row["options"])
    return "ABCDEFG"[(if_single if n == 1 else n) - 1]


BENCHMARKS = (agieval,)
