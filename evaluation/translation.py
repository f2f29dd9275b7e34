"""BLEU and chrF++ of translations by sacreBLEU, for eval.py and compare; the signature says how words are cut."""
import functools
import hashlib
import os
import re
import statistics
import sys
from pathlib import Path

CHARACTERS = {"th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod", "dz", "dzo"}  # no spaces between words
CHINESE = {"zh", "zho", "cmn", "yue"}
JAPANESE, KOREAN = {"ja", "jpn"}, {"ko", "kor"}
UNSEGMENTED = CHARACTERS | CHINESE | JAPANESE


def bleu_tokenizer(target, custom):
    """sacreBLEU's tokenizer of a target language. custom: for tasks of one's own, those that need no analyzer."""
    code = re.split("[_-]", target)[0].lower()
    if code in CHINESE:
        return "zh"
    if code in CHARACTERS or (custom and code in JAPANESE):
        return "char"
    if code in JAPANESE:
        return "ja-mecab"
    return "ko-mecab" if code in KOREAN and not custom else "13a"


def translation_metrics(target: str, custom: bool) -> dict[str, tuple]:
    """{name: (sacreBLEU metric, addition to its signature)}: spBLEU (not of custom tasks), chrF++, BLEU.

    A metric whose tokenizer is not installed is left out, with a message. chrF++'s words are what white space
    separates: of languages written without it the signature says so.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ValueError("translation scores need a package: pip install sacrebleu") from None
    metrics: dict[str, tuple] = {}
    if not custom:
        if flores_model().exists():
            model_hash = hashlib.sha256(flores_model().read_bytes()).hexdigest()[:16]
            metrics["spbleu"] = BLEU(tokenize="flores200"), f"|spm:{model_hash}"
        else:
            print_once(f"spBLEU is left out: it needs {flores_model()} (sacreBLEU's flores200sacrebleuspm; set "
                       "SACREBLEU to the folder of models/, or let `sacrebleu --tokenize flores200` download it)")
    unsegmented = re.split("[_-]", target)[0].lower() in UNSEGMENTED
    metrics["chrf++"] = CHRF(word_order=2), "|words:whitespace" if unsegmented else ""
    tokenizer = bleu_tokenizer(target, custom)
    try:
        metrics["bleu"] = BLEU(tokenize=tokenizer), ""
    except (RuntimeError, ImportError):
        print_once(f"bleu into {target} is left out: its tokenizer {tokenizer} needs a package: "
                   f"pip install 'sacrebleu[{tokenizer[:2]}]'")
    return metrics


def signature_of(metric, suffix):
    """sacreBLEU's signature, whose number of references is known after a first score, and what it does not say."""
    metric.corpus_score(["a"], [["a"]])
    return f"{metric.get_signature()}{suffix}"


def score_translations(hypotheses, references, target, custom=False, resamples=1000):
    """[(metric, score, stderr, low, high, signature)]. Intervals: 95 % by bootstrap."""
    scores = []
    for name, (metric, suffix) in translation_metrics(target, custom).items():
        score = metric.corpus_score(hypotheses, [references]).score
        interval = bootstrap_interval(metric, hypotheses, references, resamples)
        scores.append((name, score, *interval, signature_of(metric, suffix)))
    return scores


def bootstrap_interval(metric, hypotheses, references, resamples):
    """(standard error, low, high) by sacreBLEU's bootstrap (its seed, 12345). Its own summary fails on mixed floats."""
    from sacrebleu.significance import _bootstrap_resample
    if len(hypotheses) < 2:
        return None, None, None
    stats = sentence_statistics(metric, hypotheses, references)
    drawn = sorted(float(s.score) for s in _bootstrap_resample(stats, metric, resamples)[1])
    tail = resamples // 40
    return statistics.stdev(drawn), drawn[tail], drawn[-1 - tail]


def sentence_statistics(metric, hypotheses, references):
    """sacreBLEU's counts of every sentence, whose sums give the corpus score."""
    return metric._extract_corpus_statistics(hypotheses, [references])


def score_of_sums(metric, sums):
    return metric._compute_score_from_stats([int(x) for x in sums]).score


def flores_model():
    """Where sacreBLEU looks for the sentencepiece model of spBLEU."""
    return Path(os.environ.get("SACREBLEU", Path.home() / ".sacrebleu")) / "models" / "flores200sacrebleuspm"


@functools.cache
def print_once(text):
    print(text, file=sys.stderr, flush=True)
