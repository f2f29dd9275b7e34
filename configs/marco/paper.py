"""The numbers of Marco-LLM (arXiv 2412.04003), as data: languages, corpus, mixtures, and what the demo's report lays beside ours.

Tables are numbered as in the paper; results.py holds all of its scores. Percentages and billions are as printed; sums differ from
100 or 300 by rounding only.
"""
from configs.marco import results

# Table 1: code -> (name, group, tokens available, tokens used), in billions. The group is the paper's own split.
LANGUAGES = {
    "en": ("English", "high", 1459.7, 90.4),
    "zh": ("Chinese", "high", 214.7, 48.2),
    "ar": ("Arabic", "high", 45.8, 10.6),
    "de": ("German", "high", 442.8, 10.6),
    "es": ("Spanish", "high", 397.8, 10.6),
    "fr": ("French", "high", 320.8, 10.6),
    "ko": ("Korean", "high", 41.8, 10.6),
    "ja": ("Japanese", "high", 224.2, 10.6),
    "pt": ("Portuguese", "high", 145.3, 10.6),
    "tr": ("Turkish", "high", 80.6, 10.6),
    "bn": ("Bengali", "low", 6.5, 1.9),
    "he": ("Hebrew", "low", 11.3, 1.9),
    "id": ("Indonesian", "low", 23.8, 1.9),
    "it": ("Italian", "low", 56.3, 1.9),
    "ms": ("Malay", "low", 2.9, 1.9),
    "nl": ("Dutch", "low", 31.3, 1.9),
    "pl": ("Polish", "low", 45.3, 1.9),
    "ru": ("Russian", "low", 251.0, 1.9),
    "th": ("Thai", "low", 8.3, 1.9),
    "uk": ("Ukrainian", "low", 18.4, 1.9),
    "ur": ("Urdu", "low", 8.7, 1.9),
    "vi": ("Vietnamese", "low", 24.4, 1.9),
    "cs": ("Czech", "low", 270.2, 1.9),
    "el": ("Greek", "low", 376.8, 1.9),
    "hu": ("Hungarian", "low", 214.4, 1.9),
    "kk": ("Kazakh", "low", 16.8, 1.9),
    "ro": ("Romanian", "low", 160.0, 1.9),
    "az": ("Azerbaijani", "low", 19.4, 1.9),
    "ne": ("Nepali", "low", 22.6, 1.9),
}
OTHER = {"parallel": (103.0, 20.8), "knowledge": (65.0, 16.4), "synthetic": (6.0, 4.4)}  # Table 1, likewise
TOTAL = (5115.9, 300.0)

NAMES = {code: row[0] for code, row in LANGUAGES.items()}
HIGH = [code for code, row in LANGUAGES.items() if row[1] == "high"]  # with en and zh
LOW = [code for code, row in LANGUAGES.items() if row[1] == "low"]


def group(code):
    """The share of the mixtures a language belongs to: "en", "zh", "high" (the other 8) or "low"."""
    return code if code in ("en", "zh") else LANGUAGES[code][1]


# Tables 2 and 3: percentages of the tokens; inside "high" and "low" every language gets the same (Table 1's used column)
STAGE1 = {"en": 32, "zh": 17, "high": 30, "low": 9, "parallel": 6, "knowledge": 5, "synthetic": 1}
STAGE2 = {"en": 28, "zh": 15, "high": 26, "low": 15, "parallel": 8, "knowledge": 6, "synthetic": 2}
STAGE1_TOKENS, STAGE1_LR = 160_000_000_000, 1e-5
STAGE2_TOKENS, STAGE2_LR = 140_000_000_000, 6e-6


def before_and_after(table, base, marco):
    """{cell of the published table: (its score of the base model, Marco's)}."""
    t = results.TABLES[table]
    return dict(zip(t["cells"], zip(t["rows"][base], t["rows"][marco])))


BENCHMARKS, TABLE5 = results.TABLES[5]["cells"], results.TABLES[5]["rows"]
TABLE6 = before_and_after(6, "Qwen2-7B", "Marco-7B")
TABLE7 = before_and_after(7, "Qwen2-72B", "Marco-72B")
TABLE12 = before_and_after(12, "Qwen2-7B", "Marco-7B")
