"""Kernels of other devices have the same costs; their formulas only look at shapes."""

import torch
from torch import nn

from mutorch.cost import count
from mutorch.cost.formulas import formula_of


def test_torch_formulas_come_first_and_others_have_none():
    assert formula_of(torch.ops.aten.mm)(torch.zeros(2, 3), torch.zeros(3, 4), out_val=torch.zeros(2, 4)) == 48
    assert formula_of(torch.ops.aten.relu) is None


def test_cudnn_recurrent_layer_costs_what_the_cpu_says():
    layer, x = nn.LSTM(4, 5, num_layers=2), torch.zeros(3, 2, 4)
    assert formula_of(torch.ops.aten._cudnn_rnn)(x, layer._flat_weights, 4, out_val=None) == 2 * count(layer, x).macs


def test_fused_attention_costs_its_two_matrix_products():
    query, key = torch.zeros(1, 8, 6, 4), torch.zeros(1, 8, 3, 4)
    formula = formula_of(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)
    assert formula(query, key, key, 0.0, is_causal=False, out_val=None) == 2 * 2 * 8 * 6 * 3 * 4
