import pytest
import torch
from torch import nn

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
