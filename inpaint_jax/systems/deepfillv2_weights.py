"""Weights that were published for DeepFillv2's PyTorch versions, as parameters of `nets.deepfillv2.DeepFillV2`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from inpaint_jax.config import Config, Model
from inpaint_jax.features.torch_file import channels_last
from inpaint_jax.features.weights import check_tree
from inpaint_jax.nets.deepfillv2 import DeepFillV2
from inpaint_jax.systems import published

TERMS = (
    "Imported weights. Those that were published with DeepFillv2 are for education and research only (CC BY-NC 4.0); "
    "their conversion to PyTorch names no licence."
)

# A layer in our tree, in the files of the variant pt, and in those of tf.
_LAYERS = """
coarse/encoder/conv_0/conv              stage1.conv1                              conv1
coarse/encoder/conv_1/conv              stage1.down_block1.conv1_downsample       conv2_downsample
coarse/encoder/conv_2/conv              stage1.down_block1.conv2                  conv3
coarse/encoder/conv_3/conv              stage1.down_block2.conv1_downsample       conv4_downsample
coarse/encoder/conv_4/conv              stage1.down_block2.conv2                  conv5
coarse/middle_0/conv                    stage1.conv_bn1                           conv6
coarse/middle_1/conv                    stage1.conv_bn2                           conv7_atrous
coarse/middle_2/conv                    stage1.conv_bn3                           conv8_atrous
coarse/middle_3/conv                    stage1.conv_bn4                           conv9_atrous
coarse/middle_4/conv                    stage1.conv_bn5                           conv10_atrous
coarse/middle_5/conv                    stage1.conv_bn6                           conv11
coarse/middle_6/conv                    stage1.conv_bn7                           conv12
coarse/decoder/up_0/gated/conv          stage1.up_block1.conv1_upsample.conv      conv13_upsample.conv
coarse/decoder/conv_0/conv              stage1.up_block1.conv2                    conv14
coarse/decoder/up_1/gated/conv          stage1.up_block2.conv1_upsample.conv      conv15_upsample.conv
coarse/decoder/conv_1/conv              stage1.up_block2.conv2                    conv16
coarse/decoder/image                    stage1.conv_to_rgb                        conv17
refinement/texture_encoder/conv_0/conv  stage2.conv_conv1                         xconv1
refinement/texture_encoder/conv_1/conv  stage2.conv_down_block1.conv1_downsample  xconv2_downsample
refinement/texture_encoder/conv_2/conv  stage2.conv_down_block1.conv2             xconv3
refinement/texture_encoder/conv_3/conv  stage2.conv_down_block2.conv1_downsample  xconv4_downsample
refinement/texture_encoder/conv_4/conv  stage2.conv_down_block2.conv2             xconv5
refinement/texture_0/conv               stage2.conv_conv_bn1                      xconv6
refinement/texture_1/conv               stage2.conv_conv_bn2                      xconv7_atrous
refinement/texture_2/conv               stage2.conv_conv_bn3                      xconv8_atrous
refinement/texture_3/conv               stage2.conv_conv_bn4                      xconv9_atrous
refinement/texture_4/conv               stage2.conv_conv_bn5                      xconv10_atrous
refinement/context_encoder/conv_0/conv  stage2.ca_conv1                           pmconv1
refinement/context_encoder/conv_1/conv  stage2.ca_down_block1.conv1_downsample    pmconv2_downsample
refinement/context_encoder/conv_2/conv  stage2.ca_down_block1.conv2               pmconv3
refinement/context_encoder/conv_3/conv  stage2.ca_down_block2.conv1_downsample    pmconv4_downsample
refinement/context_encoder/conv_4/conv  stage2.ca_down_block2.conv2               pmconv5
refinement/context_0/conv               stage2.ca_conv_bn1                        pmconv6
refinement/context_1/conv               stage2.ca_conv_bn4                        pmconv9
refinement/context_2/conv               stage2.ca_conv_bn5                        pmconv10
refinement/joint_0/conv                 stage2.conv_bn6                           allconv11
refinement/joint_1/conv                 stage2.conv_bn7                           allconv12
refinement/decoder/up_0/gated/conv      stage2.up_block1.conv1_upsample.conv      allconv13_upsample.conv
refinement/decoder/conv_0/conv          stage2.up_block1.conv2                    allconv14
refinement/decoder/up_1/gated/conv      stage2.up_block2.conv1_upsample.conv      allconv15_upsample.conv
refinement/decoder/conv_1/conv          stage2.up_block2.conv2                    allconv16
refinement/decoder/image                stage2.conv_to_rgb                        allconv17
"""

_CONSTANT = "stage2.contextual_attention.fuse_weight"  # in newer files of pt; the identity


def read(path: str | Path) -> tuple[Config, Any, int]:
    """Reads a generator; nothing in the file is executed.

    Args:
        path: a file of torch.save: a checkpoint, whose entry "G" is the generator, or the generator's state_dict.

    Returns:
        a config, of which `system` and `model` describe the generator and the rest are defaults; its parameters; and
        the number of iterations, 0 if the file does not say.

    Raises:
        MissingFile: there is no such file.
        WeightsInvalid: it is damaged, holds other things than a state_dict does, or lacks keys or has others.
    """
    state, steps = published.read_state(path, "G", "DeepFillv2")
    state.pop(_CONSTANT, None)
    variant = "pt" if any(name.startswith("stage1.") for name in state) else "tf"
    shapes = published.torch_shapes(DeepFillV2(variant=variant), 32)
    check_tree(state, {theirs: shapes[ours] for ours, theirs in _names(variant).items()}, path)
    model = dataclasses.replace(Model(), variant=variant)
    config = dataclasses.replace(Config(), name=Path(path).stem, system="deepfillv2", model=model)
    return config, to_params(state, variant), steps


def to_params(state: Mapping[str, np.ndarray], variant: str) -> dict[str, Any]:
    """The parameters of a generator's state_dict, float32."""
    params = {ours: channels_last(state[theirs]) for ours, theirs in _names(variant).items()}
    return unflatten_dict(params, sep="/")


def _names(variant: str) -> dict[str, str]:
    """Name of every array in our tree -> in the files."""
    column = ("pt", "tf").index(variant) + 1
    rows = [row.split() for row in _LAYERS.split("\n") if row]
    kinds = {"kernel": "weight", "bias": "bias"}
    return {f"{row[0]}/{ours}": f"{row[column]}.conv.{theirs}" for row in rows for ours, theirs in kinds.items()}
