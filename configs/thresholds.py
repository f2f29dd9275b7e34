"""Bounds (min, max) of the measures of web documents (corpus/measure.py); `prepare.py calibrate` prints a row.

GENERAL takes Gopher's (arXiv 2112.11446, Table A1) and FineWeb's (arXiv 2406.17557) where they exist. Those were set
for English and space-separated words: a language's row widens them as far as good text in it needs. The rows
here come from NTREX-128 (ar de en ja kk ne zh: 167 documents of twelve lines of news each) and FLORES sentences (bn es
fr id ko pt th tr: 25 documents of twelve sentences each). A language without a row needed no wider bounds (bn de es fr
id ne pt tr; ar but for one document) or has not been calibrated. `make quality GOOD=...` shows what they keep of other
text.
"""
GENERAL = {
    "chars": (100, 1_000_000), "words": (50, 100_000), "mean_word": (3, 10), "longest_word": (0, 100),
    "with_letter": (0.8, 1), "symbols": (0, 0.1), "digits": (0, 0.2), "marks": (0, 0.1), "bullets": (0, 0.9),
    "ellipses": (0, 0.3), "full_stops": (0.12, 1), "ends": (0, 1), "short_lines": (0, 0.67), "newlines": (0, 0.3),
    "urls": (0, 0.2), "dup_lines": (0, 0.3), "dup_line_chars": (0, 0.2), "dup_paragraph_chars": (0, 0.2),
    "dup_sentence_chars": (0, 0.3), "top_2": (0, 0.2), "top_3": (0, 0.18), "top_4": (0, 0.16), "dup_5": (0, 0.15),
    "dup_6": (0, 0.14), "dup_7": (0, 0.13), "dup_8": (0, 0.12), "dup_9": (0, 0.11), "dup_10": (0, 0.10)}

# zh, ja and th: a word is one character, so five measures say little; all use the widest bounds any of them needs
UNSPACED = {"mean_word": (1, 10), "short_lines": (0, 0.84), "dup_5": (0, 0.34), "dup_6": (0, 0.32), "dup_7": (0, 0.28),
            "dup_8": (0, 0.23), "dup_9": (0, 0.23), "dup_10": (0, 0.2)}
ROWS = {
    "en": {"dup_5": (0, 0.19), "dup_6": (0, 0.18), "dup_7": (0, 0.16), "dup_8": (0, 0.13), "dup_10": (0, 0.11)},
    "kk": {"dup_5": (0, 0.2), "dup_6": (0, 0.2), "dup_7": (0, 0.17), "dup_8": (0, 0.16), "dup_9": (0, 0.16),
           "dup_10": (0, 0.16)},
    "ko": {"mean_word": (1, 10)},  # FineWeb-2's; news sentences have 2.86 and more, laws less
    "ru": {"full_stops": (0.1, 1)},  # the preamble of the Declaration of Human Rights
    "zh": UNSPACED, "ja": UNSPACED, "th": UNSPACED | {"full_stops": (0, 1)},  # Thai has no full stop
}
# short documents, down to a sentence or two: five measures, looser than any one language needs
SHORT = {"chars": (20, 1_000_000), "full_stops": (0.4, 1), "symbols": (0, 0.1), "dup_sentence_chars": (0, 0.4),
         "ends": (1, 1)}

thresholds = {"*": GENERAL} | ROWS

