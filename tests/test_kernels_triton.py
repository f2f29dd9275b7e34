"""The Triton kernels: interpreted (kernels_interpreted.py), compiled for GPUs that need not be here, run on a GPU."""
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

from test_kernels import definition, example, naive, random_rows, starts_of  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from bench import gpu, gpu_report, gpu_sweep, gpu_training, timing  # noqa: E402
from bench.gpu_checks import compare  # noqa: E402
from kernels import (  # noqa: E402
    attention,
    attention_triton,
    cross_entropy_triton,
    decode_triton,
    document_mask,
    rms_norm,
    rms_norm_triton,
    rope,
    rope_triton,
    swiglu,
    swiglu_triton,
    target_logprobs,
)
from kernels.attention import attention_reference  # noqa: E402
from kernels.decode_triton import decode  # noqa: E402
from kernels.rms_norm import rms_norm_reference  # noqa: E402
from kernels.rope import rope_reference  # noqa: E402
from kernels.swiglu import swiglu_reference  # noqa: E402
from model import ModelConfig  # noqa: E402
from training import estimate  # noqa: E402

ROOT = Path(__file__).parent.parent


def interpret(*options):
    """Run kernels_interpreted.py. One thread: the interpreter's numpy is slower with two."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-m", "pytest", "tests/kernels_interpreted.py", "-p", "no:cacheprovider",
                          *options],
                         cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and re.search(r"[1-9]\d* passed", run.stdout), run.stdout[-6000:] + run.stderr[-2000:]


def test_in_the_interpreter():
    interpret()


@pytest.mark.slow
def test_in_the_interpreter_at_length():
    interpret("-m", "slow")


# ---------------------------------------------------------------------- make gpu

ATTENTION = [f"attention_{part}_{kind}_d16_{rival}" for kind, rivals in (
    ("dense", ("FlexAttention", "cuDNN", "SDPA")), ("mean_12", ("FlexAttention", "cuDNN")))
    for rival in rivals for part in ("forward", "backward")]
DRY_ROWS = [
    *ATTENTION, "head_32_cross_entropy", "head_memory_32_cross_entropy", "head_32_Liger", "head_memory_32_Liger",
    *(f"{name}_{part}" for name in ("rms_norm", "swiglu", "rope") for part in ("forward", "backward")),
    "decode_d16", "tiny_base_1", "tiny_base_2", "train_slice_7B_1", "train_step_0.5B"]


@pytest.mark.slow
def test_make_gpu_dry(tmp_path):
    """The checks of bench/gpu_report.py pass in the interpreter, its timings have a row for every rival and its sweep
    ends with a table that can be pasted, so that the script works when there is a GPU.
    """
    run = subprocess.run([sys.executable, "-m", "bench.gpu_report", "dry=True", "minutes=60",
                          f"out={tmp_path}/gpu.jsonl"], cwd=ROOT,
                         env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    device, *records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert device["torch"] == torch.__version__ and device["triton"] == triton.__version__
    checks = [r for r in records if "check" in r]
    assert len(checks) == 6 and all(c["passed"] for c in checks) and checks[-1]["check"] == "resume"
    rows = {r["name"]: r for r in records if "name" in r}
    assert [*rows] == DRY_ROWS and not [r for r in records if "timing" in r]
    refused = {name for name in DRY_ROWS if name.endswith(("FlexAttention", "cuDNN", "Liger"))}  # no GPU, not installed
    assert {name for name, r in rows.items() if "not_run" in r} == refused and len(refused) == 10
    assert all((r["peer"] is None) == (name in refused or r["unit"] == "tokens/s") for name, r in rows.items())
    assert all(0 < r["floor"] for r in rows.values() if r["unit"] != "GiB")
    assert "cuDNN; not run: RuntimeError: " in run.stdout and "No module named 'liger_kernel'" in run.stdout
    *tiles, table = records[6 + len(rows):]
    assert len(tiles) == 6 and all(r["seconds"] > 0 for r in tiles) and sum(r["shipped"] for r in tiles) == 3
    pasted = ast.literal_eval("{" + table["value"] + "}")["cpu"][64]
    for part, name in enumerate(("forward", "dk and dv", "dq")):
        fastest = min((r for r in tiles if r["tile"] == name), key=lambda r: r["seconds"])
        assert pasted[part] == tuple(fastest["value"])
    assert table["value"] in run.stdout


def test_make_gpu_names_a_failed_check(tmp_path, monkeypatch, capsys):
    """The checks after it still run, and its error is in the file."""
    def check_wrong(setup):
        compare([torch.ones(3)], [torch.zeros(3)], setup.tolerance)

    def check_right(setup):
        return {"difference": compare([torch.ones(3)], [torch.ones(3)], setup.tolerance)}

    def sweep_wrong(device, deadline):
        yield {"tile": "forward", "seconds": 1.0}
        raise RuntimeError("no such tile")

    monkeypatch.setattr(gpu_report, "CHECKS", [check_wrong, check_right])
    monkeypatch.setattr(gpu_report.gpu_sweep, "sweep", sweep_wrong)
    monkeypatch.setattr(gpu, "GPU", {})
    monkeypatch.setattr(gpu_report.kernels_device, "INTERPRETED", True)
    assert gpu_report.main(["dry=True", f"out={tmp_path}/gpu.jsonl"]) == 1
    _, wrong, right, tile, swept = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert not wrong["passed"] and "relative difference" in wrong["error"]
    assert right == {"check": "right", "passed": True, "difference": 0.0, "seconds": right["seconds"]}
    assert tile["seconds"] == 1.0 and swept["error"] == "RuntimeError: no such tile"  # a failed check counts, not this
    assert "1 of 2" in capsys.readouterr().out


def test_make_gpu_ends_in_time(tmp_path, monkeypatch):
    """A timing that fails, or that comes after the deadline, is a line of the file; the others still run."""
    clock = iter(range(100))  # a minute at every look
    monkeypatch.setattr(gpu_report, "time", SimpleNamespace(monotonic=lambda: 60.0 * next(clock)))
    written = []

    def two_rows(device):
        yield {"name": "first"}
        yield {"name": "second"}

    def fails(device):
        raise ImportError("no such peer")
        yield

    monkeypatch.setattr(gpu, "GPU", {"one": two_rows, "two": fails, "three": two_rows})
    gpu_report.run_timings(written.append, "cpu", 60.0 * 4.5)
    assert written == [{"name": "first"}, {"name": "second"}, {"timing": "two", "error": "ImportError: no such peer"},
                       {"name": "first"}, {"timing": "three", "skipped": "no time left; more with minutes="}]


def test_a_rival_that_did_not_run_has_a_row_with_the_reason():
    """It refused, or computes something else; the others, and ours, are timed."""
    x = torch.ones(3, requires_grad=True)

    def refuses():
        warnings.warn("no kernel for this card", stacklevel=1)
        raise RuntimeError("not supported\nstack ...")

    rivals = {"refuses": refuses, "same": lambda: x + x, "other": lambda: 3 * x}
    results = list(gpu.beside(lambda: 2 * x, rivals, (x,), 1))
    assert [r[:2] for r in results] == [(name, part) for name in rivals for part in ("forward", "backward")]
    assert [r[3] is None for r in results] == [True, True, False, False, True, True]
    reasons = [r[4] for r in results[::2]]
    assert reasons[0] == "RuntimeError: not supported; no kernel for this card" and reasons[1] is None
    assert reasons[2].startswith("AssertionError: Tensor-likes are not close")
    shown = timing.format_row(timing.noted(timing.row("a", "b", 1.0, None, of="cuDNN"), reasons[0]))
    assert shown.endswith("peer: cuDNN; not run: RuntimeError: not supported; no kernel for this card")


def test_the_slice_of_7b_fits_the_smallest_card():
    config = ModelConfig(**estimate.SHAPES["Qwen2-7B"] | dict(num_hidden_layers=6))
    fits = gpu_training.rows_that_fit(config, 4096, estimate.USABLE * gpu_training.MEMORY)
    assert fits == 4 and gpu_training.rows_that_fit(config, 4096, 0) == 1


def test_a_wrong_tile_is_not_chosen(monkeypatch):
    """A tile whose result differs, or that is refused, is a record with its error; too late, the shipped one stays."""
    shipped = attention_triton.TILES["cpu"][64]
    monkeypatch.setattr(gpu_sweep, "INTERPRETED", {64: (((1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)), (), ())})
    seconds = {shipped[0]: 0.5, (3, 3, 3, 3): 0.4}

    def work():
        tile = attention_triton.TILES["cpu"][64][0]
        if tile == (2, 2, 2, 2):
            raise RuntimeError("out of resource: shared memory")
        return [torch.full((3,), 2.0 if tile == (1, 1, 1, 1) else 1.0)]

    monkeypatch.setattr(gpu_sweep, "functions", lambda device, D: (work, work, work))
    monkeypatch.setattr(gpu_sweep, "best_seconds",
                        lambda functions, n: [seconds.get(attention_triton.TILES["cpu"][64][0], 9)])
    *records, table = gpu_sweep.sweep("cpu", time.monotonic() + 60)
    assert [r.get("error", "").split(":")[0] for r in records[:4]] == ["", "AssertionError", "RuntimeError", ""]
    assert ast.literal_eval("{" + table["value"] + "}") == {"cpu": {64: ((3, 3, 3, 3), *shipped[1:])}}
    assert attention_triton.TILES["cpu"][64] == shipped and table["untried"] == 0
    table, = gpu_sweep.sweep("cpu", time.monotonic() - 1)
    assert ast.literal_eval("{" + table["value"] + "}") == {"cpu": {64: shipped}} and table["untried"] == 6


def test_make_gpu_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in ([], ["dry=True"]):
        with pytest.raises(ValueError, match="CUDA device"):
            gpu_report.main([*words, f"out={tmp_path}/gpu.jsonl"])


# ---------------------------------------------------------------------- compiled

CARDS = {"ampere": 80, "small": 89, "hopper": 90, "blackwell": 100}  # compute capability
SIXTEENS = {"C", "V", "kb", "kt", "kh", "vb", "vt", "vh"}  # sizes and strides that are multiples of 16 in every Qwen2
SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes of shared memory a block may have


def compiled(kernel, arch, types, constants, warps=4, stages=3):
    """(registers, stack bytes per thread, shared bytes, ptx) of a kernel; needs no GPU, because Triton brings ptxas.

    types: of the arguments that are neither pointers to bfloat16 (*_ptr, *_out) nor 32-bit integers. constants: the
    constexprs.
    """
    signature, constexprs, attrs = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], constexprs[(i,)] = "constexpr", constants[name]
        else:
            signature[name] = types.get(name, "*bf16" if name.endswith(("_ptr", "_out")) else "i32")
            if signature[name][0] == "*" or name in SIXTEENS:  # Triton finds this out at a launch
                attrs[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attrs)
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32),
                            options=dict(num_warps=warps, num_stages=stages))
    shared = binary.metadata.shared
    assert shared <= SHARED[arch], f"{shared} bytes of shared memory, sm_{arch} has {SHARED[arch]}"
    return *resources(binary.asm["cubin"]), shared, binary.asm["ptx"]


def resources(cubin):
    """(registers, stack bytes per thread); ptxas spills to the stack."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return [int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK")]


FLASH = [attention_triton.forward_kernel, attention_triton.dkdv_kernel, attention_triton.dq_kernel]
DEFAULT = {("hopper", 128)}  # the rest is slow


@pytest.mark.parametrize("which", [0, 1, 2], ids=["forward", "dkdv", "dq"])
@pytest.mark.parametrize("card, D", [pytest.param(c, D, marks=() if (c, D) in DEFAULT else pytest.mark.slow)
                                     for c in CARDS for D in (64, 128)])
def test_attention_compiles(card, D, which):
    """No spills, except 64 bytes in dk and dv at D = 128; Hopper uses wgmma and its copy engine."""
    registers, stack, ptx = compiled_attention(card, D, which, attention_triton.TILES[card][D][which])
    copy = card in ("hopper", "blackwell")
    assert stack <= (64 if (which, D) == (1, 128) else 0), f"{registers} registers, {stack} bytes spilled"
    assert ("wgmma.mma_async" in ptx) == (card == "hopper") and ("tcgen05.mma" in ptx) == (card == "blackwell")
    assert ("cp.async.bulk.tensor" in ptx) == copy and "cp.async" in ptx  # loads the next tile during the product


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 2], ids=["forward", "dkdv", "dq"])
@pytest.mark.parametrize("D", [64, 128])
def test_tiles_of_the_sweep_compile(D, which):
    """Without spills, as what make gpu prints is to be pasted."""
    for tile in gpu_sweep.CANDIDATES[D][which]:
        registers, stack, _ = compiled_attention("hopper", D, which, tile)
        assert stack == 0, f"{tile}: {registers} registers, {stack} bytes spilled"


def compiled_attention(card, D, which, tile):
    """(registers, stack bytes per thread, ptx) of one of the three kernels of attention."""
    (M, N, warps, stages), arch, copy = tile, CARDS[card], card in ("hopper", "blackwell")
    types = {"starts_ptr": "*i32", "ends_ptr": "*i32", "lse_ptr": "*fp32", "delta_ptr": "*fp32", "scale": "fp32",
             "root": "fp32"}
    if copy:
        rows = {"q_ptr": M, "do_ptr": M, "k_ptr": N, "v_ptr": N}
        types |= {name: f"tensordesc<bf16[1, {n}, 1, {D}]>" for name, n in rows.items()}
    registers, stack, _, ptx = compiled(FLASH[which], arch, types, dict(D=D, M=M, N=N, COPY=copy), warps, stages)
    return registers, stack, ptx


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 2], ids=["forward", "dkdv", "dq"])
@pytest.mark.parametrize("card, D", [(c, D) for c in ("small", "hopper") for D in (64, 128)])
def test_attention_in_float32_compiles(card, D, which):
    M, N, warps, stages = attention_triton.TILES["float32"][D][which]
    pointers = {n: "*fp32" for n in FLASH[which].arg_names if n.endswith("_ptr")}
    types = pointers | {"starts_ptr": "*i32", "ends_ptr": "*i32", "scale": "fp32", "root": "fp32"}
    _, stack, _, _ = compiled(FLASH[which], CARDS[card], types, dict(D=D, M=M, N=N, COPY=False), warps, stages)
    assert stack <= (64 if (which, D) == (1, 128) else 0)


ROWS, BLOCK, WARPS = rms_norm_triton.tile(3584)
F = "*fp32"
OTHERS = {  # (kernel, types, constants, warps) at the shapes of Qwen2-7B
    "delta": (attention_triton.delta_kernel, {"delta_ptr": F}, dict(D=128, M=64), 4),
    "rms_norm": (rms_norm_triton.forward_kernel, {"rstd_ptr": F, "eps": "fp32"},
                 dict(ROWS=ROWS, BLOCK=BLOCK, ADD=True), WARPS),
    "rms_norm backward": (rms_norm_triton.backward_kernel, {"rstd_ptr": F, "dw_ptr": F},
                          dict(ROWS=ROWS, BLOCK=BLOCK, ADD=True), WARPS),
    "swiglu": (swiglu_triton.forward_kernel, {}, dict(BLOCK=4096), 8),
    "swiglu backward": (swiglu_triton.backward_kernel, {}, dict(BLOCK=4096), 8),
    "rope": (rope_triton.rope_kernel, {"sign": "fp32"}, dict(D=128, HB=32, KB=4), 4),
    "rows": (cross_entropy_triton.logprob_kernel, {"target_ptr": "*i64", "g_ptr": F, "logp_ptr": F},
             dict(GRADIENT=True, EVEN=False, BLOCK=8192), 16),
    "decode": (decode_triton.split_kernel, {"starts_ptr": "*i32", "prefix_ptr": "*i32", "acc_ptr": F, "max_ptr": F,
                                            "total_ptr": F, "scale": "fp32"}, dict(D=128, R=16, N=64), 4),
    "decode combine": (decode_triton.combine_kernel, {"acc_ptr": F, "max_ptr": F, "total_ptr": F},
                       dict(SPLITS=48, BLOCK=64, D=128), 4),
}


@pytest.mark.parametrize("arch", [90, *(pytest.param(a, marks=pytest.mark.slow) for a in (80, 89, 100))])
@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels_compile(name, arch):
    kernel, types, constants, warps = OTHERS[name]
    registers, stack, _, _ = compiled(kernel, arch, types, constants, warps, 2)
    assert stack == 0, f"{registers} registers, {stack} bytes spilled"


# ---------------------------------------------------------------------- on a GPU

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def near(ours, wanted, tolerance):
    for a, b in zip(ours, wanted, strict=True):
        assert (a.double().cpu() - b.double().cpu()).norm() <= tolerance * b.double().norm().cpu()


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 1e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)])
@pytest.mark.parametrize("D", [16, 64, 128])
@pytest.mark.parametrize("H, K", [(1, 1), (8, 2), (6, 1), (7, 1), (8, 1)])
def test_attention_on_a_gpu(H, K, D, dtype, tolerance):
    """Random documents against float64, and the same bits ten times: no races."""
    starts = starts_of(random_rows(D + H, 2, 700))
    q, k, v = (torch.randn(2, 700, heads, D, device="cuda", dtype=dtype, requires_grad=True) for heads in (H, K, K))
    up = torch.randn_like(q)

    def run():
        out = attention(q, k, v, document_mask(starts.cuda()))
        return [out, *torch.autograd.grad(out, (q, k, v), up)]

    ours = run()
    doubles = [x.detach().cpu().double().requires_grad_() for x in (q, k, v)]
    wanted = naive(*doubles, starts)
    near(ours, [wanted, *torch.autograd.grad(wanted, doubles, up.cpu().double())], tolerance)
    assert all(torch.equal(a, b) for _ in range(10) for a, b in zip(ours, run()))


@on_gpu
@pytest.mark.gpu
def test_the_other_kernels_on_a_gpu():
    """bfloat16 against float64; float32 sums over vocabulary and rows; the same bits twice."""
    def run(function, *inputs):
        out = function(*inputs)
        outs = out if isinstance(out, tuple) else (out,)
        wrt = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
        return [*outs, *torch.autograd.grad(outs, wrt, [torch.ones_like(o) for o in outs])]

    def leaf(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    angle = torch.rand(2, 300, 1, 64, device="cuda").repeat(1, 1, 1, 2)
    cases = [(rms_norm, rms_norm_reference, (leaf(600, 896), leaf(896), 1e-6)),
             (swiglu, swiglu_reference, (leaf(600, 4864), leaf(600, 4864))),
             (rope, rope_reference,
              (leaf(2, 300, 14, 128), leaf(2, 300, 2, 128), angle.cos(), angle.sin()))]
    for ours, reference, inputs in cases:
        doubles = [x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x
                   for x in inputs]
        first = run(ours, *inputs)
        near(first, run(reference, *doubles), 1e-2)
        assert all(torch.equal(a, b) for a, b in zip(first, run(ours, *inputs)))


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("upstream", ["ones", "uneven"])
def test_target_logprobs_on_a_gpu(upstream):
    x, w, targets, g = example(5000, 9000, dtype=torch.bfloat16)  # two chunks
    x, w = x.detach().cuda().requires_grad_(), w.detach().cuda().requires_grad_()
    up = torch.ones(5000) if upstream == "ones" else torch.randn(5000, generator=g)
    logp = target_logprobs(x, w, targets.cuda())
    x64, w64 = (t.detach().cpu().bfloat16().double().requires_grad_() for t in (x, w))
    wanted = definition(x64, w64, targets)
    theirs = torch.autograd.grad(wanted, (x64, w64), up.double())
    near([logp, *torch.autograd.grad(logp, (x, w), up.cuda())], [wanted, *theirs], 1e-2)


@on_gpu
@pytest.mark.gpu
def test_decode_on_a_gpu():
    sizes = ((3, 14), (3000, 2), (3000, 2))
    q, k, v = (torch.randn(2, n, heads, 128, device="cuda", dtype=torch.bfloat16) for n, heads in sizes)
    starts, prefix = torch.tensor([[2000, 2000, 2999], [0, 0, 0]], device="cuda"), torch.tensor([500, 0], device="cuda")
    wanted = attention_reference(q.double(), k.double(), v.double(), starts, prefix)
    near([decode(q, k, v, starts, prefix)], [wanted], 1e-2)
