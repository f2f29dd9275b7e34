"""How finely a tokenizer cuts a language, whether new words would pay, and which tools would still read it."""
from dataclasses import dataclass

SAVED = 1.5   # times fewer tokens: below, the same text costs almost as much as before
USES = 500    # of a new row in training: ours. At about 25, SmolLM2-135M with 2,000 Kazakh words was worse than without
#               after as many tokens, 1.685 against 1.554 bits per byte
# What llama.cpp's convert_hf_to_gguf.py knows a tokenizer by: the hash of the ids of a text with these words.
CONVERTER_WORDS = (
    " нещо", " на", " Български", " កាន់តែពិសេសអាច", "我想在", "apple", "工作",
    "normal", "multiple", " emojis", " concatenated", " I've", " been", "told", " he's", " there", "RE", " you",
    " sure", " not", " I'll", " make", " it", " like", " some", " tea", " We", "Ve", " a", "lL")


@dataclass(frozen=True)
class Fertility:
    words: int
    bytes: int
    tokens: int
    new: int      # of the tokens: those with an id of first_new_id or above

    @property
    def per_word(self) -> float:
        return self.tokens / max(1, self.words)


def report(before, after, texts: list[str], pieces: int, tokens: int | None) -> list[str]:
    """Fertility of two tokenizers on texts, the second with `pieces` words more; the advice; the tools that read it."""
    old, new = (measure_fertility(t, texts, before.vocab_size) for t in (before, after))
    lines = [f"{name}: {f.per_word:.3f} tokens per word, {1000 * f.tokens / max(1, f.bytes):.1f} per 1000 bytes "
             f"({len(texts)} held-out documents, {f.bytes:,} bytes)" for name, f in (("before", old), ("after", new))]
    if tokens is None:
        lines.append("set tokens= to what you will train of this language: it says whether that teaches the new words")
    else:
        lines.append(advise(old, new, pieces, tokens))
    return [*lines, tools_that_read(before, after)]


def measure_fertility(tokenizer, texts: list[str], first_new_id: int | None = None) -> Fertility:
    """Words (between spaces), bytes and tokens of texts."""
    ids = [i for text in texts for i in tokenizer.encode(text)]
    new = sum(i >= first_new_id for i in ids) if first_new_id is not None else 0
    return Fertility(sum(len(text.split()) for text in texts), sum(len(text.encode()) for text in texts), len(ids), new)


def advise(before: Fertility, after: Fertility, pieces: int, tokens: int) -> str:
    """Whether to extend the vocabulary by these pieces when `tokens` tokens of the language are trained, and why."""
    saved = before.tokens / max(1, after.tokens)
    share = after.new / max(1, after.tokens)
    uses = tokens * share / max(1, pieces)
    figures = (f"the same text takes {saved:.2f} times fewer tokens, and in {tokens:,} tokens of training each new "
               f"word is seen {uses:,.0f} times on average")
    if saved < SAVED:
        return f"advice: do not extend: {figures}; below {SAVED} times it does not pay"
    if uses < USES:
        fewer = int(tokens * share / USES)
        smaller = f"pieces={fewer}" if fewer >= 100 else "none"
        return (f"advice: do not extend: {figures}, less than {USES}; train "
                f"{int(USES * pieces / max(share, 1e-9)):,} tokens or take fewer words ({smaller}). It would pay for "
                f"speed alone: generation takes {saved:.2f} times fewer steps")
    return f"advice: extend: {figures}"


def tools_that_read(before, after) -> str:
    """Which tools take the folder with the new words. before, after: its tokenizers."""
    line = "tools: transformers and vLLM read it as any other"
    changed = [word.strip()[:20] for word in CONVERTER_WORDS if before.encode(word) != after.encode(word)]
    if not changed:
        return f"{line}; llama.cpp's converter knows it if it knew the old one"
    return (f"{line}; llama.cpp's converter will refuse it: the text it knows tokenizers by is cut differently now "
            f"({', '.join(changed)}), so add its hash to get_vocab_base_pre with the old one's name")
