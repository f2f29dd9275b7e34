"""What the tables of benchmarks share: the shape of a task, lettered questions, lists as CSV files spell them."""
import ast
import re

LETTERS = dict(choices=lambda row: list("ABCD"))  # the continuations of a question with four lettered options


def define_task(name, preset, groups, lang, source, lm_eval=("test", 0), paper=None, **fields):
    """A task: the fields as given, the defaults, and the split and the number of few-shot examples of the preset.

    lm_eval, paper: (split, shots) in each preset; paper None: the paper does not use the benchmark, lm-eval's count.
    """
    split, shots = lm_eval if preset == "lm-eval" or paper is None else paper
    task = dict(
        kind="choice",          # choice, generate, translate, chat or bpb: how eval.py runs it
        path_words=(),          # each must be in a file's path: see files.find_files
        delimiter=" ",          # between a prompt and its continuation
        description="",         # before everything else
        metrics=("acc",),
        fewshot_split=split,    # where few-shot examples come from
        fewshot_order="first",  # the first ones, or "random": see documents.choose_fewshot
        header=None,            # columns of a .csv or .tsv file without a header
        keep=None,              # whether a row belongs to the task
        convert_row=None,       # a row in the shape that context, choices and gold expect
    )
    groups = (groups,) if isinstance(groups, str) else groups
    return task | fields | dict(name=name, groups=groups, lang=lang, source=source, split=split, shots=shots)


def lettered_question(question, options, answer="Answer:", before_last="\nD. "):
    """A question, its four options by letter, and the word before the answer."""
    a, b, c, d = options
    return f"{question.strip()}\nA. {a}\nB. {b}\nC. {c}{before_last}{d}\n{answer}"


def lower_first(text):
    return text[:1].lower() + text[1:]


def parse_list(value):
    """A list, also as a CSV file spells it, ['a', 'b'], or as numpy prints it, ['a' 'b']."""
    if not isinstance(value, str):
        return list(value)
    with_commas = re.sub(r"(?<=['\"])\s*\n?\s+(?=['\"])", ", ", value)
    parsed = ast.literal_eval(with_commas)
    if not isinstance(parsed, list):
        raise ValueError(f"{value!r} is not a list")
    return parsed
