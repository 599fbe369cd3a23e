import shutil

import numpy as np
import pytest

NEEDS = "NO TORCH: layers for training, export and fine-tuning are not tested"
torch = pytest.importorskip("torch", reason=NEEDS)
pytest.importorskip("transformers", reason=NEEDS)

from torch import nn  # noqa: E402
from torch_models import new_model  # noqa: E402

from bitnet_lut.formats import ternary  # noqa: E402
from bitnet_lut.torch import BitLinear, absmean, replace_linears, set_lambda  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture(autouse=True)
def _eager():
    """Transformers compiles its quantizers, which takes seconds and reorders sums."""
    with torch.compiler.set_stance("force_eager"):
        yield


def pair_of_layers(bias=True, dtype=torch.float32):
    """Transformers' layer and ours, with the same weights."""
    from transformers.integrations.bitnet import AutoBitLinear

    torch.manual_seed(1)
    theirs = AutoBitLinear(96, 40, bias=bias, online_quant=True, dtype=dtype)
    ours = BitLinear(96, 40, bias=bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(dtype=torch.float32):
    x = torch.randn(3, 5, 96, generator=torch.Generator().manual_seed(2))
    x[0, 0] = 0
    x[0, 1] *= 1e-7
    x[0, 2, 3] = 1e4
    return x.to(dtype).requires_grad_()


def bits_of(layer, x):
    """Output and gradients."""
    output = layer(x)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    output.backward(gradient.to(output.dtype))
    found = [output, x.grad, *(parameter.grad for parameter in layer.parameters())]
    return [tensor.detach().clone() for tensor in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_equals_that_of_transformers_bit_for_bit(bias, dtype):
    theirs, ours = pair_of_layers(bias, dtype)
    expected, found = bits_of(theirs, inputs(dtype)), bits_of(ours, inputs(dtype))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_layer_equals_that_of_transformers_compiled_to_float_noise():
    theirs, ours = pair_of_layers()
    with torch.compiler.set_stance("default"):
        expected = theirs(inputs())
    torch.testing.assert_close(ours(inputs()), expected, rtol=1e-5, atol=1e-5)


def test_gradients_pass_straight_through():
    _, layer = pair_of_layers(bias=False)
    x = inputs()
    output, x_gradient, weight_gradient = bits_of(layer, x)
    values, scale = absmean(layer.weight)
    rounded = values * scale
    peak = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    codes = (x * (127 / peak)).round()
    assert codes.abs().max() == 127
    torch.testing.assert_close(output, (codes * peak / 127) @ rounded.T)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(x_gradient, gradient @ rounded)
    expected = gradient.reshape(-1, 40).T @ (codes * peak / 127).reshape(-1, 96)
    torch.testing.assert_close(weight_gradient, expected)


def test_lambda_leads_from_real_to_ternary_weights():
    _, layer = pair_of_layers()
    exact = nn.functional.linear(inputs(), layer.weight, layer.bias)
    rounded = layer(inputs())
    set_lambda(layer, 0)
    assert torch.equal(layer(inputs()), exact)
    distances = []
    for lambda_ in (0.25, 0.5, 0.75):
        set_lambda(layer, lambda_)
        distances.append((layer(inputs()) - rounded).norm().item())
    assert distances == sorted(distances, reverse=True)
    assert 0 < distances[-1] < distances[0] < (exact - rounded).norm().item()
    set_lambda(layer, 0.5)
    values, scale = absmean(layer.weight)
    weight = (layer.weight + values * scale) / 2
    peak = inputs().abs().amax(-1, keepdim=True).clamp(min=1e-5)
    mixed = (inputs() + (inputs() * (127 / peak)).round() * peak / 127) / 2
    torch.testing.assert_close(layer(inputs()), nn.functional.linear(mixed, weight, layer.bias))
    assert "lambda_=0.5" in str(layer)


@pytest.mark.parametrize("lambda_", [0, 0.3, 1])
def test_every_lambda_hands_on_gradients(lambda_):
    _, layer = pair_of_layers(bias=False)
    set_lambda(layer, lambda_)
    _, x_gradient, weight_gradient = bits_of(layer, inputs())
    assert x_gradient.abs().min() > 0
    assert weight_gradient.abs().max() > 0


def test_lambda_out_of_range_or_without_layers_is_refused():
    with pytest.raises(ValueError, match=r"lambda_ is 1\.5: it must be from 0 to 1"):
        set_lambda(BitLinear(4, 4), 1.5)
    with pytest.raises(ValueError, match="Linear has no BitLinear layers"):
        set_lambda(nn.Linear(4, 4), 1)


def test_absmean_is_that_of_converted_files():
    weights = torch.randn(64, 96, generator=torch.Generator().manual_seed(4)) * 0.03
    values, scale = absmean(weights)
    expected, expected_scale = ternary.absmean(weights.numpy())
    np.testing.assert_array_equal(values.numpy(), expected)
    np.testing.assert_allclose(scale.numpy(), expected_scale[0], rtol=3e-7)
    zeros, least = absmean(torch.zeros(4, 4))
    assert not zeros.any()
    assert least == pytest.approx(1e-5)


def test_linears_are_replaced_with_their_parameters():
    model = new_model("llama")
    before = dict(model.named_parameters())
    replace_linears(model, lambda_=0.5)
    layers = [module for module in model.modules() if isinstance(module, BitLinear)]
    assert len(layers) == 2 * 7
    assert all(layer.lambda_ == 0.5 for layer in layers)
    assert type(model.lm_head) is nn.Linear
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    with pytest.raises(ValueError, match=r"no nn\.Linear layers"):
        replace_linears(model)


def test_lambda_0_computes_what_the_model_did_before():
    model = new_model()
    ids = torch.arange(20)[None]
    before = model(ids).logits
    replace_linears(model, lambda_=0)
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)
