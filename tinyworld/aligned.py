"""The same questions about countries in several languages, with their answers: rows for recipes/plug.py and sdrrl.py.

Both recipes ask in a language for facts that only documents of a richer language state, so the questions are about the
far countries too. The split into training and test facts is that of tasks.split_pools().
"""
from collections.abc import Iterator

from tinyworld import grammar, tasks, world


def make_aligned_rows(pool: dict, code: str, pivot: str, far_only: bool = False) -> Iterator[dict]:
    """Yield a row for every fact of a pool: question and short answer in a language and in the pivot.

    "check" is the task, for marks.mark_answer(). far_only: leave out the countries that documents of every language
    describe.
    """
    lang, other = grammar.load_language(code), grammar.load_language(pivot)
    for i, message in enumerate(pool["far"] if far_only else pool["near"] + pool["far"]):
        row = {"id": i, "lang": code}
        for suffix, side in (("", lang), ("_pivot", other)):
            row["instruction" + suffix] = grammar.render_question(side, message)
            row["response" + suffix] = tasks.render_short_answer(side, message)
        yield row | {"check": tasks.make_answer_task(message)}
