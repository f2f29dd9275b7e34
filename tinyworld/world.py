"""The facts of the tinyworld, and random messages about its people and cities, independent of language.

A message is (relation, slots): ("home", {"person": "anna", "city": "miren"}). grammar.py renders it in any language, so
documents, translations, questions and answers all come from the same messages, and their truth is known exactly.
"""
import random
import zlib

from tinyworld.grammar import ASKS, CLASSES, Message, load_language, render_sentence

KEYS = {name: list(load_language("en")[name]) for name in CLASSES}
MEN = KEYS["person"][8:]
COUNTRY_FACTS = ("capital", "river", "dish", "emblem", "flag", "product", "region")
PERSON_FACTS = ("home", "work", "taste", "pet", "favourite", "purchase", "visit", "travel", "play", "study")
PERSON_RELATIONS = (*PERSON_FACTS, "meeting", "routine")
CITY_FACTS = ("climate", "price", "building", "bridge")
CAUSES = list(load_language("en")["cause"])  # each key has a cause and an effect
NEAR = KEYS["country"][:8]                   # countries that documents describe in every language
FAR = KEYS["country"][8:]                    # countries that only documents of high-resource languages describe
Facts = dict[tuple[str, str], Message]       # {(relation, country): message}


def make_facts(seed: int) -> Facts:
    """Sample the facts about countries: {(relation, country): message}."""
    rng = random.Random(f"{seed}/facts")
    cities = rng.sample(KEYS["city"], len(KEYS["city"]))
    facts = {}
    for country, city in zip(KEYS["country"], cities):
        slots = {"country": country, "city": city}
        for name in ("river", "food", "animal", "colour", "good", "direction"):
            slots[name] = rng.choice(KEYS[name])
        for relation in COUNTRY_FACTS:
            used = {"country", ASKS[relation]}
            if relation == "region":
                used.add("city")
            # sorted, because the order of a set depends on PYTHONHASHSEED
            facts[relation, country] = relation, {name: slots[name] for name in sorted(used)}
    return facts


def message_id(message: Message) -> str:
    """Identify a message by its English sentence: equal exactly for messages that say the same."""
    return render_sentence(load_language("en"), message)


def is_reserved(message: Message) -> bool:
    """Whether a message is reserved for the translation tests: one in twenty, by a hash, the same for every seed.

    Documents, sentence pairs and instructions never contain a reserved message.
    """
    return zlib.crc32(f"translation test: {message_id(message)}".encode()) % 20 == 0


def replace_answer(message: Message, value: str) -> Message:
    """Put another value in the slot that the question asks for: the message of a wrong answer."""
    relation, slots = message
    return relation, slots | {ASKS[relation]: value}


# ---------------------------------------------------------------------- random messages

def sample_person_message(rng: random.Random, person: str, relation: str, reserved_ok: bool = False) -> Message:
    """Sample a message about a person, by default until it is not reserved."""
    names = ("city", "job", "food", "animal", "colour", "object", "day", "place", "transport", "instrument", "subject",
             "time", "activity")
    while True:
        slots = {name: rng.choice(KEYS[name]) for name in names}
        slots["person"] = person
        slots["person2"] = rng.choice([man for man in MEN if man != person])
        if reserved_ok or not is_reserved((relation, slots)):
            return relation, slots


def sample_city_message(rng: random.Random, city: str, relation: str, reserved_ok: bool = False) -> Message:
    """Sample a message about a city, by default until it is not reserved."""
    while True:
        slots = {"city": city, "number": rng.randrange(11, 20)}
        for name in ("season", "weather", "food", "place"):
            slots[name] = rng.choice(KEYS[name])
        if reserved_ok or not is_reserved((relation, slots)):
            return relation, slots


def sample_message(rng: random.Random, reserved_ok: bool = False) -> Message:
    """Sample a message about any person (7 in 10) or city, by default until it is not reserved."""
    while True:
        if rng.random() < 0.7:
            person, relation = rng.choice(KEYS["person"]), rng.choice(PERSON_RELATIONS)
            message = sample_person_message(rng, person, relation, reserved_ok=True)
        else:
            city, relation = rng.choice(KEYS["city"]), rng.choice(CITY_FACTS)
            message = sample_city_message(rng, city, relation, reserved_ok=True)
        if reserved_ok or not is_reserved(message):
            return message


def sample_cause_slots(rng: random.Random) -> dict:
    """Sample the slots that a cause and its effect share."""
    return {"person": rng.choice(KEYS["person"]), "city": rng.choice(KEYS["city"])}


def sample_reading(rng: random.Random) -> tuple[list[Message], Message]:
    """Sample a passage and the message in it to ask about.

    The passage states the same two relations of two people with different values, in random order.
    """
    while True:
        people = rng.sample(KEYS["person"], 2)
        relations = rng.sample(PERSON_FACTS, 2)
        passage = [sample_person_message(rng, person, relation) for person in people for relation in relations]
        rng.shuffle(passage)
        target = rng.choice(passage)
        other = other_person(passage, target)
        slot = ASKS[target[0]]
        if other[1][slot] != target[1][slot] and other[1]["day"] != target[1]["day"]:
            return passage, target


def other_person(passage: list[Message], target: Message) -> Message:
    """Return the message of a passage that states the target's relation of the other person."""
    return next(m for m in passage if m[0] == target[0] and m[1]["person"] != target[1]["person"])
