"""Prepared weights against plain operators, in either number format."""

import pytest
import torch
from torch.nn import functional as F

from worldmodel.bench.roof import count_flops
from worldmodel.model.precision import compute_dtype
from worldmodel.streaming.folded_blocks import attend_in_space, attend_in_time
from worldmodel.streaming.folded_pixels import gathered_convolution
from worldmodel.streaming.onednn import Convolution, Matrix

DTYPES = {torch.float32, compute_dtype("cpu")}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepared_matrix_multiplies(dtype):
    x = torch.tensor([[[1.0, 2.0], [-3.0, 0.5]]], dtype=dtype)
    y = torch.tensor([[[10.0, 20.0, 30.0], [0.0, 0.0, -1.0]]], dtype=dtype)
    matrix = Matrix(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=dtype))
    product = torch.tensor([[[1.0, 4.0, 3.0], [-3.0, 1.0, -2.5]]], dtype=dtype)
    assert torch.equal(matrix(x), product)
    assert torch.equal(matrix.plus(x, y), product + y)
    torch.testing.assert_close(matrix.gelu(x), F.gelu(product))
    assert count_flops(lambda: matrix(x)) == count_flops(lambda: matrix.plus(x, y)) == 2 * 2 * 2 * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prepared_convolution_convolves(dtype):
    x = torch.arange(16.0).view(1, 4, 4, 1).to(dtype)
    y = torch.full((1, 2, 2, 2), 100.0, dtype=dtype)
    weight = torch.zeros(2, 1, 2, 2)
    weight[0, 0, 0, 0], weight[1, 0, 1, 1] = 1.0, 2.0
    convolution = Convolution(weight, torch.tensor([0.0, 1.0]), dtype, stride=2)
    expected = torch.tensor([[[[0.0, 11.0], [2.0, 15.0]], [[8.0, 27.0], [10.0, 31.0]]]]).to(dtype)
    assert torch.equal(convolution(x), expected)
    assert torch.equal(convolution.plus(x, y), expected + y)
    flops = 2 * 4 * 2 * 4  # places, outputs, window
    assert count_flops(lambda: convolution(x)) == flops
    assert count_flops(lambda: convolution.plus(x, y)) == flops


def test_a_gathered_convolution_is_a_linear_map_of_every_pixel():
    weight, x = torch.randn(3, 5), torch.randn(2, 5, 4, 6)
    gathered = F.conv2d(x, gathered_convolution(weight), stride=2)
    shuffled = gathered.unflatten(1, (2, 2, 3)).permute(0, 3, 4, 1, 5, 2).reshape(2, 3, 4, 6)
    torch.testing.assert_close(shuffled, F.conv2d(x, weight[:, :, None, None]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_to_a_frame_is_the_same_fused_or_not(masked):
    q, k, v = torch.randn(3, 2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]]) if masked else None
    plain = attend_in_space(q, k, v, mask, fused=False)
    torch.testing.assert_close(plain, attend_in_space(q, k, v, mask, fused=True))
    if masked:  # what is masked has no say
        v[1, :, [2, 4]] = 100.0
        torch.testing.assert_close(plain, attend_in_space(q, k, v, mask, fused=False))


def test_attention_to_the_past_is_the_same_fused_or_not():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 5, 3, 8, generator=generator)
    keys, values = torch.randn(2, 2, 4, 5, 3, 8, generator=generator)
    bias = torch.randn(2, 4, 3, generator=generator)
    bias[0, 2:] = float("-inf")  # a stream that has seen two frames
    plain = attend_in_time(q, keys, values, bias, fused=False)
    torch.testing.assert_close(plain, attend_in_time(q, keys, values, bias, fused=True))
    values[0, 2:] = 100.0
    torch.testing.assert_close(plain, attend_in_time(q, keys, values, bias, fused=False))
