"""Nodes made together from one scan, which can be found again after the scene is saved and reopened.

A table of measures stands for the group: it refers to the other nodes, and its attributes hold what is known about
them, so a saved scene holds everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import slicer

from .scene_nodes import add_table, folder_of, move_to_folder, new_folder_beside, remove_empty_folder, remove_nodes

if TYPE_CHECKING:
    from typing import Self


def member(name: str) -> Any:
    """A property of a group: the node that its table refers to by that name, or None."""
    return property(lambda group: group.node(name))


@dataclass(frozen=True)
class NodeGroup:
    """A group of nodes; each kind of group is a subclass.

    Attributes:
        table: measures; refers to all the others.
        scan: the user's volume; None if it was removed.
        baseline: the scan whose grid the results use, if not the user's volume, because that was tilted, unevenly
            spaced, or under a transform.
        segmentation: the hematoma before and after.
    """

    ATTRIBUTE: ClassVar[str]
    """An attribute that only tables of this kind have."""
    PREFIX: ClassVar[str]
    """What the names of the table's references begin with."""

    table: slicer.vtkMRMLTableNode

    scan = member("Scan")
    baseline = member("Baseline")
    segmentation = member("Segmentation")

    @classmethod
    def of(cls, table: slicer.vtkMRMLTableNode | None) -> Self | None:
        """The group that a table stands for; None for any other table or for None."""
        return cls(table) if table is not None and table.GetAttribute(cls.ATTRIBUTE) else None

    @classmethod
    def in_scene(cls) -> list[Self]:
        """Every group of this kind in the scene, the latest last."""
        groups = (cls.of(table) for table in slicer.util.getNodesByClass("vtkMRMLTableNode"))
        return [group for group in groups if group is not None]

    @classmethod
    @contextmanager
    def making(
        cls, scan: slicer.vtkMRMLScalarVolumeNode, name: str, attributes: Mapping[str, str], folder: str = ""
    ) -> Iterator[Self]:
        """A new group for a ``with`` statement to fill; after an error there, the scene is as it was before.

        Its table gets ``name`` and ``attributes``; its nodes go into a new folder in the tree, beside the scan,
        named ``folder`` or, by default, like the table.
        """
        group = cls(add_table(name, attributes))
        try:
            group.refer("Scan", scan)
            yield group
            move_to_folder(group.nodes, new_folder_beside(scan, folder or group.table.GetName()))
        except Exception:
            group.remove()
            raise

    @property
    def background(self) -> Any:
        """The volume to show the results over; None if it was removed."""
        return self.baseline or self.scan

    @property
    def parts(self) -> list[Any]:
        """What was made besides the table and the baseline; None in place of a missing node."""
        raise NotImplementedError

    @property
    def nodes(self) -> list[slicer.vtkMRMLNode]:
        """All nodes of the group; the user's scan is not one of them."""
        return [node for node in (self.baseline, *self.parts, self.table) if node is not None]

    def node(self, name: str) -> Any:
        """The node that the table refers to by that name, or None."""
        return self.table.GetNodeReference(f"{self.PREFIX}.{name}")

    def refer(self, name: str, node: slicer.vtkMRMLNode) -> None:
        """Make the table refer to a node by that name."""
        self.table.SetNodeReferenceID(f"{self.PREFIX}.{name}", node.GetID())

    def segment_id(self, name: str) -> str:
        """The ID of the segment with that name; empty if there is none."""
        return self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name) if self.segmentation else ""

    def remove(self) -> None:
        """Remove its nodes, whatever only they use, and its folder in the tree."""
        folder = folder_of(self.table)
        remove_nodes(self.nodes)
        remove_empty_folder(folder)
