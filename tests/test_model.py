"""The network: shapes, size, what each option changes, what the output is."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from digitcnn import runs
from digitcnn.model import ACTIVATIONS, CLASSES, FEATURES, DigitCNN, MapSize, Residual
from digitcnn.training import build_model


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand((5, 3, 32, 32), generator=generator)


def network(seed: int = 0, **options) -> DigitCNN:
    torch.manual_seed(seed)
    return DigitCNN(**options).eval()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_shapes(images):
    model = network()
    assert model(images).shape == (5, CLASSES) == (5, 10)
    assert model.features(images).shape == (5, FEATURES) == (5, 128)
    assert model.probabilities(images).shape == (5, 10)
    assert model(images[:1]).shape == (1, 10)


def test_probabilities_are_the_softmax_of_the_logits(images):
    model = network()
    probabilities = model.probabilities(images)
    powers = model(images).double().exp()
    expected = powers / powers.sum(1, keepdim=True)
    torch.testing.assert_close(probabilities.double(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))
    assert (probabilities >= 0).all()


def test_the_output_is_a_logit_as_cross_entropy_wants(images):
    """No softmax inside: the output is the affine map of the features, of any sign and sum."""
    model = network()
    logits, features = model(images), model.features(images)
    expected = features @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(logits, expected)
    assert (logits < 0).any() and ((logits.sum(1) - 1).abs() > 0.01).all()
    softmax_layers = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)
    assert not any(isinstance(module, softmax_layers) for module in model.modules())
    labels = torch.arange(5)
    loss = nn.CrossEntropyLoss()(logits, labels)
    expected = -model.probabilities(images).log()[torch.arange(5), labels].mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", runs.MAIN)
def test_the_reports_networks_have_at_most_a_million_parameters(name):
    count = parameters(build_model(runs.MAIN[name]))
    assert 100_000 < count <= 1_000_000


def test_every_run_has_at_most_a_million_parameters(monkeypatch):
    monkeypatch.setenv("DIGITCNN_PROFILE", "full")
    shapes = {(run.width, run.batch_norm, run.activation): run for run in runs.registry().values()}
    assert all(parameters(build_model(run)) <= 1_000_000 for run in shapes.values())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_activation_works_and_is_used(images, activation, batch_norm):
    model = network(activation=activation, batch_norm=batch_norm).train()
    used = {type(m) for m in model.modules() if type(m) in ACTIVATIONS.values()}
    assert used == {ACTIVATIONS[activation]}
    nn.functional.cross_entropy(model(images), torch.arange(5)).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_activations_differ(images):
    outputs = [network(activation=name)(images) for name in ACTIVATIONS]
    for first in range(len(outputs)):
        for second in range(first):
            assert not torch.allclose(outputs[first], outputs[second])


def test_without_batch_normalisation_there_is_none():
    with_it, without = network(), network(batch_norm=False)
    normalisations = (nn.BatchNorm1d, nn.BatchNorm2d)
    count = [sum(isinstance(m, normalisations) for m in x.modules()) for x in (with_it, without)]
    assert count == [9, 0]
    weighted = [m for m in without.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 10 and all(m.bias is not None for m in weighted)
    weighted = [m for m in with_it.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [m.bias is not None for m in weighted] == [False] * 9 + [True]  # the output layer's


def test_saved_statistics_normalise_the_input(images):
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
    plain = network(mean=(0.0,) * 3, std=(1.0,) * 3)
    model = network(mean=mean, std=std)
    by_hand = (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(model(images), plain(by_hand))
    assert not torch.allclose(model(images), plain(images))
    other = network(seed=1)
    other.load_state_dict(model.state_dict())  # the statistics travel with the weights
    torch.testing.assert_close(other(images), model(images))


def test_dropout_acts_in_training_only(images):
    model = network(dropout=0.5)
    torch.testing.assert_close(model(images), model(images))
    torch.testing.assert_close(model(images), network()(images))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    assert not torch.allclose(model(images), model(images))


def test_width_scales_every_channel():
    for width, channels in ((1.0, [16, 48, 96, 128]), (0.5, [8, 24, 48, 64])):
        sizes = [m.out_channels for m in network(width=width).modules() if isinstance(m, nn.Conv2d)]
        assert list(dict.fromkeys(sizes)) == channels
    assert parameters(network(width=0.5)) < 0.4 * parameters(network())


def test_a_configuration_describes_its_network(images):
    change = {"activation": "tanh", "batch_norm": False, "dropout": 0.3, "width": 0.5}
    model = build_model(dataclasses.replace(runs.MAIN["svhn"], **change), (0.1,) * 3, (0.2,) * 3)
    assert model.dropout.p == 0.3 and parameters(model) == parameters(
        network(batch_norm=False, width=0.5)
    )
    assert any(isinstance(module, nn.Tanh) for module in model.modules())
    assert model.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert model.std.flatten().tolist() == pytest.approx([0.2] * 3)


def test_shortcuts_are_identities_or_not_there():
    """With its second block silenced, a residual pair passes its input on, or nothing."""
    x = torch.randn(2, 48, 16, 16)
    for shortcuts, expected in ((True, x), (False, torch.zeros_like(x))):
        model = network(shortcuts=shortcuts)
        pairs = [module for module in model.modules() if isinstance(module, Residual)]
        assert len(pairs) == 2 and all(pair.shortcut is shortcuts for pair in pairs)
        nn.init.zeros_(pairs[0].second[1].weight)
        torch.testing.assert_close(pairs[0](x), expected)
    assert parameters(network(shortcuts=False)) == parameters(network())


# Resolutions


def test_the_map_of_a_whole_image_passes_unchanged(images):
    model = network()
    maps = model.convolutions(images)
    assert maps.shape[-2:] == (4, 4)
    assert model.feature_layer[0](maps) is maps


@pytest.mark.parametrize("size", [8, 16, 24])
def test_smaller_images_give_a_map_of_the_same_size(size):
    """Cells are repeated or averaged, so that one set of weights reads every resolution."""
    model = network()
    small = torch.rand(2, 3, size, size)
    assert model.convolutions(small).shape[-1] == size // 8
    assert model(small).shape == (2, 10)
    cells = torch.rand(2, 5, size // 8, size // 8)
    found = MapSize(4)(cells)
    assert found.shape == (2, 5, 4, 4)
    weights = {
        1: [[1], [1], [1], [1]],
        2: [[1, 0], [1, 0], [0, 1], [0, 1]],
        3: [[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]],
    }[size // 8]
    rows = torch.tensor(weights, dtype=torch.float32)
    torch.testing.assert_close(found, rows @ cells @ rows.T)


def test_global_average_pooling_reads_the_mean_of_the_map(images):
    model = network(map_side=1)
    maps = model.convolutions(images)
    assert model.feature_layer[0](maps).shape == (5, 128, 1, 1)
    torch.testing.assert_close(model.feature_layer[0](maps)[:, :, 0, 0], maps.mean((2, 3)))
    assert model.feature_layer[2].in_features == 128
    assert parameters(model) < 0.7 * parameters(network())


# The network of the assignment


def test_the_main_network_is_that_of_the_assignment(images):
    """Convolutions, batch normalisation, ReLU, max-pooling, a fully connected feature layer."""
    for run in runs.MAIN.values():
        model = build_model(run)
        assert parameters(model) < 1_000_000
        kinds = [type(module) for module in model.modules() if not list(module.children())]
        assert set(kinds) == {nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.ReLU,
                              MapSize, nn.Flatten, nn.Linear, nn.Dropout}  # fmt: skip
        assert kinds.count(nn.Conv2d) == 8 and kinds.count(nn.MaxPool2d) == 3
        assert kinds.count(nn.ReLU) == kinds.count(nn.BatchNorm2d) + 1 == 9
        assert model.dropout.p == 0 and model.output.in_features == FEATURES
    assert parameters(network()) == parameters(build_model(runs.MAIN["mnist"])) == 631_610


def test_no_network_of_the_grid_is_larger():
    grid = runs._registry("full").values()
    shapes = {(run.width, run.map_side, run.batch_norm): run for run in grid}
    assert len(shapes) > 3
    for run in shapes.values():
        assert parameters(build_model(run)) < 1_000_000, run.id


def test_the_weights_of_the_repository_take_eighteen_megabytes():
    kept = [run for run in runs._registry("full").values() if runs.keeps_weights(run)]
    count = sum(parameters(build_model(run)) for run in kept)
    assert len(kept) == 14 and 2 * count < 18e6  # kernels and matrices have 16 bits


def test_making_a_network_changes_nothing_but_the_generator_that_it_draws_from():
    before = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
              torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads(),
              torch.get_default_dtype())  # fmt: skip
    torch.manual_seed(1)
    first = DigitCNN().state_dict()
    torch.manual_seed(1)
    second = DigitCNN().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert before == (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
                      torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads(),
                      torch.get_default_dtype())  # fmt: skip
