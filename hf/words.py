"""How byte-level BPE cuts text into words before merging: the patterns of the published families, and pre-tokenizers
read from tokenizer.json."""
import functools
import json

import regex

# Qwen2: contractions, words with one leading mark, single digits, runs of marks, newlines, spaces.
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # up to three digits together
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# SmolLM, StarCoder 2: single digits are cut out first, then GPT-2's pattern cuts what is between them. As one pattern:
# no alternative may cross a digit, and a run of spaces ends before one as it does at the end of a text.
DIGITS_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
# DeepSeek V2 to V3: up to three digits, then runs of Chinese and Japanese, then the rest; as one pattern in the same
# way.
_CJK = "\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff"
_MARKED = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
_DEEPSEEK_STEPS = [
    r"\p{N}{1,3}", f"[{_CJK}]+",
    _MARKED + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
DEEPSEEK_PATTERN = (
    rf"\p{{N}}{{1,3}}|[{_CJK}]+|{_MARKED}|[^\r\n\p{{L}}\p{{P}}\p{{S}}\p{{N}}{_CJK}]?[\p{{L}}\p{{M}}--[{_CJK}]]+"
    rf"| ?[\p{{P}}\p{{S}}--[{_CJK}]]+[\r\n]*|\s*[\r\n]+|\s+(?![^\s\p{{N}}{_CJK}])|\s+")
COMPLETE_PATTERNS = (QWEN2_PATTERN, LLAMA3_PATTERN, GPT2_PATTERN, DIGITS_GPT2_PATTERN)  # they leave out no text
MAX_PATTERN_LENGTH = 2000
MAX_SECONDS = 10  # for one pattern on one text


def steps_of(step, name):
    """The steps of a normalizer or pre-tokenizer: none, one, or those of a Sequence."""
    if step is None:
        return []
    return step[name] if step.get("type") == "Sequence" else [step]


def read_pattern(path, pre_tokenizer):
    """The pattern of a tokenizer.json's pre-tokenizer; ValueError names what is not implemented."""
    steps = steps_of(pre_tokenizer, "pretokenizers")

    def refuse(what):
        raise ValueError(f"{path}: the pre-tokenizer {json.dumps(what)[:200]} is not implemented; implemented are "
                         "those of Qwen, Llama 3, GPT-2, SmolLM, StarCoder 2, DeepSeek V3 and others of one pattern")

    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        refuse(steps)
    patterns = []
    for step in steps[:-1]:
        if step["type"] == "Digits" and step.get("individual_digits"):
            patterns.append("digits")
        elif step["type"] == "Split" and step.get("pattern", {}).get("Regex") and not step.get("invert") \
                and str(step.get("behavior")).lower() == "isolated":
            patterns.append(step["pattern"]["Regex"])
        else:
            refuse(step)
    if steps[-1].get("use_regex", True):
        patterns.append(GPT2_PATTERN)
    if patterns == ["digits", GPT2_PATTERN]:
        return DIGITS_GPT2_PATTERN
    if [pattern.replace("\r", r"\r").replace("\n", r"\n") for pattern in patterns] == _DEEPSEEK_STEPS:
        return DEEPSEEK_PATTERN
    if len(patterns) != 1 or patterns == ["digits"]:
        refuse(steps)
    return patterns[0]


def check_pattern(path, pattern):
    """Refuse a pattern that could run for minutes on a page of text.

    tiktoken's engine is linear but for look-arounds and back references; of these only `(?!` of one character is
    accepted.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"{path}: its pre-tokenizer's pattern has {len(pattern)} characters; at most "
                         f"{MAX_PATTERN_LENGTH} are implemented")
    rest = regex.sub(r"\(\?!(?:\\[SsDdWw]|\\[pP]\{\w+\}|\[(?:\\.|[^\]\\])+\])\)", "", pattern)
    if regex.search(r"\(\?(?![a-zA-Z-]*:)|\\[1-9kgKG]", rest):
        raise ValueError(f"{path}: its pre-tokenizer's pattern {pattern[:200]!r} has a look-around or a back "
                         "reference that is not implemented; it could run for minutes on a page of text")


def cut_words(path, pattern, text):
    """The words of a text; what the pattern does not match is a word too."""
    words, end = [], 0
    try:
        for match in compile_pattern(path, pattern).finditer(text, timeout=MAX_SECONDS):
            words += [text[end:match.start()], match[0]]
            end = match.end()
    except TimeoutError:
        raise ValueError(f"{path}: its pre-tokenizer's pattern {pattern[:200]!r} needs more than {MAX_SECONDS} s for "
                         f"a text of {len(text)} characters") from None
    return [word for word in [*words, text[end:]] if word]


@functools.lru_cache
def compile_pattern(path, pattern):
    """The pattern for Python's regex module, where [a--[b]] is a difference of sets."""
    try:
        return regex.compile(pattern, regex.VERSION1 if "--[" in pattern else regex.VERSION0)
    except regex.error as e:
        raise ValueError(f"{path}: its pre-tokenizer's pattern {pattern[:200]!r} is not valid ({e})") from None


def to_utf8(text):
    """UTF-8 of a text, where half of a surrogate pair is U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
