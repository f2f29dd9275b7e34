"""The control: the same tokens of the pivots' instructions and of text, and no cross-lingual instructions."""
from configs.ablations.bayling_with import *

mixture = {_k: _v for _k, _v in mixture.items() if _k != "crosslingual"}
tokens = tokens // 2  # without the cross-lingual half
