"""Costs: the paper's parameter counts and MACs, and what autograd really keeps."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from toto.config import ModelConfig
from toto.config import load as load_pipelines
from toto.train.cost import Cost
from toto.train.layer_cost import layer_cost
from toto.train.models import make_model

USED = 8196  # the paper's dVAE: 8,192 codes and four special ids


def cost(size: str, context: int = 4096) -> Cost:
    return Cost(load_pipelines().model(size), USED, context)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        *[("base", 119_559_936), ("large", 276_861_952), ("1b", 1_147_242_496)],  # Table 1: 120M, 280M, 1.1B
        *[("gpt2", 277_075_968), ("mamba", 288_418_816)],  # Table 6: 280M, 290M
    ],
)
def test_tables_1_and_6_have_these_parameters(size: str, parameters: int) -> None:
    assert cost(size).parameters == parameters


@pytest.mark.parametrize("size", ["tiny", "base", "gpt2", "mamba"])
def test_parameters_are_those_of_the_model(size: str) -> None:
    config = load_pipelines().model(size)
    with torch.device("meta"):
        model = make_model(config, 516, seed=None)
    padding = (len(model.table.weight) - 516) * config.dim
    assert sum(p.numel() for p in model.parameters()) - padding == Cost(config, 516, 512).parameters


def test_table_4_macs_are_parameters_times_images() -> None:
    images = 1_281_167 * 400  # ImageNet-1k, 400 epochs
    assert f"{cost('large').paper_macs(images):.2e}" == "1.42e+17"


@pytest.mark.parametrize(
    ("size", "causal", "palm"), [("base", 0.944, 1.170), ("large", 2.064, 2.466), ("1b", 7.990, 9.097)]
)
def test_training_flops_per_token_both_ways(size: str, causal: float, palm: float) -> None:
    assert cost(size).training_flops_per_token / 1e9 == pytest.approx(causal, abs=5e-4)
    assert cost(size).palm_training_flops_per_token / 1e9 == pytest.approx(palm, abs=5e-4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_forward_macs_are_those_that_torch_counts(arch: str) -> None:
    config = ModelConfig(name="small", dim=64, layers=3, heads=2, mlp_hidden=160, arch=arch)
    plain = sdpa_kernel(SDPBackend.MATH)  # attention as matrix products, which torch's counter knows
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        make_model(config, 124)(torch.full((2, 96), 7))  # 124 used ids: the table has 128 rows, all multiplied
    expected = Cost(config, 128, 96)  # torch counts the whole square of attention
    assert counter.get_total_flops() == 2 * 96 * 2 * expected.palm_macs_per_token


@pytest.mark.parametrize("checkpoint_blocks", [False, True])
@pytest.mark.parametrize("arch", ["llama", "gpt2", "mamba"])
def test_activations_are_what_autograd_keeps(arch: str, checkpoint_blocks: bool) -> None:
    shape = {} if arch == "mamba" else {"heads": 3, "mlp_hidden": 256}
    config = ModelConfig(name="small", dim=96, layers=3, arch=arch, **shape)
    model = make_model(config, 68, checkpoint_blocks=checkpoint_blocks)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # the head makes its own gradient ahead of the backward pass: it counts as one
        if tensor.untyped_storage().data_ptr() not in weights and tensor.shape != model.table.weight.shape:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.full((2, 256), 7)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(ids, ids)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    expected = Cost(config, 68, 256).memory(2, compute_bytes=4, checkpoint_blocks=checkpoint_blocks).activations
    if checkpoint_blocks:  # the block that is computed again in the backward pass comes later
        expected -= 2 * 256 * layer_cost(config).kept * 4
    assert measured == pytest.approx(expected, rel=0.05)


def test_memory_states_are_sixteen_bytes_a_parameter() -> None:
    memory = cost("base").memory(1)
    allocated = 119_559_936 + (8320 - USED) * 768
    assert memory.weights + memory.gradients + memory.moments == 16 * allocated
    assert memory.compute_weights == 2 * allocated
    assert memory.logits == 2048 * 8320 * 8
    assert memory.total == sum(vars(memory).values())
    assert cost("base").memory(1, compute_bytes=4).compute_weights == 0


def test_keys_and_values_of_a_token() -> None:
    assert cost("base").kv_bytes_per_token() == 36 * 1024
    assert cost("1b").kv_bytes_per_token() == 176 * 1024
