"""One training step, alone or under MirroredStrategy, on synthetic or real images. Imports TensorFlow."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from common.outcome import bad_parameter, first_line
from mirrored.images import CLASSES, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mirrored.images import Images
    from mirrored.program import MirroredParams


def check_model(params: MirroredParams) -> None:
    """Raise the problem (exit code 64) of a model that Keras does not have."""
    known = models()
    if _plain(params.model) not in known:
        near = difflib.get_close_matches(_plain(params.model), known, n=3)
        hint = f"did you mean: {', '.join(near)}" if near else "for example resnet50, mobilenetv2, efficientnetb0"
        raise bad_parameter(f"--model {params.model} is not a Keras application", hint)


def models() -> dict[str, Callable[..., Any]]:
    """Return the Keras applications by their names in lower case."""
    found = inspect.getmembers(tf.keras.applications, inspect.isfunction)
    return {name.lower(): make for name, make in found if not name.startswith("_")}


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def build_model(params: MirroredParams, classes: int) -> Any:
    """Return the untrained model of that name, which `check_model` knows to exist.

    Raises:
        Problem: it cannot take images of that size (exit code 64).
    """
    shape = (params.image_size, params.image_size, 3)
    try:
        return models()[_plain(params.model)](
            weights=None, input_shape=shape, classes=classes, classifier_activation=None
        )
    except ValueError as error:
        raise bad_parameter(
            f"{params.model} cannot be trained on images of {params.image_size} px: {first_line(str(error))}",
            "use another --image-size (the one the model was made for)",
        ) from error


class Synthetic:
    """One batch of random images on each device, made there: nothing but the devices is measured."""

    classes = CLASSES

    def __init__(self, params: MirroredParams, devices: Sequence[str], ranks: Sequence[int]) -> None:
        """Draw the batch of each of `ranks` from the seed, on its device."""
        self._batches = []
        shape = (params.batch_size, params.image_size, params.image_size, 3)
        for device, rank in zip(devices, ranks, strict=True):
            with tf.device(device):
                images = tf.random.stateless_normal(shape, seed=(params.seed, rank))
                # int64: TensorFlow keeps int32 in main memory, also that of a GPU.
                labels = tf.random.stateless_uniform(
                    (params.batch_size,), seed=(params.seed, rank), maxval=CLASSES, dtype=tf.int64
                )
            self._batches.append((images, labels))

    def next(self) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Return images and labels for each rank, on its device."""
        return self._batches


class Training:
    """A model, its optimiser and its data; `step` trains once and does not wait for the devices."""

    def __init__(
        self,
        params: MirroredParams,
        strategy: tf.distribute.Strategy,
        devices: Sequence[str],
        images: Images | None,
        *,
        ranks: Sequence[int],
    ) -> None:
        """Build it all on `devices`, which `strategy` joins. `ranks` say which part of the data is whose.

        Raises:
            Problem: the model cannot be built (exit code 64).
        """
        self._strategy = strategy
        self._data: Synthetic | Folder = (
            Folder(images, params, devices, ranks) if images else Synthetic(params, devices, ranks)
        )
        tf.keras.utils.set_random_seed(params.seed)
        with strategy.scope():
            model = build_model(params, self._data.classes)
            # A small rate: on one batch of noise a larger one soon ends in NaN.
            optimizer = tf.keras.optimizers.SGD(learning_rate=0.01, momentum=0.9)
            optimizer.build(model.trainable_variables)
        self._run = _compiled(strategy, model, optimizer, xla=params.xla)
        self._losses: Sequence[tf.Tensor] = ()
        # The batches of synthetic data are the same in every step.
        self._fixed = self._spread(self._data.next()) if isinstance(self._data, Synthetic) else None
        # Traced and compiled here, so that warming up is training.
        self.step()
        self.sync()

    def _spread(self, batches: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> Any:
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: batches[context.replica_id_in_sync_group]
        )

    def step(self) -> None:
        """Train on one batch. Reads nothing back: that would wait for the devices in every step."""
        images, labels = self._fixed or self._spread(self._data.next())
        self._losses = self._run(images, labels)

    def sync(self) -> None:
        """Return when the devices have done everything they were given."""
        tf.test.experimental.sync_devices()

    def losses(self) -> list[float]:
        """Return the last loss of each rank. Waits for the devices."""
        return [float(loss.numpy()) for loss in self._losses]


def _compiled(strategy: tf.distribute.Strategy, model: Any, optimizer: Any, *, xla: bool) -> Callable[..., Any]:
    """Return one step of all replicas as one graph: it takes images and labels, and returns each replica's loss."""
    count = strategy.num_replicas_in_sync

    def gradients(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            scores = tf.cast(model(images, training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
            # The optimiser sums over replicas.
            share = loss / count
        return loss, tape.gradient(share, model.trainable_variables)

    one_replica_gradients = tf.function(gradients, jit_compile=True) if xla else gradients

    def one_replica(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        loss, found = one_replica_gradients(images, labels)
        optimizer.apply_gradients(zip(found, model.trainable_variables, strict=True))
        return loss

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def everybody(images: Any, labels: Any) -> Any:
        return strategy.experimental_local_results(strategy.run(one_replica, args=(images, labels)))

    return everybody  # type: ignore[no-any-return]
