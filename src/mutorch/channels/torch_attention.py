"""What `nn.MultiheadAttention` asks of its widths beside what its forward shows."""

from torch import Tensor, nn

from .observer import Observer
from .sizes import AttributeSize


def tie_attention(module: nn.MultiheadAttention, observer: Observer) -> None:
    """`nn.MultiheadAttention` computes with as many channels as its input has: heads go where input channels go."""
    embedded = observer.labels(module.out_proj.weight)[0]
    packed: Tensor | None = module.in_proj_weight
    if packed is not None:
        parts = observer.algebra.split(
            observer.labels(module.in_proj_weight)[0], [3, module.embed_dim], observer.reason("the projections")
        )
        observer.freeze(parts[:1], "query, key and value")
        dims = [parts[1], observer.labels(module.in_proj_weight)[1]]
    else:
        dims = [*observer.labels(module.q_proj_weight), observer.labels(module.k_proj_weight)[0]]
        dims += [observer.labels(module.v_proj_weight)[0]]
        for name, weight in (("kdim", module.k_proj_weight), ("vdim", module.v_proj_weight)):
            labels = observer.labels(weight)[1]
            observer.bind(AttributeSize(module, name, int(weight.shape[1])), labels)
    for dim in [*dims, observer.labels(module.out_proj.weight)[1]]:
        observer.unify(embedded, dim, "the attention's width")
    heads = observer.algebra.split(embedded, [module.num_heads, module.head_dim], observer.reason("heads"))
    name = "multi_head_attention_forward"
    observer.note_average(
        (name, 0, 0, int(module.head_dim)), heads[1], f"torch.{name}"
    )  # the scale is 1 / sqrt(head_dim)
    size = int(module.embed_dim)
    own = [("num_heads", heads[0], int(module.num_heads)), ("head_dim", heads[1], int(module.head_dim))]
    own += [("embed_dim", embedded, size)]
    if module.in_proj_weight is not None:
        own += [("kdim", embedded, size), ("vdim", embedded, size)]
    for name, dim, count in own:
        observer.bind(AttributeSize(module, name, count), dim)


def note_fused_layer(module: nn.TransformerEncoderLayer, observer: Observer) -> None:
    """In evaluation one kernel computes all of the layer, and its norms average over all channels."""
    weight = module.linear2.weight
    place = "transformer_encoder_layer", 0, 0, int(weight.shape[0])
    observer.note_average(place, observer.labels(weight)[0], "torch.transformer_encoder_layer")
