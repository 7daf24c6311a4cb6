"""Nodes of the scene as SimpleITK images, and back.

Slicer's world is RAS; files and SimpleITK use LPS millimeters. The signs of x and y are flipped here and nowhere
else. A node's parent transforms are applied when it is read, so every image lies where the user sees it.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.box import Box
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

WINDOW_WIDTH, WINDOW_LEVEL = 80.0, 40.0

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class NodeError(Exception):
    """A node cannot be used as it is; the text tells the user why."""


def image_from_volume(node: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """The volume in LPS mm, on its own grid, which may be oblique, flipped or sheared.

    Under a nonlinear transform, such as Slicer's own correction of a tilted or unevenly spaced DICOM series,
    Slicer resamples it onto a straight grid.

    Raises:
        NodeError: the volume is empty.
    """
    if node.GetImageData() is None:
        raise NodeError("The volume is empty.")
    if node.GetParentTransformNode() is not None:
        moved = slicer.vtkMRMLScalarVolumeNode()
        moved.CopyContent(node)
        moved.ApplyTransform(_to_world(node))
        node = moved
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return _image(_array(node.GetImageData()), matrix)


def image_from_segment(node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> sitk.Image:
    """One segment as 0/1 in LPS mm, on the grid of its own labelmap, which may be smaller than the scan's.

    Raises:
        NodeError: the segment is empty.
    """
    if not node.GetSegmentation().ContainsRepresentation("Binary labelmap"):
        node.CreateBinaryLabelmapRepresentation()
    labelmap = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, labelmap)
    if node.GetParentTransformNode() is not None:
        slicer.vtkOrientedImageDataResample.TransformOrientedImage(labelmap, _to_world(node))
    extent = labelmap.GetExtent()
    if any(first > last for first, last in zip(extent[::2], extent[1::2], strict=True)):
        raise NodeError("The segment is empty.")
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    # A labelmap's first voxel has the index at which its extent begins.
    matrix = _matrix(_numbers(matrix) @ _translation(extent[::2]))
    return _image((_array(labelmap) > 0).astype(np.uint8), matrix)


def box_from_roi(node: slicer.vtkMRMLMarkupsROINode) -> Box:
    """The box along the patient's axes, in LPS mm, that holds a region of interest, however that is turned.

    Raises:
        NodeError: the region of interest is empty.
    """
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    right, left, back, front, low, high = bounds
    try:
        return Box((-left, -front, low), (-right, -back, high))
    except InputError as error:
        raise NodeError("The box is empty: draw it around the hematoma.") from error


def volume_from_image(image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """A new volume node with the image's voxels, at the image's position."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    fill_volume(node, image)
    node.CreateDefaultDisplayNodes()
    return node


def fill_volume(node: slicer.vtkMRMLScalarVolumeNode, image: sitk.Image) -> None:
    """Give a volume node the image's voxels and position."""
    node.SetAndObserveImageData(_image_data(sitk.GetArrayFromImage(image)))
    node.SetIJKToRASMatrix(_matrix(_ijk_to_ras(image)))


def use_brain_window(volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Use the window for finding blood: width 80, level 40 HU."""
    display = volume.GetDisplayNode()
    if display is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(WINDOW_WIDTH, WINDOW_LEVEL)


def labelmap_from_image(mask: sitk.Image) -> slicer.vtkOrientedImageData:
    """A 0/1 image as the labelmap of a segment."""
    labelmap = slicer.vtkOrientedImageData()
    labelmap.ShallowCopy(_image_data(sitk.GetArrayFromImage(mask)))
    labelmap.SetImageToWorldMatrix(_matrix(_ijk_to_ras(mask)))
    return labelmap


def grid_transform_from_image(displacement: sitk.Image) -> slicer.vtkOrientedGridTransform:
    """A transform whose *from parent* side is this pull-back displacement (vectors in LPS mm), kept as float32.

    Beyond the displacement's grid, points move as on its nearest side.
    """
    vectors = sitk.GetArrayViewFromImage(displacement).astype(np.float32)
    vectors[..., :2] *= -1
    data = _image_data(vectors)
    matrix = _ijk_to_ras(displacement)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    data.SetSpacing(spacing)
    data.SetOrigin(matrix[:3, 3])
    direction = np.eye(4)
    direction[:3, :3] = matrix[:3, :3] / spacing
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(data)
    transform.SetGridDirectionMatrix(_matrix(direction))
    transform.SetInterpolationModeToCubic()  # as Slicer reads it from a saved scene
    return transform


def sharing_the_grid(transform: slicer.vtkOrientedGridTransform) -> slicer.vtkOrientedGridTransform:
    """A second transform of the same field, with its own scale; linear, so that what it moves follows a slider."""
    copy = slicer.vtkOrientedGridTransform()
    copy.SetDisplacementGridData(transform.GetDisplacementGrid())
    copy.SetGridDirectionMatrix(transform.GetGridDirectionMatrix())
    copy.SetInterpolationModeToLinear()
    return copy


def image_from_grid_transform(transform: slicer.vtkOrientedGridTransform) -> sitk.Image:
    """The displacement that ``grid_transform_from_image`` was given, whatever scale it is shown at."""
    data = transform.GetDisplacementGrid()
    matrix = np.eye(4)
    if transform.GetGridDirectionMatrix() is not None:
        matrix = _numbers(transform.GetGridDirectionMatrix())
    matrix[:3, :3] = matrix[:3, :3] * np.array(data.GetSpacing())
    matrix[:3, 3] = data.GetOrigin()
    vectors = _array(data).astype(np.float32) * np.array([-1.0, -1.0, 1.0], dtype=np.float32)
    return _image(vectors, _matrix(matrix))


def _to_world(node: slicer.vtkMRMLTransformableNode) -> vtk.vtkAbstractTransform:
    """The node's parent transforms as one; a linear transform if they all are, since that resamples no voxel."""
    parent = node.GetParentTransformNode()
    if parent.IsTransformToWorldLinear():
        matrix = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(matrix)
        linear = vtk.vtkTransform()
        linear.SetMatrix(matrix)
        return linear
    transform = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(transform)
    return transform


def _array(data: vtk.vtkImageData) -> np.ndarray:
    """Copy of the voxels, (z, y, x) or (z, y, x, component)."""
    x, y, z = data.GetDimensions()
    components = data.GetNumberOfScalarComponents()
    shape = (z, y, x) if components == 1 else (z, y, x, components)
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(shape).copy()


def _image_data(array: np.ndarray) -> vtk.vtkImageData:
    components = 1 if array.ndim == 3 else array.shape[3]
    data = vtk.vtkImageData()
    data.SetDimensions(*array.shape[2::-1])
    flat = np.ascontiguousarray(array).reshape(-1, components)
    data.GetPointData().SetScalars(numpy_to_vtk(flat, deep=True))
    return data


def _image(array: np.ndarray, ijk_to_ras: vtk.vtkMatrix4x4) -> sitk.Image:
    matrix = _LPS_FROM_RAS @ _numbers(ijk_to_ras)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def _ijk_to_ras(image: sitk.Image) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return _LPS_FROM_RAS @ matrix


def _translation(index: tuple[int, ...]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = index
    return matrix


def _matrix(numbers: np.ndarray) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(numbers).ravel().tolist())
    return matrix


def _numbers(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
