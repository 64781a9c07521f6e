"""Every op against what its declaration says of it: one case per sample, five checks each."""

import pytest

from flambeau.backends import kernels
from flambeau.ops._op import REGISTRY
from flambeau.testing.cases import op_cases

CASES = op_cases()
pytestmark = pytest.mark.opcase


@pytest.mark.parametrize("case", [c for c in CASES if c.op.ref is not None], ids=str)
def test_reference(case):
    assert case.check_reference()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forms(case):
    case.check_forms()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_precision(case):
    case.check_precision()


@pytest.mark.parametrize("case", [c for c in CASES if c.op.vjp_of or c.op.composite], ids=str)
def test_gradient(case):
    case.check_gradient(1)


@pytest.mark.parametrize("case", [c for c in CASES if c.op.vjp_of or c.op.composite], ids=str)
def test_second_gradient(case):
    case.check_gradient(2)


@pytest.mark.parametrize("case", [c for c in CASES if c.op.kernel is not None], ids=str)
def test_kernel(case):
    if not kernels.load():
        pytest.skip("the extra `fast` is not installed")
    assert case.check_kernel()


def test_every_op_has_samples():
    without = sorted(name for name, op in REGISTRY.items() if op.samples is None)
    assert without == ["imag"], f"ops without samples: {without}"  # imag: complex only, held against PyTorch


def test_count_of_generated_cases(record_property):
    record_property("op_cases", len(CASES))
    assert len(CASES) > 150
