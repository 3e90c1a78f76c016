import pytest
import torch
from torch import nn

from lrsearch.errors import LrsearchError
from lrsearch.measure.deployment import Deployment, Precision


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_network_and_its_batch_have_the_deployed_precision_and_layout(dtype: Precision, channels_last: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).double().train()
    deployment = Deployment(batch_size=5, dtype=dtype, channels_last=channels_last)
    network, batch = deployment.network(model), deployment.batch(torch.randn(1, 3, 8, 8))
    assert batch.shape == (5, 3, 8, 8)
    weight = network.get_parameter("0.weight")
    assert {batch.dtype, *(value.dtype for value in network.parameters())} == {getattr(torch, dtype)}
    assert batch.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert network(batch).shape == (5, 2) and not network.training
    assert model.training and model[0].weight.dtype == torch.float64


def test_the_default_deployment_computes_what_the_network_does() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(1, 3, 8, 8)
    deployment = Deployment(batch_size=2)
    assert torch.equal(deployment.network(model)(deployment.batch(inputs)), model(inputs.expand(2, -1, -1, -1)))


def test_folded_batch_norms_change_the_layers_and_not_the_outputs() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1)), nn.BatchNorm2d(6), nn.ReLU())
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    inputs = torch.randn(2, 3, 8, 8)
    folded = Deployment(fold_batch_norm=True).network(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert isinstance(folded.get_submodule("0.1"), nn.Conv2d)
    torch.testing.assert_close(folded(inputs), model.eval()(inputs))


def test_folding_needs_a_network_that_can_be_traced() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(LrsearchError, match="cannot be traced to fold its batch norm"):
        Deployment(fold_batch_norm=True).network(Deciding())


@pytest.mark.slow
def test_a_compiled_network_computes_the_same() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(Deployment(compile=True).network(model)(inputs), model(inputs))
