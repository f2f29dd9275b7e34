"""The tinyworld as a knowledge base: entities with labels, relations, triples and texts, as corpus/entity_pairs.py reads."""
import random
from pathlib import Path

from tinyworld import documents, grammar, world
from tinyworld.__main__ import write_jsonl


def write_knowledge_base(folder: Path, languages: list[str], seed: int) -> None:
    """Its entities, facts about countries with sentences of them, and texts about countries, cities and people."""
    rng, facts = random.Random(f"{seed}/knowledge"), world.make_facts(0)
    langs = {code: grammar.load_language(code) for code in languages}
    asked = {r: grammar.ASKS[r] for r in world.COUNTRY_FACTS if r != "region"}  # its question names a city, too
    write_jsonl(folder / "entities.jsonl", (
        {"id": f"{name}.{key}", "labels": {code: grammar.inflect(lang, name, key) for code, lang in langs.items()}}
        for name in grammar.CLASSES for key in world.KEYS[name]))
    write_jsonl(folder / "relations.jsonl", (
        {"id": r, "labels": {code: grammar.SLOT.sub("{}", lang["question"][r]) for code, lang in langs.items()}}
        for r in asked))
    triples, sentences, texts = [], [], []
    for (relation, country), message in facts.items():
        if relation in asked:
            triple = {"subject": f"country.{country}", "object": f"{asked[relation]}.{message[1][asked[relation]]}"}
            triples.append(triple | {"relation": relation})
            english = grammar.load_language("en")
            sentences.append(triple | {"mention": grammar.render_answer(english, message),
                                       "text": grammar.render_sentence(english, message)})
    for lang in langs.values():
        for name in ("country", "city", "person"):
            for key in world.KEYS[name]:
                messages = {"country": lambda: [facts[r, key] for r in rng.sample(world.COUNTRY_FACTS, 3)],
                            "city": lambda: [world.sample_city_message(rng, key, r) for r in world.CITY_FACTS[:3]],
                            "person": lambda: [world.sample_person_message(rng, key, r)
                                               for r in rng.sample(world.PERSON_FACTS, 3)]}[name]()
                texts.append({"entity": f"{name}.{key}", "text": grammar.render_text(lang, messages)})
    for name, rows in (("triples", triples), ("sentences", sentences), ("descriptions", texts)):
        write_jsonl(folder / f"{name}.jsonl", rows)
    english = grammar.load_language("en")
    write_jsonl(folder / "english.jsonl", ({"text": documents.make_document(facts, english, rng, True)}
                                           for _ in range(40)))
