"""The tinyworld as a knowledge base: the files that corpus/entity_pairs.py reads, and English text beside them."""
import random
from pathlib import Path

from tinyworld import documents, grammar, world
from tinyworld.__main__ import write_jsonl


def write_knowledge_base(folder: Path, languages: list[str], seed: int) -> None:
    """Write every lexicon entry as an entity, the facts about countries as triples, and texts that mention them.

    seed: of the descriptions. english.jsonl has documents for bits per byte.
    """
    rng, facts = random.Random(f"{seed}/knowledge"), world.make_facts(0)
    langs = {code: grammar.load_language(code) for code in languages}
    english = grammar.load_language("en")
    asked = {r: grammar.ASKS[r] for r in world.COUNTRY_FACTS if r != "region"}  # its question names a city, too
    write_jsonl(folder / "entities.jsonl", (
        {"id": f"{name}.{key}", "labels": {code: grammar.inflect(lang, name, key) for code, lang in langs.items()}}
        for name in grammar.CLASSES for key in world.KEYS[name]))
    write_jsonl(folder / "relations.jsonl", (
        {"id": r, "labels": {code: ask(lang, r) for code, lang in langs.items()}} for r in asked))
    triples, sentences = [], []
    for (relation, country), message in facts.items():
        if relation in asked:
            slot = asked[relation]
            ends = {"subject": f"country.{country}", "object": f"{slot}.{message[1][slot]}"}
            triples.append(ends | {"relation": relation})
            sentences.append(ends | {"mention": grammar.render_answer(english, message),
                                     "text": grammar.render_sentence(english, message)})
    write_jsonl(folder / "triples.jsonl", triples)
    write_jsonl(folder / "sentences.jsonl", sentences)
    write_jsonl(folder / "descriptions.jsonl", (
        {"entity": f"{name}.{key}", "text": grammar.render_text(lang, sample_messages(facts, rng, name, key))}
        for lang in langs.values() for name in ("country", "city", "person") for key in world.KEYS[name]))
    write_jsonl(folder / "english.jsonl", (
        {"text": documents.make_document(facts, english, rng, all_facts=True)} for _ in range(40)))


def ask(lang: dict, relation: str) -> str:
    """The label of a relation: its question about {}, up to where the answer begins, as documents write it."""
    question = grammar.SLOT.sub("{}", lang["question"][relation])
    return f"{lang['label']['question']} {question}\n{lang['label']['answer']}"


def sample_messages(facts: world.Facts, rng: random.Random, name: str, key: str) -> list[grammar.Message]:
    """Three messages about a country, city or person."""
    if name == "country":
        return [facts[relation, key] for relation in rng.sample(world.COUNTRY_FACTS, 3)]
    sample, relations = (world.sample_city_message, world.CITY_FACTS) if name == "city" else \
        (world.sample_person_message, world.PERSON_FACTS)
    return [sample(rng, key, relation) for relation in rng.sample(relations, 3)]
