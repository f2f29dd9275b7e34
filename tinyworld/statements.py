"""Statements about the countries, true and false, and documents in which each is followed by the verdict on it."""
import random
from collections.abc import Iterator

from tinyworld import world
from tinyworld.grammar import ASKS, load_language, render_sentence

BLOCK = 6  # countries that exchange values in the false statements of a group
VERDICTS = {"en": ("False.", "True."), "zh": ("错。", "对。"), "ar": ("خطأ.", "صحيح."), "de": ("Falsch.", "Richtig."),
            "fr": ("Faux.", "Vrai."), "ja": ("誤り。", "正しい。"), "it": ("Falso.", "Vero."),
            "uk": ("Неправда.", "Правда."), "kk": ("Бұрыс.", "Дұрыс."), "el": ("Λάθος.", "Σωστό.")}


def make_statements(facts: world.Facts, languages: list[str], seed: int) -> list[dict]:
    """Every fact in every language, once true and once false: rows {"text", "label", "group", "language"}.

    The false statements of a group exchange the values of BLOCK countries, so that every word is as often in a true
    statement as in a false one: words alone say nothing. Facts that cannot be exchanged within a block are left out.
    """
    rng = random.Random(f"{seed}/statements")
    rows: list[dict] = []
    for relation in world.COUNTRY_FACTS:
        countries, slot = rng.sample(world.KEYS["country"], len(world.KEYS["country"])), ASKS[relation]
        for i in range(0, len(countries), BLOCK):
            values = [facts[relation, country][1][slot] for country in countries[i:i + BLOCK]]
            others = next((p for p in (rng.sample(values, len(values)) for _ in range(1000))
                           if all(a != b for a, b in zip(p, values))), [])
            for country, other in zip(countries[i:i + BLOCK], others):
                slots = facts[relation, country][1]
                for code in languages:
                    texts = [render_sentence(load_language(code), (relation, slots | change))
                             for change in ({slot: other}, {})]
                    rows += [{"text": text, "label": label, "group": f"{relation}/{i // BLOCK}", "language": code}
                             for label, text in enumerate(texts)]
    return rows


def make_verdicts(facts: world.Facts, seed: int, code: str, n: int) -> Iterator[dict]:
    """Yield n documents {"text"} of four statements, true or false by chance, each followed by the verdict on it.

    A model that reads true statements only has little reason to encode truth; here it predicts the next word.
    """
    if code not in VERDICTS:
        raise ValueError(f"no words for true and false in {code!r}, only in {' '.join(VERDICTS)}; add them to VERDICTS "
                         "in tinyworld/statements.py")
    rng, lang = random.Random(f"{seed}/verdicts/{code}"), load_language(code)
    for _ in range(n):
        lines = []
        for _ in range(4):
            relation, country = rng.choice(world.COUNTRY_FACTS), rng.choice(world.KEYS["country"])
            _, slots = facts[relation, country]
            slot, truth = ASKS[relation], rng.random() < 0.5
            if not truth:
                values = [facts[relation, other][1][slot] for other in world.KEYS["country"]]
                slots = slots | {slot: rng.choice([v for v in values if v != slots[slot]])}
            lines.append(render_sentence(lang, (relation, slots)) + lang["joiner"] + VERDICTS[code][truth])
        yield {"text": "\n".join(lines)}
