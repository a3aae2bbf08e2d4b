import copy

import pytest
import torch

from nnunetv2_voco.encoder import embedding_size, plain_architecture
from nnunetv2_voco.features import pooled_embedding
from nnunetv2_voco.pretrain.model import VoCoModel, dropout_mask, projector, update_momentum
from tests.pretrain.tiny_run import ARCHITECTURE, LOSS, make_model, random_batch


def mask(kind: str = "element", p: float = 0.2, seed: tuple[int, int] = (3, 5), shape=(400, 64)) -> torch.Tensor:
    return dropout_mask(shape, kind=kind, p=p, seed=seed, device=torch.device("cpu"))


def test_default_network_has_the_published_embedding_size():
    assert embedding_size(plain_architecture()) == 32 + 64 + 128 + 256 + 320 + 320


def test_embedding_is_the_mean_of_every_stage():
    maps = [torch.randn(5, 4, 8, 8, 8), torch.randn(5, 8, 4, 4, 4)]
    embedding = pooled_embedding(maps)
    assert embedding.shape == (5, 12)
    torch.testing.assert_close(embedding[2, 7], maps[1][2, 3].mean())


def test_model_embeds_every_crop_of_every_volume():
    model, (crops, *_) = make_model(), random_batch(volumes=3)
    embeddings, predictions = model.embed(crops)
    assert embeddings.shape == (3, 11, embedding_size(ARCHITECTURE))
    assert predictions.shape == (3, 11, model.place_heads.size)
    torch.testing.assert_close(embeddings[1, 4], pooled_embedding(model.encoder(crops[1, 4:5]))[0])


def test_teacher_moves_by_the_moving_average():
    model = make_model()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.normal_()
    before = [parameter.clone() for parameter in model.teacher.parameters()]
    update_momentum(model.student, model.teacher, 0.9)
    for old, new, student in zip(before, model.teacher.parameters(), model.student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)


def test_teacher_begins_as_the_student_and_gets_no_gradient():
    model = make_model()
    for student, teacher in zip(model.student.parameters(), model.teacher.parameters(), strict=True):
        assert torch.equal(student, teacher)
    model(*random_batch(), **LOSS).total.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    assert all(parameter.grad is not None for parameter in model.student.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters() if parameter.dim() > 1)


def test_element_dropout_keeps_the_mean_and_drops_numbers_one_by_one():
    drawn = mask("element")
    assert set(drawn.unique().tolist()) == {0.0, 1.25}
    assert drawn.mean().item() == pytest.approx(1, abs=0.02)
    assert 0 < (drawn[0] == 0).sum() < 64


def test_crop_dropout_drops_whole_crops():
    drawn = mask("crop", shape=(4000, 64)).expand(4000, 64)
    assert ((drawn == drawn[:, :1]).all(dim=1)).all()
    assert drawn.mean().item() == pytest.approx(1, abs=0.04)


def test_dropout_depends_on_seed_and_step_only():
    state = torch.get_rng_state()
    assert torch.equal(mask(), mask())
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(mask(), mask(seed=(3, 6)))
    assert not torch.equal(mask(), mask(seed=(4, 5)))


def test_no_dropout_changes_nothing():
    assert torch.equal(mask(p=0.0), torch.ones(400, 64))


def test_projector_normalises_by_the_batch_also_in_evaluation():
    head = projector(20, 16)
    x = torch.randn(50, 20) * 30 + 7
    hidden = head[1](head[0](x))
    torch.testing.assert_close(hidden.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(hidden.std(0, unbiased=False), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(copy.deepcopy(head).eval()(x), head(x))
    assert not any(isinstance(m, torch.nn.BatchNorm1d) and list(m.parameters()) for m in head)


def test_same_step_gives_the_same_loss():
    losses = [make_model()(*random_batch(), **LOSS).total.item() for _ in range(2)]
    assert losses[0] == losses[1]


def test_single_volume_has_no_inter_volume_loss_but_trains():
    loss = make_model()(*random_batch(volumes=1), **LOSS)
    loss.total.backward()
    assert loss.inter == 0
    assert torch.isfinite(loss.total)


def test_layered_grid_and_more_random_crops_are_accepted():
    model = VoCoModel(ARCHITECTURE, random_crops=4, projection_size=8)
    crops, overlaps = torch.randn(2, 12, 1, 8, 8, 8), torch.rand(2, 4, 8).softmax(-1)
    valid, places = torch.ones(2, 8, dtype=torch.bool), torch.rand(2, 12, 2, 3)
    assert torch.isfinite(model(crops, overlaps, valid, places, crops[:, :4], **LOSS).total)
