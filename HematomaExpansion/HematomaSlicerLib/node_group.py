"""Nodes that were made together from one scan, and are found again after the scene was saved and reopened.

A table of measures stands for the group: it refers to the other nodes, and its attributes hold what is known of
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
    """A property of a group: the node to which its table refers by that name; None where there is none."""
    return property(lambda group: group.node(name))


@dataclass(frozen=True)
class NodeGroup:
    """A group of nodes; each kind of group is a subclass.

    Attributes:
        table: measures; refers to all the others.
        scan: the user's volume; None when it was removed.
        baseline: the scan on whose grid the results lie, where that is not the user's volume: it was tilted,
            uneven, or under a transform.
        segmentation: the hematoma before and after.
    """

    ATTRIBUTE: ClassVar[str]
    """An attribute that the tables of this kind have, and no others."""
    PREFIX: ClassVar[str]
    """What the names of the table's references begin with."""

    table: slicer.vtkMRMLTableNode

    scan = member("Scan")
    baseline = member("Baseline")
    segmentation = member("Segmentation")

    @classmethod
    def of(cls, table: slicer.vtkMRMLTableNode | None) -> Self | None:
        """The group for which a table stands; None for any other table, or none."""
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
        """A new group, for a ``with`` statement that fills it; after an error there the scene is as it was before.

        Its table gets ``name`` and ``attributes``; its nodes get a ``folder`` of the tree, beside the scan and
        named like the table by default.
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
        """The volume over which the results are to be looked at; None when it was removed."""
        return self.baseline or self.scan

    @property
    def parts(self) -> list[Any]:
        """What was made beside table and baseline; None in place of a node that is not there."""
        raise NotImplementedError

    @property
    def nodes(self) -> list[slicer.vtkMRMLNode]:
        """All nodes that belong to the group, the user's scan not being one."""
        return [node for node in (self.baseline, *self.parts, self.table) if node is not None]

    def node(self, name: str) -> Any:
        """The node to which the table refers by that name; None where there is none."""
        return self.table.GetNodeReference(f"{self.PREFIX}.{name}")

    def refer(self, name: str, node: slicer.vtkMRMLNode) -> None:
        """Let the table refer to a node by that name."""
        self.table.SetNodeReferenceID(f"{self.PREFIX}.{name}", node.GetID())

    def segment_id(self, name: str) -> str:
        """The ID of one of its segments; empty where there is none of that name."""
        return self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name) if self.segmentation else ""

    def remove(self) -> None:
        """Remove its nodes, with what only they use, and its folder of the tree."""
        folder = folder_of(self.table)
        remove_nodes(self.nodes)
        remove_empty_folder(folder)
