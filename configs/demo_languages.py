"""Which of the tinyworld's languages the demo uses: LANGUAGES="en zh kk" make demo; LANGUAGES=all for the 29."""
import os

from configs.language_table import MARCO, group

# ten languages in six scripts; four are low-resource: Italian in Latin letters, Ukrainian and Kazakh in Cyrillic, Greek
DEFAULT = "en zh ar de fr ja it uk kk el"
# beside the paper's shares, which add up to 100: the base translates between English and Chinese, and forgets how
# where their pairs are too small a share
REPLAYED_PAIRS = {"parallel/en-zh": 4}


def chosen() -> list[str]:
    """The codes that LANGUAGES names, in the table's order; ValueError for an unknown one."""
    asked = (os.environ.get("LANGUAGES") or DEFAULT).replace(",", " ").split()
    if asked == ["all"]:
        return list(MARCO)
    if unknown := [code for code in asked if code not in MARCO]:
        raise ValueError(f"LANGUAGES: unknown {' '.join(unknown)}; known are all, or some of {' '.join(MARCO)}")
    if "en" not in asked or len(set(asked)) < 2:
        raise ValueError(f"LANGUAGES={' '.join(asked)}: en must be among them, as translations are measured against "
                         "it, and another language")
    return [code for code in MARCO if code in asked]


def present(mixture: dict) -> dict:
    """A mixture without the groups that have no chosen language. With English and Chinese alone, all pairs are replayed
    ones.
    """
    groups = {group(code) for code in chosen()}
    absent = {"en", "zh", "high", "low"} - groups
    if "zh" not in groups or groups == {"en", "zh"}:
        absent |= set(REPLAYED_PAIRS)
    return {k: v for k, v in mixture.items() if k not in absent}


def has_chats(category: str) -> bool:
    """Whether any chosen language has instructions in a category: "chat/en", or "chat", of all but en and zh."""
    language = category.partition("/")[2]
    return language in chosen() if language else bool(set(chosen()) - {"en", "zh"})
