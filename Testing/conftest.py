"""Makes the project's packages importable for the tests, as Slicer does with its modules' folders, and
simulates the patients that several tests share."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent
for _folder in ("HematomaExpansion", "HematomaSynthesis", "Testing"):
    sys.path.insert(0, str(_REPOSITORY / _folder))

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

REAL_HEAD_CT = _REPOSITORY.parent / "shared" / "data" / "real-head-ct"


@pytest.fixture(autouse=True)
def no_models_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever models are installed on this machine, tests see the shipped ones."""
    monkeypatch.setenv("HEMATOMA_MODELS", str(tmp_path / "installed-models"))


@pytest.fixture(scope="session")
def patient() -> SimulatedPatient:
    """A simulated patient with a medium-sized hematoma, at a coarse matrix."""
    from HematomaSynthesisLib.simulation.causal_model import SimulationOptions
    from HematomaSynthesisLib.simulation.patient import simulate_patient

    return simulate_patient(7, 5, SimulationOptions(matrix=192, slice_mm=5.0))


@pytest.fixture(scope="session")
def case_folder(patient: SimulatedPatient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That patient on disk, in the layout of a cohort."""
    from HematomaSynthesisLib.simulation.cohort import write_case

    folder = tmp_path_factory.mktemp("cohort") / "patient"
    write_case(patient, folder)
    return folder


@pytest.fixture(scope="session")
def real_head_ct() -> Path:
    """The real head CT, if it is available."""
    if not REAL_HEAD_CT.is_dir():
        pytest.skip("the real head CT is not on this machine")
    return REAL_HEAD_CT


@pytest.fixture(scope="module")
def application() -> Any:
    """Slicer's libraries, running without its window."""
    pytest.importorskip("slicer")
    core = pytest.importorskip("trame_slicer.core")
    return _completed(core.SlicerApp())


def _completed(application: Any) -> Any:
    from slicer_scene import complete

    complete(application.scene)
    return application


@pytest.fixture(scope="session")
def rendering() -> None:
    """Skips on a machine where VTK itself can draw nothing off screen, not even a cone."""
    vtk = pytest.importorskip("vtk")
    cone, actor, mapper = vtk.vtkConeSource(), vtk.vtkActor(), vtk.vtkPolyDataMapper()
    mapper.SetInputConnection(cone.GetOutputPort())
    actor.SetMapper(mapper)
    renderer, window, capture = vtk.vtkRenderer(), vtk.vtkRenderWindow(), vtk.vtkWindowToImageFilter()
    renderer.AddActor(actor)
    window.SetOffScreenRendering(True)
    window.AddRenderer(renderer)
    window.Render()
    capture.SetInput(window)
    capture.ReadFrontBufferOff()
    capture.Update()
    if capture.GetOutput().GetScalarRange()[1] == 0:
        pytest.skip("VTK can draw nothing on this machine")


@pytest.fixture
def scene(application: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application's scene, empty, as ``slicer.mrmlScene``."""
    import slicer

    monkeypatch.setattr(slicer, "mrmlScene", application.scene, raising=False)
    application.scene.GetSubjectHierarchyNode()  # is created on first access
    yield application.scene
    application.scene.Clear(0)


@pytest.fixture
def new_application(rendering: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Starts Slicer's libraries with their own scene, since views do not survive the closing of a scene.

    Only the test holds on to them, because they must go before their scene does.
    """
    slicer = pytest.importorskip("slicer")
    core = pytest.importorskip("trame_slicer.core")

    def make() -> Any:
        application = _completed(core.SlicerApp())
        monkeypatch.setattr(slicer, "mrmlScene", application.scene, raising=False)
        return application

    return make


@pytest.fixture
def qt_loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The part of Slicer's ``qt`` that background work uses, from another binding of the same Qt."""
    core_module = pytest.importorskip("PySide6.QtCore", exc_type=ImportError)

    class Process(core_module.QProcess):
        def connect(self, signal: str, slot: Any) -> None:
            normal = bytes(core_module.QMetaObject.normalizedSignature(signal).data()).decode()
            assert self.metaObject().indexOfSignal(normal) >= 0, f"Qt knows no signal {signal}"
            getattr(self, signal.partition("(")[0]).connect(slot)

    qt = types.ModuleType("qt")
    for name, value in {
        "QProcess": Process,
        "QTimer": core_module.QTimer,
        "QProcessEnvironment": core_module.QProcessEnvironment,
        "QByteArray": core_module.QByteArray,
    }.items():
        setattr(qt, name, value)
    monkeypatch.setitem(sys.modules, "qt", qt)
    for name in _modules_on_qt():
        monkeypatch.delitem(sys.modules, name)
    from slicer_panel import application  # can also show widgets; a process has only one

    yield application()
    for name in _modules_on_qt():
        del sys.modules[name]


def _modules_on_qt() -> list[str]:
    """The imported modules of the Slicer libraries that hold on to the current ``qt``."""
    last = ("background", "jobs", "_export")
    return [name for name in sys.modules if "SlicerLib." in name and name.endswith(last)]
