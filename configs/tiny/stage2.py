"""Stage II at toy scale: from stage I, Table 3's mixture, replayed pairs, 7/15 of the tokens, a lower learning rate."""
from configs import demo_languages as _demo
from configs.marco import paper
from configs.tiny.stage1 import *

init = "out/demo/stage1"
out = "out/demo/stage2"
mixture = _demo.present(paper.STAGE2 | _demo.REPLAYED_PAIRS)
tokens = 1_750_000
lr = 0.9e-3  # 0.6 times stage I's, as in the paper
seed = 2
