"""What must hold on a GPU before a timing there means anything: each check returns its figures or raises."""
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import kernels
from bench.gpu_resume import check_resume
from generate import generate
from kernels import device as kernels_device
from kernels.attention import attention_reference
from kernels.rms_norm import rms_norm_reference
from kernels.rope import rope_reference
from kernels.swiglu import swiglu_reference
from model import ModelConfig, Qwen2


class Setup:
    """Where and how large the checks are: on a GPU in bfloat16, in the interpreter in float32."""

    def __init__(self, dry: bool):
        self.device = "cpu" if dry else "cuda"
        self.dtype = torch.float32 if dry else torch.bfloat16
        self.tolerance = 2e-6 if dry else 1e-2  # of the norm of the difference, relative
        self.T, self.D, self.V = (40, 16, 50) if dry else (700, 128, 5000)
        shape = dict(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1, head_dim=16)
        if not dry:
            shape = dict(hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_key_value_heads=2)
        self.config = ModelConfig(vocab_size=self.V, num_hidden_layers=1 if dry else 4, **shape)

    def randn(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=self.dtype, requires_grad=True)

    def starts(self):
        """(1, T): three documents."""
        T = self.T
        return torch.tensor([[t // (T // 3) * (T // 3) for t in range(T)]], device=self.device)

    def tokens(self):
        return torch.randint(self.V, (1, self.T), device=self.device)


def with_grads(function, *inputs):
    """The outputs of a function and the gradients of their sum with respect to its tensors."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    wanted = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    return [*outputs, *torch.autograd.grad([y.sum() for y in outputs], wanted)]


def compare(ours, expected, tolerance):
    """The largest relative difference of two lists of tensors; AssertionError if it is above the tolerance."""
    worst = 0.0
    for a, b in zip(ours, expected, strict=True):
        a, b = (x.detach().cpu().double() for x in (a, b))
        size = max(float(b.norm()), 0.1 * b.numel() ** 0.5)  # what should be 0 is compared absolutely
        worst = max(worst, float((a - b).norm()) / size)
    assert worst <= tolerance, f"relative difference {worst:.1e}, at most {tolerance:.0e} expected"
    return worst


def doubles(inputs):
    return [x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x for x in inputs]


def on_pytorch(function):
    """Call a function without the Triton kernels."""
    kernels_device.TRITON = False
    try:
        return function()
    finally:
        kernels_device.TRITON = True


# ---------------------------------------------------------------------- checks

def check_kernels(b):
    """Every operation, values and gradients, against float64."""
    starts = b.starts()
    mask = kernels.document_mask(starts)
    angle = torch.rand(1, b.T, 1, b.D // 2, device=b.device).repeat(1, 1, 1, 2)
    cos, sin = angle.cos().to(b.dtype), angle.sin().to(b.dtype)
    cases = [
        (lambda q, k, v: kernels.attention(q, k, v, mask), lambda q, k, v: attention_reference(q, k, v, starts),
         [b.randn(1, b.T, heads, b.D) for heads in (4, 2, 2)]),
        (kernels.rms_norm, rms_norm_reference, [b.randn(b.T, 96), b.randn(96), 1e-6]),
        (kernels.add_rms_norm, lambda x, r, w, eps: (x + r, rms_norm_reference(x + r, w, eps)),
         [b.randn(b.T, 96), b.randn(b.T, 96), b.randn(96), 1e-6]),
        (kernels.swiglu, swiglu_reference, [b.randn(b.T, 300), b.randn(b.T, 300)]),
        (kernels.rope, rope_reference, [b.randn(1, b.T, 4, b.D), b.randn(1, b.T, 2, b.D), cos, sin])]
    worst = [compare(with_grads(ours, *inputs), with_grads(reference, *doubles(inputs)), b.tolerance)
             for ours, reference, inputs in cases]
    return {"difference": max(worst)}


def check_repeatable(b):
    """Two runs of attention and its backward give the same bits: no races."""
    mask = kernels.document_mask(b.starts())
    inputs = [b.randn(1, b.T, heads, b.D) for heads in (4, 2, 2)]
    runs = [with_grads(lambda q, k, v: kernels.attention(q, k, v, mask), *inputs) for _ in range(2)]
    assert all(torch.equal(x, y) for x, y in zip(*runs)), "two runs differ"


def loss_and_grads(model, tokens, starts):
    logp = model(tokens, tokens.roll(-1, 1), starts)
    return [logp.detach(), *torch.autograd.grad(-logp.sum() / tokens.numel(), list(model.parameters()))]


def check_model(b):
    """The model's loss and gradients with and without the kernels, and against float32 on the CPU."""
    model, tokens, starts = Qwen2(b.config, b.dtype).init_weights(0).to(b.device), b.tokens(), b.starts()
    ours = loss_and_grads(model, tokens, starts)
    eager = on_pytorch(lambda: loss_and_grads(model, tokens, starts))
    cpu = Qwen2(b.config).init_weights(0)
    exact = on_pytorch(lambda: loss_and_grads(cpu, tokens.cpu(), starts.cpu()))
    tolerance = 10 * b.tolerance  # of a whole model in this dtype
    return {"to PyTorch": compare(ours, eager, tolerance), "to the CPU": compare(ours, exact, tolerance)}


def check_decode(b):
    """Greedy decoding with the cache gives the ids that full forwards give."""
    model = Qwen2(b.config).init_weights(0).to(b.device).eval()  # float32: no ties
    prompts = [list(range(1, 9)), [3]]
    outputs = generate(model, prompts, 3)
    for prompt, output in zip(prompts, outputs):
        for i, token in enumerate(output):
            context = torch.tensor([prompt + output[:i]], device=b.device)
            with torch.no_grad():
                assert int(model.logits(context).argmax()) == token, f"id {i} after a prompt of {len(prompt)}"


def check_fsdp(b):
    """FSDP2 in one process, around the Triton operations: the gradients of the plain model."""
    tokens, starts = b.tokens(), b.starts()
    plain = loss_and_grads(Qwen2(b.config, b.dtype).init_weights(0).to(b.device), tokens, starts)
    store = dist.HashStore()
    dist.init_process_group("gloo" if b.device == "cpu" else "nccl", store=store, rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh(b.device, (1,))
        model = Qwen2(b.config, b.dtype).init_weights(0).to(b.device)
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        logp = model(tokens, tokens.roll(-1, 1), starts)
        (-logp.sum() / tokens.numel()).backward()
        sharded = [logp.detach(), *(p.grad.full_tensor() for p in model.parameters())]
        return {"difference": compare(sharded, plain, b.tolerance)}
    finally:
        dist.destroy_process_group()


CHECKS = [check_kernels, check_repeatable, check_model, check_decode, check_fsdp, check_resume]
