"""Which backend runs a call, on a machine without a GPU; with one simulated, see tests/cuda/simulated."""

import pickle
import re
import sys
from contextlib import nullcontext
from contextvars import copy_context
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from children import run

import fastloss as fl
from fastloss.call import backend_choice
from fastloss.cuda import libraries, placement

P, T = np.array([1.0, 2.0]), np.array([1.0, 4.0])


class OnDevice:
    """An array on a GPU that does not exist."""

    def __init__(self, a):
        self.a = np.asarray(a)
        self.shape, self.dtype = self.a.shape, self.a.dtype

    def __dlpack_device__(self):
        return (libraries.DLPACK_CUDA, 0)


class Library:
    """The library of such arrays, as far as copies go."""

    owns = staticmethod(lambda x: isinstance(x, OnDevice))

    def described(self, x, what):
        return x.dtype.name, True

    def to_host(self, x):
        return x.a

    def from_host(self, a, like):
        return OnDevice(a)


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setattr(libraries, "LIBRARIES", (Library,))


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(placement, "missing", lambda: 'numba-cuda is not installed; pip install "fastloss[cuda13]"')


def test_asked_for_by_name_it_says_why_not_and_what_helps(without_cuda):
    wanted = r"^(mse|huber): backend is 'cuda', but numba-cuda is not installed; pip install \"fastloss\[cuda13\]\"$"
    for call in (
        lambda: fl.mse(P, T, backend="cuda"),
        lambda: fl.mse.value_and_grad(P, T, backend="cuda"),
        lambda: fl.huber.grad_and_hess(P, T, delta=2.0, backend="cuda"),
        lambda: fl.mse.bind(backend="cuda")(P, T),
    ):
        with pytest.raises(fl.BackendError, match=wanted):
            call()
    # A call that was made before takes a short way, which must not pass by the question.
    fl.mse(P, T), fl.cross_entropy(P[None], np.array([1]))
    with fl.backend("cuda"):
        with pytest.raises(fl.BackendError, match=wanted):
            fl.mse(P, T)
        with pytest.raises(fl.BackendError, match="cuda"):
            fl.cross_entropy(P[None], np.array([1]))
        with pytest.raises(fl.BackendError, match="cuda"):
            fl.iou(np.eye(4), np.eye(4))
        with fl.backend("cpu"):
            assert fl.mse(P, T) == 2.0
        assert fl.mse(P, T, backend="cpu") == 2.0
    assert fl.mse(P, T) == 2.0


def test_chosen_by_the_array_it_falls_back(library, without_cuda):
    weight = np.array([1.0, 3.0])
    with pytest.warns(RuntimeWarning, match="mse runs on the CPU, with copies: numba-cuda is not installed"):
        value, grad = fl.mse.value_and_grad(OnDevice(P), OnDevice(T), weight=OnDevice(weight))
    assert isinstance(value, OnDevice)
    assert value.a == 3.0
    np.testing.assert_array_equal(grad.a, fl.mse.value_and_grad(P, T, weight=weight)[1])
    with pytest.warns(RuntimeWarning, match="with copies"):
        assert fl.cross_entropy(OnDevice(P[None]), OnDevice(np.array([1]))).a == fl.cross_entropy(P[None], [1])
    with pytest.warns(RuntimeWarning, match="with copies"):
        grads = fl.iou.value_and_grad(OnDevice([[0.0, 0, 1, 1]]), OnDevice([[0.0, 0, 1, 2]]))[1]
    assert isinstance(grads, OnDevice)
    with pytest.raises(ValueError, match="all on a GPU or all in host memory"):
        fl.mse(OnDevice(P), T)
    detailed = fl.cross_entropy.details
    with pytest.warns(RuntimeWarning, match="with copies"):
        found = detailed(OnDevice(P[None]), OnDevice(np.array([1])))
    assert found.rank.a == detailed(P[None], np.array([1])).rank
    with pytest.raises(fl.BackendError, match="out cannot be written by a call that runs on the CPU, as"):
        fl.mse.value_and_grad(OnDevice(P), OnDevice(T), out=OnDevice(np.empty(2)))


def test_on_the_cpu_an_array_of_a_gpu_is_refused(library):
    with pytest.raises(fl.BackendError, match="backend is 'cpu', and an array lies on a GPU"):
        fl.mse(OnDevice(P), OnDevice(T), backend="cpu")


def test_unknown_names():
    for call in (lambda: fl.mse(P, T, backend="gpu"), lambda: fl.backend("gpu").__enter__()):
        with pytest.raises(ValueError, match="backend is 'gpu'; allowed: 'auto', 'cpu', 'cuda'"):
            call()


def test_bound():
    loss = fl.huber.bind(delta=2.0, backend="cpu")
    assert repr(loss) == "fastloss.huber.bind(delta=2.0, backend='cpu')"
    assert loss == pickle.loads(pickle.dumps(loss)) == loss.bind(backend="cpu")
    assert loss != fl.huber.bind(delta=2.0)
    assert loss(P, T) == fl.huber(P, T, delta=2.0)


def test_contexts_nest_and_end_after_errors():
    assert backend_choice.chosen() == "auto"
    with fl.backend("cpu"), fl.backend("auto"):
        assert backend_choice.chosen() == "auto"
    with pytest.raises(TypeError), fl.backend("cpu"):
        fl.mse(P)
    assert backend_choice.chosen() == "auto"


def test_what_changes_nothing_for_plain_arrays_leaves_them_the_short_way(monkeypatch):
    called = []
    monkeypatch.setattr(placement, "involved", lambda *given: called.append(given))
    for loss in (fl.mse, fl.cross_entropy):
        given = (P, T) if loss is fl.mse else (P[None], np.array([1]))
        loss(*given)  # compiled, and remembered
        called.clear()
        with fl.backend("cpu"):
            loss(*given)
        assert not called
        with fl.backend("cuda"):
            loss(*given)
        assert called


@pytest.mark.parametrize(
    ("loss", "arrays"),
    [
        (fl.mse, (P, T)),
        (fl.cross_entropy, (P[None], np.array([1]))),
        (fl.cosine_distance, (P[None], T[None])),
    ],
    ids=["elementwise", "rows", "arrays"],
)
def test_a_context_that_outlives_its_block_keeps_its_backend(monkeypatch, loss, arrays):
    """As an asyncio task that starts in the block does."""
    monkeypatch.setattr(placement, "missing", lambda: "no device")
    for _ in range(2):
        loss(*arrays)
    with fl.backend("cuda"):
        context = copy_context()
    for call in (loss, loss.bind(backend="cuda"), loss.value_and_grad):
        with pytest.raises(fl.BackendError, match="backend is 'cuda', but"):
            context.run(call, *arrays)
    bound = loss.bind(backend="cuda")
    for _ in range(2):
        with pytest.raises(fl.BackendError, match="backend is 'cuda', but"):
            bound(*arrays)
    assert not bound._plans


@pytest.mark.parametrize(
    ("loss", "arrays"),
    [
        (fl.mse, (P, T)),
        (fl.quantile.bind(q=[0.1, 0.9]), (np.ones((3, 2)), np.ones(3))),
        (fl.cross_entropy, (P[None], np.array([1]))),
        (fl.cosine_distance, (P[None], T[None])),
        (fl.triplet, (P[None], T[None], T[None])),
    ],
    ids=["elementwise", "levels", "rows", "arrays", "arrays without kernel"],
)
def test_a_bound_backend_is_asked_again_where_cuda_declined(monkeypatch, loss, arrays):
    """No call leaves a plan on the CPU, which later calls would take."""

    def decline(*given):
        raise NotImplementedError("this dtype has no CUDA kernel")

    monkeypatch.setattr(placement, "missing", lambda: "")
    monkeypatch.setattr(placement, "place_of", lambda *given: SimpleNamespace(current=nullcontext))
    monkeypatch.setattr(placement, "import_module", lambda *given: SimpleNamespace(run=decline))
    loss(*arrays), loss.value_and_grad(*arrays)
    bound = loss.bind(backend="cuda")
    for call in (bound, bound.value_and_grad) * 3:
        for options in ({}, {"reduction": "sum"}, {"weight": np.ones(len(arrays[-1]))}):
            with pytest.raises(fl.BackendError, match="has no CUDA kernel"):
                call(*arrays, **options)
    assert not bound._plans


@pytest.mark.parametrize(("name", "short"), [("", True), ("AUTO", True), ("cpu", True), ("cuda", False)])
def test_the_same_of_the_variable(name, short):
    script = "from fastloss.call import backend_choice; print(not backend_choice.cuda_was_selected)"
    assert run(script, FASTLOSS_BACKEND=name) == f"{short}"


def test_tensors_that_lie_nowhere_and_classes_are_refused_as_ever():
    torch = pytest.importorskip("torch")
    for wrong, said in (
        (torch.empty(2, device="meta"), "meta"),
        (np.ndarray, "dtype object; expected real numbers"),
    ):
        for loss in (fl.mse, fl.giou):
            with pytest.raises(TypeError, match=said):
                loss(wrong, wrong)


def test_arrays_of_several_devices_or_libraries(monkeypatch):
    class Numbered(Library):
        device = staticmethod(lambda x: x.number)

    class Other(Numbered):
        owns = staticmethod(lambda x: isinstance(x, Foreign))

    class Foreign(OnDevice):
        number = 0

    class Mine(OnDevice):
        number = 0

    class Second(Mine):
        number = 1

    Numbered.owns = staticmethod(lambda x: isinstance(x, Mine))
    monkeypatch.setattr(libraries, "LIBRARIES", (Numbered, Other))
    monkeypatch.setattr(placement, "missing", lambda: "")
    for other in (Second, Foreign):
        with pytest.raises(ValueError, match="takes arrays of one device and one library"):
            fl.mse(Mine(P), other(T))


TRIED = """
import fastloss as fl
print(fl.mse([1.0], [2.0]))
try:
    fl.mse([1.0], [2.0], backend="cuda")
except fl.BackendError as error:
    print(error)
"""


def test_environment():
    for name in backend_choice.BACKENDS:
        assert (
            run("from fastloss.call import backend_choice; print(backend_choice.chosen())", FASTLOSS_BACKEND=name)
            == name
        )
    assert run("import fastloss as fl; print(fl.mse([1.0], [2.0]))", FASTLOSS_BACKEND="cpu") == "1.0"
    with pytest.raises(AssertionError, match="FASTLOSS_BACKEND is 'gpu'; allowed: 'auto', 'cpu', 'cuda'"):
        run("import fastloss as fl; fl.mse([1.0], [2.0])", FASTLOSS_BACKEND="gpu")


def test_a_broken_numba_cuda_is_a_reason_not_a_crash(tmp_path):
    # Numba's own CUDA target, or a numba-cuda without its runtime wheel, raises where it is imported.
    (tmp_path / "numba_cuda").mkdir()
    (tmp_path / "numba_cuda" / "__init__.py").touch()
    broken = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import numba; sys.modules['numba.cuda'] = None\n"
    value, told = run(broken + TRIED).splitlines()
    assert value == "1.0"
    assert told.startswith("mse: backend is 'cuda', but numba-cuda cannot be imported (")
    assert told.endswith('pip install "fastloss[cuda13]" (or fastloss[cuda12] for an older driver)')


@pytest.mark.parametrize(
    ("context", "compile", "told"),
    [
        (
            OSError("no driver\n\nsee the manual\nand more"),
            None,
            r"^CUDA finds no usable device \(OSError: no driver see",
        ),
        (None, OSError("no libnvrtc"), r"^numba-cuda cannot compile \(OSError: no libnvrtc\); pip install"),
        (None, None, "^$"),
    ],
)
def test_reasons(monkeypatch, context, compile, told):
    def raising(error):
        def call(*arguments, **options):
            if error is not None:
                raise error

        return call

    fake = SimpleNamespace(current_context=raising(context), compile=raising(compile))
    monkeypatch.setattr(backend_choice, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "numba.cuda", fake)
    monkeypatch.setattr(numba, "cuda", fake, raising=False)
    assert re.search(told, backend_choice.missing.__wrapped__())


def test_synchronize_without_a_gpu():
    fl.synchronize()


def test_stream_of_a_numba_array():
    class Stream:
        def __int__(self):
            return 7

    at = libraries.Numba.stream
    assert at(None, SimpleNamespace(stream=Stream())) == 7
    assert at(None, SimpleNamespace(stream=0)) == at(None, SimpleNamespace(stream=None)) == 0
