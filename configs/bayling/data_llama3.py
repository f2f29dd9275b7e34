"""The same for the 8 B model: Llama 3's tokenizer, headers and <|eot_id|>.

    python prepare.py configs/bayling/data_llama3.py tokenizer=/models/Meta-Llama-3-8B
"""
from configs.bayling.data import *

out = "tokens/bayling-llama3"
tokenizer = "models/Meta-Llama-3-8B"
template = "bayling-llama3"
