"""What a generated text is worth: question answering, numbers, mathematics, translation; and intervals for a score.

Each scorer takes (response, right answers) and returns {metric: value}; sacreBLEU scores a whole set of translations.
"""
import functools
import hashlib
import math
import os
import re
import statistics
import string
import sys
import unicodedata
from collections import Counter
from pathlib import Path

WAYS = {"zh": "zh", "zho": "zh", "ja": "ja-mecab", "jpn": "ja-mecab", "ko": "ko-mecab", "kor": "ko-mecab"}  # others: 13a


# ---------------------------------------------------------------------- question answering

def qa(response, answers, lang):
    """F1 over the bag of words and exact match, the best over the answers, by SQuAD v1.1's rules in every language: lower case,
    no ASCII punctuation, no English articles (XTREME and TyDiQA-GoldP report them so)."""
    return overlap(response, answers, lambda s: re.sub(r"\b(a|an|the)\b", " ", s), string.punctuation)


def qa_tydi(response, answers, lang):
    """The same as lm-eval's tydiqa_goldp counts them: punctuation of every script, articles of English and Arabic."""
    article = {"en": r"\b(a|an|the)\b", "ar": r"(?:^|\s)ال"}.get(lang)
    return overlap(response, answers, lambda s: re.sub(article, " ", s) if article else s, punctuation())


@functools.cache
def punctuation():
    return "".join(c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c)[0] == "P") + string.punctuation


def overlap(response, answers, strip_articles, marks):
    table = str.maketrans("", "", marks)
    words = lambda s: strip_articles(s.lower().translate(table)).split()
    mine, scores = words(response), []
    for theirs in map(words, answers):
        same = sum((Counter(mine) & Counter(theirs)).values())
        scores.append((2 * same / (len(mine) + len(theirs)) if same else 0.0, float(mine == theirs)))
    return {"f1": max(f1 for f1, _ in scores), "em": max(em for _, em in scores)}


# ---------------------------------------------------------------------- numbers and mathematics

def number(response, answers, lang):
    """The last number in the response (lm-eval's flexible-extract) against the right one, without case and ASCII punctuation."""
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", response)
    said = (found[-1][0] or found[-1][1]).strip() if found else "[invalid]"
    plain = lambda s: s.lower().translate(str.maketrans("", "", string.punctuation))
    return {"exact_match": float(plain(said) == plain(answers[0]))}


def mathematics(response, answers, lang):
    """AGIEval's equality of cloze answers: what is boxed, between dollars, behind the last "=" or the last number, then LaTeX
    cleaned up. Where neither side holds any of these None equals None and counts as right, as it does in AGIEval and lm-eval."""
    mine, right = final_answer(response), final_answer(answers[0])
    try:
        return {"acc": float(plain_latex(mine) == plain_latex(right))}
    except (IndexError, AttributeError, ValueError):  # a half-finished formula, two units, or None: compared as it stands
        return {"acc": float(mine == right)}


def final_answer(text):
    if "\\boxed" in text:
        return boxed(text)
    dollars = re.findall(r"\$(.*)\$", text)
    if dollars and dollars[-1]:
        return after_equals(dollars[-1])
    if "=" in text:
        return text.split("=")[-1].lstrip(" ").rstrip(".").split("\\n")[0]
    numbers = re.findall(r"(?:\$)?\d+(?:\.\d+)?(?![\w\d])", text)
    return numbers[-1] if numbers else None


def after_equals(text):
    return text.split("=")[-1].lstrip(" ") if "=" in text else text


def boxed(text):
    """What the last \\boxed{...} holds, None where its braces do not close."""
    begin, depth = text.rfind("\\boxed"), 0
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if text[i] == "}" and depth == 0:
            inner = text[begin:i + 1]
            return after_equals(inner[len("\\boxed{"):-1]) if inner.startswith("\\boxed{") else None
    return None


def plain_latex(s):
    """One spelling for formulas that differ in form only (the rules of Hendrycks' MATH)."""
    for a, b in (("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
                 ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")):
        s = s.replace(a, b)
    if "\\text{ " in s:  # a unit on the right
        s, _ = s.split("\\text{ ")  # two units: ValueError
    s = s.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    s = "0" + s if s.startswith(".") else s
    if s.count("=") == 1 and len(s.split("=")[0]) <= 2:  # k = 3
        s = s.split("=")[1]
    s = re.sub(r"\\sqrt(?!\{)(.)", r"\\sqrt{\1}", s, flags=re.S).replace(" ", "")
    s = fractions(s)
    s = "\\frac{1}{2}" if s == "0.5" else s
    whole = re.fullmatch(r"(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))", s)
    return f"\\frac{{{whole[1]}}}{{{whole[2]}}}" if whole and "-0" not in whole.groups() else s


def fractions(s):
    """\\frac12 and \\frac1{72} with braces; a \\frac with fewer than two characters behind it leaves the text as it is."""
    first, *rest = s.split("\\frac")
    out = first
    for part in rest:
        out += "\\frac"
        if part[0] == "{":
            out += part
        elif len(part) < 2:
            return s
        else:
            a, b, more = part[0], part[1], part[2:]
            out += f"{{{a}}}{b}{more}" if b == "{" else f"{{{a}}}{{{b}}}{more}"
    return out


SCORERS = {"qa": qa, "qa_tydi": qa_tydi, "number": number, "math": mathematics}


# ---------------------------------------------------------------------- translation

def translation(hypotheses, references, target, simple=False, resamples=1000):
    """[(metric, score, stderr, low, high, signature)] by sacreBLEU: spBLEU, chrF++, BLEU with the target's tokenizer.

    simple: chrF++ and BLEU, Japanese and Thai by characters (needs no Japanese analyser). Intervals: 95 %
    by bootstrap. A metric whose tokenizer is not installed is left out, and said.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ValueError("translation scores need a package: pip install sacrebleu") from None
    code = re.split("[_-]", target)[0]
    way = {"zh": "zh", "ja": "char", "th": "char"}.get(code, "13a") if simple else WAYS.get(code, "13a")
    wanted = [] if simple else [("spbleu", lambda: BLEU(tokenize="flores200"))]
    wanted += [("chrf++", lambda: CHRF(word_order=2)), ("bleu", lambda: BLEU(tokenize=way))]
    out = []
    for name, make in wanted:
        if name == "spbleu" and not flores_model().exists():
            tell_once(f"spBLEU is left out: it needs {flores_model()} (sacreBLEU's flores200sacrebleuspm; set SACREBLEU to the "
                      "folder that holds models/, or let `sacrebleu --tokenize flores200` download it)")
            continue
        try:
            metric = make()
        except (RuntimeError, ImportError):
            tell_once(f"{name} into {target} is left out: its tokenizer {way} needs a package: pip install 'sacrebleu[ja,ko]'")
            continue
        score, signature = metric.corpus_score(hypotheses, [references]).score, str(metric.get_signature())
        if name == "spbleu":
            signature += "|spm:" + hashlib.sha256(flores_model().read_bytes()).hexdigest()[:16]
        out.append((name, score, *spread(metric, hypotheses, references, resamples), signature))
    return out


def spread(metric, hypotheses, references, resamples):
    """(standard error, low, high) by sacreBLEU's bootstrap (its seed, 12345). Its own summary stops at mixed floats."""
    from sacrebleu.significance import _bootstrap_resample
    if len(hypotheses) < 2:
        return None, None, None
    stats = metric._extract_corpus_statistics(hypotheses, [references])
    found = sorted(float(s.score) for s in _bootstrap_resample(stats, metric, resamples)[1])
    cut = resamples // 40
    return statistics.stdev(found), found[cut], found[-1 - cut]


def flores_model():
    """Where sacreBLEU looks for the sentencepiece model of spBLEU."""
    return Path(os.environ.get("SACREBLEU", Path.home() / ".sacrebleu")) / "models" / "flores200sacrebleuspm"


@functools.cache
def tell_once(text):
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------- texts and intervals

def looping(text):
    """Whether a text ends in four or more repetitions of the same one to fifty characters."""
    return bool(re.search(r"(\S.{0,49}?)\1{3,}\s*$", text[-400:], re.S))


def in_language(text, code):
    """Whether py3langid takes a text for the language of a code (zh, zho_Hans, en-zh: the target's); None where it cannot say."""
    try:
        import py3langid
    except ImportError:
        return None
    short = {"cmn": "zh", "zho": "zh", "arb": "ar", "zsm": "ms", "azj": "az", "npi": "ne", "ell": "el", "deu": "de", "fra": "fr",
             "ces": "cs", "nld": "nl", "ron": "ro", "eng": "en", "spa": "es", "por": "pt", "ita": "it", "jpn": "ja", "kor": "ko",
             "tur": "tr", "ben": "bn", "heb": "he", "ind": "id", "pol": "pl", "rus": "ru", "tha": "th", "ukr": "uk", "urd": "ur",
             "vie": "vi", "hun": "hu", "kaz": "kk"}
    code = re.split("_", code.split("-")[-1])[0]
    return py3langid.classify(text)[0] == short.get(code, code)


def interval(values):
    """(mean, standard error, low, high) at 95 %: Wilson's for rights and wrongs, else mean plus and minus 1.96 standard errors.

    The standard error is the sample standard deviation / sqrt(n), as lm-eval reports it.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else None
    if all(v in (0, 1) for v in values):
        z = 1.96
        middle, half = mean + z * z / (2 * n), z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
        return mean, error, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return (mean, error, mean - 1.96 * error, mean + 1.96 * error) if n > 1 else (mean, None, None, None)
