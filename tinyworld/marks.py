"""Mark one answer to a task, by rule. Each mark is True or False; a score of 0 to 1 combines them.

    fact        it states the correct value and none that contradicts it; a translation: all values, in that pattern
    language    it is in the requested language: parse.is_in_language()
    constraint  a requested form is kept: short, a full sentence, the number of items; None if no form was requested
    concise     at most two sentences, none twice, and at most twice the length of the correct reply in full
"""
import re

from tinyworld.grammar import ASKS, load_language, render_sentence, render_text
from tinyworld.parse import closest_patterns, is_in_language, parse_text, tokenize
from tinyworld.tasks import REASON_SIDES, render_reply, render_short_answer, reply_language

SENTENCE_ENDS = r"[.!?;।。！？؟۔\n]+"


def mark_answer(code: str, task: dict, text: str, previous: str = "") -> dict[str, bool | None]:
    """Return {"fact", "language", "constraint", "concise"} of an answer to a task given in the language of code.

    previous: the answer of the turn before, whose items a further list may not repeat. An empty answer fails all.
    """
    lang, target = load_language(code), reply_language(code, task)
    full_reply = render_reply(lang, task | {"form": None})
    stated, expected = parse_text(text, target)[0], parse_text(full_reply, target)[0]
    return {"fact": mark_fact(lang, target, task, text, stated, expected, previous),
            "language": is_in_language(text, target),
            "constraint": mark_constraint(lang, target, task, text, stated, expected),
            "concise": mark_concise(lang, target, task, text, full_reply)}


def score(marks: dict[str, bool | None]) -> float:
    """Combine marks: half for the fact, half for the mean of the others that apply."""
    others = [mark for name, mark in marks.items() if name != "fact" and mark is not None]
    return bool(marks["fact"]) / 2 + sum(others) / len(others) / 2


def mark_fact(lang, target, task, text, stated, expected, previous):
    """Whether the answer says what was asked, and is true.

    stated, expected: the fillers of the answer and of the correct reply in full.
    """
    kind = task["task"]
    if kind == "list":
        repeated = parse_text(previous, target)[0].get(task["class"], set()) if task["more"] else set()
        return set(stated) == {task["class"]} and not stated[task["class"]] & repeated
    if kind == "refuse":
        answer, phrase = (" ".join(["", *tokenize(s, target), ""]) for s in (text, lang["chat"]["unknown"]))
        invented = parse_text(answer.replace(phrase, " "), target)[0]
        return phrase in answer and ASKS[task["message"][0]] not in invented
    if kind in ("answer", "rewrite"):
        asked = ASKS[task["message"][0]]
        short = parse_text(render_short_answer(lang, task["message"]), target)[0]
        is_true = all(keys <= expected.get(name, set()) | short.get(name, set()) for name, keys in stated.items())
        return is_true and stated.get(asked) in (short[asked], expected[asked])
    return stated == expected and expected_pattern(task) in closest_patterns(text, target)


def expected_pattern(task):
    """The name of the pattern that the correct reply in full is rendered from."""
    if task["task"] == "headline":
        return f"title.{task['title'][0]}"
    if task["task"] == "reason":
        _, asked = REASON_SIDES[task["ask"]]
        return f"{asked}.{task['key']}"
    return f"sentence.{task['message'][0]}"


def mark_constraint(lang, target, task, text, stated, expected):
    """Whether the answer has the requested form; None if none was requested."""
    if task["task"] == "list":
        return len(stated.get(task["class"], ())) == len(task["items"])
    if task["task"] == "headline":  # one line, at most half as long as the text
        return "\n" not in text.strip() and 0 < 2 * len(text.strip()) <= len(render_text(lang, task["told"]))
    form = task.get("form")
    if form == "brief":  # only what was asked, not a whole sentence
        sentence = render_sentence(lang, task["message"])
        return set(stated) == {ASKS[task["message"][0]]} and len(text.strip()) < len(sentence)
    if form == "full" or task["task"] == "rewrite":
        return set(stated) >= set(expected) and expected_pattern(task) in closest_patterns(text, target)
    return None


def mark_concise(lang, target, task, text, full_reply):
    """Whether the answer does not ramble."""
    # Thai has no full stop: its parts between spaces may not repeat, but they are not counted
    parts = re.split(r"\s+" if target == "th" else SENTENCE_ENDS, text)
    parts = [part.strip() for part in parts if part.strip()]
    longest = len(full_reply)
    if task["task"] == "refuse":  # an invented answer is false, but not long
        longest = max(longest, len(render_sentence(lang, task["message"])))
    if not 0 < len(text.strip()) <= 2 * longest:
        return False
    return len(set(parts)) == len(parts) and (len(parts) <= 2 or target == "th")
