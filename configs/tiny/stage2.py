"""Stage II in small: from stage I, the paper's mixture (Table 3), 7 of 15 of the tokens, a lower learning rate."""
from configs.tiny.stage1 import *

init = "out/demo/stage1"
out = "out/demo/stage2"
mixture = paper.STAGE2
tokens = 560_000
lr = 1.2e-3  # 0.6 times stage I's, as in the paper
seed = 2
