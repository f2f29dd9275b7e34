"""BLEU and chrF++ of translations, by sacreBLEU."""
import functools
import hashlib
import os
import re
import statistics
import sys
from pathlib import Path

TOKENIZERS = {"zh": "zh", "zho": "zh", "ja": "ja-mecab", "jpn": "ja-mecab", "ko": "ko-mecab", "kor": "ko-mecab"}


def score_translations(hypotheses, references, target, simple=False, resamples=1000):
    """[(metric, score, stderr, low, high, signature)]: spBLEU, chrF++, BLEU with the target language's tokenizer.

    simple: chrF++ and BLEU only, Japanese and Thai by characters (needs no Japanese analyzer). Intervals: 95 % by
    bootstrap. A metric whose tokenizer is not installed is left out, with a message.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ValueError("translation scores need a package: pip install sacrebleu") from None
    code = re.split("[_-]", target)[0]
    tokenizer = {"zh": "zh", "ja": "char", "th": "char"}.get(code, "13a") if simple else TOKENIZERS.get(code, "13a")
    wanted = [] if simple else [("spbleu", lambda: BLEU(tokenize="flores200"))]
    wanted += [("chrf++", lambda: CHRF(word_order=2)), ("bleu", lambda: BLEU(tokenize=tokenizer))]
    scores = []
    for name, make_metric in wanted:
        if name == "spbleu" and not flores_model().exists():
            print_once(f"spBLEU is left out: it needs {flores_model()} (sacreBLEU's flores200sacrebleuspm; set "
                       "SACREBLEU to the folder of models/, or let `sacrebleu --tokenize flores200` download it)")
            continue
        try:
            metric = make_metric()
        except (RuntimeError, ImportError):
            print_once(f"{name} into {target} is left out: its tokenizer {tokenizer} needs a package: "
                       "pip install 'sacrebleu[ja,ko]'")
            continue
        score, signature = metric.corpus_score(hypotheses, [references]).score, str(metric.get_signature())
        if name == "spbleu":
            signature += "|spm:" + hashlib.sha256(flores_model().read_bytes()).hexdigest()[:16]
        scores.append((name, score, *bootstrap_interval(metric, hypotheses, references, resamples), signature))
    return scores


def bootstrap_interval(metric, hypotheses, references, resamples):
    """(standard error, low, high) by sacreBLEU's bootstrap (its seed, 12345). Its own summary fails on mixed floats."""
    from sacrebleu.significance import _bootstrap_resample
    if len(hypotheses) < 2:
        return None, None, None
    stats = metric._extract_corpus_statistics(hypotheses, [references])
    drawn = sorted(float(s.score) for s in _bootstrap_resample(stats, metric, resamples)[1])
    tail = resamples // 40
    return statistics.stdev(drawn), drawn[tail], drawn[-1 - tail]


def flores_model():
    """Where sacreBLEU looks for the sentencepiece model of spBLEU."""
    return Path(os.environ.get("SACREBLEU", Path.home() / ".sacrebleu")) / "models" / "flores200sacrebleuspm"


@functools.cache
def print_once(text):
    print(text, file=sys.stderr, flush=True)
