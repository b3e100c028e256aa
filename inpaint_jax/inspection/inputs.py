"""The inputs of a model: photos with holes as in training and in validation, masks, and sketches step by step."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_jax.config import Config
from inpaint_jax.data.images import Resize, crop_corner, cut_square, resize_only
from inpaint_jax.data.masks import BINS, free_form_mask, free_form_mask_of_ratio, local_crop_side, open_masks
from inpaint_jax.data.pipeline import Batches, evaluation_batches, training_batches, validation_seed
from inpaint_jax.data.sketches import THRESHOLD, large_components, sketch_from_edges
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.features import pidinet
from inpaint_jax.nets.fill import HOLE_COLOUR
from inpaint_jax.runs import read_config
from inpaint_jax.sketching.store import SketchStore
from inpaint_jax.visualize import network_input


@dataclasses.dataclass(frozen=True)
class Samples:
    """Photos with holes, all of one size.

    Attributes:
        images: uint8 [N, H, W, 3].
        masks: bool [N, H, W], True = missing.
        sketches: bool [N, H, W], True = line; None for a model that is not guided by sketches.
        crops: int32 [N, 2], top and left of the local discriminator's crop, whose side is half the image's; None for
            photos that do not come from a data set.
    """

    images: np.ndarray
    masks: np.ndarray
    sketches: np.ndarray | None = None
    crops: np.ndarray | None = None

    @property
    def shown(self) -> np.ndarray:
        """uint8 [N, H, W, 3]: the photos as the network sees them, see `visualize.network_input`."""
        colour = np.rint(255 * np.array(HOLE_COLOUR)).astype(np.uint8)
        return network_input(self.images, self.masks, colour, self.sketches)

    def __len__(self) -> int:
        """How many."""
        return len(self.images)

    def __getitem__(self, rows: slice) -> "Samples":
        """Some of them."""
        fields: dict[str, Any] = {name: None if value is None else value[rows] for name, value in vars(self).items()}
        return Samples(**fields)

    def local_crops(self, images: np.ndarray) -> np.ndarray:
        """What the local discriminator sees of [N, H, W, ...]: the square crop of each.

        Raises:
            ValueError: these samples have no crops.
        """
        if self.crops is None:
            raise ValueError("These samples have no crops; take those of training_samples.")
        side = local_crop_side(*images.shape[1:3])
        return np.stack([cut_square(image, side, corner) for image, corner in zip(images, self.crops.tolist())])


def samples(workdir: str | Path, count: int = 8, *, data: str | None = None, seed: int | None = None) -> Samples:
    """The first validation photos of a run, cropped in the middle, with the masks of its validation.

    Args:
        workdir: Workdir of the run.
        count: How many photos at most.
        data: Other photos, as in configs. A model that is guided by sketches gets none of them.
        seed: Seed of the masks, to draw others than those of the validation.

    Returns:
        Samples, at the size that the run was trained at.

    Raises:
        FileNotFoundError: There is no run in the workdir, or its photos or their sketches are missing.
        ValueError: The photos or masks cannot be read, or the sketches are of other photos or of another size.
    """
    config = read_config(workdir)
    fields = config.data
    source = _open(data or fields.validation)
    limit = None if data else fields.validation_limit
    store = None if data else _sketches(config, workdir, "validation", "validation_sketches", source, limit)
    batches = evaluation_batches(
        source,
        open_masks(fields.masks, fields.image_size),
        size=fields.image_size,
        batch_size=1,
        seed=validation_seed(config.seed) if seed is None else seed,
        resize=fields.resize,
        limit=limit,
        sketches=store,
    )
    return _collect(batches, min(count, len(source)))


def training_samples(workdir: str | Path, count: int = 8, *, data: str | None = None, seed: int = 0) -> Samples:
    """Photos with holes as a run was trained on: randomly cropped and mirrored, with random masks.

    Args:
        workdir: Workdir of the run.
        count: How many photos.
        data: Other photos, as in configs; without sketches.
        seed: Seed of everything random. The run itself drew other samples.

    Returns:
        Samples, with `crops`.

    Raises:
        FileNotFoundError: as in `samples`.
        ValueError: as in `samples`.
    """
    config = read_config(workdir)
    fields = config.data
    source = _open(data or fields.train)
    batches = training_batches(
        source,
        open_masks(fields.masks, fields.image_size),
        size=fields.image_size,
        batch_size=1,
        seed=seed,
        resize=fields.resize,
        crop=fields.crop,
        flip=fields.flip,
        zoom=fields.zoom,
        sketches=None if data else _sketches(config, workdir, "train", "sketches", source),
        sketch_dropout=fields.sketch_dropout,
    )
    return _collect(batches, count)


def mask_ratios(workdir: str | Path, count: int = 1000, *, seed: int = 0) -> dict[str, np.ndarray]:
    """How much of the image masks cover: training masks, their strokes alone, and evaluation masks.

    Args:
        workdir: Workdir of a run, which gives the image size and the kind of masks.
        count: Number of masks of each kind.
        seed: Seed of the masks.

    Returns:
        kind -> [count], share of missing pixels.

    Raises:
        FileNotFoundError: There is no run in the workdir, or its folder of masks is missing.
    """
    fields = read_config(workdir).data
    size, rng = fields.image_size, np.random.default_rng(seed)
    masks = open_masks(fields.masks, size)
    training = "training (strokes and square)" if fields.masks == "freeform" else "training"
    return {
        training: np.array([masks.draw(rng).mask.mean() for _ in range(count)]),
        "strokes alone": np.array([free_form_mask(rng, size, size).mean() for _ in range(count)]),
        "evaluation (six bins)": np.array(
            [free_form_mask_of_ratio(rng, size, size, *BINS[i % len(BINS)]).mean() for i in range(count)]
        ),
    }


def masks_by_ratio(workdir: str | Path, count: int = 4, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Masks as evaluations draw them, by mask ratio.

    Args:
        workdir: Workdir of a run, which gives the image size.
        count: Number of masks in each bin.
        seed: Seed of the masks.

    Returns:
        bin -> bool [count, H, W], True = missing; for `visualize.image_sheet`.
    """
    size, rng = read_config(workdir).data.image_size, np.random.default_rng(seed)
    return {
        f"({low:.1f}, {high:.1f}]": np.stack(
            [free_form_mask_of_ratio(rng, size, size, low, high) for _ in range(count)]
        )
        for low, high in BINS
    }


def evaluation_sketches(workdir: str | Path) -> str:
    """What inpaint-jax evaluate is to be given as --sketches for a run, as far as its own sketches serve.

    Args:
        workdir: Workdir of the run.

    Returns:
        The folder with the sketches of its validation photos, if the run is guided by sketches, data.test names the
        same photos, and all of them have a sketch; else "none".

    Raises:
        FileNotFoundError: as in `samples`.
        ValueError: as in `samples`.
    """
    config = read_config(workdir)
    fields = config.data
    if not config.model.sketch or fields.test != fields.validation:
        return "none"
    source, limit = _open(fields.validation), fields.validation_limit
    store = _sketches(config, workdir, "validation", "validation_sketches", source, limit)
    return str(store.folder) if store is not None and len(store) == len(source) else "none"


def sketch_steps(
    data: str,
    count: int = 2,
    *,
    size: int = 256,
    resize: Resize = "shortest",
    weights: str | Path | None = None,
) -> dict[str, np.ndarray]:
    """How a sketch is made from a photo, step by step (Fig. 11).

    As `inpaint-jax sketch` does it, of the whole photo; what is shown is the middle of each step.

    Args:
        data: Photos, as in configs; the first ones are taken.
        count: How many photos at most.
        size: Size of the images. The paper's threshold and smallest component are meant for 256.
        resize: "shortest" or "stretch".
        weights: File of PiDiNet's weights; None for the cache or a download.

    Returns:
        heading -> [N, H, W], or [N, H, W, 3] for the photo; for `visualize.image_sheet`.

    Raises:
        features.weights.WeightsUnavailable: The weights are not given, not in the cache, and cannot be downloaded.
    """
    params = pidinet.load(weights)
    source = open_source(data)
    found = []
    for number in range(min(count, len(source))):
        photo = resize_only(source[number], size, resize)
        height, width = photo.shape[:2]
        padded = pidinet.padded(photo).astype(np.float32) / 255
        edges = np.asarray(pidinet.edge_map(params, padded[None]))[0, :height, :width]
        steps = {
            "photo": photo,
            "edge map": edges,
            f"above {THRESHOLD}": edges > THRESHOLD,
            "large components": large_components(edges, scaled=True),
            "sketch": sketch_from_edges(edges, scaled=True),
        }
        corner = crop_corner(photo.shape[:2], size)
        found.append({name: cut_square(step, size, corner) for name, step in steps.items()})
    return {name: np.stack([steps[name] for steps in found]) for name in found[0]}


def _open(spec: str | None) -> ImageSource:
    """The photos that the config of a run names."""
    assert spec is not None  # no run starts without
    return open_source(spec)


def _sketches(
    config: Config, workdir: str | Path, role: str, field: str, source: ImageSource, limit: int | None = None
) -> SketchStore | None:
    """The sketches that a run was guided by, checked: in the folder that its config names, else in its workdir."""
    if not config.model.sketch:
        return None
    store = SketchStore.open(getattr(config.data, field) or Path(workdir) / "sketches" / role)
    store.check(source, size=config.data.image_size, resize=config.data.resize, limit=limit)
    return store


def _collect(batches: Batches, count: int) -> Samples:
    """The first readable samples of batches of one."""
    found = []
    for batch in batches:
        if batch.get("weight", np.ones(1))[0]:
            found.append(batch)
        if len(found) == count:
            break
    batches.close()
    images, masks, crops = (np.concatenate([batch[name] for batch in found]) for name in ("image", "mask", "crop"))
    sketches = np.concatenate([batch["sketch"] for batch in found]) if "sketch" in found[0] else None
    return Samples(images, masks, sketches, crops)
