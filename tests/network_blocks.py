"""What random networks are made of: blocks as people write them, over images, tokens and vectors.

Images are `(N, C, *positions)` with one to three dimensions of positions, tokens `(N, L, C)`, vectors `(N, C)`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu in place": lambda: nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


def batch_norm(dims, channels):
    norm = BATCH_NORM[dims](channels)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -1, 1)
    return norm


def tiny(module):
    """Norms begin with ones and zeros, which would hide a mix-up."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module


class ChannelsLast(nn.Module):
    """A layer norm over the channels of an image, as in ConvNeXt."""

    def __init__(self, dims, channels):
        super().__init__()
        self.order = (0, *range(2, dims + 2), 1)
        self.back = (0, dims + 1, *range(1, dims + 1))
        self.norm = tiny(nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(*self.order)).permute(*self.back)


class Residual(nn.Module):
    def __init__(self, inner, in_place):
        super().__init__()
        self.inner = inner
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        if self.in_place:
            out = out.clone()
            out += x
            return out
        return x + out


class Projected(nn.Module):
    """A residual block with another layer on the skip."""

    def __init__(self, inner, skip):
        super().__init__()
        self.inner = inner
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.skip(x)


class Concat(nn.Module):
    """Branches side by side, along the channels."""

    def __init__(self, dim, *branches):
        super().__init__()
        self.dim = dim
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], self.dim)


class Dense(nn.Module):
    """Every input is kept and the new features stand beside it, as in DenseNet."""

    def __init__(self, dim, *layers):
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=self.dim)
        return x


class Twice(nn.Module):
    """One module, called twice."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x))


class Gated(nn.Module):
    """One half of the channels gates the other."""

    def __init__(self, dim, way):
        super().__init__()
        self.dim = dim
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "glu":
            return F.glu(x, dim=self.dim)
        if self.way == "split":
            a, b = x.split(x.shape[self.dim] // 2, dim=self.dim)
        elif self.way == "slice" and self.dim == 1:
            half = x.size(1) // 2
            a, b = x[:, :half], x[:, half:]
        else:
            a, b = x.chunk(2, dim=self.dim)
        return a * b.sigmoid()


class SplitByAttribute(nn.Module):
    """Goes apart where attributes say, and together again."""

    def __init__(self, dim, channels, first, inner):
        super().__init__()
        self.dim = dim
        self.sizes = [first, channels - first]
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, self.sizes, dim=self.dim)
        return torch.cat([self.inner(a), b], dim=self.dim)


class SplitByNumber(nn.Module):
    """The same, with the number in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 2:], x[:, :2].tanh()], dim=1)


class HalfBranch(nn.Module):
    """Half of the channels goes through a block, then all are shuffled, as in ShuffleNetV2."""

    def __init__(self, inner, groups):
        super().__init__()
        self.inner = inner
        self.shuffle = Shuffle(groups)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return self.shuffle(torch.cat((kept, self.inner(changed.clone())), dim=1))


class Shuffle(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        x = x.reshape(n, self.groups, c // self.groups, *x.shape[2:])
        return x.transpose(1, 2).reshape(n, c, *x.shape[3:])


class SqueezeExcite(nn.Module):
    def __init__(self, dims, channels, hidden, way):
        super().__init__()
        self.way = way
        self.dims = tuple(range(2, dims + 2))
        self.reduce = CONV[dims](channels, hidden, 1) if way == "conv" else nn.Linear(channels, hidden)
        self.expand = CONV[dims](hidden, channels, 1) if way == "conv" else nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "conv":
            return x * self.expand(self.reduce(x.mean(self.dims, keepdim=True)).relu_()).sigmoid()
        n, c = x.shape[:2]
        gate = self.expand(F.relu(self.reduce(x.flatten(2).mean(-1)))).sigmoid()
        return x.mul(gate.view(n, c, *[1] * len(self.dims)))


class SpatialAttention(nn.Module):
    """Looks at the largest and the mean of the channels, as CBAM does."""

    def __init__(self, dims, largest):
        super().__init__()
        self.largest = largest
        self.conv = CONV[dims](1 + largest, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x.mean(1, keepdim=True)
        if self.largest:
            seen = torch.cat([seen, x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(seen).sigmoid()


class NormByHand(nn.Module):
    """A layer norm that is written out."""

    def __init__(self, channels, biased):
        super().__init__()
        self.biased = biased
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, False, True) if self.biased else x.var(dim=-1, keepdim=True)
        return self.weight * (x - mean) * torch.rsqrt(variance + 1e-3)


class MeanBySum(nn.Module):
    """Takes away the mean of the channels, which it computes from their number."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.sum(-1, keepdim=True) / x.shape[-1]


class LayerScale(nn.Module):
    """A raw parameter for each channel."""

    def __init__(self, shape, in_place):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(shape))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        return x.clone().mul_(self.gamma) if self.in_place else x * self.gamma


class ChannelMixing(nn.Module):
    """A raw weight and `einsum`."""

    def __init__(self, equation, inputs, outputs):
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, self.weight)


class Windows(nn.Module):
    """Works inside windows of an image, as Swin does."""

    def __init__(self, size, inner):
        super().__init__()
        self.size = size
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.size
        windows = x.permute(0, 2, 3, 1).view(n, h // s, s, w // s, s, c)
        windows = windows.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, s * s, c)
        windows = self.inner(windows)
        windows = windows.view(n, h // s, w // s, s, s, -1).permute(0, 1, 3, 2, 4, 5)
        return windows.reshape(n, h, w, -1).permute(0, 3, 1, 2)


class ToTokens(nn.Module):
    """Positions become tokens; maybe with a class token and an embedding of positions."""

    def __init__(self, channels, length, class_token, positions):
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, channels)) if class_token else None
        self.positions = nn.Parameter(torch.randn(1, length + class_token, channels)) if positions else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x if self.positions is None else x + self.positions


class ToImage(nn.Module):
    """Tokens become positions along one dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous()


class ToVector(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        match self.way:
            case "flatten":
                return torch.flatten(x, 1)
            case "view":
                return x.contiguous().view(x.size(0), -1)
            case "mean of positions":
                return x.flatten(2).mean(-1)
            case "largest of positions":
                return x.flatten(2).amax(-1)
            case "mean of tokens":
                return x.mean(dim=1)
            case "first token":
                return x[:, 0]


class FeedForward(nn.Module):
    def __init__(self, channels, hidden, gated):
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(channels, 2 * hidden if gated else hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            x, gate = x.chunk(2, -1)
            return self.fc2(x * F.silu(gate))
        return self.fc2(F.gelu(x))


class TokenMixing(nn.Module):
    """A layer along the tokens, as in MLP-Mixer."""

    def __init__(self, length, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(length, hidden), nn.Linear(hidden, length)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x.transpose(-2, -1)).relu()).transpose(-2, -1)


class SelfAttention(nn.Module):
    """torch's own."""

    def __init__(self, channels, heads, bias, weights):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, bias=bias, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


class FusedAttention(nn.Module):
    """Written by hand: one layer makes queries, keys and values."""

    def __init__(self, channels, heads, length, way, relative):
        super().__init__()
        self.num_heads = heads
        self.head_dim = channels // heads
        self.way = way
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias=relative)
        self.proj = nn.Linear(channels, channels)
        self.relative = nn.Parameter(torch.randn(heads, length, length)) if relative else None

    def forward(self, x: Tensor) -> Tensor:
        n, length, c = x.shape
        if self.way == "fused":
            qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        elif self.way == "from the input's size":
            qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
        else:
            q, k, v = (
                part.view(n, length, self.num_heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
            )
        if self.way == "chunks, torch's kernel":
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.relative)
        else:
            scale = q.size(-1) ** -0.5 if self.way == "from the input's size" else self.scale
            scores = (q * scale) @ k.transpose(-2, -1)
            scores = scores if self.relative is None else scores + self.relative
            out = scores.softmax(dim=-1) @ v
        out = out.transpose(1, 2)
        return self.proj(out.reshape(n, length, c) if self.way == "from the input's size" else out.flatten(2))


class GroupedQueries(nn.Module):
    """Several query heads share a head of keys and values."""

    def __init__(self, channels, heads, shared, head_dim, way):
        super().__init__()
        self.num_heads = heads
        self.num_key_value_heads = heads // shared
        self.shared = shared
        self.head_dim = head_dim
        self.way = way
        self.q_proj = nn.Linear(channels, heads * head_dim)
        self.k_proj = nn.Linear(channels, heads // shared * head_dim)
        self.v_proj = nn.Linear(channels, heads // shared * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q = self.q_proj(x).view(n, length, -1, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(n, length, -1, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(n, length, -1, self.head_dim).transpose(1, 2)
        if self.way == "enable_gqa":
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            if self.way == "expand":
                k, v = (self.repeated(part) for part in (k, v))
            else:
                k, v = (part.repeat_interleave(self.shared, dim=1) for part in (k, v))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(n, length, -1))

    def repeated(self, part: Tensor) -> Tensor:
        n, heads, length, width = part.shape
        part = part[:, :, None].expand(n, heads, self.shared, length, width)
        return part.reshape(n, heads * self.shared, length, width)


class EinsumAttention(nn.Module):
    """Heads are a dimension of raw weights."""

    def __init__(self, channels, heads, head_dim):
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(channels, heads, head_dim) / channels**0.5 for _ in range(3))
        self.out = nn.Parameter(torch.randn(heads, head_dim, channels) / channels**0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("nlc,chd->nhld", x, weight) for weight in self.weights)
        scores = torch.einsum("nhld,nhmd->nhlm", q, k).softmax(-1)
        return torch.einsum("nhlm,nhmd,hdc->nlc", scores, v, self.out)


class Recurrent(nn.Module):
    """torch's recurrent layers, whose output is projected."""

    def __init__(self, kind, channels, hidden, outputs, layers, bidirectional):
        super().__init__()
        self.rnn = getattr(nn, kind)(channels, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(hidden * (1 + bidirectional), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


class Tied(nn.Module):
    """Two layers with one weight: down, and up again with the transposed weight."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.down = nn.Linear(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.down(x).tanh(), self.down.weight.t())


class SharedWeight(nn.Module):
    """Two modules that hold one parameter."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.second = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


class SeveralOutputs(nn.Module):
    """A model with heads for the result and for an intermediate feature."""

    def __init__(self, body, head, auxiliary):
        super().__init__()
        self.body, self.head, self.auxiliary = body, head, auxiliary

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        return {"out": self.head(x), "auxiliary": self.auxiliary(x)}
