"""How the tinyworld speaks: one TOML file per language in languages/, read and rendered here.

A language file is a lexicon and a set of sentence patterns. An entry of a class whose [forms] are declared holds
its inflected forms separated by "|", in the declared order; the first is the citation form, used in lists and as
the answer to a question. A pattern names slots:

    {food}          the citation form          {food.acc}   the form called "acc"
    <he|she>        the first wording when {person} is a man, the second when {person} is a woman

When a class declares forms "m" and "f" (or "m.ins" and "f.ins"), {job} (or {job.ins}) takes the one that agrees
with {person}. Names stay in the citation form wherever a head noun ("the city of ...") can carry the inflection:
that is how most agreement traps are avoided instead of solved. `python -m tinyworld.grammar kk` prints the proof
sheet of a language, for a native reader.
"""
import re
import sys
import tomllib
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "languages"
CLASSES = ("country", "city", "river", "person", "job", "food", "animal", "good", "colour", "place", "object", "instrument",
           "subject", "transport", "direction", "day", "time", "season", "weather", "activity")
PATTERNS = ("title", "sentence", "question", "cause", "effect", "chat")
# the slot that the question of a relation asks for
ASKS = dict(capital="city", river="river", dish="food", emblem="animal", flag="colour", product="good", region="direction",
            home="city", work="job", taste="food", pet="animal", favourite="colour", purchase="object", visit="place",
            travel="transport", play="instrument", study="subject", meeting="place", price="number", bridge="number")
WOMEN = ("anna", "maria", "sara", "lina", "nora", "elena", "mira", "dina")
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
SWITCH = re.compile(r"<([^<>|]*)\|([^<>|]*)>")


@lru_cache(maxsize=None)
def language(code):
    """The language file of a code as nested dicts; every entry of a class split into {form: text}."""
    path = FOLDER / f"{code}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise ValueError(f"the tinyworld does not speak '{code}'; it speaks {known} (add {path.name} to add a language)")
    lang = tomllib.loads(path.read_text(encoding="utf-8"))
    for name in CLASSES:
        forms = lang["forms"].get(name, ["bare"])
        for key, entry in lang[name].items():
            texts = entry.split("|")
            if len(texts) != len(forms):
                raise ValueError(f"{path.name}: [{name}] {key} has {len(texts)} forms, [forms] declares {len(forms)}: {forms}")
            lang[name][key] = dict(zip(forms, texts))
    return lang


def word(lang, name, key, form=None, woman=False):
    """One form of one lexicon entry; the citation form when form is None; numbers are digits everywhere."""
    if name == "number":
        return str(key)
    forms = lang[name.rstrip("2")][key]
    gender = "f" if woman else "m"
    wanted = [gender, next(iter(forms))] if form is None else [f"{gender}.{form}", form]
    for f in wanted:
        if f in forms:
            return forms[f]
    raise ValueError(f"{lang['code']}.toml: [{name}] has no form '{form}'; [forms] declares {list(forms)}")


def render(lang, pattern, slots):
    """Fill a pattern: slots maps slot names to lexicon keys, e.g. {"person": "anna", "city": "miren"}."""
    woman = slots.get("person") in WOMEN
    text = SWITCH.sub(lambda m: m.group(2 if woman else 1), pattern)
    text = SLOT.sub(lambda m: word(lang, m.group(1), slots[m.group(1)], m.group(2), woman), text)
    return capitalise(text, lang["code"])


def capitalise(text, code):
    """Upper-case the first letter; Turkish and Azerbaijani i becomes dotted."""
    if text[:1] == "i" and code in ("tr", "az"):
        return "İ" + text[1:]
    return text[:1].upper() + text[1:]


def check(code):
    """Raise ValueError unless the file has exactly English's keys and slots, and every pattern renders."""
    lang, reference = language(code), language("en")
    for table, entries in reference.items():
        if not isinstance(entries, dict) or table == "forms":
            continue
        missing, extra = set(entries) - set(lang.get(table, {})), set(lang.get(table, {})) - set(entries)
        if missing or extra:
            raise ValueError(f"{code}.toml: [{table}] lacks {sorted(missing)} and should not have {sorted(extra)}")
        for key, pattern in entries.items():
            if table in PATTERNS:
                needed = {name for name, _ in SLOT.findall(pattern)}
                got = {name for name, _ in SLOT.findall(lang[table][key])}
                if needed != got:
                    raise ValueError(f"{code}.toml: [{table}] {key} uses slots {sorted(got)}, English uses {sorted(needed)}")
        if table in CLASSES:
            for form in lang["forms"].get(table, ["bare"])[:1]:
                texts = [w[form] for w in lang[table].values()]
                if len(set(texts)) != len(texts):
                    raise ValueError(f"{code}.toml: [{table}] says two entries alike: {sorted(texts)}")
    list(proof(code))


def proof(code):
    """Yield every pattern of a language twice (once with a woman, once with a man), and every form of every entry."""
    lang = language(code)
    keys = {name: list(lang[name]) for name in CLASSES}
    for table in PATTERNS:
        for i, (key, pattern) in enumerate(lang[table].items()):
            for j in (0, 1):
                slots = {name: ks[(3 * i + j) % len(ks)] for name, ks in keys.items()}
                slots |= {"person": keys["person"][i % 8 + 8 * j], "person2": keys["person"][15 - (i + 3) % 8], "number": 11 + (i + j) % 9}
                yield f"{table}.{key}", render(lang, pattern, slots)
    for name in CLASSES:
        for key, forms in lang[name].items():
            yield f"{name}.{key}", " | ".join(forms.values())


if __name__ == "__main__":
    for code in sys.argv[1:]:
        check(code)
        for key, text in proof(code):
            print(f"{code}  {key:22} {text}")
