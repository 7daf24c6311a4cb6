"""The Slicer module: a panel over the synthesis of training cases. Nothing is computed here."""

import pathlib
from typing import Annotated, Any

import qt
import slicer
from HematomaSlicerLib.panel import Panel
from HematomaSlicerLib.self_test import PanelTest
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleLogic

_REQUIREMENTS = "HematomaSynthesis-requirements.txt"
_ITERATIONS = {"random": 0, "1": 1, "2": 2}


class HematomaSynthesis(ScriptedLoadableModule):
    """What Slicer shows about the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Hematoma Synthesis")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = ["HematomaExpansion"]
        self.parent.contributors = ["HematomaExpansion maintainers"]
        self.parent.helpText = _(
            "Makes training cases for the prediction of hematoma expansion: variants of a real baseline whose "
            "hematoma is a little smaller or of another shape, and simulated patients. <b>Research use only. Not "
            "for diagnosis or treatment.</b> See the README of the extension."
        )
        self.parent.acknowledgementText = _(
            "Variants after Abramova et al., Appl. Sci. 2024;14:2708, registered by Greedy (P. Yushkevich and "
            "others). Anatomy of simulated patients: ICBM152 (V. Fonov and others) from nilearn."
        )
        slicer.app.connect("startupCompleted()", _offer_layout)


def _offer_layout() -> None:
    from HematomaSynthesisSlicerLib.side_by_side import offer_layout

    offer_layout()


@parameterNodeWrapper
class HematomaSynthesisParameterNode:
    """What the user chose; saved with the scene.

    Attributes:
        baseline: the scan whose hematoma is changed: ``hematomaSegment`` of ``hematoma``.
        number: number of variants.
        variants: the table of the set shown.
        variantShown: which variant, counted from 0.
        changeShown: from the original (0) to the variant (100).
        anatomy: the head of a simulated patient; None for ICBM152.
        volume, growth: of a simulated hematoma, in mL; irregularity in percent of its radius.
    """

    baseline: vtkMRMLScalarVolumeNode
    hematoma: vtkMRMLSegmentationNode
    hematomaSegment: str = ""
    followup: vtkMRMLScalarVolumeNode
    followupHematoma: vtkMRMLSegmentationNode
    followupSegment: str = ""
    number: Annotated[int, WithinRange(1, 20)] = 5
    family: Annotated[str, Choice(["erosion", "dilation", "shape"])] = "erosion"
    iterations: Annotated[str, Choice(["random", "1", "2"])] = "random"
    inPlane: bool = False
    seed: Annotated[int, WithinRange(0, 999999)] = 1
    variants: vtkMRMLTableNode
    variantShown: Annotated[int, WithinRange(0, 19)] = 0
    changeShown: Annotated[float, WithinRange(0, 100)] = 100.0
    deformation: Annotated[str, Choice(["grid", "arrows"])] = "grid"
    cohortFolder: pathlib.Path = pathlib.Path.home()
    anatomy: vtkMRMLScalarVolumeNode
    site: Annotated[str, Choice(["deep", "lobar", "cerebellar"])] = "deep"
    volume: Annotated[float, WithinRange(1, 100)] = 15.0
    irregularity: Annotated[float, WithinRange(0, 35)] = 15.0
    growth: Annotated[float, WithinRange(-20, 80)] = 10.0
    noise: Annotated[float, WithinRange(0, 20)] = 4.0
    sliceThickness: Annotated[float, WithinRange(0.5, 10)] = 5.0
    patientSeed: Annotated[int, WithinRange(0, 999999)] = 1


class HematomaSynthesisWidget(Panel):
    """The panel."""

    library = "HematomaSynthesisSlicerLib"

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._listed: Any = None
        self._shown: Any = None

    # --- panel lifecycle --------------------------------------------------------------------------------

    def setup(self) -> None:
        from HematomaSynthesisSlicerLib.variant_nodes import MEASURES, VariantSet

        self._load("variantsSelector", VariantSet.ATTRIBUTE)
        self.logic = HematomaSynthesisLogic()

        table = self.ui.variantsTable
        table.setColumnCount(1 + len(MEASURES))
        table.setHorizontalHeaderLabels([_("Keep"), *(measure.heading for measure in MEASURES)])
        for column, measure in enumerate(MEASURES, start=1):
            table.horizontalHeaderItem(column).setToolTip(measure.title)
        table.connect("itemSelectionChanged()", self._on_row_chosen)
        table.connect("itemChanged(QTableWidgetItem*)", self._on_row_marked)

        self.ui.generateButton.connect("clicked(bool)", self.onGenerate)
        self.ui.simulateButton.connect("clicked(bool)", self.onSimulate)
        self.ui.previewButton.connect("toggled(bool)", self.onPreview)
        self.ui.layoutButton.connect("clicked(bool)", self.onLayout)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self._begin()

    def _leave_parameters(self) -> None:
        self.ui.previewButton.checked = False
        super()._leave_parameters()

    def _set_parameters(self, parameters: Any) -> None:
        self._shown = None
        super()._set_parameters(parameters)

    # --- parameters to panel ----------------------------------------------------------------------------

    def _show_parameters(self) -> None:
        parameters = self._parameters
        variants = self.logic.variants(parameters)
        self._list_variants(variants)
        from_icbm = parameters.anatomy is None
        self.ui.noiseSlider.enabled = from_icbm
        self.ui.sliceThicknessSlider.enabled = from_icbm
        for widget in (self.ui.changeSlider, self.ui.deformationComboBox, self.ui.layoutButton):
            widget.enabled = variants is not None
        if not self._work.is_running:
            missing = self.logic.whatIsMissing(parameters)
            self.ui.generateButton.enabled = not missing
            self.ui.generateButton.toolTip = missing
            if missing != self._missing:
                self._work.tell(missing)
            self._missing = missing
            self.ui.exportButton.enabled = variants is not None
        with self._work.sentences():
            self._show()
            self._preview()

    def _show(self) -> None:
        """Show what was chosen if it has changed; otherwise leave the views to the user."""
        parameters = self._parameters
        chosen = (parameters.variants, parameters.variantShown, parameters.changeShown, parameters.deformation)
        if chosen != self._shown:
            self._shown = chosen
            self.logic.show(parameters)

    # --- table of variants ------------------------------------------------------------------------------

    def _list_variants(self, variants: Any) -> None:
        """Refill the table if its content has changed, and select the row of the variant shown."""
        table, listed = self.ui.variantsTable, self._content_of(variants)
        with self._quietly():
            if listed != self._listed:
                self._listed = listed
                table.setRowCount(0 if variants is None else len(variants.kept))
                for row, cells in enumerate(self.logic.rows(variants)):
                    keep = qt.QTableWidgetItem("")
                    keep.setCheckState(qt.Qt.Checked if variants.kept[row] else qt.Qt.Unchecked)
                    table.setItem(row, 0, keep)
                    for column, text in enumerate(cells, start=1):
                        table.setItem(row, column, qt.QTableWidgetItem(text))
                table.resizeColumnsToContents()
            if variants is not None and table.currentRow() != self._parameters.variantShown:
                table.selectRow(self._parameters.variantShown)

    def _content_of(self, variants: Any) -> Any:
        """What the table of variants shows of a set."""
        return None if variants is None else (variants.table.GetID(), variants.descriptions, variants.kept)

    def _on_row_chosen(self) -> None:
        row = self.ui.variantsTable.currentRow()
        if not self._updating and self._parameters is not None and row >= 0:
            self._parameters.variantShown = row

    def _on_row_marked(self, item: Any) -> None:
        if not self._updating and self._parameters is not None and item.column() == 0:
            variants = self.logic.variants(self._parameters)
            variants.keep(item.row(), item.checkState() == qt.Qt.Checked)
            self._listed = self._content_of(variants)  # the table already shows it

    # --- work -------------------------------------------------------------------------------------------

    def onGenerate(self, _checked: bool = False) -> None:
        """Start making variants; the panel stays responsive."""
        self._start(self.logic.startVariants, self._on_variants, _("Done."))

    def onSimulate(self, _checked: bool = False) -> None:
        """Start simulating a patient; the panel stays responsive."""
        self._start(self.logic.startPatient, self._on_patient, _("Done."))

    def _on_running(self, running: bool) -> None:
        self.ui.generateButton.enabled = False
        self.ui.simulateButton.enabled = not running
        self.ui.exportButton.enabled = False
        self._on_parameters()

    def _on_variants(self, variants: Any) -> None:
        if variants is not None:
            self.ui.previewButton.checked = False
            parameters = self.logic.getParameterNode()  # the user may have left the panel meanwhile
            parameters.variantShown = 0
            parameters.changeShown = 100.0
            parameters.variants = variants.table
            self.logic.show(parameters)
            self.logic.lookAt(parameters)

    def _on_patient(self, pair: Any) -> None:
        if pair is not None:
            parameters = self.logic.getParameterNode()
            self.logic.choose(parameters, pair)
            if self._parameters is not None:
                self._show_unbound()
                self._on_parameters()

    # --- view and export --------------------------------------------------------------------------------

    def onPreview(self, shown: bool) -> None:
        """Show or hide the target of the first variant."""
        with self._work.sentences():
            if shown:
                self.logic.ensureInstalled()
                self._preview()
            else:
                self.logic.hidePreview()

    def _preview(self) -> None:
        if self.ui.previewButton.checked:
            self.logic.preview(self._parameters)

    def onLayout(self, _checked: bool = False) -> None:
        """Show original, variant and deformation side by side."""
        with self._work.sentences():
            self.logic.useSideBySide(self._parameters)


class HematomaSynthesisLogic(ScriptedLoadableModuleLogic):
    """What the panel can do, also for scripts."""

    def getParameterNode(self) -> Any:
        return HematomaSynthesisParameterNode(super().getParameterNode())

    def whatIsMissing(self, parameters: Any) -> str:
        """A sentence saying what to choose or install before making variants; empty if nothing is missing."""
        if parameters.baseline is None:
            return _("Choose a head CT, or make a simulated patient.")
        if parameters.hematoma is None or not parameters.hematomaSegment:
            return _("Choose the segment that marks the hematoma.")
        from HematomaSlicerLib.dependencies import cannot_be_installed

        return cannot_be_installed()

    def ensureInstalled(self) -> None:
        """Install what the library needs, after asking; raises ``DependencyError`` with a sentence."""
        from HematomaSlicerLib.dependencies import ensure_installed

        ensure_installed(pathlib.Path(__file__).parent / "Resources" / _REQUIREMENTS, _("Hematoma Synthesis"))

    def variants(self, parameters: Any) -> Any:
        """The set of variants shown, a ``VariantSet``; None if there is none."""
        from HematomaSynthesisSlicerLib.variant_nodes import VariantSet

        return VariantSet.of(parameters.variants)

    def rows(self, variants: Any) -> list[list[str]]:
        """The measures of each variant, as texts for the table."""
        if variants is None:
            return []
        from HematomaSynthesisSlicerLib.variant_nodes import measures_of

        return [measures_of(description) for description in variants.descriptions]

    def startVariants(self, parameters: Any, progress: Any, ended: Any) -> Any:
        """See ``synthesis_jobs.start_variants``."""
        from HematomaSlicerLib.node_files import Segment
        from HematomaSynthesisSlicerLib.synthesis_jobs import VariantRequest, start_variants

        request = VariantRequest(
            baseline=parameters.baseline,
            hematoma=Segment(parameters.hematoma, parameters.hematomaSegment),
            number=parameters.number,
            family=parameters.family,
            iterations=_ITERATIONS[parameters.iterations],
            in_plane=parameters.inPlane,
            seed=parameters.seed,
        )
        return start_variants(request, progress, ended)

    def startPatient(self, parameters: Any, progress: Any, ended: Any) -> Any:
        """See ``synthesis_jobs.start_patient``."""
        from HematomaSynthesisSlicerLib.synthesis_jobs import PatientRequest, start_patient

        request = PatientRequest(
            seed=parameters.patientSeed,
            site=parameters.site,
            volume=parameters.volume,
            growth=parameters.growth,
            irregularity=parameters.irregularity / 100,
            noise=parameters.noise,
            slice_thickness=parameters.sliceThickness,
            anatomy=parameters.anatomy,
        )
        return start_patient(request, progress, ended)

    def choose(self, parameters: Any, pair: Any) -> None:
        """Choose a simulated patient as the scan to change, and show it."""
        from HematomaSynthesisSlicerLib.patient_nodes import look_at

        parameters.baseline, parameters.followup = pair.baseline, pair.followup
        parameters.hematoma = parameters.followupHematoma = pair.segmentation
        parameters.hematomaSegment = pair.baseline_hematoma.segment_id
        parameters.followupSegment = pair.followup_hematoma.segment_id
        look_at(pair)

    def show(self, parameters: Any) -> None:
        """Make the scene match the choices: variant, how much of the change, deformation."""
        variants = self.variants(parameters)
        if variants is not None:
            from HematomaSynthesisSlicerLib.variant_display import show_variant

            index = min(parameters.variantShown, len(variants.descriptions) - 1)
            show_variant(variants, index, parameters.changeShown / 100, grid=parameters.deformation == "grid")

    def lookAt(self, parameters: Any) -> None:
        """Center the views on the hematoma."""
        variants = self.variants(parameters)
        if variants is not None:
            from HematomaSynthesisSlicerLib.variant_display import look_at

            look_at(variants)

    def useSideBySide(self, parameters: Any) -> None:
        """Switch the window's layout to original, variant and deformation side by side, and show them."""
        from HematomaSynthesisSlicerLib.side_by_side import fit_views, use_layout

        use_layout()
        self.show(parameters)
        fit_views()  # only now do the new views show something
        self.lookAt(parameters)

    def preview(self, parameters: Any) -> None:
        """Show the target outline of the first variant."""
        if parameters.hematoma is None or not parameters.hematomaSegment:
            self.hidePreview()
            return
        from HematomaSlicerLib.node_files import Segment
        from HematomaSynthesisLib.target_shapes import Family, TargetOptions
        from HematomaSynthesisSlicerLib.target_preview import show_target

        options = TargetOptions(Family(parameters.family), _ITERATIONS[parameters.iterations], parameters.inPlane)
        show_target(Segment(parameters.hematoma, parameters.hematomaSegment), options, parameters.seed)

    def hidePreview(self) -> None:
        """Remove that outline."""
        from HematomaSynthesisSlicerLib.target_preview import hide_target

        hide_target()

    def startExport(self, parameters: Any, progress: Any, ended: Any) -> Any:
        """See ``pair_export.start_export``."""
        from HematomaSlicerLib.node_files import Segment
        from HematomaSlicerLib.node_images import NodeError
        from HematomaSynthesisSlicerLib.pair_export import start_export

        if parameters.followup is None or parameters.followupHematoma is None or not parameters.followupSegment:
            raise NodeError(_("A training pair needs a follow-up: choose its CT and its hematoma above."))
        hematoma = Segment(parameters.followupHematoma, parameters.followupSegment)
        cohort = pathlib.Path(parameters.cohortFolder)
        variants = self.variants(parameters)
        return start_export(variants, parameters.followup, hematoma, cohort, progress, ended)


class HematomaSynthesisTest(PanelTest):
    """Slicer's own self-test: a patient is simulated, changed, looked at and exported."""

    module = "HematomaSynthesis"

    def runTest(self) -> None:
        self.setUp()
        self.test_from_patient_to_pairs()

    def test_from_patient_to_pairs(self) -> None:
        """Simulate, preview, generate, reject one, export; nothing stray is left behind."""
        panel = self.open_panel()
        parameters = panel.logic.getParameterNode()
        parameters.volume, parameters.growth, parameters.number = 20.0, 10.0, 2
        parameters.inPlane = True
        panel.ui.simulateButton.click()
        self.wait_for(panel)
        self.assertIsNotNone(parameters.baseline, panel.ui.statusLabel.text)
        before = slicer.mrmlScene.GetNumberOfNodes()
        panel.ui.previewButton.checked = True
        self.assertGreater(slicer.mrmlScene.GetNumberOfNodes(), before)
        panel.ui.previewButton.checked = False
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        panel.ui.generateButton.click()
        self.wait_for(panel)
        variants = panel.logic.variants(parameters)
        self.assertIsNotNone(variants, panel.ui.statusLabel.text)
        self.assertEqual(panel.ui.variantsTable.rowCount, 2)
        panel.ui.layoutButton.click()
        panel.ui.changeSlider.value = 50
        transform = variants.shown.GetTransformFromParentAs("vtkOrientedGridTransform", False, True)
        self.assertAlmostEqual(transform.GetDisplacementScale(), 0.5)
        panel.ui.variantsTable.item(1, 0).setCheckState(qt.Qt.Unchecked)
        self.assertEqual(variants.kept, [True, False])
        cohort = pathlib.Path(slicer.util.tempDirectory())
        parameters.cohortFolder = cohort
        panel.ui.exportButton.click()
        self.wait_for(panel)
        self.assertTrue((cohort / "case-001" / "variants" / "1" / "variant.json").is_file())
        self.assertFalse((cohort / "case-001" / "variants" / "2").exists())
