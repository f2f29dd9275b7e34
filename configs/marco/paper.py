"""Marco-LLM's corpus, mixtures and training budgets (arXiv 2412.04003, Tables 1 to 3), as printed.

Sums differ from 100 or 300 by rounding only. The paper's scores are in reports/published.py, its languages in
configs/language_table.py.
"""
# Table 1: billions of tokens, {language: (available, used)}
TOKENS = {
    "en": (1459.7, 90.4), "zh": (214.7, 48.2), "ar": (45.8, 10.6), "de": (442.8, 10.6), "es": (397.8, 10.6),
    "fr": (320.8, 10.6), "ko": (41.8, 10.6), "ja": (224.2, 10.6), "pt": (145.3, 10.6), "tr": (80.6, 10.6),
    "bn": (6.5, 1.9), "he": (11.3, 1.9), "id": (23.8, 1.9), "it": (56.3, 1.9), "ms": (2.9, 1.9), "nl": (31.3, 1.9),
    "pl": (45.3, 1.9), "ru": (251.0, 1.9), "th": (8.3, 1.9), "uk": (18.4, 1.9), "ur": (8.7, 1.9), "vi": (24.4, 1.9),
    "cs": (270.2, 1.9), "el": (376.8, 1.9), "hu": (214.4, 1.9), "kk": (16.8, 1.9), "ro": (160.0, 1.9),
    "az": (19.4, 1.9), "ne": (22.6, 1.9),
}
OTHER = {"parallel": (103.0, 20.8), "knowledge": (65.0, 16.4), "synthetic": (6.0, 4.4)}  # Table 1, likewise
TOTAL = (5115.9, 300.0)


# Tables 2 and 3: percentages of the tokens; within "high" and "low" all languages get equal shares (Table 1, used)
STAGE1 = {"en": 32, "zh": 17, "high": 30, "low": 9, "parallel": 6, "knowledge": 5, "synthetic": 1}
STAGE2 = {"en": 28, "zh": 15, "high": 26, "low": 15, "parallel": 8, "knowledge": 6, "synthetic": 2}
STAGE1_TOKENS, STAGE1_LR = 160_000_000_000, 1e-5
STAGE2_TOKENS, STAGE2_LR = 140_000_000_000, 6e-6
