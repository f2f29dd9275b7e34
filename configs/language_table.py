"""One row per language, the only list of known codes. To add a language, add a row.

group is Marco-LLM's own split (its Table 1): "high" and "low" resource; None for languages outside its 29. script is
Unicode's name; several are separated by spaces. flores is the FLORES-200 code.
"""
from typing import NamedTuple


class Language(NamedTuple):
    name: str             # in English
    group: str | None     # "high", "low" or None
    flores: str
    script: str
    rtl: bool = False     # written from right to left


LANGUAGES = {
    "en": Language("English", "high", "eng_Latn", "Latin"),
    "zh": Language("Chinese", "high", "zho_Hans", "Han"),
    "ar": Language("Arabic", "high", "arb_Arab", "Arabic", rtl=True),
    "de": Language("German", "high", "deu_Latn", "Latin"),
    "es": Language("Spanish", "high", "spa_Latn", "Latin"),
    "fr": Language("French", "high", "fra_Latn", "Latin"),
    "ko": Language("Korean", "high", "kor_Hang", "Hangul"),
    "ja": Language("Japanese", "high", "jpn_Jpan", "Han scx=Hiragana scx=Katakana"),
    "pt": Language("Portuguese", "high", "por_Latn", "Latin"),
    "tr": Language("Turkish", "high", "tur_Latn", "Latin"),
    "bn": Language("Bengali", "low", "ben_Beng", "Bengali"),
    "he": Language("Hebrew", "low", "heb_Hebr", "Hebrew", rtl=True),
    "id": Language("Indonesian", "low", "ind_Latn", "Latin"),
    "it": Language("Italian", "low", "ita_Latn", "Latin"),
    "ms": Language("Malay", "low", "zsm_Latn", "Latin"),
    "nl": Language("Dutch", "low", "nld_Latn", "Latin"),
    "pl": Language("Polish", "low", "pol_Latn", "Latin"),
    "ru": Language("Russian", "low", "rus_Cyrl", "Cyrillic"),
    "th": Language("Thai", "low", "tha_Thai", "Thai"),
    "uk": Language("Ukrainian", "low", "ukr_Cyrl", "Cyrillic"),
    "ur": Language("Urdu", "low", "urd_Arab", "Arabic", rtl=True),
    "vi": Language("Vietnamese", "low", "vie_Latn", "Latin"),
    "cs": Language("Czech", "low", "ces_Latn", "Latin"),
    "el": Language("Greek", "low", "ell_Grek", "Greek"),
    "hu": Language("Hungarian", "low", "hun_Latn", "Latin"),
    "kk": Language("Kazakh", "low", "kaz_Cyrl", "Cyrillic"),
    "ro": Language("Romanian", "low", "ron_Latn", "Latin"),
    "az": Language("Azerbaijani", "low", "azj_Latn", "Latin"),
    "ne": Language("Nepali", "low", "npi_Deva", "Devanagari"),
    # also in benchmarks
    "hi": Language("Hindi", None, "hin_Deva", "Devanagari"),
    "sw": Language("Swahili", None, "swh_Latn", "Latin"),
    "yo": Language("Yoruba", None, "yor_Latn", "Latin"),
    "fi": Language("Finnish", None, "fin_Latn", "Latin"),
    "te": Language("Telugu", None, "tel_Telu", "Telugu"),
}
MARCO = [code for code, row in LANGUAGES.items() if row.group]  # the 29 of Marco-LLM, in its order
HIGH = [code for code in MARCO if LANGUAGES[code].group == "high"]  # English and Chinese among them
LOW = [code for code in MARCO if LANGUAGES[code].group == "low"]
NAMES = {code: LANGUAGES[code].name for code in MARCO}


def group(code):
    """The mixture category a language belongs to: "en", "zh", "high" (the other 8) or "low"."""
    return code if code in ("en", "zh") else LANGUAGES[code].group
