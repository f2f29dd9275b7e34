"""BayLing 2's question in small: the SFT of configs/tiny/sft.py without its cross-lingual instructions."""
from configs.tiny.sft import *

mixture = {_k: _v for _k, _v in mixture.items() if _k != "crosslingual"}
