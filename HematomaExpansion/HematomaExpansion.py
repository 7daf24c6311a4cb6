"""The Slicer module: a panel over the engine. Nothing is computed here."""

import dataclasses
import pathlib
from typing import Annotated, Any

import qt
import slicer
from HematomaSlicerLib.panel import Panel
from HematomaSlicerLib.self_test import PanelTest
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

SAMPLE_NAME = "SimulatedHematoma"
_SAMPLE_FILE = "SampleData/simulated-patient-baseline.nii.gz"
_REQUIREMENTS = "HematomaExpansion-requirements.txt"
_FRAME_MS, _FRAME_PERCENT = 60, 3
_ANSWERS = {"unknown": None, "no": False, "yes": True}
_DEFINITIONS = ["6ml", "12.5ml", "revised"]
_SOURCES = {"evidence": "evidence", "BRAIN score": "brain"}
_NO_GCS = 2
_IF_EXPANDS = 50.0
_SHIPPED = {"growth": "growth-compact", "segmentation": "segmentation-kinds", "forecast": "forecast-evidence"}


class HematomaExpansion(ScriptedLoadableModule):
    """What Slicer shows about the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Hematoma Expansion")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = []
        self.parent.contributors = ["HematomaExpansion maintainers"]
        self.parent.helpText = _(
            "Predicts from the first head CT where an intracerebral hematoma grows, and how large it becomes. "
            "<b>Research use only. Not for diagnosis or treatment.</b> The models that see images "
            "learned from simulated bleeds only; see the README of the extension."
        )
        self.parent.acknowledgementText = _(
            "After Abramova et al., Appl. Sci. 2024;14:2708 and Comput. Med. Imaging Graph. 2021;90:101908."
        )
        slicer.app.connect("startupCompleted()", _register_sample)


def _register_sample() -> None:
    """Offer the simulated patient that comes with the module in Slicer's Sample Data."""
    import SampleData

    resources = pathlib.Path(__file__).parent / "Resources"
    sample = resources / _SAMPLE_FILE
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("Hematoma Expansion"),
        sampleName=SAMPLE_NAME,
        thumbnailFileName=str(resources / "Icons" / "SimulatedHematoma.png"),
        uris=sample.as_uri(),
        fileNames="simulated-hematoma.nii.gz",
        checksums=f"SHA256:{slicer.util.computeChecksum('SHA256', str(sample))}",
        nodeNames=SAMPLE_NAME,
        loadFileTypes="VolumeFile",  # a .nii.gz may also be read as a segmentation
    )


@parameterNodeWrapper
class HematomaExpansionParameterNode:
    """What the user chose; saved with the scene.

    Attributes:
        baseline: the first head CT.
        segmentAutomatically: whether to find the hematoma or take it from ``hematoma`` and ``hematomaSegment``.
        box: where a model that looks in a box finds the hematoma.
        onsetHours: hours from onset to scan; 0 means unknown.
        gcs: Glasgow Coma Scale, from 3 on; 2 means unknown.
        recurrent, warfarin, intraventricular: see ``ClinicalData``.
        result: the table of the prediction shown.
        growthShown: from the hematoma now (0) through the median of those who expand (50) to what one in ten of
            those exceeds (100).
        growthModel, segmentationModel, forecastModel: names of model packages; empty for the shipped ones.
        probabilityFrom: what tells whether the hematoma expands.
    """

    baseline: vtkMRMLScalarVolumeNode
    segmentAutomatically: bool = True
    box: vtkMRMLMarkupsROINode
    hematoma: vtkMRMLSegmentationNode
    hematomaSegment: str = ""
    onsetHours: Annotated[float, WithinRange(0, 336)] = 0.0
    gcs: Annotated[int, WithinRange(2, 15)] = 2
    recurrent: Annotated[str, Choice(["unknown", "no", "yes"])] = "unknown"
    warfarin: Annotated[str, Choice(["unknown", "no", "yes"])] = "unknown"
    intraventricular: Annotated[str, Choice(["unknown", "no", "yes"])] = "unknown"
    result: vtkMRMLTableNode
    growthShown: Annotated[float, WithinRange(0, 100)] = 50.0
    outline: bool = True
    fill: bool = False
    probabilityMap: bool = True
    surface: bool = True
    deformation: bool = False
    opacity: Annotated[float, WithinRange(0, 1)] = 1.0
    followup: vtkMRMLScalarVolumeNode
    segmentFollowup: bool = True
    followupHematoma: vtkMRMLSegmentationNode
    followupSegment: str = ""
    exportFolder: pathlib.Path = pathlib.Path.home()
    growthModel: str = ""
    segmentationModel: str = ""
    forecastModel: str = ""
    probabilityFrom: Annotated[str, Choice(["evidence", "BRAIN score"])] = "evidence"
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    expansionDefinition: Annotated[str, Choice(_DEFINITIONS)] = "6ml"
    replacePrevious: bool = True
    keepIntermediate: bool = False


class HematomaExpansionWidget(Panel):
    """The panel."""

    library = "HematomaSlicerLib"

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._play_timer: Any = None
        self._listed: Any = None
        self._alone: Any = None
        self._linked: Any = None
        self._told: dict[str, Any] = {}

    # --- panel lifecycle --------------------------------------------------------------------------------

    def setup(self) -> None:
        from HematomaSlicerLib.prediction_nodes import PredictionRun

        self._load("resultSelector", PredictionRun.ATTRIBUTE)
        self.logic = HematomaExpansionLogic()

        table = self.ui.markersTable
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels([_("CT marker"), _("Measured")])
        table.connect("itemSelectionChanged()", self._on_marker_chosen)
        table.connect("itemChanged(QTableWidgetItem*)", self._on_marker_overruled)

        self._play_timer = qt.QTimer()
        self._play_timer.setInterval(_FRAME_MS)
        self._play_timer.connect("timeout()", self._next_frame)

        self.ui.predictButton.connect("clicked(bool)", self.onPredict)
        self.ui.compareButton.connect("clicked(bool)", self.onCompare)
        self.ui.playButton.connect("toggled(bool)", self.onPlay)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.ui.exportDicomButton.connect("clicked(bool)", self.onExportDicom)
        self.ui.modelCardButton.connect("clicked(bool)", self.onModelCard)
        self.ui.installModelButton.connect("clicked(bool)", self.onInstallModel)
        for box in self._model_boxes().values():
            box.connect("currentIndexChanged(int)", self._read_models)
        self._list_models()
        self._begin()

    def cleanup(self) -> None:
        self._play_timer.stop()
        super().cleanup()

    def exit(self) -> None:
        self.ui.playButton.checked = False
        super().exit()

    def _open_parameters(self) -> None:
        super()._open_parameters()
        if self._parameters.baseline is None:
            self._parameters.baseline = self.logic.scanInView()

    # --- parameters to panel ----------------------------------------------------------------------------

    def _show_parameters(self) -> None:
        from HematomaSlicerLib.result_card import card, comparison_text, notice, training_text

        parameters, run = self._parameters, self.logic.run(self._parameters)
        self._keep_told_alike(run)
        result = None if run is None else run.result
        self.ui.noticeLabel.text = notice(result)
        self.ui.noticeLabel.toolTip = training_text(result)
        self.ui.cardLabel.text = _("There is no prediction yet.") if result is None else card(result)
        comparison = None if run is None else run.comparison
        self.ui.comparisonLabel.text = "" if comparison is None else comparison_text(comparison)
        self._list_markers(result)
        self.ui.hematomaSelector.enabled = not parameters.segmentAutomatically
        self.ui.boxSelector.enabled = parameters.segmentAutomatically
        self.ui.followupHematomaSelector.enabled = not parameters.segmentFollowup
        self.ui.displayWidget.enabled = run is not None and run.field is not None
        self.ui.outcomeLabel.text = self.logic.outcome(parameters)
        self.ui.exportButton.enabled = run is not None and not self._work.is_running
        self.ui.exportDicomButton.enabled = run is not None and run.segmentation is not None
        if not self._work.is_running:
            missing = self.logic.whatIsMissing(parameters)
            self.ui.predictButton.enabled = not missing
            self.ui.predictButton.toolTip = missing
            if missing or self._missing:
                self._work.tell(missing)
            self._missing = missing
            self.ui.compareButton.enabled = run is not None and parameters.followup is not None
        chosen = None if run is None else run.table.GetID()
        if chosen != self._alone:
            self._alone = chosen
            self.logic.showOnly(parameters)
        self.logic.show(parameters)

    def _keep_told_alike(self, run: Any) -> None:
        """Make what is told of the patient the same here and in the prediction shown, if it is of this scan: here
        when it comes into view, there whenever the user changes something.
        """
        parameters = self._parameters
        linked = self.logic.linkOf(parameters)
        if linked is not None and linked != self._linked:
            with self._quietly():
                self.logic.adopt(parameters)
            self._told = self.logic.told(parameters)
        self._linked = linked
        told = self.logic.told(parameters)
        changes = {name: value for name, value in told.items() if value != self._told.get(name)}
        self._told = told
        if linked is not None and changes:
            run.retell(changes)

    def _list_markers(self, result: Any) -> None:
        """Refill the table of markers if they have changed."""
        from HematomaSlicerLib.result_card import marker_rows, scores_text

        rows = marker_rows(result)
        self.ui.markersWidget.visible = bool(rows)
        self.ui.scoresLabel.text = scores_text(result)
        if rows == self._listed:
            return
        table, self._listed = self.ui.markersTable, rows
        with self._quietly():
            table.setRowCount(len(rows))
            for row, marker in enumerate(rows):
                item = qt.QTableWidgetItem(marker.title)
                certain = qt.Qt.Checked if marker.present else qt.Qt.Unchecked
                item.setCheckState(qt.Qt.PartiallyChecked if marker.unsure else certain)
                table.setItem(row, 0, item)
                reason = qt.QTableWidgetItem(marker.reason)
                reason.setToolTip(marker.measured)
                table.setItem(row, 1, reason)
            table.resizeColumnToContents(0)

    def _on_marker_chosen(self) -> None:
        row = self.ui.markersTable.currentRow()
        if not self._updating and self._parameters is not None and 0 <= row < len(self._listed or []):
            self.logic.lookAtMarker(self._parameters, self._listed[row].name)

    def _on_marker_overruled(self, item: Any) -> None:
        if not self._updating and self._parameters is not None and item.column() == 0:
            from HematomaSlicerLib.result_card import marker_rows

            run, name = self.logic.run(self._parameters), self._listed[item.row()].name
            run.overrule_marker(name, item.checkState() == qt.Qt.Checked)
            # The table already shows this; refilling it would delete the item inside its own signal.
            self._listed = marker_rows(run.result)
            with self._quietly():
                item.setText(self._listed[item.row()].title)  # nobody is unsure any more
            self._on_parameters()

    # --- models -----------------------------------------------------------------------------------------

    def _model_boxes(self) -> dict[str, Any]:
        return {
            "growth": self.ui.growthModelComboBox,
            "segmentation": self.ui.segmentationModelComboBox,
            "forecast": self.ui.forecastModelComboBox,
        }

    def _list_models(self) -> None:
        names = self.logic.modelNames()
        names["segmentation"].append("threshold")
        with self._quietly():
            for task, box in self._model_boxes().items():
                box.clear()
                box.addItems(names[task])

    def _show_unbound(self) -> None:
        super()._show_unbound()
        self._show_models()

    def _show_models(self) -> None:
        with self._quietly():
            for task, box in self._model_boxes().items():
                name = getattr(self._parameters, f"{task}Model") or _SHIPPED[task]
                box.setCurrentIndex(max(0, box.findText(name)))

    def _read_models(self, _index: int) -> None:
        if self._parameters is None or self._updating:
            return
        before = self._parameters.forecastModel or _SHIPPED["forecast"]
        for task, box in self._model_boxes().items():
            setattr(self._parameters, f"{task}Model", box.currentText)
        if self._parameters.forecastModel != before:
            with self._work.sentences():
                self.logic.forecastAnew(self._parameters)
            self._on_parameters()

    def onModelCard(self, _checked: bool = False) -> None:
        """Show what the chosen growth model says about itself."""
        name = self.ui.growthModelComboBox.currentText
        with self._work.sentences():
            slicer.util.infoDisplay(
                _("Model card of {name}").format(name=name), detailedText=self.logic.modelCard(name)
            )

    def onInstallModel(self, _checked: bool = False) -> None:
        """Install a model package from a folder that the user chooses."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder with model.json"))
        if folder:
            with self._work.sentences():
                self.logic.ensureInstalled()
                self._work.tell(_("Installed {name}.").format(name=self.logic.installModel(folder)))
                self._list_models()
                self._show_models()

    # --- predict and compare ----------------------------------------------------------------------------

    def onPredict(self, _checked: bool = False) -> None:
        """Start a prediction; the panel stays responsive."""
        self._start(self.logic.startPrediction, self._on_predicted, _("Done."))

    def onCompare(self, _checked: bool = False) -> None:
        """Register the real follow-up and measure the prediction against it."""
        self._start(self.logic.startComparison, lambda _added: self._on_parameters(), _("Compared."))

    def _on_running(self, running: bool) -> None:
        self.ui.predictButton.visible = not running
        self.ui.compareButton.enabled = False
        self._on_parameters()

    def _on_predicted(self, run: Any) -> None:
        if run is not None:
            parameters = self.logic.getParameterNode()  # the user may have left the panel meanwhile
            parameters.growthShown = _IF_EXPANDS
            self._linked, self._told = run.table.GetID(), self.logic.toldWith(run)  # what changed meanwhile counts
            parameters.result = run.table
            self.logic.show(parameters)
            self.logic.lookAt(parameters)

    # --- view and export --------------------------------------------------------------------------------

    def onPlay(self, playing: bool) -> None:
        """Play the growth in a loop until the button is released."""
        if playing:
            self._play_timer.start()
        else:
            self._play_timer.stop()

    def _next_frame(self) -> None:
        if self._parameters is None or self._parameters.result is None:
            self.ui.playButton.checked = False
            return
        shown = self._parameters.growthShown
        self._parameters.growthShown = 0.0 if shown >= 100 else min(100.0, shown + _FRAME_PERCENT)

    def onExportDicom(self, _checked: bool = False) -> None:
        """Open Slicer's own DICOM export; with the extension for it, the segmentation becomes a DICOM SEG."""
        if not hasattr(slicer, "qSlicerDICOMExportDialog"):
            self._work.tell(_("This Slicer has no DICOM export: use the DICOM module."))
            return
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        dialog = slicer.qSlicerDICOMExportDialog(None)
        dialog.setMRMLScene(slicer.mrmlScene)
        dialog.execDialog(hierarchy.GetItemByDataNode(self.logic.run(self._parameters).segmentation))


class HematomaExpansionLogic(ScriptedLoadableModuleLogic):
    """What the panel can do, also for scripts."""

    def getParameterNode(self) -> Any:
        return HematomaExpansionParameterNode(super().getParameterNode())

    def scanInView(self) -> Any:
        """The volume in the background of the slice views, or else the first in the scene, or None."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        scans = [node for node in volumes if node.GetClassName() == "vtkMRMLScalarVolumeNode"]  # no label maps
        views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        shown = [node for node in scans if node.GetID() in {view.GetBackgroundVolumeID() for view in views}]
        return next(iter([*shown, *scans]), None)

    def whatIsMissing(self, parameters: Any) -> str:
        """A sentence saying what to choose or install before a prediction; empty if nothing is missing."""
        if parameters.baseline is None:
            return _("Load a head CT and choose it above.")
        if not parameters.segmentAutomatically and not (parameters.hematoma and parameters.hematomaSegment):
            return _("Choose the segment that marks the hematoma, or let it be found automatically.")
        from HematomaSlicerLib.dependencies import cannot_be_installed

        return cannot_be_installed()

    def ensureInstalled(self) -> None:
        """Install what the engine needs, after asking; raises ``DependencyError`` with a sentence."""
        from HematomaSlicerLib.dependencies import ensure_installed

        ensure_installed(pathlib.Path(__file__).parent / "Resources" / _REQUIREMENTS, _("Hematoma Expansion"))

    def run(self, parameters: Any) -> Any:
        """The prediction shown, a ``PredictionRun``; None if there is none."""
        from HematomaSlicerLib.prediction_nodes import PredictionRun

        return PredictionRun.of(parameters.result)

    def startPrediction(self, parameters: Any, progress: Any, ended: Any) -> Any:
        """See ``prediction_jobs.start_prediction``."""
        from HematomaSlicerLib.node_files import Segment
        from HematomaSlicerLib.prediction_jobs import PredictionRequest, start_prediction

        chosen = None if parameters.segmentAutomatically else (parameters.hematoma, parameters.hematomaSegment)
        request = PredictionRequest(
            baseline=parameters.baseline,
            hematoma=None if chosen is None else Segment(*chosen),
            box=parameters.box if chosen is None else None,
            onset_hours=parameters.onsetHours or None,
            clinical=self._clinical(parameters),
            growth_model=parameters.growthModel,
            segmentation_model=parameters.segmentationModel,
            forecast_model=parameters.forecastModel,
            whether=_SOURCES[parameters.probabilityFrom],
            device_name=parameters.device,
            expansion_definition=parameters.expansionDefinition,
            replace_previous=parameters.replacePrevious,
            keep_intermediate=parameters.keepIntermediate,
        )
        return start_prediction(request, progress, ended)

    def _clinical(self, parameters: Any) -> Any:
        from HematomaExpansionLib.markers.scores import ClinicalData

        return ClinicalData(
            recurrent=_ANSWERS[parameters.recurrent],
            warfarin=_ANSWERS[parameters.warfarin],
            intraventricular=_ANSWERS[parameters.intraventricular],
            gcs=float(parameters.gcs) if parameters.gcs > _NO_GCS else None,
        )

    def told(self, parameters: Any) -> dict[str, Any]:
        """What the user told beside the scan, as ``renewal.told_in`` names it."""
        return {
            "onset_hours": parameters.onsetHours or None,
            **dataclasses.asdict(self._clinical(parameters)),
            "whether": _SOURCES[parameters.probabilityFrom],
            "definition": parameters.expansionDefinition,
        }

    def toldWith(self, run: Any) -> dict[str, Any]:
        """The same, as a prediction was made or last changed with it."""
        from HematomaSlicerLib.renewal import told_in

        return told_in(run.result)

    def adopt(self, parameters: Any) -> None:
        """Take over what was told with the prediction shown."""
        told = self.toldWith(self.run(parameters))
        answers, sources = ({value: key for key, value in names.items()} for names in (_ANSWERS, _SOURCES))
        parameters.onsetHours = float(told["onset_hours"] or 0.0)
        parameters.gcs = _NO_GCS if told["gcs"] is None else round(told["gcs"])
        for name in ("recurrent", "warfarin", "intraventricular"):
            setattr(parameters, name, answers[told[name]])
        parameters.probabilityFrom = sources.get(told["whether"], parameters.probabilityFrom)
        if told["definition"] in _DEFINITIONS:
            parameters.expansionDefinition = told["definition"]

    def linkOf(self, parameters: Any) -> Any:
        """The ID of the prediction shown if it has a forecast and is of the scan chosen, or else None."""
        run = self.run(parameters)
        if run is None or run.scan is None or parameters.baseline is None or not run.result.get("forecast"):
            return None
        return run.table.GetID() if run.scan.GetID() == parameters.baseline.GetID() else None

    def forecastAnew(self, parameters: Any) -> None:
        """Make the forecast shown by the model chosen, if it is linked to the choices (``linkOf``)."""
        from HematomaExpansionLib.models.package import find_package

        if self.linkOf(parameters) is not None:
            self.run(parameters).forecast_by(find_package(parameters.forecastModel, "forecast"))

    def outcome(self, parameters: Any) -> str:
        """The outcome at the slider in words; empty if there is none."""
        run = self.run(parameters)
        if run is None or run.result["growth"] is None:
            return ""
        from HematomaSlicerLib.outcome_slider import meaning

        return meaning(run.result, parameters.growthShown / 100)

    def startComparison(self, parameters: Any, progress: Any, ended: Any) -> Any:
        """See ``prediction_jobs.start_comparison``."""
        from HematomaSlicerLib.node_files import Segment
        from HematomaSlicerLib.prediction_jobs import start_comparison

        chosen = None
        if not parameters.segmentFollowup and parameters.followupHematoma is not None:
            chosen = Segment(parameters.followupHematoma, parameters.followupSegment)
        return start_comparison(self.run(parameters), parameters.followup, chosen, progress, ended)

    def show(self, parameters: Any) -> None:
        """Make the scene match the choices: outcome, outlines, areas, map, surface, arrows."""
        run = self.run(parameters)
        if run is not None:
            from HematomaSlicerLib.prediction_display import Look, apply_look, show_outcome

            show_outcome(run, parameters.growthShown / 100)
            apply_look(
                run,
                Look(
                    parameters.outline,
                    parameters.fill,
                    parameters.probabilityMap,
                    parameters.surface,
                    parameters.deformation,
                    parameters.opacity,
                ),
            )

    def showOnly(self, parameters: Any) -> None:
        """Hide every prediction but the one shown."""
        run = self.run(parameters)
        if run is not None:
            from HematomaSlicerLib.prediction_display import show_only

            show_only(run)

    def lookAt(self, parameters: Any) -> None:
        """Center the views on the hematoma of the prediction shown."""
        run = self.run(parameters)
        if run is not None:
            from HematomaSlicerLib.prediction_display import look_at, look_at_in_3d

            look_at(run)
            look_at_in_3d(run)

    def lookAtMarker(self, parameters: Any, name: str) -> None:
        """Center the slice views on the place where a CT marker was found."""
        from HematomaSlicerLib.prediction_display import jump_to

        place = self.run(parameters).result["markers"][name]["place_mm"]
        if place is not None:
            jump_to(place)

    def startExport(self, parameters: Any, progress: Any, ended: Any) -> Any:
        """See ``prediction_export.start_export``."""
        from HematomaSlicerLib.prediction_export import start_export

        return start_export(self.run(parameters), pathlib.Path(parameters.exportFolder), progress, ended)

    def modelNames(self) -> dict[str, list[str]]:
        """Names of the available model packages, by task; the shipped ones first."""
        from HematomaExpansionLib.models.package import ModelPackage, available_packages

        names: dict[str, list[str]] = {"growth": [], "segmentation": [], "forecast": [], "risk": []}
        for package in available_packages():
            if isinstance(package, ModelPackage):
                names[package.description.task].append(package.description.name)
        return {task: list(dict.fromkeys(sorted(found))) for task, found in names.items()}

    def modelCard(self, name: str) -> str:
        """Everything a model says about itself."""
        from HematomaExpansionLib.models.package import DESCRIPTION_FILE, locate_package

        return (locate_package(name).folder / DESCRIPTION_FILE).read_text(encoding="utf-8")

    def installModel(self, folder: str) -> str:
        """Install the model package in a folder; returns its name."""
        from HematomaExpansionLib.models.package import install_package

        return install_package(pathlib.Path(folder)).description.name


def _plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def _width(surface: Any) -> float:
    bounds: list[float] = list(surface.GetPolyData().GetBounds())
    return bounds[1] - bounds[0]


class HematomaExpansionTest(PanelTest):
    """Slicer's own self-test: the panel, clicked from the sample to the saved scene."""

    module = "HematomaExpansion"

    def runTest(self) -> None:
        for test in (self.test_prediction, self.test_cancel, self.test_saved_scene):
            self.setUp()
            test()

    def test_prediction(self) -> None:
        """From the sample to the values in the card."""
        panel = self._predict()
        run = panel.logic.run(panel.logic.getParameterNode())
        self.assertIsNotNone(run, panel.ui.statusLabel.text)
        self.assertIn(" chance of expansion ", _plain(panel.ui.cardLabel.text))
        self.assertGreater(run.result["baseline"]["volume_ml"], 5.0)
        self.assertGreaterEqual(run.segmentation.GetSegmentation().GetNumberOfSegments(), 3)
        self.assertEqual(panel.ui.markersTable.rowCount, len(run.result["markers"]))
        found = run.result["markers"]["blend"]["present"]
        row = list(run.result["markers"]).index("blend")
        before = run.result["forecast"]["probability_of_expansion"]
        panel.ui.markersTable.item(row, 0).setCheckState(qt.Qt.Unchecked if found else qt.Qt.Checked)
        self.assertEqual(run.result["scores"]["bat"]["blend"], int(not found))
        self.assertIn(f"blend {int(not found)}", panel.ui.scoresLabel.text)
        self.assertNotEqual(run.result["forecast"]["probability_of_expansion"], before)
        self.assertIn(run.result["forecast"]["text"], _plain(panel.ui.cardLabel.text))
        self.assertIn("half of those who expand", panel.ui.outcomeLabel.text)
        panel.ui.onsetSpinBox.value = 3
        self.assertEqual(run.result["input"]["onset_hours"], 3)
        usual = _width(run.surface)
        panel.ui.growthSlider.value = 0
        self.assertIn("stays", panel.ui.outcomeLabel.text)
        self.assertLess(_width(run.surface), usual)

    def test_cancel(self) -> None:
        """Canceled halfway, a prediction leaves the scene as it was."""
        panel = self._open_sample()
        before = slicer.mrmlScene.GetNumberOfNodes()
        panel.ui.predictButton.click()
        panel.ui.cancelButton.click()
        self.wait_for(panel)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertIsNone(panel.logic.run(panel.logic.getParameterNode()))

    def test_saved_scene(self) -> None:
        """A saved scene shows its result again."""
        panel = self._predict()
        text = panel.ui.cardLabel.text
        folder = pathlib.Path(slicer.util.tempDirectory())
        self.assertTrue(slicer.util.saveScene(str(folder / "scene.mrb")))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(str(folder / "scene.mrb"))
        panel = self.open_panel()
        self.assertEqual(panel.ui.cardLabel.text, text)

    def _open_sample(self) -> Any:
        import SampleData

        if SampleData.SampleDataLogic().sourceForSampleName(SAMPLE_NAME) is None:
            _register_sample()  # the module was loaded after the application had started
        volume = SampleData.downloadSample(SAMPLE_NAME)
        panel = self.open_panel()
        panel.logic.getParameterNode().baseline = volume
        slicer.app.processEvents()
        return panel

    def _predict(self) -> Any:
        panel = self._open_sample()
        panel.ui.predictButton.click()
        self.wait_for(panel)
        return panel
