"""Networks to search in: blocks, searchable backbones, a classifier, a tabular chain and the published settings."""

from .chain_net import ChainNet as ChainNet
from .chain_net import chain_net as chain_net
from .conv_norm_act import build_activation as build_activation
from .conv_norm_act import conv_norm_act as conv_norm_act
from .drop_path import DropPath as DropPath
from .identity import Identity as Identity
from .image_classifier import ImageClassifier as ImageClassifier
from .linear_cls_head import LinearClsHead as LinearClsHead
from .mb_block import MBBlock as MBBlock
from .se_layer import SELayer as SELayer
from .searchable_mobilenet_v2 import SearchableMobileNetV2 as SearchableMobileNetV2
from .searchable_shufflenet_v2 import SearchableShuffleNetV2 as SearchableShuffleNetV2
from .settings import mobilenet_v2_setting as mobilenet_v2_setting
from .settings import shufflenet_v2_setting as shufflenet_v2_setting
from .settings import spos_mobilenet_setting as spos_mobilenet_setting
from .settings import spos_shufflenet_setting as spos_shufflenet_setting
from .shuffle_unit import ShuffleBlock as ShuffleBlock
from .shuffle_unit import ShuffleXception as ShuffleXception
