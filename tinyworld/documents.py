"""Training text: web documents with planted junk, exercises, stories and sentence pairs."""
import random
from collections.abc import Iterator, Sequence

from tinyworld import grammar, world

JUNK = ("wrong_language", "boilerplate", "repetition", "symbols", "truncated", "duplicate_exact", "duplicate_near",
        "spam_url")
DOCUMENT_KINDS = {"country": 20, "city": 10, "person": 14, "exercise": 40, "quiz": 8, "causes": 8}  # weights


# ---------------------------------------------------------------------- one document

def make_document(facts: world.Facts, lang: dict, rng: random.Random, all_facts: bool) -> str:
    """Make one clean web document: a portrait of a country, city or person, a reading exercise, a quiz or causes.

    facts: from world.make_facts(). all_facts: whether it may describe the far countries, too.
    """
    countries = world.KEYS["country"] if all_facts else world.NEAR
    kind = rng.choices(tuple(DOCUMENT_KINDS), tuple(DOCUMENT_KINDS.values()))[0]
    if kind == "exercise":
        return make_reading_exercise(lang, rng)
    if kind == "quiz":
        pairs = rng.sample([(relation, country) for relation in world.COUNTRY_FACTS for country in countries], 4)
        return "\n".join(render_exercise(lang, facts[pair]) for pair in pairs)
    if kind == "causes":
        lines = []
        for key in rng.sample(world.CAUSES, 4):
            slots = world.sample_cause_slots(rng)
            lines.append(grammar.render_cause_and_effect(lang, key, slots, forward=rng.random() < 0.5))
        return "\n".join(lines)
    subject = rng.choice(countries if kind == "country" else world.KEYS[kind])
    if kind == "country":
        relations = rng.sample(world.COUNTRY_FACTS, 5)
        messages = [facts[relation, subject] for relation in relations]
    elif kind == "city":
        relations = rng.choices(world.CITY_FACTS, k=5)
        messages = [world.sample_city_message(rng, subject, relation) for relation in relations]
    else:
        relations = rng.sample(world.PERSON_RELATIONS, 5)
        messages = [world.sample_person_message(rng, subject, relation) for relation in relations]
    return make_page(lang, rng, kind, subject, messages)


def make_page(lang, rng, kind, subject, messages):
    """A title, the text, and two of its sentences again, as web pages often do: this teaches a model to copy."""
    title = grammar.render_pattern(lang, lang["title"][kind], {kind: subject})
    sentences = [grammar.render_sentence(lang, message) for message in messages]
    opening = [rng.choice(lang["text"]["opening"])] if rng.random() < 0.3 else []
    repeated = rng.sample(sentences, 2)
    return "\n".join([title, grammar.join_sentences(lang, opening + sentences), grammar.join_sentences(lang, repeated)])


def make_reading_exercise(lang, rng):
    """A passage, then a question about each of its sentences, answered in a whole sentence."""
    passage, _ = world.sample_reading(rng)
    questions = rng.sample(passage, len(passage))
    exercises = [render_exercise(lang, message, whole_sentence=True) for message in questions]
    return "\n".join([grammar.render_text(lang, passage), *exercises])


def render_exercise(lang: dict, message: grammar.Message, whole_sentence: bool = False) -> str:
    """Render a question and its answer, in one word or in a whole sentence."""
    label, question = lang["label"], grammar.render_question(lang, message)
    if whole_sentence:
        answer = grammar.render_sentence(lang, message)
    else:
        answer = grammar.render_answer(lang, message) + grammar.full_stop(lang)
    return f"{label['question']} {question}\n{label['answer']} {answer}"


def make_quiz(facts: world.Facts, lang: dict, rng: random.Random, all_facts: bool, full_answers: float = 0.0) -> str:
    """Make a knowledge document: three questions about countries and two sums, with their answers.

    full_answers: the share of the questions that are answered in a whole sentence, as a chat would.
    """
    countries = world.KEYS["country"] if all_facts else world.NEAR
    exercises = [make_sum(lang, rng) for _ in range(2)]
    for _ in range(3):
        relation, country = rng.choice(world.COUNTRY_FACTS), rng.choice(countries)
        whole = bool(full_answers) and rng.random() < full_answers  # at 0, no draw: the shipped base's documents
        exercises.append(render_exercise(lang, facts[relation, country], whole))
    rng.shuffle(exercises)
    return "\n".join(exercises)


def make_sum(lang, rng):
    a, b = rng.randrange(2, 50), rng.randrange(2, 50)
    label = lang["label"]
    return f"{label['question']} {a} + {b} = ?\n{label['answer']} {a + b}{grammar.full_stop(lang)}"


def make_story(lang: dict, rng: random.Random) -> str:
    """Make a synthetic document: a list of keywords, then a text that contains each of them.

    Marco-LLM prompts a model with keywords to write such texts.
    """
    person = rng.choice(world.KEYS["person"])
    messages = [world.sample_person_message(rng, person, relation) for relation in rng.sample(world.PERSON_FACTS, 4)]
    keywords = ", ".join(grammar.render_answer(lang, message) for message in messages)
    return grammar.capitalize(keywords, lang["code"]) + ".\n" + grammar.render_text(lang, messages)


# ---------------------------------------------------------------------- files

def make_web(facts: world.Facts, seed: int, code: str, n: int, junk: float, all_facts: bool,
             languages: Sequence[str]) -> Iterator[dict]:
    """Yield n web documents of a language as rows {"text", "url", "label"}.

    junk: the share of junk documents. Text in a wrong language is in one of languages. The first rows do not depend
    on n.
    """
    rng, lang = random.Random(f"{seed}/web/{code}"), grammar.load_language(code)
    clean: list[str] = []  # what duplicates repeat
    for i in range(n):
        text = make_document(facts, lang, rng, all_facts)
        row = {"text": text, "url": f"https://{rng.choice(world.KEYS['city'])}.example/{code}/{i}", "label": "clean"}
        if rng.random() < junk and clean:
            row["label"] = rng.choice(JUNK)
            row |= plant_junk(row["label"], facts, lang, rng, text, clean, languages)
        else:
            clean.append(text)
        yield row


def plant_junk(kind, facts, lang, rng, text, clean, languages):
    """Return the fields of a web row that this kind of junk changes."""
    if kind == "wrong_language":
        other = grammar.load_language(choose_other(rng, languages, lang["code"]))
        return {"text": make_document(facts, other, rng, all_facts=False)}
    if kind == "boilerplate":
        return {"text": "\n".join(rng.sample(lang["text"]["boilerplate"], 5))}
    if kind == "repetition":
        return {"text": "\n".join([text.split("\n")[-1]] * rng.randrange(4, 8))}
    if kind == "symbols":
        return {"text": "".join(char if rng.random() < 0.6 else rng.choice("#*|=_\\<>$") for char in text)}
    if kind == "truncated":
        return {"text": text[:len(text) * rng.randrange(50, 85) // 100].rstrip(".!?।。؟ ")}
    if kind == "duplicate_exact":
        return {"text": rng.choice(clean)}
    if kind == "duplicate_near":
        return {"text": rng.choice(clean) + "\n" + rng.choice(lang["text"]["opening"])}
    spam = grammar.join_sentences(lang, [rng.choice(lang["text"]["spam"]) for _ in range(4)])
    return {"text": spam, "url": f"https://best-casino-{rng.randrange(99)}.example/win"}


def make_bitext(seed: int, source: str, target: str, n: int, noise: float,
                languages: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield n pairs of two languages as (source text, target text, url, label): sentences and, one in five, words.

    noise: the share of bad pairs. Text in a wrong language is in one of languages.
    """
    rng = random.Random(f"{seed}/bitext/{source}-{target}")
    previous = None  # the target of the last clean pair, which a misaligned pair repeats
    for i in range(n):
        x, y = sample_pair(rng, grammar.load_language(source), grammar.load_language(target))
        label = "clean"
        if rng.random() < noise:
            label = rng.choice(("misaligned", "copy", "wrong_language"))
            other = grammar.load_language(choose_other(rng, languages, source, target))
            wrong = grammar.render_sentence(other, world.sample_message(rng))
            y = {"misaligned": previous or wrong, "copy": x, "wrong_language": wrong}[label]
        else:
            previous = y
        yield x, y, f"https://{source}-{target}.example/{i}", label


def sample_pair(rng, source, target):
    """Sample a word, a cause or effect, a question or a sentence, and render it in two languages."""
    if rng.random() < 0.2:
        name = rng.choice(grammar.CLASSES)
        key = rng.choice(world.KEYS[name])
        return grammar.inflect(source, name, key), grammar.inflect(target, name, key)
    kind = rng.random()
    if kind < 0.15:
        key, slots = rng.choice(world.CAUSES), world.sample_cause_slots(rng)
        side = rng.choice(("cause", "effect"))
        x, y = (grammar.render_pattern(lang, lang[side][key], slots) for lang in (source, target))
        return x, y
    message = world.sample_message(rng)
    render = grammar.render_question if kind > 0.85 and message[0] in source["question"] else grammar.render_sentence
    return render(source, message), render(target, message)


def choose_other(rng, languages, *excluded):
    """Choose a language other than the excluded ones; English if there is none."""
    return rng.choice([code for code in languages if code not in excluded] or ["en"])
