"""Stage II on your own text: Table 3, a lower learning rate."""
from configs.marco import paper
from configs.tiny.stage2 import *

data, init, out = "out/own/tokens", "out/own/stage1", "out/own/stage2"
mixture = {_k: _v for _k, _v in paper.STAGE2.items() if _k not in ("knowledge", "synthetic")}
tokens = 350_000
