"""Scores of one generated text: question answering, numbers, mathematics; loops and languages.

Each scorer takes (response, reference answers, language) and returns {metric: value}.
"""
import functools
import math
import re
import string
import sys
import unicodedata
from collections import Counter

# ---------------------------------------------------------------------- question answering

def squad(response, answers, lang):
    """F1 over the bag of words and exact match, the best over the answers, by SQuAD v1.1's rules in every language.

    Lower case, no ASCII punctuation, no English articles: XTREME and TyDiQA-GoldP report these.
    """
    return overlap(response, answers, string.punctuation, r"\b(a|an|the)\b")


def squad_tydi(response, answers, lang):
    """The same as lm-eval's tydiqa_goldp counts it: punctuation of every script, articles of English and Arabic."""
    articles = {"en": r"\b(a|an|the)\b", "ar": r"(?:^|\s)ال"}.get(lang)
    return overlap(response, answers, all_punctuation(), articles)


@functools.cache
def all_punctuation():
    marks = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c).startswith("P")]
    return "".join(marks) + string.punctuation


def overlap(response, answers, punctuation, articles):
    table = str.maketrans("", "", punctuation)

    def words_of(text):
        text = text.lower().translate(table)
        return (re.sub(articles, " ", text) if articles else text).split()

    words, f1, exact = words_of(response), 0.0, 0.0
    for answer in map(words_of, answers):
        common = sum((Counter(words) & Counter(answer)).values())
        if common:
            f1 = max(f1, 2 * common / (len(words) + len(answer)))
        exact = max(exact, float(words == answer))
    return {"f1": f1, "em": exact}


# ---------------------------------------------------------------------- numbers and mathematics

def last_number(response, answers, lang):
    """The last number of the response (lm-eval's flexible-extract) against the reference, without ASCII punctuation."""
    numbers = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", response)
    answer = (numbers[-1][0] or numbers[-1][1]).strip() if numbers else "[invalid]"
    table = str.maketrans("", "", string.punctuation)
    answer, reference = (text.lower().translate(table) for text in (answer, answers[0]))
    return {"exact_match": float(answer == reference)}


def exact_number(response, answers, lang):
    """Whether the last number of the response, as its language writes numbers, is the reference."""
    numbers = read_numbers(response, lang)
    return {"exact_match": float(bool(numbers) and math.isclose(numbers[-1], float(answers[0])))}


# "." between thousands, "," before decimals; elsewhere the reverse
DECIMAL_COMMA = frozenset("az cs de el es fr hu id it kk nl pl pt ro ru tr uk vi".split())
NUMBER = re.compile(r"(?<![A-Za-z0-9.,])[-−]?\d+(?:[.,'’\u00a0\u202f]\d+)*")


def read_numbers(text: str, lang: str) -> list[float]:
    """The numbers in a text of a language: 1.000 is a thousand in Spanish and one in English, 3.5 the same in both.

    Digits of all scripts count. A mark that appears twice, or that is not the decimal one and stands before three
    digits, is between thousands.
    """
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = text.translate({ord("٫"): ".", ord("٬"): "'", ord("．"): ".", ord("，"): ","})
    numbers = []
    for match in NUMBER.finditer(text):
        sign, digits = (-1 if match[0][0] in "-−" else 1), re.sub("['’\u00a0\u202f]", "", match[0].lstrip("-−"))
        marks = re.findall("[.,]", digits)
        decimal = decimal_mark(digits, marks, "," if lang in DECIMAL_COMMA else ".")
        if decimal is None:
            numbers += [float(part) for part in re.split("[.,]", digits)]  # a list: 1,2,3
            continue
        digits = digits.replace("," if decimal == "." else ".", "").replace(decimal, ".")
        numbers.append(sign * float(digits))
    return numbers


def decimal_mark(digits, marks, usual):
    """Which of "." and "," is before decimals in a number; None if it is not a number."""
    other = "," if usual == "." else "."
    if len(set(marks)) == 2 and marks.count(marks[-1]) == 1:
        decimal = marks[-1]
    elif len(marks) == 1 and (marks[0] == usual or not re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", digits)):
        decimal = marks[0]
    else:
        decimal = other if set(marks) == {usual} else usual
    whole = digits.split(decimal)[0]
    group = "," if decimal == "." else "."
    return decimal if group not in digits or re.fullmatch(rf"\d{{1,3}}(?:{re.escape(group)}\d{{3}})+", whole) else None


def math_answer(response, answers, lang):
    """AGIEval's equality of cloze answers: the final answer of each side, in one spelling of its LaTeX.

    Where neither side holds one, None equals None and counts as right, as it does in AGIEval and lm-eval.
    """
    answer, reference = final_answer(response), final_answer(answers[0])
    try:
        return {"acc": float(normalize_latex(answer) == normalize_latex(reference))}
    except (IndexError, AttributeError, ValueError):  # half a formula, two units, or None: compared as they are
        return {"acc": float(answer == reference)}


def final_answer(text):
    """What is boxed, between dollars, behind the last "=", or the last number; None without any."""
    if "\\boxed" in text:
        return boxed(text)
    formulas = re.findall(r"\$(.*)\$", text)
    if formulas and formulas[-1]:
        return after_equals(formulas[-1])
    if "=" in text:
        return text.split("=")[-1].lstrip(" ").rstrip(".").split("\\n")[0]
    numbers = re.findall(r"(?:\$)?\d+(?:\.\d+)?(?![\w\d])", text)
    return numbers[-1] if numbers else None


def after_equals(text):
    return text.split("=")[-1].lstrip(" ") if "=" in text else text


def boxed(text):
    """The content of the last \\boxed{...}; None where its braces do not close."""
    begin, depth = text.rfind("\\boxed"), 0
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if text[i] == "}" and depth == 0:
            command = text[begin:i + 1]
            return after_equals(command[len("\\boxed{"):-1]) if command.startswith("\\boxed{") else None
    return None


def normalize_latex(s):
    """One spelling for formulas that differ in form only (the rules of Hendrycks' MATH)."""
    for old, new in (("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""),
                     ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")):
        s = s.replace(old, new)
    if "\\text{ " in s:  # a unit on the right
        s, _ = s.split("\\text{ ")  # two units: ValueError
    s = s.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if s.startswith("."):
        s = "0" + s
    if s.count("=") == 1 and len(s.split("=")[0]) <= 2:  # k = 3
        s = s.split("=")[1]
    s = re.sub(r"\\sqrt(?!\{)(.)", r"\\sqrt{\1}", s, flags=re.S).replace(" ", "")
    s = brace_fractions(s)
    if s == "0.5":
        s = "\\frac{1}{2}"
    ratio = re.fullmatch(r"(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))", s)
    return f"\\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio and "-0" not in ratio.groups() else s


def brace_fractions(s):
    """\\frac12 and \\frac1{72} with braces; a \\frac before fewer than two characters leaves the text as it is."""
    first, *rest = s.split("\\frac")
    out = first
    for part in rest:
        out += "\\frac"
        if part[0] == "{":
            out += part
        elif len(part) < 2:
            return s
        else:
            a, b, tail = part[0], part[1], part[2:]
            out += f"{{{a}}}{b}{tail}" if b == "{" else f"{{{a}}}{{{b}}}{tail}"
    return out


SCORERS = {"qa": squad, "qa_tydi": squad_tydi, "number": last_number, "exact_number": exact_number, "math": math_answer}


# ---------------------------------------------------------------------- any text

LANGID_CODES = {  # py3langid's code of a three-letter code
    "arb": "ar", "azj": "az", "ben": "bn", "ces": "cs", "cmn": "zh", "deu": "de", "ell": "el", "eng": "en", "fra": "fr",
    "heb": "he", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "kaz": "kk", "kor": "ko", "nld": "nl", "npi": "ne",
    "pol": "pl", "por": "pt", "ron": "ro", "rus": "ru", "spa": "es", "tha": "th", "tur": "tr", "ukr": "uk", "urd": "ur",
    "vie": "vi", "zho": "zh", "zsm": "ms",
}


def is_looping(text):
    """Whether a text ends in four or more repetitions of the same one to fifty characters."""
    return bool(re.search(r"(\S.{0,49}?)\1{3,}\s*$", text[-400:], re.S))


def in_language(text, lang):
    """Whether py3langid finds the language (zh, zho_Hans, en-zh: the target); None where it is not installed."""
    try:
        import py3langid
    except ImportError:
        return None
    code = lang.split("-")[-1].split("_")[0]
    return py3langid.classify(text)[0] == LANGID_CODES.get(code, code)
