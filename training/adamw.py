"""AdamW with float32 weights and, for less memory, moments in bfloat16 or 8 bits.

    moments     bytes/parameter, both      a matrix's moments are stored as
    float32     8                          float32, updated by torch's fused AdamW
    bfloat16    4                          bfloat16
    int8        2.03                       8-bit codes and a float32 scale per block of up to 256 values of a row

The step is computed in float32. In int8 the scale is the block's largest magnitude and codes are uniform in the
fourth root: m = scale (code / 127)^4 with code's sign, v = scale (code / 255)^4. So v, whose root divides the step, has
values down to 2e-10 of the block's largest and is 0 only where the whole block is. 8-bit Adam (Dettmers et al. 2021,
arXiv 2110.02861), as in bitsandbytes and torchao, also uses blocks of 256, but looks up a table of 256 values
where we take roots. Vectors, 0.01 % of a model, stay in float32 (there: tensors of fewer than 4,096 values). No block
spans two rows: FSDP2 shards by rows, so any number of processes stores and reads the same codes.

Rounding is stochastic: up with probability equal to the remainder. v moves by 1 - beta2 of its distance to g^2, often
less than half a step: rounding to nearest would freeze it, in bfloat16 at beta2 = 0.999 forever. m is rounded the same
way: if it froze while v falls, the weight would take ever larger steps. The random numbers depend only on step, row and
column, so replicas, any sharding and a resumed run round alike.
"""
import torch
from torch import Tensor
from torch.distributed import tensor as dtensor

from model import local_rows

BLOCK = 256       # values that share a scale, at most
SHORTEST = 32     # minimum block; a row that only divides into shorter ones is one block
PERIOD = 1 << 22  # of the random numbers; also the values a GPU updates at a time
MOMENTS = ("exp_avg", "exp_avg_sq")


def parameter_groups(model, c) -> list[dict]:
    """The trained parameters; weight decay on matrices only."""
    if c.first_new_id:  # without decay, a row whose gradient is always 0 keeps its bits
        model.requires_grad_(False)
        embeddings = {model.model.embed_tokens.weight, model.lm_head.weight}  # one when tied
        return [{"params": [p.requires_grad_() for p in embeddings], "weight_decay": 0.0}]
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
    return [{"params": matrices, "weight_decay": c.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def make_optimizer(model, c) -> torch.optim.Optimizer:
    groups, betas = parameter_groups(model, c), (c.beta1, c.beta2)
    if c.moments == "float32":
        return torch.optim.AdamW(groups, lr=c.lr, betas=betas, fused=True)
    return LowBitAdamW(groups, c.lr, betas, c.moments)


def blocks_of(columns: int) -> int:
    """Blocks in a row: as few as divide it evenly into at most BLOCK values."""
    fewest = next(n for n in range(-(-columns // BLOCK), columns + 1) if columns % n == 0)
    return fewest if columns // fewest >= min(SHORTEST, columns) else 1


def new_state(p, moments: str) -> dict:
    """{"step"; the two moments, zeros shaped and sharded like p; in int8 "exp_avg_scale" and so on (rows, blocks)}."""
    if moments == "float32" or p.ndim == 1:
        device = p.device if moments == "float32" else "cpu"  # torch's kernel needs it there; ours does not
        return {"step": torch.zeros((), device=device)} | {name: torch.zeros_like(p) for name in MOMENTS}
    state = {"step": torch.zeros(())}
    for name, dtype in zip(MOMENTS, (torch.int8, torch.uint8)):
        state[name] = torch.zeros_like(p, dtype=dtype if moments == "int8" else torch.bfloat16)
        if moments == "int8":
            sharded = isinstance(p, dtensor.DTensor)
            where = dict(device_mesh=p.device_mesh, placements=p.placements) if sharded else dict(device=p.device)
            zeros = dtensor.zeros if sharded else torch.zeros
            state[f"{name}_scale"] = zeros((p.shape[0], blocks_of(p.shape[1])), **where)
    return state


def moment_tensors(optimizer, p) -> dict:
    """{name: tensor} of a parameter's moments; zeros where AdamW has not made them yet."""
    state = optimizer.state[p]
    if not state:
        state.update(new_state(p, getattr(optimizer, "moments", "float32")))
    return {name: tensor for name, tensor in state.items() if name != "step"}


def moment_bytes(model, c) -> int:
    """Bytes of all moments of a run; the model may be on the meta device."""
    parameters = [p for group in parameter_groups(model, c) for p in group["params"]]
    return sum(t.nbytes for p in parameters for name, t in new_state(p, c.moments).items() if name != "step")


class LowBitAdamW(torch.optim.Optimizer):
    def __init__(self, groups, lr: float, betas: tuple[float, float], moments: str, eps: float = 1e-8):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self.moments, self.noise = moments, None

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, group)

    def update(self, p, group):
        """Some rows at a time, to stay in a CPU's cache and keep the float32 copies on a GPU small."""
        kept = {name: local_rows(t)[0] for name, t in moment_tensors(self, p).items()}
        (weight, first), grad, state = local_rows(p), local_rows(p.grad)[0], self.state[p]
        state["step"] += 1
        step, lr, (beta1, beta2), columns = int(state["step"]), group["lr"], group["betas"], p.shape[1:].numel()
        rows = max(1, (PERIOD if weight.is_cuda else 1 << 16) // columns)
        for i in range(0, len(weight), rows):
            w, g, part = weight[i:i + rows], grad[i:i + rows], {name: t[i:i + rows] for name, t in kept.items()}
            m, v = (read(part[name], part.get(f"{name}_scale")) for name in MOMENTS)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = v.sqrt().mul_((1 - beta2 ** step) ** -0.5).add_(group["eps"])
            w.mul_(1 - lr * group["weight_decay"]).addcdiv_(m, denominator, value=-lr / (1 - beta1 ** step))
            for n, (name, x) in enumerate(zip(MOMENTS, (m, v))):
                if part[name].dtype != torch.float32:
                    noise = self.random((first + i) * columns + (2 * step + n) * 2654435761, x)
                    write(x, part[name], part.get(f"{name}_scale"), noise)

    def random(self, place, x):
        """Random integers in [0, 2^16), shaped like x: a fixed sequence from this offset, modulo its period."""
        if self.noise is None or self.noise.device != x.device:
            generator = torch.Generator().manual_seed(0)
            sequence = torch.randint(1 << 16, (PERIOD,), generator=generator, dtype=torch.int32)
            self.noise = torch.cat([sequence, sequence]).to(x.device)
        place %= PERIOD
        return self.noise[place:place + x.numel()].view_as(x)


def read(stored: Tensor, scale: Tensor | None) -> Tensor:
    """A moment's values in float32; the stored tensor itself, not a copy, where it is float32."""
    x = stored.float()
    if scale is None:
        return x
    x.div_(torch.iinfo(stored.dtype).max)
    x = x.abs().mul_(x)
    x = x.abs().mul_(x)
    return x.view(*scale.shape, -1).mul_(scale[..., None]).view_as(stored)


def write(x: Tensor, stored: Tensor, scale: Tensor | None, noise: Tensor):
    """Store values (rows, columns), in place; destroys x. noise: random integers in [0, 2^16)."""
    if scale is None:  # bfloat16 is float32's upper half: noise added to its lower half carries with the right odds
        stored.copy_(x.view(torch.int32).add_(noise).bitwise_and_(-1 << 16).view(torch.float32))
        return
    blocks = x.view(*scale.shape, -1)
    torch.amax(blocks.abs(), -1, out=scale)
    blocks.div_(scale.clamp(min=torch.finfo().tiny)[..., None])
    codes = x.abs().sqrt_().sqrt_().copysign_(x).mul_(torch.iinfo(stored.dtype).max)
    codes.add_(noise, alpha=2 ** -16).floor_()
    if stored.dtype == torch.uint8:
        codes.clamp_(min=1)  # a small v must not become 0: the step is divided by its root
    stored.copy_(codes)
