"""Checks of weights: each finds the fault that is put into the demonstration model."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import layers_checks
from bitnet_lut.diagnose import weights_checks as checks
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.formats.ternary import absmean


def sick(change=None):
    """The demonstration model, its tensors changed in memory by ``change(name, tensor)``."""
    subject = Subject(MODEL)
    if change is not None:
        subject.tensors = {name: change(name, t) for name, t in subject.tensors.items()}
    return subject


def only(subject, check):
    """What a check finds, if that is one thing."""
    (finding,) = check(subject)
    return finding


def ternary(matrix):
    return i2_s.unpack_rows(matrix.packed, matrix.cols)


def recoded(matrix, code):
    """A matrix whose -1, 0 and +1 are replaced by the three values of *code*."""
    weights = np.array(code, np.int8)[ternary(matrix) + 1]
    return replace(matrix, packed=i2_s.pack_rows(weights))


def every_matrix(change):
    return sick(lambda name, t: change(t) if isinstance(t, TernaryMatrix) else t)


@pytest.mark.parametrize("check", [*checks.CHECKS, *layers_checks.CHECKS])
def test_the_demonstration_model_passes(check):
    assert {finding.status for finding in check(sick())} <= {"ok"}


def test_nan_is_damage():
    def change(name, tensor):
        return tensor * np.nan if name == "blk.1.ffn_norm.weight" else tensor

    found = only(sick(change), checks.check_damage)
    assert (found.status, found.verdict) == ("fault", "damaged")
    assert found.where == "blk.1.ffn_norm.weight"


@pytest.mark.parametrize(
    ("name", "verdict"), [("blk.2.ffn_up.weight", "layers"), ("token_embd.weight", "embedding")]
)
def test_empty_tensors_are_found(name, verdict):
    def change(tensor_name, tensor):
        if tensor_name != name:
            return tensor
        if isinstance(tensor, TernaryMatrix):
            return recoded(tensor, (0, 0, 0))
        return DenseMatrix(tensor.type, tensor.rows, tensor.cols, np.zeros_like(tensor.data))

    found = only(sick(change), checks.check_damage)
    assert (found.status, found.verdict, found.where) == ("fault", verdict, name)


@pytest.mark.parametrize("code", [(0, -1, 1), (1, 0, -1), (-1, 1, 0), (0, 1, -1), (1, -1, 0)])
def test_another_code_shows_in_the_shares_unless_it_swaps_signs(code):
    subject = every_matrix(lambda matrix: recoded(matrix, code))
    found = only(subject, checks.check_shares)
    zeros = subject.statistics["blk.0.ffn_up.weight"].zero
    if abs(zeros - 1 / 3) > 0.1 and code != (1, 0, -1):
        assert (found.status, found.verdict) == ("fault", "encoding")


def test_unequal_signs_are_another_code():
    rng = np.random.default_rng(0)

    def change(matrix):
        weights = ternary(matrix)  # half of them zeros, and then 0 is read as -1 and -1 as 0
        weights[rng.random(weights.shape) < 0.3] = 0
        return recoded(replace(matrix, packed=i2_s.pack_rows(weights)), (0, -1, 1))

    found = only(every_matrix(change), checks.check_shares)
    assert (found.status, found.verdict) == ("fault", "encoding")
    assert "-1 5" in found.measured


def test_weights_without_zeros_are_not_of_absmean():
    def change(matrix):
        weights = ternary(matrix)
        weights[weights == 0] = np.where(np.arange((weights == 0).sum()) % 2, 1, -1)
        return replace(matrix, packed=i2_s.pack_rows(weights))

    found = only(every_matrix(change), checks.check_shares)
    assert (found.status, found.verdict) != ("ok", "ok")
    assert found.verdict == "encoding"


def test_code_3_is_another_code_where_it_is_common_and_damage_where_it_is_rare():
    def all_plus_one(matrix):  # code 2 becomes code 3
        packed = matrix.packed | ((matrix.packed & 0xAA) >> 1)
        return replace(matrix, packed=packed)

    def one_byte(matrix):
        packed = matrix.packed.copy()
        packed[0, 0] = 0xFF
        return replace(matrix, packed=packed)

    for change, verdict in [(all_plus_one, "encoding"), (one_byte, "damaged")]:
        found = only(every_matrix(change), checks.check_codes)
        assert (found.status, found.verdict) == ("fault", verdict)


def test_inverse_scales_are_found():
    # Scales about 0.01, as layers of 2,560 columns have, whose inverse is about 100.
    subject = every_matrix(lambda m: replace(m, scale=1 / (m.scale / np.float32(10))))
    found = only(subject, checks.check_scales)
    assert found.verdict == "scale"
    assert "inverse" in found.meaning


def test_lost_scales_are_found():
    subject = every_matrix(lambda m: replace(m, scale=np.ones(1, np.float32)))
    found = only(subject, checks.check_scales)
    assert found.verdict == "scale"
    assert "exactly 1" in found.meaning


def test_one_scale_unlike_the_others_is_named():
    def change(name, tensor):
        if name != "blk.3.attn_v.weight":
            return tensor
        return replace(tensor, scale=tensor.scale * np.float32(100))

    found = only(sick(change), checks.check_scales)
    assert (found.verdict, found.where) == ("scale", "blk.3.attn_v.weight")


def test_a_layer_that_occurs_twice_is_found():
    subject = Subject(MODEL)
    twin = {n: t for n, t in subject.tensors.items() if n.startswith("blk.1.")}
    subject.tensors |= {name.replace("blk.1.", "blk.4."): t for name, t in twin.items()}
    found = only(subject, layers_checks.check_twins)
    assert (found.status, found.verdict) == ("fault", "layers")
    assert found.measured.startswith("7 matrices")


def reordered(order):
    subject = Subject(MODEL)
    subject.tensors |= {
        name.replace(f"blk.{old}.", f"blk.{new}."): tensor
        for new, old in enumerate(order)
        for name, tensor in subject.tensors.items()
        if name.startswith(f"blk.{old}.")
    }
    return subject


@pytest.mark.parametrize("order", [(4, 1, 2, 3, 0, 5), (2, 5, 0, 3, 1, 4)])
def test_shuffled_layers_are_found_and_most_of_their_order(order):
    """The model's first two layers are hardly like their neighbors; the others are put right."""
    subject = reordered(order)
    found = only(subject, layers_checks.check_order)
    assert (found.status, found.verdict) == ("fault", "layers")
    best = layers_checks.best_order(layers_checks.likeness(subject)).tolist()
    sorted_again = "".join(str(order[place]) for place in best)
    assert "2345" in sorted_again or "5432" in sorted_again


def test_the_best_order_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(5):
        alike = np.corrcoef(rng.standard_normal((6, 40)))
        found = layers_checks._score(alike, layers_checks.best_order(alike))
        every = (layers_checks._score(alike, np.array(o)) for o in permutations(range(6)))
        assert found >= max(every) - 0.1


def test_an_embedding_that_is_half_empty_is_found():
    def change(name, tensor):
        if name != "token_embd.weight":
            return tensor
        data = tensor.data.copy()
        data[len(data) // 2 :] = 0
        return DenseMatrix(tensor.type, tensor.rows, tensor.cols, data)

    found = only(sick(change), checks.check_embedding)
    assert found.verdict == "embedding"
    assert "50.0% of them empty" in found.measured


@pytest.mark.parametrize("shift", [-1, 1])
def test_norms_without_their_1_or_with_another_one_are_found(shift):
    def change(name, tensor):
        return tensor + np.float32(shift) if name.endswith("norm.weight") else tensor

    found = only(sick(change), checks.check_norms)
    assert (found.status, found.verdict) == ("fault", "norms")


def test_random_weights_are_called_untrained():
    rng = np.random.default_rng(0)

    def change(matrix):
        weights, _ = absmean(rng.standard_normal((matrix.rows, matrix.cols), np.float32))
        return replace(matrix, packed=i2_s.pack_rows(weights))

    found = only(every_matrix(change), checks.check_training)
    assert (found.status, found.verdict) == ("fault", "untrained")
    assert 0.9 < checks.dispersion(every_matrix(change)) < 1.1


@pytest.mark.parametrize("code", [(0, -1, 1), (1, 0, -1), (-1, 1, 0)])
def test_another_code_does_not_make_a_model_look_untrained(code):
    subject = every_matrix(lambda matrix: recoded(matrix, code))
    assert checks.dispersion(subject) > 3


def test_what_is_unusual_in_a_model_that_works_is_a_warning():
    def change(name, tensor):  # the norm of q and k takes the factor away again
        if name.endswith("attn_output.weight") and name.startswith("blk.3"):
            return replace(tensor, scale=tensor.scale / np.float32(20))
        return tensor

    subject = sick(change)
    assert subject.sensible
    assert only(subject, checks.check_scales).status == "warning"


def test_rounding_normal_weights_changes_them_by_half_of_their_norm():
    weights = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    rounded, scale = absmean(weights)
    error = np.linalg.norm(weights - rounded * scale) / np.linalg.norm(weights)
    assert checks._gaussian_error() == pytest.approx(error, abs=0.005)
    assert pytest.approx((rounded == 0).mean(), abs=0.003) == checks.GAUSSIAN_ZEROS


def test_masters_are_compared_with_what_they_are_rounded_to(golden):
    found = only(Subject(golden / "bitnet-b1.58/hf-master-bf16"), checks.check_masters)
    assert found.status == "ok"
    assert "0.51 to 0.51" in found.measured
    assert "blk.0 76.49 -> 50.72" in found.measured
