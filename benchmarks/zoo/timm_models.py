"""80 models of timm: the smallest variant of each family, on small images."""

from functools import partial
from typing import Any

from mutorch.utils import require

from .entry import Entry, image
from .stubs import load_torchvision

CONVOLUTIONAL = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "legacy_seresnet18",
    "skresnet18",
    "res2net50_14w_8s",
    "resnest14d",
    "regnety_002",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "mnasnet_small",
    "fbnetc_100",
    "tinynet_e",
    "hardcorenas_a",
    "mixnet_s",
    "ghostnet_050",
    "densenet121",
    "dla46_c",
    "hrnet_w18_small",
    "repvgg_a0",
    "mobileone_s0",
    "convnext_atto",
    "nfnet_l0",
    "cspresnet50",
    "darknet17",
    "vgg11_bn",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v2",
    "legacy_xception",
    "ese_vovnet19b_slim_dw",
    "selecsls42b",
    "dpn48b",
    "tresnet_m",
    "convmixer_768_32",
)
ATTENTION_AND_MIXERS = (
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "cait_xxs24_224",
    "levit_128s",
    "mixer_s32_224",
    "resmlp_12_224",
    "gmlp_ti16_224",
    "poolformer_s12",
    "convformer_s18",
    "caformer_s18",
    "maxvit_pico_rw_256",
    "coatnet_pico_rw_224",
    "edgenext_xx_small",
    "fastvit_t8",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "volo_d1_224",
    "twins_svt_small",
    "twins_pcpvt_small",
    "pvt_v2_b0",
    "beit_base_patch16_224",
    "xcit_nano_12_p16_224",
    "crossvit_tiny_240",
    "convit_tiny",
    "tnt_s_patch16_224",
    "visformer_tiny",
    "pit_ti_224",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientvit_b0",
    "efficientvit_m0",
    "repvit_m0_9",
    "tiny_vit_5m_224",
    "davit_tiny",
    "focalnet_tiny_srf",
    "hiera_tiny_224",
    "sequencer2d_s",
    "eva02_tiny_patch14_224",
    "nest_tiny",
    "coat_tiny",
    "mvitv2_tiny",
    "gcvit_xxtiny",
)

# 64x64, but where a model needs more, or where its last stage would attend to a single position.
SIZES = {
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "efficientformer_l1": 224,  # the size is written into its attention
    "eva02_tiny_patch14_224": 56,
    "levit_128s": 128,
    "mobilevit_xxs": 128,
    "mobilevitv2_050": 128,
    "efficientvit_m0": 128,
    "mixer_s32_224": 128,
}
# These are built for the size of their images.
BUILT_FOR_SIZE = (
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "cait_xxs24_224",
    "levit_128s",
    "mixer_s32_224",
    "resmlp_12_224",
    "gmlp_ti16_224",
    "maxvit_pico_rw_256",
    "coatnet_pico_rw_224",
    "efficientformerv2_s0",
    "volo_d1_224",
    "beit_base_patch16_224",
    "convit_tiny",
    "tnt_s_patch16_224",
    "visformer_tiny",
    "pit_ti_224",
    "hiera_tiny_224",
    "eva02_tiny_patch14_224",
    "nest_tiny",
    "coat_tiny",
    "gcvit_xxtiny",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "vgg11_bn": {"mlp_ratio": 0.125},  # most of its 133M parameters are in its head
    "beit_base_patch16_224": {"depth": 3},  # of 12: there is no smaller variant
    "eva02_tiny_patch14_224": {"num_classes": 1000},
    "tiny_vit_5m_224": {"num_classes": 1000},
}


def entries() -> dict[str, Entry]:
    """All of them."""
    load_torchvision()
    create = require("timm", extra="zoo").create_model
    found = {}
    for name in CONVOLUTIONAL + ATTENTION_AND_MIXERS:
        size = SIZES.get(name, 64)
        options = {**OPTIONS.get(name, {}), **({"img_size": size} if name in BUILT_FOR_SIZE else {})}
        build = partial(create, name, pretrained=False, **options)
        found[name] = Entry(f"timm/{name}", build, image(size))
    return found
