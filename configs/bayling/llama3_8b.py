"""BayLing-2-8B: like the 7 B model, from Llama-3-8B.

    torchrun --nproc-per-node 8 train.py configs/bayling/llama3_8b.py
"""
from configs.bayling.llama2_7b import *

data = "tokens/bayling-llama3"
init = "models/Meta-Llama-3-8B"
out = "runs/bayling-2-8b"
shape, gpu, gpus = "Llama-3-8B", "A100", 8  # for estimate=True
