"""Rows of questions and answers -> plain text: knowledge data, code and math."""
import regex

PAIRS = (("question", "answer"), ("instruction", "output"), ("problem", "solution"), ("prompt", "completion"))
METADATA = ("id", "source", "url", "subject", "category", "topic", "level", "difficulty", "type", "language", "license",
            "split")  # fields that are not part of the text


def format_knowledge(row: dict) -> str:
    """The text of a row: question, input, choices, a blank line, answer; nothing is added.

    Fields: one of PAIRS, "input", "choices" (the answer is one of them, its letter or its index), METADATA. ValueError
    names any other field.
    """
    pair = next((pair for pair in PAIRS if set(pair) <= set(row)), ())
    unknown = sorted(set(row) - {*pair, "input", "choices", *METADATA})
    if unknown or not pair:
        known = ", ".join("+".join(pair) for pair in PAIRS)
        raise ValueError(f"fields {unknown}; known are {known}; input, choices, {', '.join(METADATA)}")
    question, answer = (row[name] for name in pair)
    parts = [question]
    if row.get("input") not in (None, ""):
        parts.append(row["input"])
    if row.get("choices") is not None:
        choices, answer = format_choices(row["choices"], answer, pair[1])
        parts += choices
    parts.append(answer)
    for part in parts:
        if type(part) not in (str, int, float) or not str(part).strip():
            raise ValueError(f"{' and '.join(pair)}, input: each must be text that is not empty, got {part!r}")
    # leading blank lines go; leading spaces may be the indentation of code
    *question, answer = (regex.sub(r"\A(\s*\n)+", "", str(part)).rstrip() for part in parts)
    return "\n".join(question) + "\n\n" + answer


def format_choices(choices, answer, name):
    """(lettered choices, the lettered choice that the answer means). name: of the answer's field, for the error."""
    is_text = isinstance(choices, list) and len(choices) <= 26
    is_text = is_text and all(isinstance(choice, str) and choice.strip() for choice in choices)
    if is_text and answer in choices:
        spellings = choices
    elif type(answer) is str:
        spellings = [chr(65 + i) for i in range(26)]
    else:
        spellings = list(range(26))
    if not is_text or type(answer) not in (str, int) or answer not in spellings[:len(choices)]:
        raise ValueError(f"choices must be up to 26 texts and {name} one of them, its letter or its index, "
                         f"got {choices!r} and {answer!r}")
    lettered = [f"{chr(65 + i)}. {choice.strip()}" for i, choice in enumerate(choices)]
    return lettered, lettered[spellings.index(answer)]
