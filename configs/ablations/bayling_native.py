"""The upper bound: instructions in every language, as many tokens as the cross-lingual ones they replace."""
from configs.ablations.bayling_with import *

mixture = {_k: _v for _k, _v in mixture.items() if _k != "crosslingual"} | {"chat": 50}
