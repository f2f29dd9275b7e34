"""The same questions about countries in several languages, with their answers: for recipes/plug.py and sdrrl.py.

Both recipes ask in a language for facts that only documents of a richer language state. tasks.split_pools() splits the
facts into those of training and those of the test.
"""
from collections.abc import Iterator, Sequence

from tinyworld import grammar, tasks, world

WORDINGS = ("sentence", "short", "both")  # of an answer


def render_answer(lang: dict, message: grammar.Message, wording: str) -> str:
    short = grammar.capitalize(grammar.render_answer(lang, message), lang["code"]) + grammar.full_stop(lang)
    sentence = grammar.render_sentence(lang, message)
    parts = {"short": [short], "sentence": [sentence], "both": [short, sentence]}[wording]
    return grammar.join_sentences(lang, parts)


def make_rows(pool: dict, code: str, pivot: str, far_only: bool = False) -> Iterator[dict]:
    """Yield a row for every fact of a pool: question and short answer in a language and in the pivot.

    "check" is the task, for marks.mark_answer(). far_only: leave out the countries that documents of every language
    describe.
    """
    lang, other = grammar.load_language(code), grammar.load_language(pivot)
    for i, message in enumerate(pool["far"] if far_only else pool["near"] + pool["far"]):
        row = {"id": i, "lang": code}
        for suffix, side in (("", lang), ("_pivot", other)):
            row["instruction" + suffix] = grammar.render_question(side, message)
            row["response" + suffix] = render_answer(side, message, "short")
        yield row | {"check": tasks.make_answer_task(message)}


def make_instructions(pool: dict, code: str, wordings: Sequence[str]) -> Iterator[dict]:
    """Yield {"instruction", "response"} for every fact of a pool; the answers take the wordings in turn."""
    lang = grammar.load_language(code)
    for i, message in enumerate(pool["near"] + pool["far"]):
        yield {"instruction": grammar.render_question(lang, message),
               "response": render_answer(lang, message, wordings[i % len(wordings)])}


def make_translations(facts: world.Facts, pivot: str, code: str) -> Iterator[dict]:
    """Yield {"source", "target"}: every question, and every answer to it, right or wrong, in every wording."""
    a, b, seen = grammar.load_language(pivot), grammar.load_language(code), set()
    for message in facts.values():
        pairs = [(grammar.render_question(a, message), grammar.render_question(b, message))]
        for value in world.KEYS[grammar.ASKS[message[0]]]:
            answer = world.replace_answer(message, value)
            pairs += [(render_answer(a, answer, wording), render_answer(b, answer, wording)) for wording in WORDINGS]
        for source, target in pairs:
            if source not in seen:
                seen.add(source)
                yield {"source": source, "target": target}


def make_lexicon(pivot: str, code: str) -> Iterator[tuple[str, str]]:
    """Yield the citation forms of every word and name in two languages."""
    a, b = grammar.load_language(pivot), grammar.load_language(code)
    for name in grammar.CLASSES:
        for key in world.KEYS[name]:
            yield grammar.inflect(a, name, key), grammar.inflect(b, name, key)
