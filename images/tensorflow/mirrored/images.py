"""The images of `--data`: decoded and augmented as in training, each rank its part. Imports TensorFlow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from common.outcome import Problem, bad_parameter
from mirrored.outcome import gist
from mirrored.program import PROGRAM
from training import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirrored.program import MirroredParams

CLASSES = 1000
_MAX_READERS = 8
_LOOK_S = 30.0
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Images:
    """Files, and the number of each one's class."""

    files: list[str]
    labels: list[int]
    classes: int


def open_images(params: MirroredParams) -> Images:
    """Return the images below `--data`.

    Raises:
        Problem: there are too few for one batch of every rank (exit code 64).
    """
    root = Path(str(params.data))
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    found = [
        (str(path), label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PROGRAM.image_suffixes
    ]
    if len(found) < params.batch_size * params.ranks:
        raise bad_parameter(
            f"{params.data} holds {len(found)} images: too few for a batch of {params.batch_size} on each of "
            f"{params.ranks} ranks",
            "use a smaller --batch-size, or more images",
        )
    return Images([path for path, _ in found], [label for _, label in found], len(folders))


class Folder:
    """Batches of an image folder for each of some ranks, for ever."""

    def __init__(self, images: Images, params: MirroredParams, devices: Sequence[str], ranks: Sequence[int]) -> None:
        """Read the part of `images` that belongs to each of `ranks`."""
        self.classes = max(CLASSES, images.classes)
        self._files = images.files
        self._params = params
        self._devices = devices
        # Without a GPU training itself already fills the cores.
        readers = min(_MAX_READERS, max(1, machine.cores() // params.ranks)) if params.device == "cuda" else 1
        parts = max(len(ranks), 1)
        self._batches = [iter(self._part(images, position, parts, readers)) for position in range(parts)]

    def _part(self, images: Images, position: int, parts: int, readers: int) -> tf.data.Dataset:
        side = self._params.image_size

        def read(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
            begin, size, _ = tf.image.sample_distorted_bounding_box(
                tf.shape(image),
                tf.zeros([1, 0, 4]),
                area_range=(0.08, 1.0),
                aspect_ratio_range=(3 / 4, 4 / 3),
                use_image_if_no_bounding_boxes=True,
            )
            cropped = tf.image.resize(tf.slice(image, begin, size), (side, side))
            cropped.set_shape((side, side, 3))
            flipped = tf.image.random_flip_left_right(cropped)
            return (flipped / 255.0 - _MEAN) / _DEVIATION, label

        labels = tf.constant(images.labels, tf.int64)
        with tf.device("/device:CPU:0"):
            return (
                tf.data.Dataset.from_tensor_slices((images.files, labels))
                .shuffle(len(images.files), seed=self._params.seed)
                .shard(parts, position)
                .repeat()
                .map(read, num_parallel_calls=readers)
                .batch(self._params.batch_size, drop_remainder=True)
                .prefetch(2)
            )

    def next(self) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Return images and labels for each rank, on its device.

        Raises:
            Problem: a file is no image.
        """
        try:
            batches = [next(batches) for batches in self._batches]
        except tf.errors.InvalidArgumentError as error:
            raise self._unreadable(str(error)) from error
        found = []
        for device, (images, labels) in zip(self._devices, batches, strict=True):
            with tf.device(device):
                found.append((tf.identity(images), tf.identity(labels)))
        return found

    def _unreadable(self, text: str) -> Problem:
        """Return the problem of a file that cannot be decoded, named where it is found in time."""
        end = time.monotonic() + _LOOK_S
        name, words = "an image", text
        for path in self._files:
            try:
                tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
            except tf.errors.OpError as error:
                name, words = path, str(error)
                break
            if time.monotonic() > end:
                break
        next_step = f"mend or remove that file below {self._params.data}"
        return Problem("data-unreadable", f"{name} cannot be read: {gist(words)}", next_step)
