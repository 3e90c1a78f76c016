import pytest
import torch
import torchvision
from torch import nn

from lrsearch.measure.cost import Cost, count_cost
from lrsearch.models import build_model


def test_resnet20_is_the_published_size() -> None:
    """He et al. 2016: 0.27 M parameters; 40.55 M multiply-adds."""
    assert count_cost(build_model({"name": "resnet20"}), torch.randn(1, 3, 32, 32)) == Cost(269_722, 2 * 40_551_040)


@pytest.mark.parametrize(
    ("layer", "size", "flops"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 6, 6), 2 * 8 * 36 * 27),
        (nn.Conv2d(3, 8, (1, 3), stride=(2, 1)), (3, 6, 6), 2 * 8 * 3 * 4 * 9),
        (nn.Conv2d(4, 8, 3, groups=2), (4, 5, 5), 2 * 8 * 9 * 18),
        (nn.Conv2d(4, 4, 3, groups=4, dilation=2), (4, 7, 7), 2 * 4 * 9 * 9),
        (nn.Conv2d(4, 6, 2, padding="same", padding_mode="reflect"), (4, 5, 5), 2 * 6 * 25 * 16),
        (nn.Conv2d(4, 6, 1), (4, 5, 5), 2 * 6 * 25 * 4),
        (nn.Linear(5, 7), (3, 5), 2 * 3 * 35),
    ],
)
def test_flops_are_those_counted_by_hand(layer: nn.Module, size: tuple[int, ...], flops: int) -> None:
    assert count_cost(layer, torch.randn(1, *size)).flops == flops


def test_attention_is_counted_in_full() -> None:
    """Torch's own attention has a fused path in eval mode that hides its products from the counter."""
    model = torchvision.models.VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=5).eval()
    tokens, width = 5, 16
    projections, mixing, mlp = 4 * tokens * width**2, 2 * tokens**2 * width, 2 * tokens * width * 32
    patches, head = 4 * 3 * 64 * width, width * 5
    by_hand = 2 * (2 * (projections + mixing + mlp) + patches + head)
    assert count_cost(model, torch.randn(1, 3, 16, 16)).flops == by_hand
    assert torch.backends.mha.get_fastpath_enabled()


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert count_cost(nn.Sequential(layer, layer), None) == Cost(20, None)


def test_counting_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train()
    model[2].eval()
    x, state = torch.randn(1, 1, 5, 5), {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    count_cost(model, x)
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
