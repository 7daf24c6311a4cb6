"""Makes the project's packages importable for the tests, as Slicer does with its modules' folders, and
simulates the patients that several tests share."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

_REPOSITORY = Path(__file__).resolve().parent.parent
for _folder in ("HematomaExpansion", "HematomaSynthesis", "Testing"):
    sys.path.insert(0, str(_REPOSITORY / _folder))

if TYPE_CHECKING:
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

REAL_HEAD_CT = _REPOSITORY.parent / "shared" / "data" / "real-head-ct"


_LONG = (
    "test_bad_input.py",
    "test_slicer_scene.py",
    "test_slicer_window.py",
    "test_simulation.py",
    "test_prediction.py",
    "test_slicer_synthesis.py",
    "test_comparison.py",
    "test_batch.py",
    "test_risk_networks.py",
    "test_training.py",
    "test_growth.py",
    "test_medsam.py",
    "test_slicer_saved_scene.py",
    "test_adaptation.py",
    "test_reuse.py",
    "test_faults.py",
    "test_variants.py",
    "test_same_scan.py",
    "test_markers.py",
    "test_batch_script.py",
    "test_cluster.py",
)
"""The files that take longest, longest first; begun last, one of them would leave the other workers idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files."""
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(_LONG)))


@pytest.fixture(autouse=True)
def no_models_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever models are installed on this machine, tests see the shipped ones."""
    monkeypatch.setenv("HEMATOMA_MODELS", str(tmp_path / "installed-models"))


MadeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Gives the folder of a name, which all worker processes share: the first that asks has it filled."""
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    shared = run / "shared"
    shared.mkdir(exist_ok=True)

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                unfinished = tmp_path_factory.mktemp(name) / name
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(shared / name)
        return shared / name

    return folder


_IMAGES = ("baseline", "baseline_mask", "followup", "followup_mask")


@pytest.fixture(scope="session")
def simulated(made_once: MadeOnce) -> Path:
    """The folder of a simulated patient with a medium-sized hematoma, at a coarse matrix, in two forms."""
    import SimpleITK as sitk
    from HematomaSynthesisLib.simulation.causal_model import SimulationOptions
    from HematomaSynthesisLib.simulation.cohort import write_case
    from HematomaSynthesisLib.simulation.patient import simulate_patient

    def simulate(folder: Path) -> None:
        patient = simulate_patient(7, 5, SimulationOptions(matrix=192, slice_mm=5.0))
        write_case(patient, folder / "cohort" / "patient")
        for name in _IMAGES:  # as NRRD, which keeps positions in double precision
            image = getattr(patient, name)
            sitk.WriteImage(getattr(image, "image", image), str(folder / f"{name}.nrrd"))
        (folder / "description.json").write_text(json.dumps(patient.description))

    return made_once("simulated", simulate)


@pytest.fixture(scope="session")
def patient(simulated: Path) -> SimulatedPatient:
    """That patient."""
    import SimpleITK as sitk
    from HematomaExpansionLib.scan.mask import Mask
    from HematomaSynthesisLib.simulation.patient import SimulatedPatient

    images = {name: sitk.ReadImage(str(simulated / f"{name}.nrrd")) for name in _IMAGES}
    masks = {name: Mask(image) for name, image in images.items() if name.endswith("mask")}
    description = json.loads((simulated / "description.json").read_text())
    return SimulatedPatient(**{**images, **masks}, description=description)


@pytest.fixture(scope="session")
def case_folder(simulated: Path) -> Path:
    """That patient on disk, in the layout of a cohort."""
    return simulated / "cohort" / "patient"


@pytest.fixture
def cases_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands prepare the cases of a cohort here: workers would take longer to start than such cases need."""
    from HematomaExpansionLib.training.data import each_case

    monkeypatch.setattr(each_case, "_FEW_CASES", 100)


_WITH_BRAINS = (
    "anatomy.brain",
    "comparison",
    "prediction",
    "training.data.cohort",
    "training.risk.evaluation",
    "training.risk.networks",
    "training.segmentation.adaptation",
)
"""The modules of the engine that look for the inside of the skull."""

_brains: dict[bytes, Any] = {}


@pytest.fixture
def each_brain_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inside of a skull is remembered: finding it takes a second, and such tests show the same few scans."""
    import SimpleITK as sitk
    from HematomaExpansionLib.anatomy.brain import extract_brain
    from HematomaExpansionLib.scan.grid import Grid

    def remembered(image: sitk.Image) -> Any:
        voxels = sitk.GetArrayViewFromImage(image)
        key = hashlib.sha256(f"{Grid.of(image)}{voxels.dtype}".encode() + voxels.tobytes()).digest()
        if key not in _brains:
            _brains[key] = extract_brain(image)
        return _brains[key]

    for name in _WITH_BRAINS:
        module = importlib.import_module(f"HematomaExpansionLib.{name}")
        monkeypatch.setattr(module, "extract_brain", remembered)


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
