"""Hugging Face folders: config.json in every spelling, safetensors that lie, loading, and the way out again."""
import hashlib
import json
import os
import pickle
import random
import runpy
import shutil
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import model as model_file
import train
from hf.config import read_config_fields, write_config
from hf.export import export, write_weights
from hf.weights import open_weights
from model import ModelConfig, Qwen2
from recipes import extend_vocabulary, merge_weights

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("on_the_cpu")


# ---------------------------------------------------------------------- config.json as published

# Written from the published files, older spelling: rope_theta and rope_scaling at the top, torch_dtype. The last number
# is the published count of parameters, which no field states.
PUBLISHED = {
    "Qwen2-7B": ({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944,
        "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
                  "transformers_version": "4.37.2",
        "use_cache": True, "use_sliding_window": False, "vocab_size": 152064},
        dict(num_key_value_heads=4, rope_theta=1e6, rope_scaling=None, tie_word_embeddings=False), 128, 7_615_616_512),
    "Qwen2.5-1.5B": ({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02, "intermediate_size": 8960,
        "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 12,
        "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
                      "transformers_version": "4.40.1",
        "use_cache": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936},
        dict(num_key_value_heads=2, rope_theta=1e6, rope_scaling=None, tie_word_embeddings=True), 128, 1_543_714_304),
    "Llama-2-7B": ({
        "_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
                    "intermediate_size": 11008,
        "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.31.0.dev0",
                    "use_cache": True,
        "vocab_size": 32000},
        dict(num_key_value_heads=32, rope_theta=1e4, rope_scaling=None, tie_word_embeddings=False), 128, 6_738_415_616),
    "Llama-3.1-8B": ({
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
                      "bos_token_id": 128000,
        "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
                      "transformers_version": "4.43.0.dev0",
        "use_cache": True, "vocab_size": 128256},
        dict(num_key_value_heads=8, rope_theta=5e5, tie_word_embeddings=False), 128, 8_030_261_248),
    "Qwen3-8B": ({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
                  "bos_token_id": 151643,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
        "vocab_size": 151936},
        dict(num_key_value_heads=8, rope_theta=1e6, rope_scaling=None, tie_word_embeddings=False), 128, 8_190_735_360),
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def put(folder, fields):
    """config.json with these fields (or this text) in a folder; ... leaves a field out."""
    folder.mkdir(exist_ok=True)
    text = fields if isinstance(fields, str) else json.dumps({k: v for k, v in fields.items() if v is not ...})
    (folder / "config.json").write_text(text)
    return folder


def modern(fields):
    """The same config.json as transformers 5 writes it."""
    old = dict(fields)
    rope = {"rope_type": "default"} | (old.pop("rope_scaling", None)
                                       or {}) | {"rope_theta": old.pop("rope_theta", 10000.0)}
    return old | {"rope_parameters": rope, "dtype": old.pop("torch_dtype"), "transformers_version": "5.0.0"}


def parameters(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def reads_as_transformers_does(folder):
    """The same parameters of the same shapes, and the same numbers outside of the weights."""
    theirs = transformers.AutoConfig.from_pretrained(folder)
    ours = ModelConfig.from_pretrained(folder)
    with torch.device("meta"):
        assert parameters(Qwen2(ours)) == parameters(transformers.AutoModelForCausalLM.from_config(theirs))
    for name in ("model_type", "vocab_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps",
                 "initializer_range",
                 "max_position_embeddings", "tie_word_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name), name
    rope = theirs.rope_parameters
    assert ours.rope_theta == rope["rope_theta"] and bool(ours.rope_scaling) == (rope["rope_type"] == "llama3")
    if ours.rope_scaling:
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        assert [ours.rope_scaling[name] for name in names] == [rope[name] for name in names]


@pytest.mark.parametrize("spelling", ["older", "transformers 5"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs(tmp_path, name, spelling):
    fields, expected, head_dim, count = PUBLISHED[name]
    put(tmp_path, fields if spelling == "older" else modern(fields))
    c = ModelConfig.from_pretrained(tmp_path)
    for key in ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                "num_attention_heads",
                "max_position_embeddings", "rms_norm_eps"):
        assert getattr(c, key) == fields[key], key
    for key, value in expected.items():
        assert getattr(c, key) == value, key
    with torch.device("meta"):
        model = Qwen2(c)
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.model.layers[0].self_attn.q_proj.weight.shape[0] == c.num_attention_heads * head_dim
    reads_as_transformers_does(tmp_path)


def test_both_spellings_give_one_config(tmp_path):
    for name, (fields, *_) in PUBLISHED.items():
        older, newer = (ModelConfig.from_pretrained(put(tmp_path, spelled)) for spelled in (fields, modern(fields)))
        assert older == newer, name


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])
@pytest.mark.parametrize("change", [
    {}, {"num_key_value_heads": None}, {"rope_theta": 5000.0}, {"rope_theta": 5000}, {"max_position_embeddings": 77},
    {"rms_norm_eps": 1e-5}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}, {"attention_bias": True},
    {"attention_bias": False}, {"head_dim": 12}, {"initializer_range": 0.1}, {"rope_scaling": None},
                                    {"rope_parameters": None},
    {"rope_scaling": {"type": "default"}}, {"rope_scaling": {"rope_type": "default"}, "rope_theta": 7.0},
    {"rope_parameters": {"rope_theta": 9.0}}, {"rope_scaling": LLAMA3, "rope_theta": 300.0},
    {"rope_parameters": LLAMA3 | {"rope_theta": 300.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 9.0}, "rope_theta": 8.0},  # what stands inside wins
    {"rope_scaling": {k.removeprefix("rope_"): v for k, v in LLAMA3.items()}}],  # `type`, as before transformers 4.43
    ids=str)
def test_absent_and_optional_fields(tmp_path, family, change):
    """Hugging Face's defaults of that family fill in what a config.json leaves out. (num_key_value_heads is given:
    Qwen's default of 32 fits no small model.)"""
    put(tmp_path, SMALL | {"model_type": family, "num_key_value_heads": 2} | change)
    reads_as_transformers_does(tmp_path)


def test_llama_without_key_value_heads_has_as_many_as_heads(tmp_path):
    put(tmp_path, SMALL | {"model_type": "llama"})  # Llama 1, and Llama 2 as first published
    assert ModelConfig.from_pretrained(tmp_path).num_key_value_heads == 4
    reads_as_transformers_does(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["Qwen2", "Llama", "Qwen3"])
# transformers 4 omits what equals its base class's default
@pytest.mark.parametrize("omitted", [(), ("tie_word_embeddings",)])
def test_configs_that_transformers_saves(tmp_path, family, tied, omitted):
    theirs = getattr(transformers, f"{family}Config")(**SMALL, num_key_value_heads=2, tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    for name in omitted:
        fields.pop(name, None)
    reads_as_transformers_does(put(tmp_path, fields))


HARMLESS = [
    {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1},
    {"layer_types": ["full_attention", "full_attention"]}, {"attention_dropout": 0}, {"partial_rotary_factor": 1.0},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0, "partial_rotary_factor": 1.0}},
            {"use_cache": False},
    {"mlp_bias": False}, {"pretraining_tp": 1}, {"dtype": "bfloat16"}, {"torch_dtype": "float16"},
            {"anything": {"else": [1]}}]


@pytest.mark.parametrize("change", HARMLESS, ids=str)
def test_fields_that_change_nothing_are_accepted(tmp_path, change):
    put(tmp_path, SMALL | {"model_type": "qwen2", "num_key_value_heads": 2} | change)
    reads_as_transformers_does(tmp_path)


def rope(kind, **more):
    return {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0} | more


REFUSED = [  # change, words of the message; each would load, run, and give other numbers than transformers
    *[({"model_type": kind}, ["model_type", repr(kind)])
      for kind in ("mistral", "qwen3_moe", "bert", "", None, ["qwen2"])],
    ({"model_type": ...}, ["model_type"]),
    ({"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, ["sliding_window"]),
    ({"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}, ["sliding_window"]),
    ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 16},
     ["layer_types", "sliding_attention"]),
    ({"layer_types": ["full_attention", "linear_attention"]}, ["layer_types", "linear_attention"]),
    *[({"rope_scaling": rope(kind)}, ["rope", kind]) for kind in ("yarn", "linear", "dynamic", "longrope", "su",
                                                                  "proportional")],
    *[({"rope_scaling": {"type": kind, "factor": 4.0}}, ["rope", kind]) for kind in ("yarn", "linear", "dynamic")],
    *[({"rope_parameters": rope(kind)}, ["rope", kind]) for kind in ("yarn", "linear", "dynamic", "longrope")],
    ({"rope_parameters": {"full_attention": rope("default"), "sliding_attention": rope("default")}}, ["rope"]),
    ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5"]),
    ({"rope_parameters": rope("default", partial_rotary_factor=0.5)}, ["partial_rotary_factor", "0.5"]),
    *[({"rope_scaling": {k: v for k, v in LLAMA3.items() if k != name}}, [name])
      for name in ("factor", "low_freq_factor", "high_freq_factor")],
    *[({"rope_scaling": LLAMA3 | {"factor": bad}}, ["factor"]) for bad in ("8", None, True, [8], 0, -8.0)],
    ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, ["freq_factor"]),  # 0 / 0
    *[({"hidden_act": act}, ["hidden_act", act]) for act in ("gelu", "gelu_pytorch_tanh", "relu")],
    ({"mlp_bias": True}, ["mlp_bias"]),
    ({"attention_dropout": 0.1}, ["attention_dropout", "0.1"]),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quantization_config"]),
    ({"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}, ["auto_map"]),
    *[({name: ...}, [name]) for name in SMALL],
    *[({name: bad}, [name]) for name in [*SMALL, "num_key_value_heads", "max_position_embeddings", "head_dim"]
      for bad in ("64", 64.5, True, -64, 0, [64], {})],
    *[({name: None}, [name]) for name in SMALL],
    *[({name: bad}, [name]) for name in ("rms_norm_eps", "rope_theta")
      for bad in ("1e-6", True, -1.0, [1.0], float("nan"), float("inf"))],
    ({"rope_theta": 0}, ["rope_theta"]),
    *[({"tie_word_embeddings": bad}, ["tie_word_embeddings"]) for bad in ("false", 1, [1])],
    ({"attention_bias": "false"}, ["attention_bias"]),
    ({"initializer_range": "0.02"}, ["initializer_range"]), ({"initializer_range": -1.0}, ["initializer_range"]),
    *[({name: bad}, ["rope"]) for name in ("rope_scaling", "rope_parameters") for bad in ("yarn", ["yarn"], 4.0, True)],
    ({"rope_scaling": {"rope_type": ["default"]}}, ["rope"]),
    *[({"layer_types": bad}, ["layer_types"]) for bad in ("full_attention", 2, [["full_attention"]], [None, None])],
    ({"use_sliding_window": True, "sliding_window": 16, "max_window_layers": "2"}, ["max_window_layers"]),
]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("change, words", REFUSED, ids=lambda x: str(x)[:60])
def test_fields_that_are_refused(tmp_path, family, change, words):
    put(tmp_path, SMALL | {"model_type": family, "num_key_value_heads": 2} | change)
    for read in (ModelConfig.from_pretrained, read_config_fields):
        with pytest.raises(ValueError) as e:
            read(tmp_path)
        assert all(word in str(e.value) for word in [str(tmp_path / "config.json"), *words]), str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"qwen2"', "[" * 100_000, '{"a":' * 100_000, "\ufeff{}",
                                  '{"vocab_size": ' + "9" * 5000 + "}", "{'model_type': 'qwen2'}"],
                         ids=lambda x: x[:20])
def test_config_that_is_no_json_object(tmp_path, text):
    with pytest.raises(ValueError, match="config.json"):
        ModelConfig.from_pretrained(put(tmp_path, text))


def test_config_that_is_no_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"model_type": "\xff\xfe"}')
    with pytest.raises(ValueError, match="config.json"):
        ModelConfig.from_pretrained(tmp_path)


# ---------------------------------------------------------------------- safetensors that lie

def raw(header, data=b"", length=None):
    """A safetensors file by hand: its header's length, the header (an object, its text or its bytes), the tensors'
    bytes."""
    header = json.dumps(header) if isinstance(header, (dict, list, int)) else header
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(begin=0, end=8, dtype="F32", shape=(2,)):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DATA = bytes(range(1, 25))  # 24 bytes: three tensors of two float32
GOOD = {"alpha": entry(0, 8), "bravo": entry(8, 16), "carol": entry(16, 24)}
TWICE = json.dumps(GOOD)[:-1] + ', "bravo": ' + json.dumps(entry(8, 16)) + "}"
TWICE_INSIDE = json.dumps(GOOD).replace('"shape": [2]', '"shape": [3], "shape": [2]', 1)

LIES = {  # name: (the file's bytes, words of the message beside the file's name)
    "empty": (b"", []),
    "seven bytes": (raw(GOOD)[:7], []),
    "length alone": (raw({}, length=1)[:8], []),
    "no tensor bytes": (raw(GOOD), ["alpha"]),
    "last byte gone": (raw(GOOD, DATA[:-1]), ["carol"]),
    "a byte too many": (raw(GOOD, DATA + b"x"), []),
    "header longer than the file": (raw(GOOD, DATA, length=1000), []),
    "header of 90 MB": (raw(GOOD, DATA, length=90_000_000), []),
    "header of 2^63 bytes": (raw(GOOD, DATA, length=1 << 63), []),
    "header of 2^64 - 1 bytes": (raw(GOOD, DATA, length=(1 << 64) - 1), []),
    "header of no bytes": (raw(GOOD, DATA, length=0), []),
    "header cut short": (raw(GOOD, DATA, length=20), []),
    "header not JSON": (raw("{'a': 1}", DATA), []),
    "header not UTF-8": (raw(json.dumps(GOOD).encode().replace(b'"bravo"', b'"\xff"'), DATA), []),
    "header in UTF-16": (raw(json.dumps(GOOD).encode("utf-16"), DATA), []),
    "header a list": (raw([GOOD], DATA), []),
    "header a number": (raw(7, DATA), []),
    "header too deep": (raw('{"alpha":' * 100_000, DATA), []),
    "a number of 5000 digits": (raw(json.dumps(GOOD).replace("16", "9" * 5000), DATA), []),
    "entry a list": (raw(GOOD | {"bravo": [1]}, DATA), []),
    "entry a number": (raw(GOOD | {"bravo": 1}, DATA), []),
    "entry null": (raw(GOOD | {"bravo": None}, DATA), []),
    "entry empty": (raw(GOOD | {"bravo": {}}, DATA), []),
    "no dtype": (raw(GOOD | {"bravo": {"shape": [2], "data_offsets": [8, 16]}}, DATA), []),
    "no shape": (raw(GOOD | {"bravo": {"dtype": "F32", "data_offsets": [8, 16]}}, DATA), []),
    "no offsets": (raw(GOOD | {"bravo": {"dtype": "F32", "shape": [2]}}, DATA), []),
    "the same name twice": (raw(TWICE, DATA), ["bravo"]),
    "the same key twice in an entry": (raw(TWICE_INSIDE, DATA), []),
    "the whole header twice": (raw(json.dumps(GOOD) * 2, DATA), []),
    "only metadata, and bytes": (raw({"__metadata__": {"format": "pt"}}, DATA), []),
    **{f"dtype {d!r}": (raw(GOOD | {"bravo": entry(8, 16, dtype=d)}, DATA), ["bravo"]) for d in (
        "F65", "", "float32", None, 4, ["F32"], {})},
    **{f"shape {s!r}": (raw(GOOD | {"bravo": entry(8, 16, shape=s)}, DATA), ["bravo"]) for s in (
        [3], [1], [], [2, 0], [-2], [-1, -2], [2.0], ["2"], [True, 2], [None], [[2]], "2", 2, None, {"2": 2},
        [1 << 62], [1 << 62, 1 << 62, 8], [4294967297, 4294967296], [1 << 64, 2])},
    **{f"offsets {o!r}": (raw(GOOD | {"bravo": entry() | {"data_offsets": o}}, DATA), ["bravo"]) for o in (
        [8, 15], [8, 17], [9, 17], [7, 15], [16, 8], [8, 8], [-8, 0], [0, 8], [16, 24], [0, 16], [8, 24],
        [8, (1 << 64) + 16])},
    # which tensor these belong to is known only to who looks for it
    **{f"offsets {o!r}": (raw(GOOD | {"bravo": entry() | {"data_offsets": o}}, DATA), []) for o in (
        [24, 32], [1 << 60, (1 << 60) + 8], [8.0, 16.0], [True, 16], ["8", "16"], "ab", [8], [8, 16, 24], [], None, 8,
        {"8": 16}, [[8], [16]])},
    "a tensor of 2^60 bytes": (raw({"alpha": entry(0, 1 << 60, shape=[1 << 58])}, DATA), ["alpha"]),
    "a tensor of 2^60 bytes in eight": (raw({"alpha": entry(0, 8, shape=[1 << 58])}, DATA[:8]), ["alpha"]),
    "hole before the first": (raw({"alpha": entry(8, 16), "bravo": entry(16, 24)}, DATA), ["alpha"]),
    "hole in the middle": (raw({"alpha": entry(0, 8), "carol": entry(16, 24)}, DATA), ["carol"]),
    "hole at the end": (raw({"alpha": entry(0, 8), "bravo": entry(8, 16)}, DATA), []),
    "two on the same bytes": (raw({"alpha": entry(0, 8), "bravo": entry(0, 8)}, DATA[:8]), []),
    "two that overlap": (raw({"alpha": entry(0, 8), "bravo": entry(4, 12)}, DATA[:12]), []),
    "a pickle": (pickle.dumps({"alpha": [1.0, 2.0]}, protocol=2), []),
    "a zip": (b"PK\x03\x04" + bytes(100), []),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused(tmp_path, lie):
    """By name, at once, and without taking the memory that the file asks for."""
    content, words = LIES[lie]
    put(tmp_path, SMALL | {"model_type": "qwen2", "num_key_value_heads": 2})
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(ValueError) as e:
            open_weights(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < 1 and peak < 20 * len(content) + (1 << 18)
    for word in [str(file), *words]:
        assert word in str(e.value)
    assert len(str(e.value)) < 1000, "one readable line"
    with pytest.raises(ValueError, match="model.safetensors"):
        Qwen2.from_pretrained(tmp_path)


def test_a_long_header_takes_no_long_time(tmp_path):
    """The work must grow with the header, not with its square: here the last of 20,000 names is the one that stands
    twice."""
    names = [f'"{i}": {json.dumps(entry(0, 0, shape=[0]))}' for i in range(20_000)]
    (tmp_path / "model.safetensors").write_bytes(raw("{" + ", ".join([*names, names[-1]]) + "}"))
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="model.safetensors.*19999"):
        open_weights(tmp_path)
    assert time.perf_counter() - begin < 2


def test_a_header_above_100_mb_is_refused_unread(tmp_path):
    """Also where the file is that long; it is mostly a hole here."""
    with open(tmp_path / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", 150_000_000) + b"{")
        f.truncate(200_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="model.safetensors"):
            open_weights(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_an_honest_file_may_hold(tmp_path):
    """Any order, metadata, empty tensors and scalars, spaces behind the header: what the format allows."""
    header = {"__metadata__": {"format": "pt"}, "carol": entry(16, 24, shape=[2, 1]),
              "none": entry(16, 16, shape=[0, 5]),
              "alpha": entry(0, 8), "half": entry(8, 12, "F16"), "brain": entry(12, 16, "BF16"),
              "one": entry(24, 28, shape=[])}
    file = tmp_path / "model.safetensors"
    file.write_bytes(raw(json.dumps(header) + "   ", DATA + b"\0\0\x80\x3f"))
    found, wanted = open_weights(tmp_path), load_file(file)
    assert found.keys() == wanted.keys()
    for name, t in wanted.items():
        assert (found[name].dtype, tuple(found[name].shape), Path(found[name].file)) == (t.dtype, tuple(t.shape),
                                                                                         file), name


def library_accepts(file):
    """The verdict of the safetensors library; it does not see a name that stands twice."""
    try:
        with safe_open(file, "pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}
    except (SafetensorError, ValueError, OverflowError, RuntimeError):
        return None


def damaged(good, rng):
    """One random wound: a bit, a byte, a digit, a cut, an insertion or a doubled stretch; most of them in the
    header."""
    end = len(good) if rng.random() < 0.2 else len(good) - len(DATA)
    at, kind = rng.randrange(end), rng.randrange(6)
    if kind == 0:
        return good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1:]
    if kind == 1:
        return good[:at] + bytes([rng.randrange(256)]) + good[at + 1:]
    if kind == 2:  # another digit where a digit stands: offsets and shapes
        digits = [i for i in range(8, end) if chr(good[i]).isdigit()]
        at = rng.choice(digits)
        return good[:at] + str(rng.randrange(10)).encode() + good[at + 1:]
    if kind == 3:
        return good[:at]
    if kind == 4:
        return good[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))) + good[at:]
    return good[:at] + good[rng.randrange(at + 1):at] + good[at:]


def test_random_damage_is_refused_or_harmless(tmp_path):
    """Never another exception than ValueError, and nothing that the safetensors library would not take."""
    rng, file = random.Random(0), tmp_path / "model.safetensors"
    taken = 0
    for _ in range(1500):
        content = damaged(raw(GOOD, DATA), rng)
        file.write_bytes(content)
        wanted = library_accepts(file)
        try:
            found = open_weights(tmp_path)
        except ValueError as e:
            assert str(file) in str(e), content
            continue
        taken += 1
        assert wanted is not None and found.keys() == wanted.keys(), content
        assert all((found[n].dtype, tuple(found[n].shape)) == (t.dtype, tuple(t.shape)) for n,
                   t in wanted.items()), content
    assert 20 < taken < 750  # damage to names and values is none that a header can show


# ---------------------------------------------------------------------- several files

def shards(folder, **files):
    """A file of each name, holding tensors of these names (words of a string), and the index that says so."""
    files = {file: names.split() for file, names in files.items()}
    for file, names in files.items():
        save_file({name: torch.ones(2) for name in names}, folder / f"{file}.safetensors")
    weight_map = {name: f"{file}.safetensors" for file, names in files.items() for name in names}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def refused(folder, *words):
    with pytest.raises(ValueError) as e:
        open_weights(folder)
    for word in map(str, words):
        assert word in str(e.value), str(e.value)


def test_an_index_names_the_files_to_read(tmp_path):
    shards(tmp_path, one="alpha bravo", two="carol")
    # as some folders hold beside; not in the index
    save_file({"alpha": torch.zeros(3)}, tmp_path / "consolidated.safetensors")
    found = open_weights(tmp_path)
    assert {name: Path(t.file).stem for name, t in found.items()} == {"alpha": "one", "bravo": "one", "carol": "two"}


def test_files_may_be_links(tmp_path):
    """The Hugging Face cache is a folder of links."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    shards(blobs, one="alpha bravo", two="carol")
    for i, file in enumerate(sorted(blobs.iterdir())):
        hashed = file.rename(blobs / f"{i:064}")
        (folder / file.name).symlink_to(Path("..") / "blobs" / hashed.name)
    assert open_weights(folder).keys() == {"alpha", "bravo", "carol"}


@pytest.mark.parametrize("path", ["../secret.safetensors", "{outside}/secret.safetensors", "sub/secret.safetensors",
                                  "sub\\secret.safetensors", "./one.safetensors", "one.safetensors/../one.safetensors",
                                  "..", ".",
                                  "", "config.json", "one.bin"])
def test_an_index_that_leaves_the_folder(tmp_path, path):
    """Nothing outside is opened, not even where such a file is there."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        save_file({"bravo": torch.ones(2)}, place / "secret.safetensors")
    index = shards(folder, one="alpha")
    (folder / "one.bin").write_bytes((folder / "one.safetensors").read_bytes())
    index["weight_map"]["bravo"] = path.replace("{outside}", str(tmp_path))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "model.safetensors.index.json", "bravo")


def test_a_run_that_has_not_finished_names_its_last_checkpoint(tmp_path):
    for step in ("step-00000008", "step-00000016", "step-00000024.tmp"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has not finished; continue it with resume=True, or take .*step-00000016$"):
        open_weights(tmp_path)


def test_an_index_that_names_a_missing_file(tmp_path):
    shards(tmp_path, one="alpha", two="bravo")
    (tmp_path / "two.safetensors").unlink()
    refused(tmp_path, "two.safetensors")


def test_an_index_that_names_a_folder(tmp_path):
    shards(tmp_path, one="alpha", two="bravo")
    (tmp_path / "two.safetensors").unlink()
    (tmp_path / "two.safetensors").mkdir()
    refused(tmp_path, "two.safetensors")


def test_an_index_that_names_a_tensor_that_is_not_there(tmp_path):
    index = shards(tmp_path, one="alpha", two="bravo")
    index["weight_map"]["lost"] = "two.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, "two.safetensors", "lost")


def test_an_index_that_names_the_wrong_file(tmp_path):
    index = shards(tmp_path, one="alpha", two="bravo xenon")
    index["weight_map"]["xenon"] = "one.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, "xenon", ".safetensors")


@pytest.mark.parametrize("indexed", [True, False])
def test_one_tensor_in_two_files(tmp_path, indexed):
    index = shards(tmp_path, one="alpha xenon", two="bravo xenon")
    assert index["weight_map"]["xenon"] == "two.safetensors"
    if not indexed:
        (tmp_path / "model.safetensors.index.json").unlink()
    refused(tmp_path, "xenon", "one.safetensors", "two.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}',
                                  '{"weight_map": {"alpha": 1}}',
                                  '{"weight_map": {"alpha": ["one.safetensors"]}}', '{"weight_map": null}',
                                  "[" * 100_000],
                         ids=lambda x: x[:30])
def test_an_index_that_is_none(tmp_path, text):
    shards(tmp_path, one="alpha")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused(tmp_path, "model.safetensors.index.json")


# ---------------------------------------------------------------------- nothing is executed

class Marker:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_the_marker_works(tmp_path):
    pickle.loads(pickle.dumps(Marker(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.safetensors"])
@pytest.mark.parametrize("write", [lambda x, f: f.write_bytes(pickle.dumps(x)), torch.save],
                         ids=["pickle", "torch.save"])
def test_pickles_are_never_opened(tmp_path, small_folder, name, write):
    folder, marker = shutil.copytree(small_folder, tmp_path / "folder"), tmp_path / "marker"
    wanted = (folder / "model.safetensors").rename(tmp_path / "aside")
    write(Marker(marker), folder / name)
    for load in (Qwen2.from_pretrained, open_weights):
        with pytest.raises(ValueError) as e:
            load(folder)
        assert str(folder) in str(e.value) and "safetensors" in str(e.value)
    if name != "model.safetensors":
        wanted.rename(folder / "model.safetensors")
        Qwen2.from_pretrained(folder)  # beside safetensors they are passed over
        export(folder, tmp_path / "out")
        assert not (tmp_path / "out" / name).exists()
    assert not marker.exists()


def test_code_in_the_folder_is_never_run(tmp_path, small_folder):
    folder, marker = shutil.copytree(small_folder, tmp_path / "folder"), tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w')\nclass Evil: pass\n"
    for name in ("modeling_evil", "configuration_evil", "tokenization_evil", "sitecustomize", "torch"):
        (folder / f"{name}.py").write_text(code)
    fields = json.loads((folder / "config.json").read_text())
    put(folder, fields | {"auto_map": {"AutoConfig": "configuration_evil.Evil",
                                       "AutoModelForCausalLM": "modeling_evil.Evil"}})
    for attempt in (Qwen2.from_pretrained, lambda f: export(f, tmp_path / "out"), ModelConfig.from_pretrained):
        with pytest.raises(ValueError, match="auto_map"):
            attempt(folder)
    put(folder, fields)
    Qwen2.from_pretrained(folder)
    export(folder, tmp_path / "out")
    assert not marker.exists() and not list((tmp_path / "out").glob("*.py"))


# ---------------------------------------------------------------------- loading

FAMILIES = {
    "qwen2": ("Qwen2", {}), "qwen3": ("Qwen3", {"head_dim": 16}),
    "llama": ("Llama", {"attention_bias": True, "head_dim": 12, "rope_parameters": LLAMA3 | {"rope_theta": 1e4}})}


def make(family, tied=False, seed=0, **changes):
    """A tiny random model by transformers, every parameter of which matters."""
    name, own = FAMILIES[family]
    sizes = SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": tied, "initializer_range": 0.2,
                     "max_position_embeddings": 512}
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers,
                                                                f"{name}Config")(**sizes | own | changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p += 0.3 * torch.randn(p.shape)
    return model


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    make("qwen2").save_pretrained(folder)
    return folder


def ids(B, T):
    return torch.randint(97, (B, T), generator=torch.Generator().manual_seed(T))


def same_logits(folder, theirs):
    """Ours from the folder, and transformers' model in memory: the logits behind each of a few prefixes."""
    ours = Qwen2.from_pretrained(folder)
    with torch.no_grad():
        for T in (1, 9, 60):
            wanted = theirs(ids(2, T)).logits[:, -1]
            assert (ours.logits(ids(2, T)) - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    return ours


@pytest.mark.parametrize("size", ["100GB", "20KB"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folders_of_one_and_of_many_files(tmp_path, family, size):
    theirs = make(family)
    theirs.save_pretrained(tmp_path, max_shard_size=size)
    count = len(list(tmp_path.glob("*.safetensors")))
    assert count == 1 if size == "100GB" else count > 2
    ours = same_logits(tmp_path, theirs)
    wanted = dict(theirs.named_parameters())
    assert all(torch.equal(p, wanted[n]) for n, p in ours.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_a_tensor(tmp_path, dtype):
    """As a sharded parameter asks for them; the tensors lie behind one another in one file."""
    g, shapes = torch.Generator().manual_seed(0), {"a": (5,), "b": (7, 3), "c": (4, 2, 3), "d": (0, 3)}
    tensors = {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    stored = open_weights(tmp_path)
    for name, t in tensors.items():
        for first in range(len(t) + 1):
            for last in range(first, len(t) + 1):
                assert torch.equal(stored[name].read(first, last), t[first:last])


def test_dtypes_may_be_mixed(tmp_path, small_folder):
    """fp16, bf16 and fp32 in one folder; each value is kept as well as the dtype asked for can."""
    tensors, kinds = load_file(small_folder / "model.safetensors"), [torch.float16, torch.bfloat16, torch.float32]
    tensors = {name: t.to(kinds[i % 3]) for i, (name, t) in enumerate(sorted(tensors.items()))}
    shutil.copy(small_folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    for dtype, param_dtype in ((torch.float32, None), (torch.bfloat16, torch.float32), (torch.bfloat16, None)):
        model = Qwen2.from_pretrained(tmp_path, dtype, param_dtype)
        assert model.dtype == dtype
        for name, p in model.named_parameters():
            assert p.dtype == (param_dtype or dtype) and torch.equal(p, tensors[name].to(p.dtype)), name


def test_rows_past_the_tokenizer_are_read(tmp_path):
    """Qwen2 has 152,064 rows for 151,646 ids; what the padding holds must survive."""
    make("qwen2", vocab_size=128).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.embed_tokens.weight"][97:] = torch.arange(31.)[:, None]
    save_file(tensors, tmp_path / "model.safetensors")
    model = Qwen2.from_pretrained(tmp_path)
    assert model.config.vocab_size == 128 and torch.equal(model.model.embed_tokens.weight,
                                                          tensors["model.embed_tokens.weight"])
    with pytest.raises(ValueError, match="embed_tokens|lm_head") as e:  # and a vocabulary that is not the matrix's
        Qwen2.from_pretrained(put(tmp_path, json.loads((tmp_path / "config.json").read_text()) | {"vocab_size": 97}))
    assert "128" in str(e.value) and "97" in str(e.value) and "model.safetensors" in str(e.value)


@pytest.mark.parametrize("tied", [True, False])
def test_rotary_buffers_of_llama_2_are_ignored(tmp_path, tied):
    theirs = make("llama", tied)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for i in range(2):
        # what they hold must not matter
        tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.full((6,), 1e9)
    save_file(tensors, tmp_path / "model.safetensors")
    same_logits(tmp_path, theirs)


@pytest.mark.parametrize("stored", ["equal", "different", "last row different", "other dtype"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tied_with_a_stored_head(tmp_path, family, stored):
    """Equal to the embedding, it is tied; else both count, as in transformers 5, whatever config.json says."""
    make(family, tied=True).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    head = tensors["model.embed_tokens.weight"].clone()
    if stored == "different":
        head = torch.randn(97, 32)
    elif stored == "last row different":
        head[-1] += 1
    elif stored == "other dtype":
        head = (head + 1).bfloat16()
    save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = same_logits(tmp_path, theirs)
    tied = stored == "equal"
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) is ours.config.tie_word_embeddings is tied
    ours.save_pretrained(tmp_path / "saved", like=tmp_path)
    export(tmp_path, tmp_path / "exported")
    for folder in (tmp_path / "saved", tmp_path / "exported"):
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is tied
        same_logits(folder, theirs)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.self_attn.k_proj.bias", "model.norm.weight"])
def test_a_missing_tensor_is_named(tmp_path, small_folder, name):
    tensors = load_file(small_folder / "model.safetensors")
    del tensors[name]
    shutil.copy(small_folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError) as e:
        Qwen2.from_pretrained(tmp_path)
    assert name in str(e.value) and str(tmp_path) in str(e.value)


@pytest.mark.parametrize("family, name", [
    ("llama", "model.layers.0.self_attn.q_norm.weight"), ("qwen2", "model.layers.0.self_attn.o_proj.bias"),
    ("qwen2", "model.layers.2.mlp.up_proj.weight"), ("qwen2", "score.weight")])
def test_a_tensor_that_the_model_has_no_place_for_is_named(tmp_path, family, name):
    """Left out it would change the logits, so it is not passed over."""
    make(family).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {name: torch.ones(32)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError) as e:
        Qwen2.from_pretrained(tmp_path)
    assert name in str(e.value)


@pytest.mark.parametrize("change", [{"vocab_size": 10 ** 13}, {"vocab_size": 10 ** 30}, {"intermediate_size": 10 ** 13},
                                    {"hidden_size": 2 ** 40}, {"head_dim": 10 ** 20}, {"num_hidden_layers": 10 ** 20},
                                    dict.fromkeys(("head_dim", "num_attention_heads", "num_key_value_heads"), 2 ** 30)],
                         ids=str)
def test_a_config_far_larger_than_its_weights_is_refused(tmp_path, small_folder, change):
    """Before the memory it asks for is taken."""
    folder = shutil.copytree(small_folder, tmp_path / "folder")
    put(folder, json.loads((folder / "config.json").read_text()) | change)
    with pytest.raises(ValueError, match="config.json"):
        Qwen2.from_pretrained(folder)


def test_a_config_with_far_more_layers_than_weights_is_refused(tmp_path, small_folder):
    """At once: building ten thousand layers takes ten seconds even without memory, and the config may claim a
    billion."""
    folder = shutil.copytree(small_folder, tmp_path / "folder")
    fields = json.loads((folder / "config.json").read_text())
    put(folder, fields | {"num_hidden_layers": 10_000, "layer_types": ...})
    begin = time.perf_counter()
    for attempt in (Qwen2.from_pretrained, lambda f: model_file.main(["export", str(f), str(tmp_path / "out")])):
        with pytest.raises(ValueError, match="layers"):
            attempt(folder)
    assert time.perf_counter() - begin < 3


# ---------------------------------------------------------------------- export

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
EXTRA = {"use_mrope": False, "my_notes": {"data": ["a", 1, None, "\u4f60\u597d"]}, "bos_token_id": 1,
         "transformers_version": "4.51.0"}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    """A byte-level BPE with chat marks, a template, and Qwen2's pre-tokenizer, written by transformers."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    from tokenizer import QWEN2_PATTERN
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    text = ["the cat sat on the mat, and then the other cat sat there",
            "where were they, whether or not it was thought through"]
    # 256 bytes, 24 merges; the three special tokens are 280, 281, 282
    t.train_from_iterator(text * 5, trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory, tokenizer_folder):
    """A function: a whole folder as published (model, tokenizer, template, generation settings, fields we do not
    know)."""
    made = {}

    def build(family="qwen3", dtype=torch.float32, tied=False):
        if (family, dtype, tied) not in made:
            folder = shutil.copytree(tokenizer_folder, tmp_path_factory.mktemp("source") / f"{family}")
            make(family, tied, vocab_size=320).to(dtype).save_pretrained(folder, max_shard_size="60KB")
            put(folder, json.loads((folder / "config.json").read_text()) | EXTRA | {"eos_token_id": [282, 280]})
            (folder / "generation_config.json").write_text(json.dumps(
                {"bos_token_id": 1, "eos_token_id": [282, 280], "do_sample": True, "temperature": 0.6, "top_k": 20}))
            (folder / "README.md").write_text("a model card")
            made[family, dtype, tied] = folder
        return made[family, dtype, tied]
    return build


def tensors_of(folder):
    """Every tensor of a folder, read by the safetensors library; none may stand twice."""
    out = {}
    for file in folder.glob("*.safetensors"):
        found = load_file(file)
        assert not out.keys() & found.keys()
        out |= found
    return out


def same_tensors(a, b, dtype=None):
    a, b = tensors_of(a), tensors_of(b)
    assert a.keys() == b.keys()
    for name, t in a.items():
        t = t.to(dtype or t.dtype)
        assert t.dtype == b[name].dtype and torch.equal(t.view(torch.uint8), b[name].view(torch.uint8)), name


def is_complete(folder, max_bytes):
    """What transformers, vLLM and llama.cpp's convert_hf_to_gguf.py open by name, as lists, so that a change of ours
    shows."""
    fields = json.loads((folder / "config.json").read_text())
    for name in ("architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act",
                 "tie_word_embeddings"):
        assert name in fields, name
    assert fields["architectures"] == [f"{fields['model_type'].capitalize()}ForCausalLM"]
    assert "rope_theta" in fields or "rope_theta" in fields["rope_parameters"]
    assert {fields.get("dtype"), fields.get("torch_dtype")} & {"float32", "bfloat16", "float16"}
    tensors = tensors_of(folder)
    assert tensors.keys() == names_of_tensors(fields)
    is_indexed(folder, tensors, max_bytes)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert (folder / "tokenizer.json").exists() and (folder / "tokenizer_config.json").exists()
    allowed = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
               "special_tokens_map.json",
               "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "model.safetensors.index.json"}
    left = {p.name for p in folder.iterdir() if p.suffix != ".safetensors"} - allowed
    assert not left, "code, pickles or something left over"
    return fields


def names_of_tensors(fields):
    """As vLLM's qwen2, llama and qwen3 and llama.cpp's tensor map call them."""
    family, bias = fields["model_type"], "qkvo" if fields.get("attention_bias") else ""
    blocks = ["input_layernorm.weight", "post_attention_layernorm.weight",
              *[f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")],
              *[f"self_attn.{x}_proj.weight" for x in "qkvo"],
              *[f"self_attn.{x}_proj.bias" for x in ("qkv" if family == "qwen2" else bias)],
              *[f"self_attn.{x}_norm.weight" for x in ("qk" if family == "qwen3" else "")]]
    names = {f"model.layers.{i}.{b}" for i in range(fields["num_hidden_layers"]) for b in blocks}
    names |= {"model.embed_tokens.weight", "model.norm.weight"}
    return names if fields["tie_word_embeddings"] else names | {"lm_head.weight"}


def is_indexed(folder, tensors, max_bytes):
    """One file, or several of at most max_bytes of tensors with an index that names every tensor (llama.cpp refuses
    others)."""
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    for file in files:
        held = load_file(folder / file)
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= max_bytes
        with safe_open(folder / file, "pt") as f:
            assert f.metadata() == {"format": "pt", "writer": "nanoMarco"}  # transformers asks for the format
    if files != ["model.safetensors"]:
        assert files == [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert index["weight_map"] == {name: file for file in files for name in load_file(folder / file)}
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    else:
        assert not (folder / "model.safetensors.index.json").exists()


def loads_in_transformers(folder, theirs_folder):
    """AutoModel and AutoTokenizer, without any code of the folder, the same model and the same ids."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    theirs = transformers.AutoModelForCausalLM.from_pretrained(theirs_folder, dtype="auto")
    assert type(model) is type(theirs)
    ours, wanted = model.config.to_dict(), theirs.config.to_dict()
    assert {k: v for k, v in ours.items() if k != "_name_or_path"} == {k: v for k, v in wanted.items()
                                                                       if k != "_name_or_path"}
    with torch.no_grad():
        assert torch.equal(model(ids(2, 30)).logits, theirs(ids(2, 30)).logits)
    ours, wanted = (transformers.AutoTokenizer.from_pretrained(f) for f in (folder, theirs_folder))
    text, chat = "the cat <|im_start|> sat \u4f60", [{"role": "user", "content": "hi there"}]
    assert ours(text).input_ids == wanted(text).input_ids and ours.eos_token_id == wanted.eos_token_id == 282
    assert ours.apply_chat_template(chat, tokenize=False) == wanted.apply_chat_template(chat, tokenize=False) != ""
    return model


@pytest.mark.parametrize("family, dtype, tied, max_bytes", [
    ("qwen3", torch.bfloat16, False, 10_000), ("qwen2", torch.float32, True, 30_000),
                                                            ("llama", torch.float16, False, 1 << 30)])
def test_export_keeps_every_byte_and_every_field(tmp_path, source, family, dtype, tied, max_bytes):
    folder, out = source(family, dtype, tied), tmp_path / "new" / "out"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    export(folder, out, max_bytes=max_bytes)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    same_tensors(folder, out)
    fields = is_complete(out, max_bytes)
    assert fields == json.loads(before["config.json"])
    assert json.loads((out / "generation_config.json").read_text()) == json.loads(before["generation_config.json"])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == before[name]
    count = len(list(out.glob("*.safetensors")))
    assert count == 1 if max_bytes == 1 << 30 else count > 3
    loads_in_transformers(out, folder)


def test_export_from_the_shell(tmp_path, source, root):
    folder = source()
    command = [sys.executable, str(root / "model.py"), "export", str(folder), "out", "max_bytes=20000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    same_tensors(folder, tmp_path / "out")
    is_complete(tmp_path / "out", 20_000)
    (tmp_path / "file").touch()  # an error of the disk is one line, too
    command[4] = "file/out"
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "file/out" in done.stderr and "a part of the path is a file" in done.stderr


def test_export_in_another_dtype(tmp_path, source):
    export(source(), tmp_path, dtype=torch.bfloat16, max_bytes=30_000)
    same_tensors(source(), tmp_path, torch.bfloat16)
    fields, before = is_complete(tmp_path, 30_000), json.loads((source() / "config.json").read_text())
    key = "dtype" if "dtype" in before else "torch_dtype"
    assert fields == before | {key: "bfloat16"}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16


def test_export_of_mixed_dtypes_keeps_the_bits_and_the_config(tmp_path, source):
    """Any bits: NaN with its payload, -0, subnormal numbers. A float32 buffer does not make a bfloat16 model a float32
    one."""
    folder = shutil.copytree(source("llama", torch.bfloat16), tmp_path / "folder")
    assert "bfloat16" in (folder / "config.json").read_text()
    g = torch.Generator().manual_seed(0)
    for file in folder.glob("*.safetensors"):
        save_file({name: torch.randint(-2 ** 15, 2 ** 15, t.shape, dtype=torch.int16, generator=g).view(t.dtype)
                   for name, t in load_file(file).items()}, file)
    inv_freq = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.rand(6) for i in range(2)}
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    save_file(inv_freq, folder / "buffers.safetensors")
    index["weight_map"] |= dict.fromkeys(inv_freq, "buffers.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    export(folder, tmp_path / "out", max_bytes=30_000)
    same_tensors(folder, tmp_path / "out")
    ours, before = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "out", folder))
    assert ours == before


def test_export_over_an_earlier_export(tmp_path, source):
    """More files, fewer files, one: nothing of the earlier one may be left to be read."""
    for max_bytes in (10_000, 60_000, 1 << 30, 30_000):
        export(source(), tmp_path, max_bytes=max_bytes)
        is_complete(tmp_path, max_bytes)
        same_tensors(source(), tmp_path)


def test_exporting_an_export_changes_nothing(tmp_path, source):
    export(source(), tmp_path / "a", max_bytes=30_000)
    export(tmp_path / "a", tmp_path / "b", max_bytes=30_000)
    same_tensors(tmp_path / "a", tmp_path / "b")
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / x).iterdir() if "safetensors" not in p.name} for x in "ab")
    assert a == b


def test_export_without_a_tokenizer(tmp_path, small_folder):
    """Weights alone are a folder too; transformers loads it."""
    export(small_folder, tmp_path / "out")
    same_tensors(small_folder, tmp_path / "out")
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("stated", [..., None, 5, [282, 7]])
def test_generation_settings_are_made_where_there_are_none(tmp_path, source, stated):
    """The ids that end a text: those of config.json, where transformers looks next, else the tokenizer's."""
    folder = shutil.copytree(source(), tmp_path / "folder")
    (folder / "generation_config.json").unlink()
    put(folder, json.loads((folder / "config.json").read_text()) | {"eos_token_id": stated})
    export(folder, tmp_path / "out")
    stop = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    stop = set(stop) if isinstance(stop, list) else {stop}
    assert stop >= {282} if stated in (..., None) else stop >= {5} if stated == 5 else stop >= {282, 7}
    assert (json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == stated) or stated in (...,
                                                                                                                None)


def test_every_file_of_a_tokenizer_is_copied(tmp_path, source):
    """Also of one that we cannot read: the weights do not depend on it."""
    folder, names = shutil.copytree(source(), tmp_path / "folder"), (
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
        "special_tokens_map.json", "chat_template.jinja", "chat_template.json", "qwen.tiktoken",
                                                                     "generation_config.json")
    for name in names:
        (folder / name).write_text(json.dumps({"what": name}))
    export(folder, tmp_path / "out")
    assert all((tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes() for name in names)
    (folder / "generation_config.json").unlink()
    with pytest.warns(UserWarning, match="generation_config.json"):
        export(folder, tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("dtypes", [("F32",), ("BF16",), ("F16", "F32", "BF16")])
def test_files_are_those_of_the_library(tmp_path, dtypes):
    """Byte for byte what safetensors' save_file writes, our name apart: order, header, padding."""
    kinds = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    g, shapes = torch.Generator().manual_seed(0), [(5,), (7, 3), (4, 2, 3), (0, 3), (1,), ()]
    tensors = {f"t.{'abcdef'[i]}": torch.randn(shape, generator=g).to(kinds[dtypes[i % len(dtypes)]])
               for i, shape in enumerate(shapes)}
    write_weights(tmp_path, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}, tensors.items())
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    raw = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = raw[8:8 + size].replace(b',"writer":"nanoMarco"', b"").rstrip()
    header += b" " * (-len(header) % 8)
    assert size % 8 == 0 and len(header).to_bytes(8, "little") + header + raw[8 + size:] == \
        (tmp_path / "theirs.safetensors").read_bytes()


def sharded(folder):
    """Someone's model in two files."""
    half = {"a": torch.ones(3)}
    save_file(half, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    save_file({"b": torch.ones(3)}, folder / "model-00002-of-00002.safetensors", metadata={"format": "pt"})
    put_index(folder, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})


def put_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# what stands in a folder, and what of it is named
OTHERS = {"a sharded model": (sharded, "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors"),
          "a model without its format": (lambda f: save_file({"a": torch.ones(3)}, f / "model.safetensors"), "model.s"),
          "a file of another name": (lambda f: (f / "old.safetensors").write_bytes(b"years of work"), "old.safetens"),
          "an index alone": (lambda f: put_index(f, {"a": "b"}), "model.safetensors.index.json"),
          "a config": (lambda f: (f / "config.json").write_text("{}"), "config.json"),
          "a tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b"theirs"), "tokenizer.model"),
          "a part": (lambda f: (f / "part-00001.tmp").write_bytes(b"theirs"), "part-00001.tmp")}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("program", ["export", "save_pretrained", "merge", "extend"])
def test_nothing_of_another_is_replaced(tmp_path, source, kind, program):
    """Refused by name before anything is written."""
    fill, named = OTHERS[kind]
    out, folder = tmp_path / "out", source()
    out.mkdir()
    fill(out)
    before = files_of(out)
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 50)
    run = {"export": lambda: export(folder, out),
           "save_pretrained": lambda: Qwen2.from_pretrained(folder).save_pretrained(out, like=folder),
           "merge": lambda: merge_weights.main([f"models={[str(folder)] * 2}", f"out={out}"]),
           "extend": lambda: extend_vocabulary.main([f"model={folder}", f"text={tmp_path / 'text.txt'}", "pieces=2",
                                                     f"out={out}"])}
    with pytest.raises(ValueError, match=f"out holds files that are not of a model written by nanoMarco .{named}"):
        run[program]()
    assert files_of(out) == before


def test_a_model_of_ours_is_replaced_and_other_files_stay(tmp_path, source):
    """Also one that was killed: while a part was written, or before its first byte."""
    out = tmp_path / "out"
    export(source(), out, max_bytes=10_000)
    first = min(out.glob("model-00001-of-*.safetensors"))
    (out / "part-00001.tmp").write_bytes(first.read_bytes()[:500])
    (out / "part-00009.tmp").touch()
    (out / "README.md").write_text("mine")
    export(source(), out)
    assert (out / "README.md").read_text() == "mine" and not list(out.glob("part-*"))
    assert [p.name for p in out.glob("*.safetensors*")] == ["model.safetensors"]
    same_tensors(source(), out)


def test_weights_alone_replace_no_others(tmp_path):
    """Whoever calls `write_weights` has asked nothing before."""
    sharded(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="model-00001-of-00002.safetensors"):
        write_weights(tmp_path, {"a": (torch.float32, (3,))}, [("a", torch.zeros(3))])
    assert files_of(tmp_path) == before


def test_a_model_of_ours_with_one_file_of_another(tmp_path, source):
    export(source(), tmp_path / "out")
    sharded(tmp_path / "out")
    with pytest.raises(ValueError, match=r"\(model-00001-of-00002.safetensors, model-00002-of-00002.safetensors\)"):
        export(source(), tmp_path / "out")


def test_a_folder_without_weights_may_be_its_own_like(tmp_path, source):
    """As a run folder is: its config and tokenizer are there from the first step on, its weights at the end."""
    model, folder = Qwen2.from_pretrained(source()), tmp_path / "out"
    shutil.copytree(source(), folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    model.save_pretrained(folder, like=folder)
    model.save_pretrained(folder, like=folder)
    same_tensors(source(), folder)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; give a folder"):
        export(source(), tmp_path / "file")


EXPORTER = """
    import resource, sys, torch
    from hf.export import export
    small, large, out, dtype = sys.argv[1:]
    export(small, out, getattr(torch, dtype))  # what the code itself needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    export(large, out, getattr(torch, dtype))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in KiB, as Linux counts")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_holds_one_tensor(tmp_path, root, dtype):
    """Measured from outside: the peak grows by the largest tensor (32 MB here; twice for another dtype), not by the
    model."""
    sizes = dict(vocab_size=512, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    for name, changes in (("small", {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}),
                          ("large", {"hidden_size": 1024, "intermediate_size": 8192, "num_hidden_layers": 4})):
        Qwen2(ModelConfig(**sizes | changes)).save_pretrained(tmp_path / name)
    assert (tmp_path / "large" / "model.safetensors").stat().st_size > 400 << 20
    (tmp_path / "exporter.py").write_text(textwrap.dedent(EXPORTER))
    done = subprocess.run([sys.executable, tmp_path / "exporter.py", tmp_path / "small", tmp_path / "large",
                           tmp_path / "out", dtype],
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 90 << 10, f"{int(done.stdout) >> 10} MiB more for a tensor of 32 MiB"


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3"])
@pytest.mark.parametrize("change", [{}, {"attention_bias": True}, {"head_dim": 16}, {"tie_word_embeddings": True},
                                    {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_type"}},
                                    {"num_key_value_heads": 4}, {"max_position_embeddings": 77, "rope_theta": 5.0}],
                         ids=str)
def test_what_trains_can_be_saved(tmp_path, family, change):
    """The round trip of a fresh model of every family and field: train.py writes config.json first and the weights
    over it."""
    if family == "qwen2" and "attention_bias" in change:
        pytest.skip("refused before the first step: tests/test_checks.py")
    model = Qwen2(ModelConfig(**SMALL | {"model_type": family, "num_key_value_heads": 2} | change)).init_weights(0)
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, like=tmp_path)
    again = Qwen2.from_pretrained(tmp_path)
    wanted = dict(model.named_parameters())
    assert wanted.keys() == dict(again.named_parameters()).keys()
    assert all(torch.equal(p, wanted[n]) for n, p in again.named_parameters())


def test_ends_of_the_folder_stay_when_turns_were_learned(tmp_path, source):
    fields = {k: getattr(ModelConfig.from_pretrained(source()), k) for k in ModelConfig.__dataclass_fields__}
    write_config(tmp_path, fields, like=source(), token_ids={"bos_token_id": None, "eos_token_id": [281, 280]},
                 override_eos=True)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / name).read_text())["eos_token_id"] == [281, 280, 282]


def test_save_pretrained_like_a_folder(tmp_path, source):
    """What training changes are the weights: every other field, the tokenizer and the generation settings stay."""
    model = Qwen2.from_pretrained(source())
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1
    model.save_pretrained(tmp_path, like=source(), max_bytes=30_000)
    fields = is_complete(tmp_path, 30_000)
    assert fields == json.loads((source() / "config.json").read_text())
    assert (tmp_path / "generation_config.json").read_bytes() == (source() / "generation_config.json").read_bytes()
    assert (tmp_path / "tokenizer.json").read_bytes() == (source() / "tokenizer.json").read_bytes()
    stored = tensors_of(tmp_path)
    assert all(torch.equal(p, stored[n]) for n, p in model.named_parameters())


def test_save_pretrained_over_the_folder_it_came_from(tmp_path, source):
    """Of ours; one of another's is refused, and stays."""
    theirs, folder = shutil.copytree(source(), tmp_path / "theirs"), tmp_path / "folder"
    with pytest.raises(ValueError, match="theirs holds files that are not of a model written by nanoMarco .model-0000"):
        Qwen2.from_pretrained(theirs).save_pretrained(theirs, like=theirs)
    assert files_of(theirs) == files_of(source())
    export(theirs, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if "safetensors" not in p.name
              and p.name != "config.json"}
    model = Qwen2.from_pretrained(folder)
    model.save_pretrained(folder, like=folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert json.loads((folder / "config.json").read_text()) == json.loads((source() / "config.json").read_text())
    same_tensors(source(), folder)


def test_like_may_have_fewer_words(tmp_path, source):
    """What recipes/extend_vocabulary.py needs; another shape is another model."""
    fields = {k: getattr(ModelConfig.from_pretrained(source()), k) for k in ModelConfig.__dataclass_fields__}
    Qwen2(ModelConfig(**fields | {"vocab_size": 333})).init_weights(0).save_pretrained(tmp_path / "more", like=source())
    before = json.loads((source() / "config.json").read_text())
    assert json.loads((tmp_path / "more" / "config.json").read_text()) == before | {"vocab_size": 333}
    for change in ({"hidden_size": 64}, {"rope_theta": 7.0}, {"tie_word_embeddings": True}):
        with pytest.raises(ValueError, match=next(iter(change))):
            Qwen2(ModelConfig(**fields | change)).save_pretrained(tmp_path / "other", like=source())


def test_folders_may_have_any_name(tmp_path, monkeypatch, source):
    """A sweep names its runs after settings or numbers."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(source(), tmp_path / "lr=1e-3" / "7")
    for words in (["lr=1e-3/7", "out"], ["./lr=1e-3/7", "lr=1e-3/out"], [str(source()), "2024"],
                  [str(source()), "None"]):
        model_file.main(["export", *words])
        same_tensors(source(), tmp_path / words[1])


def stopped(monkeypatch, *words):
    """Run model.py as the shell does and return the one line it stops with."""
    monkeypatch.setattr(sys, "argv", ["model.py", *map(str, words)])
    with pytest.raises(SystemExit) as e:
        runpy.run_path(model_file.__file__, run_name="__main__")
    assert isinstance(e.value.code, str) and "\n" not in e.value.code.strip(), e.value.code
    return e.value.code


@pytest.mark.parametrize("words, said", [
    (["export", "{missing}", "{out}"], ["missing"]), (["export", "{source}", "{out}", "dtype=float31"],
                                                      ["dtype", "float31"]),
    (["export", "{source}", "{out}", "dtype=int8"], ["dtype", "int8"]),
    (["export", "{source}", "{out}", "max_byte=5"], ["max_byte"]),
    (["export", "{source}", "{out}", "max_bytes=many"], ["max_bytes"]), (["export", "{source}", "{source}"], ["qwen3"]),
    (["export", "{source}"], ["export", "OUT"]), (["export"], ["export", "OUT"]), (["import"], ["export", "OUT"]),
    ([], ["export", "OUT"])], ids=str)
def test_misuse_of_export_is_one_line(monkeypatch, tmp_path, source, words, said):
    monkeypatch.chdir(tmp_path)
    places = {"missing": tmp_path / "missing", "out": tmp_path / "out", "source": source()}
    before = {p.name: p.read_bytes() for p in source().iterdir()}
    line = stopped(monkeypatch, *[w.format(**places) for w in words])
    assert all(s in line for s in said), line
    assert {p.name: p.read_bytes() for p in source().iterdir()} == before
    assert not (tmp_path / "out" / "config.json").exists(), "half an export looks like a whole one"


# ---------------------------------------------------------------------- export of a training checkpoint

def run_words(data, out, **changes):
    settings = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2, "data": data, "out": out, "mixture": {"en": 1}, "seq_len": 16,
                "batch_size": 4,
                "micro_batch_size": 4, "tokens": 3 * 64, "lr": 1e-2, "dtype": "float32", "threads": 1, "save_every": 1,
                "keep_checkpoints": 9,
                "eval_tokens": 50}
    return [f"{k}={v}" for k, v in (settings | changes).items() if v is not ...]


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_source, tokenizer_folder):
    """Token shards with the tokenizer they were made with."""
    from tokenizer import load
    t = load(tokenizer_folder)
    folder = tmp_path_factory.mktemp("data") / "tokens"
    write_source(folder / "en", [[1 + (i * j) % 250 for j in range(i % 37 + 3)] for i in range(100)], category="en",
                 eot=t.eot_id,
                 vocab_size=t.vocab_size, tokenizer=t.fingerprint)
    shutil.copytree(tokenizer_folder, folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data, source):
    """A function: a finished run of three steps with a checkpoint after each, from fresh weights or from a folder."""
    made = {}

    def build(kind):
        if kind not in made:
            out = tmp_path_factory.mktemp("run") / kind
            if kind == "continued":
                changes = {"init": source("llama", torch.bfloat16)} | dict.fromkeys([*SMALL, "num_key_value_heads"],
                                                                                    ...)
            else:
                changes = {"tie_word_embeddings": kind == "tied"}
            train.main(run_words(data, out, **changes))
            made[kind] = out
        return made[kind]
    return build


def equals_the_final_model(out, exported):
    """Weights, config.json, tokenizer and generation settings are those that the run itself wrote at its end."""
    same_tensors(out, exported)
    final, ours = (json.loads((f / "config.json").read_text()) for f in (out, exported))
    assert ours == final and ModelConfig.from_pretrained(exported) == ModelConfig.from_pretrained(out)
    assert (exported / "generation_config.json").read_bytes() == (out / "generation_config.json").read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (exported / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize("kind", ["tied", "untied", "continued"])
def test_export_of_the_last_checkpoint_is_the_final_model(tmp_path, runs, kind):
    out = runs(kind)
    export(out / "checkpoints" / "step-00000003", tmp_path / "last", max_bytes=20_000)
    is_complete(tmp_path / "last", 20_000)
    equals_the_final_model(out, tmp_path / "last")
    loads_in_transformers(tmp_path / "last", out)
    export(out / "checkpoints" / "step-00000001", tmp_path / "first", max_bytes=20_000)
    first, last = tensors_of(tmp_path / "first"), tensors_of(tmp_path / "last")
    assert first.keys() == last.keys() and not any(torch.equal(first[n], last[n]) for n in last)


def test_a_continued_run_keeps_the_fields_of_its_beginning(runs, source):
    fields, before = (json.loads((f / "config.json").read_text())
                      for f in (runs("continued"), source("llama", torch.bfloat16)))
    assert {k: fields.get(k) for k in EXTRA} == EXTRA and fields["rope_parameters"] == before["rope_parameters"]


def test_export_from_a_run_that_was_stopped(tmp_path, runs):
    """No final model, no tokenizer in the run's folder: both are found from what the checkpoint says."""
    out = runs("untied")
    stopped_run = tmp_path / "stopped"
    shutil.copytree(out / "checkpoints", stopped_run / "checkpoints")
    shutil.copy(out / "run.json", stopped_run)
    export(stopped_run / "checkpoints" / "step-00000003", tmp_path / "last")
    equals_the_final_model(out, tmp_path / "last")


def test_a_checkpoint_loads_like_a_folder(runs):
    """To evaluate a run that goes on, no export is needed."""
    for kind in ("tied", "untied"):
        final, step = (Qwen2.from_pretrained(f) for f in (runs(kind), runs(kind) / "checkpoints" / "step-00000003"))
        wanted = dict(final.named_parameters())
        assert final.config == step.config and all(torch.equal(p, wanted[n]) for n, p in step.named_parameters())


def two_pieces(folder, second, offsets, dtype=torch.float32, info=None):
    """A checkpoint of two processes by hand: the tensor `model.norm.weight`, 32 rows in the first file, `second` in
    the other."""
    (folder / "tensors").mkdir(parents=True)
    for i, t in enumerate((torch.arange(128.).view(32, 4), second.to(dtype))):
        sharding = json.dumps({"model.norm.weight": {"saved_offsets": offsets if i else [0, 0]}})
        sharding = info if i and info is not None else sharding
        save_file({"model.norm.weight": t}, folder / "tensors" / f"shard-{i + 1:05}-model-00001-of-00001.safetensors",
                  metadata={"DCP_SHARDING_INFO": sharding})
    return folder


def test_pieces_are_put_together(tmp_path):
    stored = open_weights(two_pieces(tmp_path, torch.arange(12.).view(3, 4), [32, 0]))["model.norm.weight"]
    assert tuple(stored.shape) == (35, 4) and stored.dtype == torch.float32
    whole = torch.cat([torch.arange(128.), torch.arange(12.)]).view(35, 4)
    for first, last in ((0, 35), (30, 34), (3, 5), (32, 33), (35, 35)):
        assert torch.equal(stored.read(first, last), whole[first:last])


@pytest.mark.parametrize("second, offsets, more", [
    *[(torch.ones(3, 4), offsets, {}) for offsets in ([31, 0], [33, 0], [0, 0], [-3, 0], ["32", 0], [32.0, 0], [],
                                                      None)],
    (torch.ones(3, 5), [32, 0], {}), (torch.ones(3), [32], {}), (torch.ones(32, 4), [0, 4], {}),
    (torch.ones(3, 4), [32, 0], {"dtype": torch.float16}),
    *[(torch.ones(3, 4), [], {"info": info}) for info in ("", "{", "[]", "3", '{"model.norm.weight": 3}',
                                                          "[" * 100_000)]],
    ids=lambda x: f"{tuple(x.shape)}" if isinstance(x, torch.Tensor) else str(x)[:40])
def test_pieces_that_do_not_fit_are_refused(tmp_path, second, offsets, more):
    """Rows twice, rows nowhere, columns, other sizes: none may be read as something else."""
    with pytest.raises(ValueError) as e:
        open_weights(two_pieces(tmp_path / "step-00000003", second, offsets, **more))
    assert "step-00000003" in str(e.value)


def test_a_missing_last_piece_is_noticed(tmp_path):
    """The rows that are left look like a smaller matrix; only the manifest knows of the others."""
    step = two_pieces(tmp_path / "step-00000003", torch.ones(3, 4), [32, 0])
    files = sorted(step.rglob("*.safetensors"))
    sizes = {str(p.relative_to(step)): {"bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
             for p in files}
    (step / "manifest.json").write_text(json.dumps(sizes))
    assert tuple(open_weights(step)["model.norm.weight"].shape) == (35, 4)
    files[1].unlink()
    with pytest.raises(ValueError, match="step-00000003"):
        open_weights(step)


def test_export_of_a_checkpoint_in_bfloat16(tmp_path, runs):
    out = runs("tied")
    export(out / "checkpoints" / "step-00000003", tmp_path, dtype=torch.bfloat16)
    same_tensors(out, tmp_path, torch.bfloat16)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert "bfloat16" in (fields.get("dtype"), fields.get("torch_dtype"))


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_a_damaged_checkpoint_is_not_exported(tmp_path, runs, harm):
    step = shutil.copytree(runs("tied") / "checkpoints" / "step-00000003",
                           tmp_path / "run" / "checkpoints" / "step-00000003")
    harm(max(step.rglob("*.safetensors"), key=lambda p: p.stat().st_size))
    with pytest.raises(ValueError, match="step-00000003"):
        export(step, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def torchrun(root, words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180,
                          env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_export_from_two_processes(tmp_path, root, data, tied):
    """Each process wrote its own rows, in its own files; one process puts them together."""
    torchrun(root, [root / "train.py", *run_words(data, tmp_path / "run", tie_word_embeddings=tied, shard_size=2)])
    step = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert len(list(step.rglob("*.safetensors"))) >= 2
    export(step, tmp_path / "last", max_bytes=20_000)
    is_complete(tmp_path / "last", 20_000)
    equals_the_final_model(tmp_path / "run", tmp_path / "last")
    for i, file in enumerate(sorted(step.rglob("*.safetensors"))):  # half of the rows are not the model
        half = shutil.copytree(step, tmp_path / f"half-{i}" / "checkpoints" / step.name)
        (half / file.relative_to(step)).unlink()
        with pytest.raises(ValueError, match="step-00000003"):
            export(half, tmp_path / f"out-{i}")


# ---------------------------------------------------------------------- each process reads its own rows

READER = """
    import os, sys, torch, torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from safetensors.torch import load_file
    from model import ModelConfig, Qwen2

    def bytes_read():
        return int(open("/proc/self/io").read().split()[1])  # rchar: what read() returned, from the page cache too

    folder = sys.argv[1]
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    with torch.device("meta"):
        model = Qwen2(ModelConfig.from_pretrained(folder))
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    model.load_weights(folder)  # once for what the first call imports
    for p in model.parameters():
        p.detach().to_local().fill_(-1)
    before = bytes_read()
    model.load_weights(folder)
    here = sum(p.to_local().nbytes for p in model.parameters())
    os.write(1, f"read {dist.get_rank()} {bytes_read() - before} {here}\\n".encode())  # one write, or lines mix
    wanted = {}
    for file in os.listdir(folder):
        if file.endswith(".safetensors"):
            wanted |= load_file(os.path.join(folder, file))
    assert all(torch.equal(p.full_tensor(), wanted[n]) for n, p in model.named_parameters())
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
@pytest.mark.parametrize("family, max_bytes", [("qwen3", 1 << 30), ("qwen2", 1_000_000)])
def test_a_sharded_parameter_reads_only_its_own_rows(tmp_path, root, family, max_bytes):
    config = ModelConfig(model_type=family, vocab_size=4001, hidden_size=256, intermediate_size=511,
                         num_hidden_layers=2,
                         # 4001 and 511 are odd
                         num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=False)
    model = Qwen2(config).init_weights(0)
    model.save_pretrained(tmp_path / "folder", max_bytes=max_bytes)
    (tmp_path / "reader.py").write_text(textwrap.dedent(READER))
    said = torchrun(root, [tmp_path / "reader.py", tmp_path / "folder"])
    reads = [list(map(int, line.split()[1:])) for line in said.splitlines() if line.startswith("read ")]
    whole = sum(p.numel() * 4 for p in model.parameters())
    count = len(list(model.parameters()))
    assert sorted(r[0] for r in reads) == [0, 1] and sum(r[2] for r in reads) == whole
    for _, read, own in reads:  # and the headers, and the rest of a page for each tensor
        assert own <= read <= own + 16_384 * count < 0.8 * whole, (read, own, whole)
