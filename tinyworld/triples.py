"""Triples of names and links between them in two languages, split into training and test, for recipes/prixlm.py."""
import random

from tinyworld import world
from tinyworld.grammar import inflect, load_language, render_answer

NAMES, WORDS = ("country", "city"), ("river", "food", "animal", "good", "colour", "direction")  # classes


def make_knowledge_base(facts: world.Facts, languages: list[str], seed: int, known: float) -> dict[str, list[tuple]]:
    """{"triples", "test_triples": (language, subject, relation, object); "links", "test_links", "test_words":
    (language, language, name in the first, name in the second)}.

    English states all facts, the others the same share `known` of them; the rest is the test. Links are English with
    each language, both ways; a fifth of the countries and cities, and a fifth of the other words, are the tests.
    """
    rng = random.Random(f"{seed}/knowledge base")
    kb: dict[str, list[tuple]] = {name: [] for name in ("triples", "links", "test_triples", "test_links", "test_words")}
    stated = set(rng.sample(sorted(facts), round(known * len(facts))))
    for (relation, country), message in facts.items():
        for code in languages:
            lang = load_language(code)
            row = code, inflect(lang, "country", country), relation, render_answer(lang, message)
            kb["triples" if code == "en" or (relation, country) in stated else "test_triples"].append(row)
    for test, classes in (("test_links", NAMES), ("test_words", WORDS)):
        keys = [(name, key) for name in classes for key in world.KEYS[name]]
        held_out = set(rng.sample(keys, len(keys) // 5))
        for code in languages:
            for name, key in keys if code != "en" else ():
                x, y = (inflect(load_language(k), name, key) for k in ("en", code))
                kb[test if (name, key) in held_out else "links"] += [("en", code, x, y), (code, "en", y, x)]
    return kb
