"""The numbers of Marco-LLM (arXiv 2412.04003), as data: languages, corpus, mixtures, and the results ours are laid beside.

Tables are numbered as in the paper. Percentages and billions are as printed; sums differ from 100 or 300 by rounding only.
"""

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

# Table 5: base models, mean of each benchmark
BENCHMARKS = ("AGIEval", "Belebele", "CEval", "Flores", "MMLU", "TyDiQA", "WMT16", "XCOPA", "XMMLU", "XStoryCloze")
TABLE5 = {
    "Qwen2-7B": (64.6, 73.4, 83.0, 27.1, 71.9, 52.3, 18.1, 70.6, 60.2, 70.6),
    "Marco-7B": (68.8, 78.8, 83.5, 35.0, 74.4, 60.8, 29.0, 76.6, 61.2, 71.9),
    "Qwen2-72B": (78.2, 86.5, 90.4, 38.7, 83.8, 58.7, 30.2, 80.9, 78.5, 77.1),
    "Marco-72B": (84.4, 90.0, 93.7, 45.0, 86.3, 62.7, 35.1, 85.7, 81.2, 78.7),
}
# Table 6: mean over the multilingual benchmarks per language: (Qwen2-7B, Marco-7B)
TABLE6 = {
    "zh": (75.8, 76.0), "en": (77.4, 77.9), "ar": (61.3, 66.0), "de": (69.5, 72.9), "es": (70.4, 72.6),
    "fr": (69.8, 72.5), "ja": (76.7, 77.3), "ko": (76.0, 78.3), "pt": (70.7, 72.3), "tr": (66.0, 73.4),
    "az": (52.2, 69.4), "bn": (63.9, 68.9), "he": (69.8, 77.3), "id": (77.3, 82.3), "it": (80.3, 83.4),
    "pl": (77.2, 80.9), "ms": (73.2, 80.2), "nl": (80.2, 82.1), "ro": (77.3, 80.8), "ru": (81.2, 83.2),
    "th": (69.1, 72.9), "uk": (72.7, 79.9), "ur": (63.9, 71.3), "vi": (76.1, 81.2), "cs": (76.9, 78.2),
    "el": (65.0, 77.1), "hu": (63.3, 69.7), "kk": (43.1, 66.1), "ne": (36.33, 65.8),
}
# Table 7: mean over the multilingual benchmarks per language: (Qwen2-72B, Marco-72B)
TABLE7 = {
    "zh": (83.7, 86.4), "en": (84.6, 86.0), "ar": (76.2, 79.7), "de": (84.0, 87.0), "es": (82.5, 84.8),
    "fr": (80.4, 82.8), "ja": (86.6, 86.2), "ko": (88.8, 90.6), "pt": (83.6, 85.5), "tr": (79.0, 84.4),
    "az": (78.8, 85.8), "bn": (83.2, 86.7), "he": (83.9, 85.1), "id": (87.6, 93.0), "it": (88.1, 91.0),
    "pl": (88.6, 88.2), "ms": (83.4, 90.7), "nl": (89.0, 93.0), "ro": (88.2, 90.4), "ru": (89.9, 90.3),
    "th": (85.7, 88.3), "uk": (88.2, 91.7), "ur": (81.4, 87.9), "vi": (88.7, 90.8), "cs": (87.8, 91.4),
    "el": (89.4, 91.1), "hu": (80.1, 88.3), "kk": (70.3, 84.8), "ne": (67.1, 86.7),
}
# Table 12: any-to-any Flores, BLEU: (Qwen2-7B, Marco-7B)
TABLE12 = {
    "ar-ja": (16.2, 21.8), "es-ja": (17.2, 22.4), "fr-ja": (19.9, 25.8), "hu-ja": (15.2, 20.3), "hu-ko": (10.5, 14.0),
    "ja-ar": (9.8, 15.5), "ja-es": (16.1, 19.1), "ja-ko": (16.3, 22.6), "ja-th": (11.7, 16.4), "ja-zh": (19.5, 22.9),
    "kk-ar": (7.3, 11.6), "kk-fr": (13.8, 20.5), "kk-ja": (11.7, 16.8), "kk-ko": (8.3, 13.1), "kk-pt": (12.7, 16.9),
    "kk-th": (6.7, 12.7), "kk-zh": (11.9, 18.5), "ko-ja": (22.4, 26.2), "ko-th": (11.9, 14.7), "ko-zh": (20.0, 22.7),
    "th-ar": (11.3, 15.4), "th-es": (16.4, 18.6), "th-fr": (22.2, 25.2), "th-ja": (16.5, 22.7), "th-kk": (2.2, 9.3),
    "th-ko": (12.2, 16.5), "th-zh": (18.8, 22.3), "tr-ja": (17.7, 23.2), "uk-fr": (27.5, 34.6), "uk-ja": (17.3, 26.6),
    "uk-kk": (3.4, 12.4), "uk-ko": (13.2, 18.9), "uk-th": (12.4, 19.9), "uk-zh": (20.7, 25.6), "ur-ar": (8.0, 10.7),
    "ur-ko": (8.7, 12.8), "zh-ar": (11.9, 17.0), "zh-fr": (24.5, 28.9), "zh-ja": (19.2, 27.7), "zh-ko": (14.2, 21.2),
    "zh-pt": (22.6, 25.4), "zh-th": (13.3, 19.8),
}
