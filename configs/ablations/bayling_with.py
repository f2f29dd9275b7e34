"""BayLing 2 at toy scale: instructions in the pivots, English and Chinese, and cross-lingual ones from and into them.

No other language has native instructions. As in BayLing 2, about six in ten instructions are cross-lingual.
"""
from configs.tiny.sft import *
from configs.tiny.sft import _text

mixture = {"chat/en": 15, "chat/zh": 15, "crosslingual": 50} | _text
tokens = 1_200_000
