"""The pieces of eval.py, one file each: a benchmark's rows, its documents and prompts, log-likelihoods, metrics; other judges."""
