"""LDP as published, on Qwen2 and FLORES-200's dev sentences: high-resource examples in the prompt, no training.

Languages and test size resemble the paper's (21 African and 13 Indic languages, 200 sentences); we could not find its
exemplar languages and prompts. estimate=40 prints the time for sentences of 40 tokens. Save
FLORES-200 dev as flores200/dev/LANG.txt, LANG as below.
"""
out = "out/ldp-full"
model = "models/Qwen2-7B"
texts = "flores200/dev/{lang}.txt"
high = ["zh", "ar", "fr", "vi", "de", "es", "ja", "ko"]
low = ["sw", "yo", "bn", "te", "ne"]
n_test, n_mono, n_pool = 200, 500, 64
max_new, max_length, batch = 256, 4096, 16
