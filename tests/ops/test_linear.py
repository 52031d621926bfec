import torch
import torch.nn.functional as F
from torch import nn

from mutorch.ops import DynamicEmbedding, DynamicLinear, DynamicPReLU
from mutorch.testing import OpSuite


class TestDynamicLinear(OpSuite):
    dynamic, attrs = DynamicLinear, ("in_features", "out_features")

    def static(self):
        return nn.Linear(6, 8)

    def inputs(self, active):
        return torch.randn(2, 3, len(active["in_features"]))

    def reference(self, static, active, x):
        rows = active["out_features"]
        return F.linear(x, static.weight[rows][:, active["in_features"]], static.bias[rows])


class TestLinearWithoutBias(TestDynamicLinear):
    def static(self):
        return nn.Linear(6, 8, bias=False)

    def reference(self, static, active, x):
        return F.linear(x, static.weight[active["out_features"]][:, active["in_features"]])


class TestDynamicEmbedding(OpSuite):
    dynamic, attrs = DynamicEmbedding, ("embedding_dim",)

    def static(self):
        return nn.Embedding(5, 8)

    def inputs(self, active):
        return torch.tensor([[0, 4], [2, 2]])

    def reference(self, static, active, x):
        return F.embedding(x, static.weight[:, active["embedding_dim"]])


class TestDynamicPReLU(OpSuite):
    dynamic, attrs = DynamicPReLU, ("num_parameters",)

    def static(self):
        return nn.PReLU(8)

    def inputs(self, active):
        return torch.randn(2, len(active["num_parameters"]), 3)

    def reference(self, static, active, x):
        return F.prelu(x, static.weight[active["num_parameters"]])
