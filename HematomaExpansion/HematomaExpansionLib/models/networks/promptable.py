"""MedSAM (Ma 2024): a network that finds in a slice what lies in a box, built of segment-anything's own parts."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from functools import partial
from importlib.machinery import PathFinder
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MissingLibraryError

_LIBRARY, _PARTS = "segment_anything", "segment_anything.modeling"


class MedSAM(nn.Module):
    """An image encoder (a vision transformer), a prompt encoder and a mask decoder (Kirillov 2023), as MedSAM uses
    them: one box in, one mask out.

    Its weights have the names that MedSAM's and Segment Anything's checkpoints give them.

    Args:
        labels: the names of its outputs, background and then what lies in the box.
        image_size: sides of its square picture, in pixels.
        patch: sides of the squares that the encoder takes for one token, in pixels.
        width, depth, heads: of the encoder; ``global_blocks``: those of its blocks that look at the whole picture,
            not at ``window`` tokens at a time.
        prompt_width: features of an embedding; ``decoder_width``: of the decoder's hidden layers.

    Raises:
        MissingLibraryError: the library segment-anything is not installed.
    """

    def __init__(
        self,
        labels: Sequence[str],
        image_size: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        global_blocks: Sequence[int],
        window: int,
        prompt_width: int,
        decoder_width: int,
    ) -> None:
        super().__init__()
        parts = _parts_of_library()
        self.labels, self.image_size = tuple(labels), image_size
        tokens = image_size // patch
        self.image_encoder = parts.ImageEncoderViT(
            img_size=image_size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=4,
            out_chans=prompt_width,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=tuple(global_blocks),
        )
        self.prompt_encoder = parts.PromptEncoder(
            embed_dim=prompt_width,
            image_embedding_size=(tokens, tokens),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        )
        self.mask_decoder = parts.MaskDecoder(
            num_multimask_outputs=3,
            transformer=parts.TwoWayTransformer(
                depth=2, embedding_dim=prompt_width, mlp_dim=decoder_width, num_heads=8
            ),
            transformer_dim=prompt_width,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        )

    def embedded(self, pictures: Tensor) -> Tensor:
        """Embeddings, (batch, features, tokens, tokens), of pictures of the CT, (batch, 1, y, x), 0 to 1."""
        return self.image_encoder(pictures.expand(-1, 3, -1, -1))

    def in_boxes(self, embedding: Tensor, boxes: Tensor) -> Tensor:
        """The mask's logits in each of some boxes on one picture, (boxes, 1, y, x), coarser than the picture.

        Args:
            embedding: of the picture, (1, features, tokens, tokens).
            boxes: (boxes, 4), each first x and y and last x and y in pixels of the picture.
        """
        sparse, dense = self.prompt_encoder(points=None, boxes=boxes[:, None], masks=None)
        logits, _ = self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits

    def forward(self, x: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Logits of background (0) and of what is in the box, (batch, 2, 1, y, x).

        Args:
            x: pictures, (batch, 1, 1, y, x), 0 to 1.
            boxes: one for each picture, (batch, 4), as ``in_boxes`` takes them; None for whole pictures.
        """
        if boxes is None:
            last = float(self.image_size - 1)
            boxes = torch.tensor([[0.0, 0.0, last, last]], device=x.device).expand(len(x), 4)
        logits = self.outlined(self.embedded(x[:, :, 0]), boxes)
        return torch.stack([torch.zeros_like(logits), logits], dim=1)  # (batch, 2, 1, y, x)

    def outlined(self, embeddings: Tensor, boxes: Tensor) -> Tensor:
        """Logits, (batch, 1, y, x), of what is in the one box, (batch, 4), on each picture, as large as that."""
        # The decoder pairs each picture with each box, so pictures with a box of their own go one by one.
        coarse = [self.in_boxes(one[None], box[None]) for one, box in zip(embeddings, boxes, strict=True)]
        size = (self.image_size, self.image_size)
        return nn.functional.interpolate(torch.cat(coarse), size, mode="bilinear", align_corners=False)


def attention_layers(network: MedSAM) -> list[nn.Linear]:
    """The layers of the image encoder that make queries, keys and values."""
    return [block.attn.qkv for block in network.image_encoder.blocks]


def _parts_of_library() -> Any:
    """``segment_anything.modeling``, without the rest of the library: that imports torchvision, which must match
    torch to the build, for nothing that is used here.
    """
    if _PARTS not in sys.modules:
        library = importlib.util.find_spec(_LIBRARY)
        found = library and PathFinder.find_spec(_PARTS, list(library.submodule_search_locations or ()))
        if not found or not found.loader:
            raise MissingLibraryError(
                "A model of MedSAM needs the library segment-anything: run `pip install "
                "hematoma-expansion[medsam]`, in Slicer's Python if you use it there."
            )
        module = importlib.util.module_from_spec(found)
        sys.modules[_PARTS] = module
        found.loader.exec_module(module)
    return sys.modules[_PARTS]
