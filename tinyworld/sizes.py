"""The settings of `python -m tinyworld`: how much to write of every kind of file, and in which languages.

Numbers by group are {"en", "zh", "high", "low"}: English, Chinese, the other high-resource and the low-resource
languages.
"""
from dataclasses import dataclass, field

from configs import language_table
from tinyworld.instructions import CROSSLINGUAL

BOUNDS = {"items": (2, 112),  # half as many are about near countries, which have 56 facts
          "test": (2, 200), "heldout": (1, 100_000), "synthetic": (0, 10 ** 7), "questions": (0, 10_000),
          "fact_questions": (0, 200), "crosslingual": (0, 10 ** 6), "preferences": (0, 10 ** 6), "junk": (0, 0.9),
          "full_answers": (0, 1), "noise": (0, 0.9)}


@dataclass(frozen=True)
class Sizes:
    out: str
    world: int = 0           # seed of the facts about countries; the shipped base model was trained on world 0
    seed: int = 0            # of everything else: documents, sentence pairs, instructions, tests
    languages: list = field(default_factory=lambda: list(language_table.MARCO))
    web: dict = field(default_factory=lambda: {"en": 5000, "zh": 4000, "high": 900, "low": 400})  # by group
    junk: float = 0.15       # share of planted junk among the web documents
    pairs: int | dict = 200  # sentence pairs of each language with English, or by group; half as many with Chinese
    noise: float = 0.1       # share of planted bad pairs
    knowledge: int | dict = 120  # documents of each language, or by group
    full_answers: float = 0.0    # share of the knowledge documents' questions that are answered in a whole sentence
    synthetic: int = 120     # documents of each language
    items: int = 64          # of each benchmark and language
    test: int = 64           # sentences of the translation test
    heldout: int = 32        # web documents of each language
    native: list = field(default_factory=lambda: list(language_table.HIGH))  # languages with instructions of their own
    chat: dict = field(default_factory=lambda: {"en": 800, "zh": 600, "high": 120, "low": 120})  # by group
    crosslingual: int = 80   # of each language in each direction with English; half as many with Chinese
    # translation: only translate; into: also questions in a pivot, replied to in the other language; mixed: also
    # questions in the other language, replied to in a pivot
    crosslingual_kind: str = "mixed"
    preferences: int = 80    # pairs of each language
    questions: int = 24      # of the chat evaluation, in each language
    fact_questions: int = 0  # further ones, about facts that documents of every language state and no instruction does
    aligned: bool = False    # also the questions about countries in each language beside English (aligned.py)

    def __post_init__(self):
        check_languages(self)
        check_bounds(self)
        check_groups(self)


def check_languages(sizes):
    for name in ("languages", "native"):
        unknown = sorted(set(getattr(sizes, name)) - set(language_table.MARCO))
        if unknown:
            raise ValueError(f"{name}: {unknown} are not languages of the tinyworld, which are "
                             f"{' '.join(language_table.MARCO)}; tinyworld/__init__.py says how to add one")


def check_bounds(sizes):
    """Raise ValueError naming every setting out of bounds."""
    problems = []
    for name, (low, high) in BOUNDS.items():
        if not low <= getattr(sizes, name) <= high:
            problems.append(f"{name} must be from {low} to {high}, got {getattr(sizes, name)}")
    if sizes.crosslingual_kind not in CROSSLINGUAL:
        kinds = ", ".join(CROSSLINGUAL)
        problems.append(f"crosslingual_kind must be one of {kinds}, got {sizes.crosslingual_kind!r}")
    if problems:
        raise ValueError("; ".join(problems))


def check_groups(sizes):
    """Raise ValueError if a setting by group lacks a group that the languages need."""
    groups = {language_table.group(code) for code in sizes.languages}
    native = {language_table.group(code) for code in sizes.languages if code in sizes.native}
    for name, needed in (("web", groups), ("chat", native), ("pairs", groups - {"en"}), ("knowledge", groups)):
        given = getattr(sizes, name)
        if isinstance(given, dict) and (missing := sorted(needed - set(given))):
            raise ValueError(f"{name} must have a number for {missing}, too, got {given}; add it or leave those "
                             "languages out")


def amount(n: int | dict, code: str) -> int:
    """Return a language's number from a setting that is one number for all languages or {group: number}."""
    return n if isinstance(n, int) else n[language_table.group(code)]


def describes_far_countries(code: str) -> bool:
    """Whether documents of a language may describe the far countries."""
    return language_table.group(code) != "low"


def pivot_amounts(code: str, n: int) -> list[tuple[str, int]]:
    """Return [(pivot, amount)]: n with English, half as many with Chinese. English and Chinese are paired once."""
    return [(pivot, count) for pivot, count in (("en", n), ("zh", n // 2)) if code not in ("en", pivot)]
