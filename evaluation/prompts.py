"""Documents -> prompts, as lm-evaluation-harness builds them: descriptions, few-shot examples, turns of a chat."""
import ast
import json
import random

from evaluation.documents import read_documents
from evaluation.files import find_files, read_benchmark_file
from evaluation.tasks.agieval import NUMBER

HARNESS_SEED = 1234


def format_prompts(c, task, documents, t):
    """Each document with "prefix", the turns before its own prompt: (role, text, separator from the next turn).

    Few-shot examples are the first of their split, or random ones from one generator per task, drawn for the documents
    in their order.
    """
    shots = task["shots"] if c.shots is None else c.shots
    if task.get("demonstrations"):
        text, used = published_examples(c, task, t, shots) if shots else ("", 0)
        prefix = [("user", text, "")] if used else []
        return [document | {"prefix": prefix, "shots": used, "context": number_question(document["context"], used)}
                for document in documents]
    examples = []
    if shots and task["fewshot_split"]:
        examples, _ = read_documents(c, task, task["fewshot_split"])
    if shots and shots > len(examples) - (task["fewshot_split"] == task["split"]):
        raise ValueError(f"task {task['name']}: {shots} shots need as many rows of the split {task['fewshot_split']}, "
                         f"found {len(examples)}; set shots=")
    description = [("system", task["description"], "")] if task["description"] else []
    rng, prompted = random.Random(HARNESS_SEED), []
    for document in documents:
        prefix = list(description)
        for example in choose_fewshot(task, rng, examples, document, shots):
            prefix += example_turns(task, example)
        prompted.append(document | {"prefix": prefix, "shots": shots})
    return prompted


def example_turns(task, example):
    gold = example["gold"][0]
    question, answer = example["context"], gold
    if not isinstance(question, str):  # one context per choice
        question = question[gold]
    if "choices" in example:
        answer = example["choices"][gold]
    return [("user", question, task["delimiter"]), ("assistant", task.get("answer_prefix", "") + answer, "\n\n")]


def choose_fewshot(task, rng, examples, document, n):
    """n examples other than the document.

    A random choice draws one more where the document may be among them, as lm-eval does: when examples and documents
    are of one split, or when the benchmark has no test split and names no split of examples (unless
    "fewshot_spare" says otherwise).
    """
    if n == 0:
        return []
    same_split = task["fewshot_split"] == task["split"]
    if task["fewshot_order"] == "first":
        others = [x for x in examples if not (same_split and x["row"] == document["row"])]
        return others[:n]
    if not task.get("fewshot_spare", same_split or task["split"] not in ("test", "devtest")):
        return rng.sample(examples, n)
    drawn = rng.sample(examples, min(n + 1, len(examples)))
    others = [x for x in drawn if x["row"] != document["row"]][:n]
    if len(others) < n:  # the same row several times
        others = rng.sample([x for x in examples if x["row"] != document["row"]], n)
    return others


# ---------------------------------------------------------------------- AGIEval's published examples

def number_question(context, before):
    """The context with the number of its question: AGIEval counts the examples before it."""
    return context.replace(NUMBER, str(before + 1))


def published_examples(c, task, t, n):
    """AGIEval's own examples: (as many of the first n as fit into 2048 tokens or half the window, their number)."""
    files = find_files(c.data, task["folders"], ("few_shot_prompts",), "few_shot_prompts")
    if not files:
        raise ValueError(f"task {task['name']}: {n} shots need few_shot_prompts.csv below "
                         f"{c.data}/{task['folders'][0]}; get it from ruixiangcui/AGIEval on GitHub, or set shots=0")
    cells = [row[task["demonstrations"]] for _, row, _ in read_benchmark_file(files[0])
             if row and row[""].startswith("sample")]
    english = "Here are the answers for the problems in the exam.\n"
    text = english if task["english"] else "以下是考试中各个问题的答案。\n"
    used, max_tokens = 0, min(2048, (c.max_length or 4096) // 2)
    for cell in [cell for cell in cells if cell][:n]:
        example = task["convert_row"](parse_example(cell))
        answer = example.get("label") or example.get("answer")
        answer = "".join(answer) if isinstance(answer, list) else answer
        longer = text + number_question(task["context"](example), used) + f" {answer}\n\n"
        if len(t.encode(longer)) > max_tokens:
            break
        text, used = longer, used + 1
    return text, used


def parse_example(cell):
    """A row that a CSV cell holds as a Python literal or as JSON."""
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return json.loads(cell)


# ---------------------------------------------------------------------- turns -> text

def render_prompt(c, t, document, context, delimiter):
    """(the prompt as the model reads it, the delimiter before a choice)."""
    turns = [*document["prefix"], ("user", context, "")]
    if not c.apply_chat_template:
        return "".join(text + separator for _, text, separator in turns), delimiter
    messages = [{"role": role, "content": text} for role, text, _ in turns]
    try:
        return t.render_chat(messages), ""
    except ValueError:  # the template takes no system message
        return t.render_chat([m for m in messages if m["role"] != "system"]), ""
