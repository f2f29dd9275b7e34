"""A task's files -> its documents: {"row", "context", "choices", "gold"} and what other kinds of task need."""
from pathlib import Path

from evaluation.files import SUFFIXES, find_files, read_benchmark_file, suffix_of

# ---------------------------------------------------------------------- files

def task_files(c, task, split):
    """A list of files for each side of the task (two for a translation with one file per language).

    A file that names no split counts as the measured one only: few-shot examples never come from it under another name.
    """
    if "path" in task:
        return [[path] if (path := Path(c.data) / name).exists() else [] for name in task["path"]]
    sides = [(side,) for side in task.get("sides", ())] or [()]
    return [find_files(c.data, task["folders"], (*task["path_words"], *side), split, split == task["split"])
            for side in sides]


def missing_file_message(c, task, split):
    if "path" in task:
        missing = [Path(c.data) / name for name in task["path"] if not (Path(c.data) / name).exists()]
        return f"task {task['name']}: {missing[0]} is missing; correct data={c.data}, the task's path or languages="
    words = [word for word in (*task["path_words"], *task.get("sides", ())) if word]
    return (f"task {task['name']}: no file below {Path(c.data) / task['folders'][0]} whose path holds "
            f"{', '.join(words) or 'a name'} and the split {split} ({', '.join(SUFFIXES[:5])}); "
            f"get it from {task['source']}")


# ---------------------------------------------------------------------- rows -> documents

class InvalidGold(ValueError):
    """A right answer that is none of the choices: the file or the task is wrong, and no score would mean anything."""


def read_documents(c, task, split, limit=None):
    """(documents, complaints) of a split. A malformed row is named in the complaints and left out."""
    documents, complaints = [], []
    for place, row, problem in read_rows_of_sides(c, task, split):
        if limit is not None and len(documents) == limit:
            break
        try:
            if problem:
                raise ValueError(problem)
            if task["keep"] and not task["keep"](row):
                continue
            if task["convert_row"]:
                row = task["convert_row"](row)
            documents.append({"row": row, **READERS[task["kind"]](task, row)})
        except InvalidGold as e:
            raise ValueError(f"{place}: {e}") from None
        except KeyError as e:
            complaints.append(f"{place}: it lacks {e}; its columns are {', '.join(map(str, row))}")
        except (ValueError, TypeError, IndexError, AttributeError, SyntaxError) as e:
            complaints.append(f"{place}: {e}")
    return documents, complaints


def read_rows_of_sides(c, task, split):
    """[(place, row, problem)] of a split; the rows of two files become {"source", "target"}."""
    sides = []
    for files in task_files(c, task, split):
        if not files:
            raise ValueError(missing_file_message(c, task, split))
        rows = []
        for path in files:
            unit = "row" if suffix_of(path) == ".parquet" else "line"
            for number, row, problem in read_benchmark_file(path, task["header"]):
                rows.append((f"{path}, {unit} {number}", row, problem))
        sides.append(rows)
    return sides[0] if len(sides) == 1 else align_sides(task, *sides)


def align_sides(task, sources, targets):
    """Join two files by id where both have one, else line by line."""
    key = next((k for k in ("index_id", "id")
                if all(row and k in row for side in (sources, targets) for _, row, _ in side)), None)
    if key:
        target_by_id = {row[key]: row for _, row, _ in targets}
        pairs = [(place, row, target_by_id[row[key]]) for place, row, _ in sources if row[key] in target_by_id]
    elif len(sources) == len(targets):
        pairs = [(place, row, target) for (place, row, _), (_, target, _) in zip(sources, targets)]
    else:
        first, second = (side[0][0].split(", ")[0] for side in (sources, targets))
        raise ValueError(f"task {task['name']}: {first} has {len(sources)} lines, {second} {len(targets)}; "
                         "they must be aligned")
    aligned = []
    for place, source, target in pairs:
        texts = [row.get("text", row.get("sentence")) if row else None for row in (source, target)]
        if all(texts):
            aligned.append((place, {"source": texts[0], "target": texts[1]}, None))
        else:
            aligned.append((place, None, "no text"))
    return aligned


# ---------------------------------------------------------------------- one row -> one document, by kind

def read_choice(task, row):
    context, choices, gold = task["context"](row), task["choices"](row), task["gold"](row)
    golds = gold if isinstance(gold, (list, tuple)) else [gold]
    return {"context": context, "choices": choices, "gold": [choice_index(task, g, len(choices)) for g in golds]}


def choice_index(task, gold, n):
    """The index of the right choice, from a number or a letter from A on."""
    text = str(gold).strip()
    index = ord(text) - ord("A") if len(text) == 1 and text.isalpha() else int(text)
    if not 0 <= index < n:
        raise InvalidGold(f"task {task['name']}: the right answer {gold!r} is none of the {n} choices")
    return index


def read_reference(task, row):
    """A document of a generated text and its reference answers."""
    gold = task["gold"](row)
    if not gold or not all(isinstance(g, str) for g in gold):
        raise ValueError("it has no right answer")
    return {"context": task["context"](row), "gold": gold}


def read_conversation(task, row):
    """A document of {"messages"}, MT-bench's {"turns"}, or a single {"prompt"}; the last message is the user's."""
    sequential = not row.get("messages")  # each turn is answered before the next one is asked
    if sequential:
        messages = [{"role": "user", "content": text} for text in row.get("turns") or [row["prompt"]]]
    else:
        messages = list(row["messages"])
        while messages and messages[-1]["role"] == "assistant":  # a reference
            messages.pop()
    if not messages or not all(isinstance(m["content"], str) for m in messages):
        raise ValueError("it has no user message")
    return {"messages": messages, "sequential": sequential, "gold": row.get("gold", row.get("reference"))}


def read_text(task, row):
    return {"text": row["text"]}


READERS = {"choice": read_choice, "generate": read_reference, "translate": read_reference, "chat": read_conversation,
           "bpb": read_text}
