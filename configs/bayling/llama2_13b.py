"""BayLing-2-13B: like the 7 B model, from Llama-2-13B; both have the same tokenizer, so the same shards.

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint $HEAD:29500 \
        train.py configs/bayling/llama2_13b.py
"""
from configs.bayling.llama2_7b import *

init = "models/Llama-2-13b-hf"
out = "runs/bayling-2-13b"
micro_batch_size = 1  # 16 GPUs: 13 B parameters with AdamW take 194 GiB, 12 GiB each
shape, gpu, gpus = "Llama-2-13B", "A100", 8  # for estimate=True
