"""What is true in the tinyworld, and what one can say about it: messages, documents and test items, in no language yet.

A message is (relation, slots): ("home", {"person": "anna", "city": "miren"}). grammar.py says it in any language, so
documents, translations, questions and answers all come from the same messages and their truth is known exactly.
"""
import random
import zlib

from tinyworld.grammar import ASKS, CLASSES, capitalise, language, render, word

KEYS = {name: list(language("en")[name]) for name in CLASSES}
MEN = KEYS["person"][8:]
COUNTRY_FACTS = ("capital", "river", "dish", "emblem", "flag", "product", "region")
PERSON_FACTS = ("home", "work", "taste", "pet", "favourite", "purchase", "visit", "travel", "play", "study")
CITY_FACTS = ("climate", "price", "building", "bridge")
PAIRS = list(language("en")["cause"])  # keys of cause and effect
NEAR = KEYS["country"][:8]             # countries that are described in every language
FAR = KEYS["country"][8:]              # countries that only high-resource languages write about


class World:
    """Facts about countries, fixed by a seed: facts[relation, country] is the message's slots."""

    def __init__(self, seed):
        r = random.Random(f"{seed}/facts")
        cities = r.sample(KEYS["city"], len(KEYS["city"]))
        self.facts = {}
        for i, country in enumerate(KEYS["country"]):
            slots = {"country": country, "city": cities[i], "river": r.choice(KEYS["river"]), "food": r.choice(KEYS["food"]),
                     "animal": r.choice(KEYS["animal"]), "colour": r.choice(KEYS["colour"]), "good": r.choice(KEYS["good"]),
                     "direction": r.choice(KEYS["direction"])}
            for relation in COUNTRY_FACTS:
                used = {"country", ASKS[relation]} | ({"city"} if relation == "region" else set())
                self.facts[relation, country] = {k: slots[k] for k in used}


def reserved(message):
    """Whether a message is kept for the translation tests of every seed: one in twenty, by a hash of what it says. Documents, pairs
    and instructions never say it."""
    return zlib.crc32(f"translation test: {identity(message)}".encode()) % 20 == 0


def free(draw):
    """The first message that draw() returns and the translation tests do not reserve."""
    return next(message for message in iter(draw, None) if not reserved(message))


def about_person(r, person, relation):
    """A random message about a person, free for documents."""
    return free(lambda: any_about_person(r, person, relation))


def about_city(r, city, relation):
    return free(lambda: any_about_city(r, city, relation))


def any_about_person(r, person, relation):
    slots = {name: r.choice(KEYS[name]) for name in ("city", "job", "food", "animal", "colour", "object", "day", "place",
                                                     "transport", "instrument", "subject", "time", "activity")}
    slots |= {"person": person, "person2": r.choice([m for m in MEN if m != person])}
    return relation, slots


def any_about_city(r, city, relation):
    slots = {"city": city, "number": r.randrange(11, 20)}
    return relation, slots | {name: r.choice(KEYS[name]) for name in ("season", "weather", "food", "place")}


def cause_and_effect(r, key):
    """(key, slots) of a pair that both sides share."""
    return key, {"person": r.choice(KEYS["person"]), "city": r.choice(KEYS["city"])}


# ---------------------------------------------------------------------- in words

def say(lang, message):
    relation, slots = message
    return render(lang, lang["sentence"][relation], slots)


def ask(lang, message):
    relation, slots = message
    return render(lang, lang["question"][relation], slots)


def answer(lang, message, value=None):
    """The citation form of what the question asks for; value: another filler of that slot (a wrong answer)."""
    relation, slots = message
    slot = ASKS[relation]
    woman = slots.get("person") in KEYS["person"][:8]
    return word(lang, slot, slots[slot] if value is None else value, woman=woman)


def replaced(message, value):
    """The message with another filler of the slot its question asks for: what a wrong answer says."""
    relation, slots = message
    return relation, slots | {ASKS[relation]: value}


def exercise(lang, message, whole=False):
    """A question and its answer: in one word, or in a whole sentence."""
    label = lang["label"]
    reply = say(lang, message) if whole else answer(lang, message) + stop(lang)
    return f"{label['question']} {ask(lang, message)}\n{label['answer']} {reply}"


def stop(lang):
    """What ends a sentence; nothing in Thai."""
    last = lang["sentence"]["capital"][-1]
    return "" if last.isalnum() or last == "}" else last


def linked(lang, key, slots, forward):
    """Cause and effect in two sentences, told forward ("Result:") or backward ("Reason:")."""
    cause, effect = (render(lang, lang[side][key], slots) for side in ("cause", "effect"))
    first, link, second = (cause, "effect", effect) if forward else (effect, "cause", cause)
    return f"{first} {lang['label'][link]} {second}"


def paragraph(lang, sentences):
    return lang["joiner"].join(sentences)


# ---------------------------------------------------------------------- documents

def document(world, lang, r, all_facts):
    """One clean web document in one language: a portrait, a report, a reading exercise, a quiz or a list of causes."""
    countries = KEYS["country"] if all_facts else NEAR
    kind = r.choices(("country", "city", "person", "exercise", "quiz", "causes"), (20, 10, 14, 40, 8, 8))[0]
    if kind == "country":
        country = r.choice(countries)
        facts = [(f, world.facts[f, country]) for f in r.sample(COUNTRY_FACTS, 5)]
        return page(lang, r, render(lang, lang["title"]["country"], {"country": country}), [say(lang, m) for m in facts])
    if kind == "city":
        city = r.choice(KEYS["city"])
        told = [say(lang, about_city(r, city, f)) for f in r.choices(CITY_FACTS, k=5)]
        return page(lang, r, render(lang, lang["title"]["city"], {"city": city}), told)
    if kind == "person":
        person = r.choice(KEYS["person"])
        told = [say(lang, about_person(r, person, f)) for f in r.sample((*PERSON_FACTS, "meeting", "routine"), 5)]
        return page(lang, r, render(lang, lang["title"]["person"], {"person": person}), told)
    if kind == "exercise":
        passage, _ = reading(r)
        tasks = r.sample(passage, len(passage))
        return paragraph(lang, [say(lang, m) for m in passage]) + "\n" + "\n".join(exercise(lang, m, whole=True) for m in tasks)
    if kind == "quiz":
        asked = r.sample([(f, c) for f in COUNTRY_FACTS for c in countries], 4)
        return "\n".join(exercise(lang, (f, world.facts[f, c])) for f, c in asked)
    return "\n".join(linked(lang, *cause_and_effect(r, key), r.random() < 0.5) for key in r.sample(PAIRS, 4))


def page(lang, r, title, sentences):
    """A title, the text, and below it two of its sentences again, as pages like to do: what teaches a model to look back."""
    opening = [r.choice(lang["text"]["opening"])] if r.random() < 0.3 else []
    return "\n".join([title, paragraph(lang, opening + sentences), paragraph(lang, r.sample(sentences, 2))])


def reading(r):
    """A passage and a question: two people, the same two relations with different fillers, in random order."""
    while True:
        people = r.sample(KEYS["person"], 2)
        relations = r.sample(PERSON_FACTS, 2)
        told = [about_person(r, p, f) for p in people for f in relations]
        r.shuffle(told)
        asked = r.choice(told)
        slot = ASKS[asked[0]]
        other = next(m for m in told if m[0] == asked[0] and m[1]["person"] != asked[1]["person"])
        if other[1][slot] != asked[1][slot] and other[1].get("day") != asked[1]["day"]:
            return told, asked


# ---------------------------------------------------------------------- held-out items, the same for all languages

def choices(r, slot, right, never=()):
    """Four fillers of a slot in random order, none of `never` among the wrong ones, and the place of the right one."""
    wrong = r.sample([k for k in KEYS[slot] if k != right and k not in never], 3)
    options = r.sample([right, *wrong], 4)
    return options, options.index(right)


def reading_items(seed, n):
    r = random.Random(f"{seed}/belebele")
    for _ in range(n):
        told, asked = reading(r)
        slot = ASKS[asked[0]]
        other = next(m for m in told if m[0] == asked[0] and m is not asked)
        yield told, asked, *choices(r, slot, asked[1][slot], [other[1][slot]])  # a wrong answer is not in the passage


def knowledge_items(world, seed, n):
    """n questions about far countries, then n / 2 about near ones: (message, options, place of the right one, subject)."""
    r = random.Random(f"{seed}/mmmlu")
    for countries, count, subject in ((FAR, n, "unstated"), (NEAR, n // 2, "stated")):
        for f, c in r.sample([(f, c) for f in COUNTRY_FACTS for c in countries], count):
            message = f, world.facts[f, c]
            yield message, *choices(r, ASKS[f], message[1][ASKS[f]]), subject


def cause_items(seed, n):
    """(key, slots, question, key of the wrong choice, place of the right one)."""
    r = random.Random(f"{seed}/xcopa")
    for i in range(n):
        key, slots = cause_and_effect(r, PAIRS[i % len(PAIRS)])
        yield key, slots, r.choice(("cause", "effect")), r.choice([k for k in PAIRS if k != key]), r.randrange(2)


def test_messages(seed, n):
    """n different reserved messages."""
    r, out, seen = random.Random(f"{seed}/flores"), [], set()
    while len(out) < n:
        m = any_message(r)
        if reserved(m) and identity(m) not in seen:
            out.append(m)
            seen.add(identity(m))
    return out


def any_message(r):
    if r.random() < 0.7:
        return any_about_person(r, r.choice(KEYS["person"]), r.choice((*PERSON_FACTS, "meeting", "routine")))
    return any_about_city(r, r.choice(KEYS["city"]), r.choice(CITY_FACTS))


def random_message(r):
    """A message on a person or a city, free for documents."""
    return free(lambda: any_message(r))


def identity(message):
    """What a message says, in English: equal exactly for messages that say the same."""
    return say(language("en"), message)


def arithmetic(lang, r):
    a, b = r.randrange(2, 50), r.randrange(2, 50)
    return f"{lang['label']['question']} {a} + {b} = ?\n{lang['label']['answer']} {a + b}{stop(lang)}"


def story(lang, r):
    """The paper's keyword prompt turned around: a list of words, then a text in which each of them stands."""
    person = r.choice(KEYS["person"])
    messages = [about_person(r, person, f) for f in r.sample(PERSON_FACTS, 4)]
    words = [answer(lang, m) for m in messages]
    return capitalise(", ".join(words), lang["code"]) + ".\n" + paragraph(lang, [say(lang, m) for m in messages])
