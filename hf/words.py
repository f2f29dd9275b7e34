"""How byte-level BPE cuts text into words before merging: the patterns of the published families, and pre-tokenizers read
from tokenizer.json."""
import json

import regex

# Qwen2: contractions, words with one leading mark, single digits, runs of marks, newlines, spaces.
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # up to three digits together
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# SmolLM, StarCoder 2: GPT-2's pattern on the text between digits, so a digit ends a run of spaces as the end of a text does.
DIGITS_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
COMPLETE_PATTERNS = (QWEN2_PATTERN, LLAMA3_PATTERN, GPT2_PATTERN, DIGITS_GPT2_PATTERN)  # they match every text whole
MAX_PATTERN_LENGTH = 2000
MAX_SECONDS = 10  # for one pattern on one text


def steps_of(step, name):
    """The steps of a normalizer or pre-tokenizer: none, one, or those of a Sequence."""
    if step is None:
        return []
    return step[name] if step.get("type") == "Sequence" else [step]


def read_patterns(path, pre_tokenizer):
    """The patterns of a tokenizer.json's pre-tokenizer, each of which cuts the pieces that the one before it has left.

    ValueError names a step that this code does not implement.
    """
    steps = steps_of(pre_tokenizer, "pretokenizers")
    kinds = [step.get("type") for step in steps]

    def refuse(step):
        raise ValueError(f"{path}: the pre-tokenizer {json.dumps(step)[:200]} is not implemented")

    if kinds[-1:] != ["ByteLevel"] or "ByteLevel" in kinds[:-1] or steps[-1].get("add_prefix_space"):
        refuse(steps)
    patterns = []
    for step in steps[:-1]:
        isolated = str(step.get("behavior")).lower() == "isolated" and not step.get("invert")
        if step["type"] == "Digits":
            patterns.append(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        elif step["type"] == "Split" and isolated and step.get("pattern", {}).get("Regex"):
            patterns.append(step["pattern"]["Regex"])
        elif step["type"] == "Split" and isolated and step.get("pattern", {}).get("String"):
            patterns.append(regex.escape(step["pattern"]["String"], literal_spaces=True))
        else:
            refuse(step)
    if steps[-1].get("use_regex", True):
        patterns.append(GPT2_PATTERN)
    if not patterns:
        refuse(steps)
    if patterns == [r"\p{N}", GPT2_PATTERN]:
        return [DIGITS_GPT2_PATTERN]
    return patterns


def check_pattern(path, pattern):
    """Refuse a pattern that could run for minutes on a page of text.

    tiktoken's engine is linear but for look-arounds and back references; of these only `(?!` of one character is accepted.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"{path}: its pre-tokenizer's pattern has {len(pattern)} characters; at most {MAX_PATTERN_LENGTH} "
                         "are implemented")
    rest = regex.sub(r"\(\?!(?:\\[SsDdWw]|\\[pP]\{\w+\}|\[(?:\\.|[^\]\\])+\])\)", "", pattern)
    if regex.search(r"\(\?(?![a-zA-Z-]*:)|\\[1-9kgKG]", rest):
        raise ValueError(f"{path}: its pre-tokenizer's pattern {pattern[:200]!r} has a look-around or a back reference that is "
                         "not implemented; it could run for minutes on a page of text")


def compile_patterns(path, patterns):
    """The patterns compiled for `cut_words`."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(regex.compile(pattern))
        except regex.error as e:
            raise ValueError(f"{path}: its pre-tokenizer's pattern {pattern[:200]!r} is not valid ({e})") from None
    return compiled


def cut_words(text, compiled):
    """Words of a text: each pattern cuts the pieces the one before it left; what a pattern does not match is a piece too."""
    pieces = [text]
    for pattern in compiled:
        words = []
        for piece in pieces:
            end = 0
            try:
                for match in pattern.finditer(piece, timeout=MAX_SECONDS):
                    words += [piece[end:match.start()], match[0]]
                    end = match.end()
            except TimeoutError:
                raise ValueError(f"the pre-tokenizer's pattern {pattern.pattern[:200]!r} needs more than {MAX_SECONDS} s for "
                                 f"a text of {len(piece)} characters") from None
            words.append(piece[end:])
        pieces = [word for word in words if word]
    return pieces
