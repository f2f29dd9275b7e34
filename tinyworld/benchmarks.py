"""Held-out items in the published formats of Belebele, XCOPA, MMMLU and FLORES. Item i is the same in every language.

Items are sampled independently of language, then rendered as the rows of each language's file.
"""
import random
from collections.abc import Iterable, Iterator, Sequence

from tinyworld import grammar, world

# ---------------------------------------------------------------------- items

def sample_options(rng: random.Random, slot: str, correct: str,
                   excluded: Sequence[str] = ()) -> tuple[list[str], int]:
    """Return four values of a slot in random order, no wrong one in excluded, and the index of the correct one."""
    wrong = rng.sample([key for key in world.KEYS[slot] if key != correct and key not in excluded], 3)
    options = rng.sample([correct, *wrong], 4)
    return options, options.index(correct)


def sample_reading_items(seed: int, n: int) -> Iterator[tuple[list[grammar.Message], grammar.Message, list[str], int]]:
    """Yield n reading items: (passage, message asked about, options, index of the correct one).

    What the passage says of the other person is not among the options.
    """
    rng = random.Random(f"{seed}/belebele")
    for _ in range(n):
        passage, target = world.sample_reading(rng)
        slot = grammar.ASKS[target[0]]
        options, correct = sample_options(rng, slot, target[1][slot], [world.other_person(passage, target)[1][slot]])
        yield passage, target, options, correct


def sample_knowledge_items(facts: world.Facts, seed: int,
                           n: int) -> Iterator[tuple[grammar.Message, list[str], int, str]]:
    """Yield n items about far countries, then n // 2 about near ones.

    An item is (message, options, index of the correct one, subject). The subject is "stated", or "unstated": no
    document of a low-resource language states the fact.
    """
    rng = random.Random(f"{seed}/mmmlu")
    for countries, count, subject in ((world.FAR, n, "unstated"), (world.NEAR, n // 2, "stated")):
        pairs = [(relation, country) for relation in world.COUNTRY_FACTS for country in countries]
        for relation, country in rng.sample(pairs, count):
            message = facts[relation, country]
            slot = grammar.ASKS[relation]
            options, correct = sample_options(rng, slot, message[1][slot])
            yield message, options, correct, subject


def sample_cause_items(seed: int, n: int) -> Iterator[tuple[str, dict, str, str, int]]:
    """Yield n items: (key, slots, "cause" or "effect", key of the wrong choice, index of the correct choice)."""
    rng = random.Random(f"{seed}/xcopa")
    for i in range(n):
        key, slots = world.CAUSES[i % len(world.CAUSES)], world.sample_cause_slots(rng)
        question = rng.choice(("cause", "effect"))
        wrong = rng.choice([other for other in world.CAUSES if other != key])
        yield key, slots, question, wrong, rng.randrange(2)


def sample_test_messages(seed: int, n: int) -> list[grammar.Message]:
    """Return n different reserved messages for the translation test."""
    rng = random.Random(f"{seed}/flores")
    messages: dict[str, grammar.Message] = {}
    while len(messages) < n:
        message = world.sample_message(rng, reserved_ok=True)
        if world.is_reserved(message):
            messages.setdefault(world.message_id(message), message)
    return list(messages.values())


# ---------------------------------------------------------------------- rows in one language

def belebele_rows(lang: dict, items: Iterable[tuple]) -> Iterator[dict]:
    """Render the items of sample_reading_items()."""
    for i, (passage, target, options, correct) in enumerate(items):
        answers = [grammar.render_sentence(lang, world.replace_answer(target, option)) for option in options]
        yield {
            "link": f"https://tinyworld.example/{i}",
            "question_number": 1,
            "flores_passage": grammar.render_text(lang, passage),
            "question": grammar.render_question(lang, target),
            **{f"mc_answer{j}": answer for j, answer in enumerate(answers, 1)},
            "correct_answer_num": str(correct + 1),
            "dialect": lang["code"],
            "ds": "2026-11-21",
        }


def xcopa_rows(lang: dict, items: Iterable[tuple]) -> Iterator[dict]:
    """Render the items of sample_cause_items()."""
    for i, (key, slots, question, wrong, label) in enumerate(items):
        given = "effect" if question == "cause" else "cause"
        choices = [key, wrong] if label == 0 else [wrong, key]
        choice1, choice2 = (grammar.render_pattern(lang, lang[question][choice], slots) for choice in choices)
        yield {"premise": grammar.render_pattern(lang, lang[given][key], slots), "choice1": choice1, "choice2": choice2,
               "question": question, "label": label, "idx": i, "changed": False}


def mmmlu_rows(lang: dict, items: Iterable[tuple]) -> Iterator[Sequence[str]]:
    """Yield the header, then the items of sample_knowledge_items()."""
    yield "Question", "A", "B", "C", "D", "Answer", "Subject"
    for message, options, correct, subject in items:
        answers = [grammar.render_answer(lang, message, option) for option in options]
        yield grammar.render_question(lang, message), *answers, "ABCD"[correct], subject
