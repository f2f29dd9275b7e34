"""Settings that have been renamed: an old name is rejected, and the message gives the new one."""
import difflib

RENAMED = {  # old: new; where two programs renamed one setting differently, both, separated by a space
    # train.py
    "length": "seq_len",
    "rows": "batch_size",
    "micro_rows": "micro_batch_size",
    "clip": "grad_clip",
    "recompute": "activation_checkpointing",
    "beta": "dpo_beta",
    "shard": "shard_size",
    "min_lr": "min_lr_ratio",
    "warmup": "warmup_ratio",
    "schedule": "lr_schedule",
    "keep": "keep_checkpoints",
    "verify": "verify_shards",
    "reference": "reference_dir",
    "new_rows": "first_new_id",
    # train.py estimate=True
    "plan": "estimate",
    "node": "gpus_per_node",
    # prepare.py and eval.py
    "names": "language_names",
    "tokenizer_share": "tokenizer_alpha",
    "fix": "fix_encoding",
    "alike": "confusable_languages",
    "perplexity": "perplexity_models",
    "near": "near_dedup",
    "blocked": "blocked_url_words",
    "valid": "valid_fraction",

    # eval.py and evaluation/
    "name": "judge_name",
    "again": "retry_errors",
    "batch": "batch_size",
    "draws": "resamples",
    "first": "a_name",
    "second": "b_name",

    # generate.py and tokenizer.py
    "max_new": "max_new_tokens",

    # report.py, recipes/, tinyworld/, bench/
    "least_words": "min_words",
    "most_words": "max_words",
    "most_chars": "max_chars",
    "each": "keywords_each",
    "centre": "center",
    "choices": "chance",
    "curve": "heldout_source",
    "bound": "max_rise",
}


def suggest(name: str, known: list[str]) -> str:
    """What to write instead of an unknown setting."""
    for new in RENAMED.get(name, "").split():
        if new in known:
            return f"it is called '{new}' now"
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"the settings are: {', '.join(known)}"
