"""Fertility by hand, the advice on both sides of its bounds, and whether llama.cpp's converter knows the tokenizer."""
import re

import pytest

from corpus import fertility
from corpus.fertility import Fertility


class Cut:
    """A tokenizer of single characters, ids 0 to 255, and of whole words it was given, ids from 256."""

    def __init__(self, *words):
        self.words, self.vocab_size = words, 256 + len(words)

    def encode(self, text):
        ids = []
        while text:
            word = next((w for w in self.words if text.startswith(w)), None)
            ids.append(256 + self.words.index(word) if word else ord(text[0]) % 256)
            text = text[len(word or text[0]):]
        return ids


def test_figures_by_hand():
    """Two texts: 3 words, 21 bytes, 11 characters; with бала as one token two of those and 3 characters."""
    assert fertility.measure_fertility(Cut(), ["бала үй", "бала"]) == Fertility(3, 21, 11, 0)
    assert fertility.measure_fertility(Cut("бала"), ["бала үй", "бала"], 256) == Fertility(3, 21, 5, 2)


@pytest.mark.parametrize("after, tokens, said", [
    (Fertility(100, 1000, 400, 300), 10 ** 9, "do not extend: the same text takes 1.25 times fewer tokens"),
    (Fertility(100, 1000, 250, 100), 124_000, r"do not extend: .* seen 496 times .* train 125,000 tokens or take fewer "
                                              r"words \(none\).* generation takes 2.00 times fewer steps"),
    (Fertility(100, 1000, 250, 100), 125_000, "^advice: extend: .* 2.00 times fewer tokens, .* seen 500 times")])
def test_the_bounds_of_the_advice(after, tokens, said):
    """Of 250 tokens 100 are new: in 125,000 tokens each of 100 new words is seen 500 times."""
    assert re.search(said, fertility.advise(Fertility(100, 1000, 500, 0), after, 100, tokens))


def test_how_many_words_would_be_learned():
    advice = fertility.advise(Fertility(9, 9, 500, 0), Fertility(9, 9, 250, 200), 2000, 100_000)
    assert "seen 40 times" in advice and "(pieces=160)" in advice and "train 1,250,000 tokens" in advice


@pytest.mark.parametrize("words, refused", [(["бала"], None), ([" Бълг"], "Български"), (["工作"], "工作")])
def test_llama_cpp_knows_a_tokenizer_by_the_words_of_one_text(words, refused):
    line = fertility.tools_that_read(Cut(), Cut(*words))
    assert "transformers and vLLM" in line
    assert ("will refuse it" in line and f"({refused})" in line) if refused else "knows it if it knew" in line


def test_the_report():
    lines = fertility.report(Cut(), Cut("бала"), ["бала үй бала"], 1, None)
    assert lines[0] == "before: 4.000 tokens per word, 545.5 per 1000 bytes (1 held-out documents, 22 bytes)"
    assert lines[1].startswith("after: 2.000 tokens per word") and lines[2].startswith("set tokens=")
    assert fertility.report(Cut(), Cut("бала"), ["бала үй бала"], 1, 9)[2].startswith("advice: do not extend")
