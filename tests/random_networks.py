"""Random networks for property tests, drawn as *recipes*: nested tuples that print well and are built by `build`."""

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from network_blocks import (
    ACTIVATIONS,
    AVG_POOL,
    CONV,
    MAX_POOL,
    TRANSPOSED,
    ChannelMixing,
    ChannelsLast,
    Concat,
    Dense,
    EinsumAttention,
    FeedForward,
    FusedAttention,
    Gated,
    GroupedQueries,
    HalfBranch,
    LayerScale,
    MeanBySum,
    NormByHand,
    Projected,
    Recurrent,
    Residual,
    SelfAttention,
    SeveralOutputs,
    SharedWeight,
    Shuffle,
    SpatialAttention,
    SplitByAttribute,
    SplitByNumber,
    SqueezeExcite,
    Tied,
    ToImage,
    TokenMixing,
    ToTokens,
    ToVector,
    Twice,
    Windows,
    batch_norm,
    tiny,
)
from torch import nn

CHANNELS = (4, 6, 8, 12, 16)


@dataclass(frozen=True, slots=True)
class At:
    """Where in a network we are: what its tensors look like.

    Attributes:
        kind: `"image"`, `"tokens"` or `"vector"`.
        dims: how many dimensions of positions an image has.
        size: of each of them; of tokens, how many there are.
    """

    kind: str
    channels: int
    dims: int = 2
    size: int = 8

    def shape(self, batch):
        """The shape of a tensor here."""
        match self.kind:
            case "image":
                return (batch, self.channels, *[self.size] * self.dims)
            case "tokens":
                return (batch, self.size, self.channels)
        return (batch, self.channels)


def divisors(number):
    return [d for d in range(1, number + 1) if number % d == 0]


# ---- recipes -----------------------------------------------------------------------------------------------------------


@st.composite
def networks(draw, max_blocks=5):
    """`(input, recipe)`: the input as an `At` or `"words"`, and the recipe of a network for it."""
    kind = draw(st.sampled_from(("image", "image", "image", "tokens", "tokens", "words", "vector")))
    if kind == "image":
        start = At("image", draw(st.sampled_from((3, 4))), draw(st.sampled_from((2, 2, 2, 1, 3))))
        start = replace(start, size=4 if start.dims == 3 else 8)
    elif kind == "vector":
        start = At("vector", 5)
    else:
        start = At("tokens", 5, size=4)
    recipe, at = [], start
    if kind == "words":
        at = replace(at, channels=draw(st.sampled_from(CHANNELS)))
        recipe.append(("embedding", at.channels))
    elif kind == "image":
        block, at = draw(convs(at))
        recipe.append(block)
    else:
        block, at = draw(linears(at))
        recipe.append(block)
    body, at = draw(chains(at, max_blocks, depth=2))
    recipe += body
    if draw(st.integers(0, 5)) == 0:
        auxiliary = draw(heads(at))
        recipe = [("several outputs", tuple(recipe), draw(heads(at)), auxiliary)]
    else:
        recipe.append(draw(heads(at)))
    return ("words" if kind == "words" else start), tuple(recipe)


@st.composite
def heads(draw, at):
    """A layer that makes outputs, maybe after making a vector."""
    if at.kind == "image" and draw(st.booleans()):
        return ("conv", at.dims, at.channels, 5, 1, 1, 1, True)
    if at.kind == "tokens" and draw(st.booleans()):
        return ("linear", at.channels, 5, True)
    if at.kind == "vector":
        return ("linear", at.channels, 5, True)
    block, after = draw(vectors(at))
    return ("chain", (block, ("linear", after.channels, 5, True)))


@st.composite
def chains(draw, at, max_blocks, depth):
    recipe = []
    for _ in range(draw(st.integers(1, max_blocks))):
        block, at = draw(blocks(at, depth))
        recipe.append(block)
    return recipe, at


@st.composite
def inner(draw, at, depth, *, same):
    """What stands inside a block: a chain after which tensors look as before, or, unless `same`, have other channels."""
    recipe, here = [], at
    for _ in range(draw(st.integers(1, 2))):
        block, after = draw(blocks(here, depth - 1))
        if (after.kind, after.size, after.dims) == (at.kind, at.size, at.dims):
            recipe.append(block)
            here = after
    if not recipe or (same and here.channels != at.channels):
        layer, here = draw(fitting(here, at.channels if same else draw(st.sampled_from(CHANNELS))))
        recipe.append(layer)
    return ("chain", tuple(recipe)), here


@st.composite
def fitting(draw, at, channels):
    """A layer with so many outputs."""
    after = replace(at, channels=channels)
    if at.kind == "image":
        return ("conv", at.dims, at.channels, channels, draw(st.sampled_from((1, 3))), 1, 1, draw(st.booleans())), after
    return ("linear", at.channels, channels, draw(st.booleans())), after


@st.composite
def convs(draw, at):
    kernel = draw(st.sampled_from((1, 3)))
    stride = draw(st.sampled_from((1, 1, 2))) if at.size >= 4 else 1
    groups = draw(st.sampled_from(divisors(at.channels))) if draw(st.booleans()) else 1
    channels = draw(st.sampled_from([c for c in (*CHANNELS, at.channels, 2 * at.channels) if c % groups == 0]))
    block = ("conv", at.dims, at.channels, channels, kernel, stride, groups, draw(st.booleans()))
    return block, replace(at, channels=channels, size=-(-at.size // stride))


@st.composite
def linears(draw, at):
    channels = draw(st.sampled_from(CHANNELS))
    return ("linear", at.channels, channels, draw(st.booleans())), replace(at, channels=channels)


@st.composite
def vectors(draw, at):
    if at.kind == "image":
        way = draw(st.sampled_from(("flatten", "view", "mean of positions", "largest of positions")))
    else:
        way = draw(st.sampled_from(("flatten", "view", "mean of tokens", "first token")))
    positions = (at.size**at.dims if at.kind == "image" else at.size) if way in ("flatten", "view") else 1
    return ("vector", way), At("vector", at.channels * positions)


@st.composite
def blocks(draw, at, depth):
    """`(recipe, where we are then)`."""
    kinds = {"image": IMAGE, "tokens": TOKENS, "vector": VECTOR}[at.kind]
    names = [name for name, (_, needs) in kinds.items() if needs(at) and (depth > 0 or name not in NESTING)]
    name = draw(st.sampled_from(names))
    return kinds[name][0](draw, at, depth)


NESTING = {"residual", "projected", "concat", "dense", "twice", "half", "windows", "split"}


def _dim(at):
    return -1 if at.kind == "tokens" else 1


def _bool(draw):
    return draw(st.booleans())


def _activation(draw, at, depth):
    return ("act", draw(st.sampled_from(sorted(ACTIVATIONS)))), at


def _prelu(draw, at, depth):
    return ("prelu", at.channels if at.kind != "tokens" else 1), at


def _residual(draw, at, depth):
    return ("residual", draw(inner(at, depth, same=True))[0], _bool(draw)), at


def _projected(draw, at, depth):
    body, after = draw(inner(at, depth, same=False))
    return ("projected", body, draw(fitting(at, after.channels))[0]), after


def _concat(draw, at, depth):
    branches = [draw(inner(at, depth, same=False)) for _ in range(draw(st.integers(2, 3)))]
    return ("concat", _dim(at), *(b for b, _ in branches)), replace(at, channels=sum(a.channels for _, a in branches))


def _dense(draw, at, depth):
    layers = []
    for _ in range(2):
        layer, after = draw(inner(at, depth, same=False))
        layers.append(layer)
        at = replace(at, channels=at.channels + after.channels)
    return ("dense", _dim(at), *layers), at


def _twice(draw, at, depth):
    return ("twice", draw(inner(at, depth, same=True))[0]), at


def _gated(draw, at, depth):
    return ("gated", _dim(at), draw(st.sampled_from(("glu", "split", "slice", "chunk")))), replace(
        at, channels=at.channels // 2
    )


def _split(draw, at, depth):
    first = draw(st.integers(1, at.channels - 1))
    body, after = draw(inner(replace(at, channels=first), depth, same=False))
    return ("split", _dim(at), at.channels, first, body), replace(at, channels=at.channels - first + after.channels)


def _half(draw, at, depth):
    body, _ = draw(inner(replace(at, channels=at.channels // 2), depth, same=True))
    return ("half", body, draw(st.sampled_from(divisors(at.channels)))), at


def _batch_norm(draw, at, depth):
    return ("batch norm", at.dims if at.kind == "image" else 0, at.channels), at


def _layer_norm(draw, at, depth):
    name = "channels last" if at.kind == "image" else draw(st.sampled_from(("layer norm", "rms norm")))
    return (name, at.dims, at.channels), at


def _group_norm(draw, at, depth):
    return ("group norm", draw(st.sampled_from(divisors(at.channels)[:-1] or [1])), at.channels), at


def _conv(draw, at, depth):
    return draw(convs(at))


def _linear(draw, at, depth):
    return draw(linears(at))


def _transposed(draw, at, depth):
    groups = draw(st.sampled_from(divisors(at.channels))) if _bool(draw) else 1
    channels = groups * draw(st.sampled_from((1, 2, 4)))
    return ("transposed", at.dims, at.channels, channels, groups, _bool(draw)), replace(
        at, channels=channels, size=2 * at.size
    )


def _pool(draw, at, depth):
    way = draw(st.sampled_from(("max", "avg")))
    return ("pool", way, at.dims), replace(at, size=at.size // 2)


def _upsample(draw, at, depth):
    return ("upsample",), replace(at, size=2 * at.size)


def _shuffle(draw, at, depth):
    return ("shuffle", draw(st.sampled_from(divisors(at.channels)))), at


def _pixel_shuffle(draw, at, depth):
    return ("pixel shuffle",), replace(at, channels=at.channels // 4, size=2 * at.size)


def _pixel_unshuffle(draw, at, depth):
    return ("pixel unshuffle",), replace(at, channels=at.channels * 4, size=at.size // 2)


def _squeeze(draw, at, depth):
    return (
        "squeeze",
        at.dims,
        at.channels,
        draw(st.sampled_from((2, 4, 8))),
        draw(st.sampled_from(("conv", "fc"))),
    ), at


def _scale(draw, at, depth):
    shape = (at.channels, *[1] * at.dims) if at.kind == "image" else (at.channels,)
    return ("scale", shape, _bool(draw)), at


def _spatial(draw, at, depth):
    return ("spatial attention", at.dims, _bool(draw)), at


def _norm_by_hand(draw, at, depth):
    return ("norm by hand", at.channels, _bool(draw)), at


def _mean_by_sum(draw, at, depth):
    return ("mean by sum",), at


def _mixing(draw, at, depth):
    axes = "hwe"[: at.dims]
    equation = {
        "image": f"nc{axes},dc->nd{axes}",
        "tokens": "nlc,dc->nld",
        "vector": "nc,dc->nd",
    }[at.kind]
    channels = draw(st.sampled_from(CHANNELS))
    return ("mixing", equation, at.channels, channels), replace(at, channels=channels)


def _windows(draw, at, depth):
    body, after = draw(inner(At("tokens", at.channels, size=4), depth, same=False))
    return ("windows", 2, body), replace(at, channels=after.channels)


def _tokens(draw, at, depth):
    length, token = at.size**at.dims, int(_bool(draw))
    return ("tokens", at.channels, length, token, _bool(draw)), At("tokens", at.channels, size=length + token)


def _image(draw, at, depth):
    return ("image",), At("image", at.channels, 1, at.size)


def _vector(draw, at, depth):
    return draw(vectors(at))


def _number(draw, at, depth):
    return ("split by number",), at


def _feed_forward(draw, at, depth):
    return ("feed forward", at.channels, draw(st.sampled_from(CHANNELS)), _bool(draw)), at


def _token_mixing(draw, at, depth):
    return ("token mixing", at.size, draw(st.sampled_from((2, 4, 8)))), at


def _heads(draw, at):
    return draw(st.sampled_from([d for d in divisors(at.channels) if d < 8]))


def _self_attention(draw, at, depth):
    return ("self attention", at.channels, _heads(draw, at), _bool(draw), _bool(draw)), at


def _fused_attention(draw, at, depth):
    way = draw(st.sampled_from(("fused", "from the input's size", "chunks", "chunks, torch's kernel")))
    return ("fused attention", at.channels, _heads(draw, at), at.size, way, _bool(draw)), at


def _grouped_queries(draw, at, depth):
    heads, shared = draw(st.sampled_from(((4, 2), (4, 4), (6, 2), (4, 1))))
    way = draw(st.sampled_from(("expand", "repeat", "enable_gqa")))
    return ("grouped queries", at.channels, heads, shared, draw(st.sampled_from((2, 4))), way), at


def _einsum_attention(draw, at, depth):
    return ("einsum attention", at.channels, draw(st.sampled_from((2, 4))), draw(st.sampled_from((2, 3)))), at


def _recurrent(draw, at, depth):
    channels = draw(st.sampled_from(CHANNELS))
    kind = draw(st.sampled_from(("LSTM", "GRU", "RNN")))
    block = (
        "recurrent",
        kind,
        at.channels,
        draw(st.sampled_from((4, 6))),
        channels,
        draw(st.integers(1, 2)),
        _bool(draw),
    )
    return block, replace(at, channels=channels)


def _tied(draw, at, depth):
    return ("tied", at.channels, draw(st.sampled_from(CHANNELS))), at


def _shared(draw, at, depth):
    return ("shared", at.channels), at


def always(at):
    return True


def even(at):
    return at.channels % 2 == 0 and at.channels >= 4


COMMON = {
    "act": (_activation, always),
    "act 2": (_activation, always),
    "residual": (_residual, always),
    "projected": (_projected, always),
    "concat": (_concat, lambda at: at.channels <= 32),
    "dense": (_dense, lambda at: at.channels <= 32),
    "twice": (_twice, always),
    "gated": (_gated, even),
    "split": (_split, lambda at: at.channels > 2),
    "scale": (_scale, always),
    "mixing": (_mixing, always),
    "layer norm": (_layer_norm, always),
}
IMAGE = COMMON | {
    "prelu": (_prelu, always),
    "conv": (_conv, always),
    "conv 2": (_conv, always),
    "batch norm": (_batch_norm, always),
    "batch norm 2": (_batch_norm, always),
    "group norm": (_group_norm, lambda at: at.channels > 1),
    "transposed": (_transposed, lambda at: at.size <= 4),
    "pool": (_pool, lambda at: at.size % 2 == 0 and at.size > 2),
    "upsample": (_upsample, lambda at: at.size <= 4),
    "shuffle": (_shuffle, always),
    "half": (_half, even),
    "pixel shuffle": (_pixel_shuffle, lambda at: at.dims == 2 and at.channels % 4 == 0 and at.size <= 4),
    "pixel unshuffle": (
        _pixel_unshuffle,
        lambda at: at.dims == 2 and at.size % 2 == 0 and at.size > 2 and at.channels <= 16,
    ),
    "squeeze": (_squeeze, always),
    "spatial attention": (_spatial, always),
    "windows": (_windows, lambda at: at.dims == 2 and at.size % 2 == 0),
    "tokens": (_tokens, lambda at: at.size**at.dims <= 64),
    "vector": (_vector, lambda at: at.channels * at.size**at.dims <= 1024),
    "split by number": (_number, lambda at: at.channels > 4),
}
TOKENS = COMMON | {
    "linear": (_linear, always),
    "feed forward": (_feed_forward, always),
    "token mixing": (_token_mixing, always),
    "norm by hand": (_norm_by_hand, lambda at: at.channels > 4),
    "mean by sum": (_mean_by_sum, always),
    "self attention": (_self_attention, always),
    "fused attention": (_fused_attention, always),
    "grouped queries": (_grouped_queries, always),
    "einsum attention": (_einsum_attention, always),
    "recurrent": (_recurrent, always),
    "tied": (_tied, always),
    "shared": (_shared, always),
    "image": (_image, lambda at: at.size % 2 == 0),
    "vector": (_vector, lambda at: at.channels * at.size <= 1024),
}
VECTOR = COMMON | {
    "linear": (_linear, always),
    "batch norm": (_batch_norm, always),
    "feed forward": (_feed_forward, always),
    "tied": (_tied, always),
    "shared": (_shared, always),
    "split by number": (_number, lambda at: at.channels > 4),
}

# ---- networks ----------------------------------------------------------------------------------------------------------


def build(recipe, seed=0):
    """The network of a recipe, in double precision; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _chain(recipe).double()


def inputs(start, seed=0, batch=3):
    """A batch for a network that begins with `start`."""
    generator = torch.Generator().manual_seed(seed)
    if start == "words":
        return torch.randint(0, 7, (batch, 4), generator=generator)
    return torch.randn(start.shape(batch), generator=generator, dtype=torch.float64)


def _build(block):
    kind, *parts = block
    return BUILDERS[kind](*parts)


def _chain(recipe):
    return nn.Sequential(*map(_build, recipe))


def _convolution(dims, inputs, outputs, kernel, stride, groups, bias):
    return CONV[dims](inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


BUILDERS = {
    "conv": _convolution,
    "transposed": lambda dims, c, out, groups, bias: TRANSPOSED[dims](c, out, 2, 2, groups=groups, bias=bias),
    "linear": nn.Linear,
    "embedding": lambda channels: nn.Embedding(7, channels),
    "batch norm": batch_norm,
    "group norm": lambda groups, channels: tiny(nn.GroupNorm(groups, channels)),
    "channels last": ChannelsLast,
    "layer norm": lambda dims, channels: tiny(nn.LayerNorm(channels)),
    "rms norm": lambda dims, channels: tiny(nn.RMSNorm(channels)),
    "act": lambda name: ACTIVATIONS[name](),
    "prelu": nn.PReLU,
    "chain": _chain,
    "residual": lambda body, in_place: Residual(_build(body), in_place),
    "projected": lambda body, skip: Projected(_build(body), _build(skip)),
    "concat": lambda dim, *branches: Concat(dim, *map(_build, branches)),
    "dense": lambda dim, *layers: Dense(dim, *map(_build, layers)),
    "twice": lambda body: Twice(_build(body)),
    "gated": Gated,
    "split": lambda dim, channels, first, body: SplitByAttribute(dim, channels, first, _build(body)),
    "split by number": SplitByNumber,
    "half": lambda body, groups: HalfBranch(_build(body), groups),
    "shuffle": Shuffle,
    "pool": lambda way, dims: (MAX_POOL if way == "max" else AVG_POOL)[dims](2),
    "upsample": lambda: nn.Upsample(scale_factor=2),
    "pixel shuffle": lambda: nn.PixelShuffle(2),
    "pixel unshuffle": lambda: nn.PixelUnshuffle(2),
    "squeeze": SqueezeExcite,
    "scale": LayerScale,
    "spatial attention": SpatialAttention,
    "norm by hand": NormByHand,
    "mean by sum": MeanBySum,
    "mixing": ChannelMixing,
    "windows": lambda size, body: Windows(size, _build(body)),
    "tokens": ToTokens,
    "image": ToImage,
    "vector": ToVector,
    "feed forward": FeedForward,
    "token mixing": TokenMixing,
    "self attention": SelfAttention,
    "fused attention": FusedAttention,
    "grouped queries": GroupedQueries,
    "einsum attention": EinsumAttention,
    "recurrent": Recurrent,
    "tied": Tied,
    "shared": SharedWeight,
    "several outputs": lambda body, head, auxiliary: SeveralOutputs(_chain(body), _build(head), _build(auxiliary)),
}
