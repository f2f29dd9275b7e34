"""Language files and rendering: one TOML file per language in languages/, read and rendered here.

A language file is a lexicon and a set of sentence patterns. A lexicon class such as [food] maps keys, the same in every
language, to words. If [forms] declares forms for a class, its entries hold the inflected forms separated by "|", in the
declared order. The first is the citation form, used in lists and as the answer to a question. A pattern names slots:

    {food}          the citation form          {food.acc}   the form called "acc"
    <he|she>        the first wording if {person} is a man, the second if {person} is a woman

If a class declares the forms "m" and "f" (or "m.ins" and "f.ins"), {job} (or {job.ins}) takes the one that agrees with
{person}. Names stay in the citation form wherever a head noun ("the city of ...") can carry the inflection: this avoids
most agreement problems instead of solving them. `python -m tinyworld.grammar kk` checks a language file and prints its
proof sheet for a native reader.

A message is what a sentence says, independent of language: (relation, slots), for example
("home", {"person": "anna", "city": "miren"}). world.py makes messages; the second half of this file renders them.
"""
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "languages"
CLASSES = ("country", "city", "river", "person", "job", "food", "animal", "good", "colour", "place", "object",
           "instrument", "subject", "transport", "direction", "day", "time", "season", "weather", "activity")
PATTERN_TABLES = ("title", "sentence", "question", "cause", "effect", "chat")
# the slot that the question of a relation asks for
ASKS = dict(capital="city", river="river", dish="food", emblem="animal", flag="colour", product="good",
            region="direction", home="city", work="job", taste="food", pet="animal", favourite="colour",
            purchase="object", visit="place", travel="transport", play="instrument", study="subject", meeting="place",
            price="number", bridge="number")
WOMEN = ("anna", "maria", "sara", "lina", "nora", "elena", "mira", "dina")
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
SWITCH = re.compile(r"<([^<>|]*)\|([^<>|]*)>")
Message = tuple[str, dict]  # (relation, {slot: lexicon key})


@cache
def load_language(code: str) -> dict:
    """Read the language file of a code into nested dicts; each entry of a lexicon class becomes {form: text}."""
    path = FOLDER / f"{code}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise ValueError(f"the tinyworld has no language '{code}', only {known}; to add it, write "
                         f"tinyworld/languages/{path.name} (see tinyworld/__init__.py)")
    lang = tomllib.loads(path.read_text(encoding="utf-8"))
    for name in CLASSES:
        forms = lang["forms"].get(name, ["bare"])
        for key, entry in lang[name].items():
            texts = entry.split("|")
            if len(texts) != len(forms):
                raise ValueError(f"{path.name}: [{name}] {key} has {len(texts)} forms, "
                                 f"[forms] declares {len(forms)}: {forms}")
            lang[name][key] = dict(zip(forms, texts))
    return lang


# ---------------------------------------------------------------------- patterns to text

def inflect(lang: dict, name: str, key: str, form: str | None = None, woman: bool = False) -> str:
    """Return one form of a lexicon entry: the citation form if form is None. Numbers are digits in every language."""
    if name == "number":
        return str(key)
    forms = lang[name.rstrip("2")][key]  # {person2} is a second person
    gender = "f" if woman else "m"
    candidates = [gender, next(iter(forms))] if form is None else [f"{gender}.{form}", form]
    for candidate in candidates:
        if candidate in forms:
            return forms[candidate]
    raise ValueError(f"{lang['code']}.toml: [{name}] has no form '{form}'; [forms] declares {list(forms)}")


def render_pattern(lang: dict, pattern: str, slots: dict) -> str:
    """Fill a pattern. slots maps slot names to lexicon keys, for example {"person": "anna", "city": "miren"}."""
    woman = slots.get("person") in WOMEN
    text = SWITCH.sub(r"\2" if woman else r"\1", pattern)
    text = SLOT.sub(lambda m: inflect(lang, m[1], slots[m[1]], m[2], woman), text)
    return capitalize(text, lang["code"])


def capitalize(text: str, code: str) -> str:
    """Upper-case the first letter; the Turkish and Azerbaijani i keeps its dot."""
    if text[:1] == "i" and code in ("tr", "az"):
        return "İ" + text[1:]
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------------- messages to text

def render_sentence(lang: dict, message: Message) -> str:
    relation, slots = message
    return render_pattern(lang, lang["sentence"][relation], slots)


def render_question(lang: dict, message: Message) -> str:
    relation, slots = message
    return render_pattern(lang, lang["question"][relation], slots)


def render_answer(lang: dict, message: Message, value: str | None = None) -> str:
    """Return the citation form of what the question asks for. value replaces it, for a wrong answer."""
    relation, slots = message
    slot = ASKS[relation]
    return inflect(lang, slot, slots[slot] if value is None else value, woman=slots.get("person") in WOMEN)


def render_cause_and_effect(lang: dict, key: str, slots: dict, forward: bool) -> str:
    """Render a cause and its effect as two sentences: forward ("Result:") or backward ("Reason:")."""
    cause, effect = (render_pattern(lang, lang[side][key], slots) for side in ("cause", "effect"))
    if forward:
        return f"{cause} {lang['label']['effect']} {effect}"
    return f"{effect} {lang['label']['cause']} {cause}"


def render_text(lang: dict, messages: Iterable[Message]) -> str:
    return join_sentences(lang, [render_sentence(lang, message) for message in messages])


def join_sentences(lang: dict, sentences: Iterable[str]) -> str:
    return lang["joiner"].join(sentences)


def full_stop(lang: dict) -> str:
    """Return the mark that ends a sentence; "" in Thai, which has none."""
    last = lang["sentence"]["capital"][-1]
    return "" if last.isalnum() or last == "}" else last


# ---------------------------------------------------------------------- checking a language file

def check_language(code: str) -> None:
    """Raise ValueError unless the file has exactly English's keys and slots, and every pattern renders."""
    lang, reference = load_language(code), load_language("en")
    for table, entries in reference.items():
        if not isinstance(entries, dict) or table == "forms":
            continue
        missing, extra = set(entries) - set(lang.get(table, {})), set(lang.get(table, {})) - set(entries)
        if missing or extra:
            raise ValueError(f"{code}.toml: [{table}] lacks {sorted(missing)} and should not have {sorted(extra)}")
        if table in PATTERN_TABLES:
            check_slots(code, table, lang[table], entries)
        if table in CLASSES:
            texts = [next(iter(forms.values())) for forms in lang[table].values()]
            if len(set(texts)) != len(texts):
                raise ValueError(f"{code}.toml: [{table}] has two entries with the same text: {sorted(texts)}")
    for _ in proof_sheet(code):
        pass  # rendering raises where a pattern names a form that [forms] does not declare


def check_slots(code, table, patterns, reference):
    """Raise ValueError if a pattern does not name the same slots as its English counterpart."""
    for key, pattern in reference.items():
        needed = {name for name, _ in SLOT.findall(pattern)}
        used = {name for name, _ in SLOT.findall(patterns[key])}
        if needed != used:
            raise ValueError(f"{code}.toml: [{table}] {key} uses slots {sorted(used)}, English uses {sorted(needed)}")


def proof_sheet(code: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every pattern twice, once with a woman and once with a man, then of every entry's forms."""
    lang = load_language(code)
    keys = {name: list(lang[name]) for name in CLASSES}
    for table in PATTERN_TABLES:
        for i, (key, pattern) in enumerate(lang[table].items()):
            for man in (0, 1):
                slots = {name: names[(3 * i + man) % len(names)] for name, names in keys.items()}
                slots["person"] = keys["person"][i % 8 + 8 * man]
                slots["person2"] = keys["person"][15 - (i + 3) % 8]
                slots["number"] = 11 + (i + man) % 9
                yield f"{table}.{key}", render_pattern(lang, pattern, slots)
    for name in CLASSES:
        for key, forms in lang[name].items():
            yield f"{name}.{key}", " | ".join(forms.values())


def main() -> None:
    for code in sys.argv[1:]:
        check_language(code)
        for name, text in proof_sheet(code):
            print(f"{code}  {name:22} {text}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
