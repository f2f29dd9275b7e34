"""The documents of a task and their prompts, as lm-evaluation-harness builds them: shots, descriptions, turns of a chat.

A task is a dict as in configs/benchmarks says. documents() reads its rows and names the malformed ones, prompts() adds the shots.
"""
import ast
import json
import random
from pathlib import Path

from evaluation import files as rows


# ---------------------------------------------------------------------- files

def task_files(c, task, split):
    """A list of files for each side of the task (two for a translation with a file per language). A file that names no split is
    the one to be measured: shots never come from it under another name."""
    if "path" in task:
        return [[p] if (p := Path(c.data) / name).exists() else [] for name in task["path"]]
    sides = [(s,) for s in task.get("sides", ())] or [()]
    return [rows.find(c.data, task["folder"], (*task["words"], *side), split, split == task["split"]) for side in sides]


def absent(c, task, split):
    if "path" in task:
        gone = [str(Path(c.data) / name) for name in task["path"] if not (Path(c.data) / name).exists()]
        return f"task {task['name']}: {gone[0]} is missing; correct data={c.data}, the task's path or languages="
    words = [w for w in (*task["words"], *task.get("sides", ())) if w]
    return (f"task {task['name']}: no file below {Path(c.data) / task['folder'][0]} whose path holds "
            f"{', '.join(words) or 'a name'} and the split {split} ({', '.join(rows.SUFFIXES[:5])}); "
            f"get it from {task['source']}")


# ---------------------------------------------------------------------- rows -> documents

def documents(c, task, split, limit=None):
    """(documents, complaints) of a split: {"row", "context", "choices", "gold"} each; a malformed row is named and left out."""
    found, complaints = [], []
    for place, row, wrong in aligned(c, task, split):
        if limit is not None and len(found) == limit:
            break
        try:
            if wrong:
                raise ValueError(wrong)
            if task["keep"] and not task["keep"](row):
                continue
            row = task["prepare"](row) if task["prepare"] else row
            found.append({"row": row, **READERS[task["kind"]](task, row)})
        except OutOfRange as e:
            raise ValueError(f"{place}: {e}") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, SyntaxError) as e:
            complaints.append(f"{place}: " + (f"it lacks {e}" if isinstance(e, KeyError) else str(e)))
    return found, complaints


def aligned(c, task, split):
    """(place, row, what is wrong) of a split's rows; two files become rows {"source", "target"}, joined by id where both have
    one."""
    sides = []
    for files in task_files(c, task, split):
        if not files:
            raise ValueError(absent(c, task, split))
        sides.append([(f"{p}, row {i}" if rows.suffix(p) == ".parquet" else f"{p}, line {i}", row, wrong)
                      for p in files for i, row, wrong in rows.read(p, task["columns"])])
    if len(sides) == 1:
        return sides[0]
    a, b = sides
    key = next((k for k in ("index_id", "id") if all(row and k in row for some in sides for _, row, _ in some)), None)
    if key:
        other = {row[key]: row for _, row, _ in b}
        both = [(place, row, other[row[key]]) for place, row, _ in a if row[key] in other]
    elif len(a) == len(b):
        both = [(place, row, row2) for (place, row, _), (_, row2, _) in zip(a, b)]
    else:
        raise ValueError(f"task {task['name']}: {a[0][0].split(', ')[0]} has {len(a)} lines, {b[0][0].split(', ')[0]} {len(b)}; "
                         "they must be aligned")
    side = lambda row: row.get("text", row.get("sentence"))
    return [(place, {"source": side(x), "target": side(y)}, None) if x and y and side(x) and side(y) else (place, None, "no text")
            for place, x, y in both]


def gold_index(task, row, n):
    """Place of the right choice: the gold field counts from task["first"] (0, 1 or "A")."""
    first, value = task.get("first", 0), row[task["gold"]]
    names = [chr(ord(first) + i) if isinstance(first, str) else str(first + i) for i in range(n)]
    if str(value).strip() in names:
        return names.index(str(value).strip())
    raise OutOfRange(f"task {task['name']}: {task['gold']}={value!r} names none of the {n} choices ({', '.join(names)})")


class OutOfRange(ValueError):
    """A right answer that is none of the choices: the file or the table is wrong, and no score would mean anything."""


def read_choice(task, row):
    context, choices, gold = task["context"](row), task["choices"](row), task["gold"](row)
    golds = [place_of(task, g, len(choices)) for g in (gold if isinstance(gold, (list, tuple)) else [gold])]
    return {"context": context, "choices": choices, "gold": golds}


def place_of(task, gold, n):
    """The index of the right choice: a number, or a letter from A."""
    text = str(gold).strip()
    place = ord(text) - ord("A") if len(text) == 1 and text.isalpha() else int(text)
    if not 0 <= place < n:
        raise OutOfRange(f"task {task['name']}: the right answer {gold!r} is none of the {n} choices")
    return place


def read_text(task, row):
    gold = task["gold"](row)
    if not gold or not all(isinstance(g, str) for g in gold):
        raise ValueError("it has no right answer")
    return {"context": task["context"](row), "gold": gold}


def read_chat(task, row):
    """{"messages"}, MT-bench's {"turns"}, or a single {"prompt"}; the last message is the user's."""
    given = row.get("messages") or [{"role": "user", "content": x} for x in row.get("turns") or [row["prompt"]]]
    asked = [m for m in given if m["role"] != "assistant"] if "messages" not in row else given
    while asked and asked[-1]["role"] == "assistant":  # a reference
        asked = asked[:-1]
    if not asked or not all(isinstance(m["content"], str) for m in asked):
        raise ValueError("it asks nothing")
    return {"messages": asked, "turns": "messages" not in row, "gold": row.get("gold", row.get("reference"))}


READERS = {"choice": read_choice, "generate": read_text, "translate": read_text, "chat": read_chat,
           "bpb": lambda task, row: {"text": row["text"]}}


# ---------------------------------------------------------------------- documents -> prompts

def prompts(c, task, docs, t):
    """Each document with "turns", the conversation that leads to it: (role, text, what joins it to the next).

    Shots are the first of the pool, or random ones from one generator per task, drawn for all documents in their order.
    """
    n = task["shots"] if c.shots is None else c.shots
    head = [("system", task["description"], "")] if task["description"] else []
    if task.get("demonstrations"):
        header, n = demonstrations(c, task, t, n) if n else ("", 0)
        turns = [("user", header, "")] if n else []
        return [doc | {"turns": turns, "shots": n, "context": doc["context"].replace("\0", str(n + 1))} for doc in docs]
    pool = documents(c, task, task["pool"])[0] if n and task["pool"] else []
    if n and n > len(pool) - (task["pool"] == task["split"]):
        raise ValueError(f"task {task['name']}: {n} shots need as many rows of the split {task['pool']}, found {len(pool)}; "
                         "set shots=")
    rng, out = random.Random(1234), []  # the harness's seed
    for doc in docs:
        turns = list(head)
        for shot in draw(task, rng, pool, doc, n):
            gold = shot["gold"][0]
            question = shot["context"] if isinstance(shot["context"], str) else shot["context"][gold]
            answer = shot["choices"][gold] if "choices" in shot else gold
            turns += [("user", question, task["delimiter"]), ("assistant", answer, "\n\n")]
        out.append(doc | {"turns": turns, "shots": n})
    return out



def draw(task, rng, pool, doc, n):
    """n documents of the pool other than doc.

    A random draw takes one more where doc may be among them, as lm-eval does: when pool and split are the same, or when the
    benchmark has no test split and the pool is not named ("spare" says otherwise).
    """
    if n == 0:
        return []
    same = task["pool"] == task["split"]
    if task["draw"] == "first":
        found = []
        for x in pool:
            if len(found) < n and not (same and x["row"] == doc["row"]):
                found.append(x)
        return found
    if not task.get("spare", same or task["split"] not in ("test", "devtest")):
        return rng.sample(pool, n)
    found = [x for x in rng.sample(pool, min(n + 1, len(pool))) if x["row"] != doc["row"]][:n]
    return found if len(found) == n else rng.sample([x for x in pool if x["row"] != doc["row"]], n)


def demonstrations(c, task, t, n):
    """AGIEval's own examples: (header with as many of the n as fit into 2048 tokens or half the window, their number)."""
    found = rows.find(c.data, task["folder"], ("few_shot_prompts",), "few_shot_prompts")
    if not found:
        raise ValueError(f"task {task['name']}: {n} shots need few_shot_prompts.csv in {Path(c.data) / task['folder'][0]}; "
                         "get it from ruixiangcui/AGIEval on GitHub, or set shots=0")
    cells = [row[task["demonstrations"]] for _, row, _ in rows.read(found[0]) if row and row[""].startswith("sample")]
    text = "Here are the answers for the problems in the exam.\n" if task["english"] else "以下是考试中各个问题的答案。\n"
    used, room = 0, min(2048, (c.max_length or 4096) // 2)
    for cell in [x for x in cells if x][:n]:
        try:
            shot = ast.literal_eval(cell)
        except (ValueError, SyntaxError):
            shot = json.loads(cell)
        shot = task["prepare"](shot)
        label = shot.get("label") or shot.get("answer")
        label = "".join(label) if isinstance(label, list) else label
        more = task["context"](shot).replace("\0", str(used + 1)) + f" {label}\n\n"
        if len(t.encode(text + more)) > room:
            break
        text, used = text + more, used + 1
    return text, used


def written(c, t, doc, context, delimiter):
    """(prompt as the model reads it, delimiter before a choice)."""
    turns = [*doc["turns"], ("user", context, "")]
    if not c.apply_chat_template:
        return "".join(text + joint for _, text, joint in turns), delimiter
    messages = [{"role": role, "content": text} for role, text, _ in turns]
    try:
        return t.render_chat(messages), ""
    except ValueError:  # a template without a system message
        return t.render_chat([m for m in messages if m["role"] != "system"]), ""
