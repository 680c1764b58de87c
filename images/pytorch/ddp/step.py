"""One training step, alone or under DDP, on synthetic or real images. Imports torch."""

from __future__ import annotations

import contextlib
import difflib
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from common.outcome import bad_parameter, first_line
from training import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddp.program import DdpParams

_CLASSES = 1000
_MAX_LOADERS = 8
_SIDE_WEIGHT = 0.4
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def set_up(params: DdpParams) -> ImageFolder | None:
    """Choose arithmetic and algorithms, and find out what cannot work before anything is started.

    Returns the images of `--data`, None for synthetic ones.

    Raises:
        Problem: no such model, images that the model cannot take, or too few of them (exit code 64).
    """
    tf32 = params.precision == "tf32"
    # Both ways and explicitly: cuDNN's default is on, so that "fp32" would silently be tf32.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    # DDP remarks on the strides of 1x1 kernels in channels_last; they are what was asked for.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    warnings.filterwarnings("ignore", message="The default weight initialization", category=FutureWarning)
    known = torchvision.models.list_models(module=torchvision.models)
    if params.model not in known:
        near = difflib.get_close_matches(params.model, known, n=3)
        hint = f"did you mean: {', '.join(near)}" if near else "for example resnet50, vit_b_16, convnext_tiny"
        raise bad_parameter(f"--model {params.model} is not a torchvision classification model", hint)
    _try_shapes(params)
    return _open_images(params) if params.data else None


def _try_shapes(params: DdpParams) -> None:
    """Send a batch without values through the model: costs a tenth of a second, and no memory."""
    try:
        with torch.device("meta"):
            build_model(params, _CLASSES).train()(
                torch.empty(params.batch_size, 3, params.image_size, params.image_size)
            )
    except NotImplementedError:
        # A model that looks at its values while it is built; its first step will tell.
        return
    except (RuntimeError, ValueError, AssertionError) as error:
        shape = f"{params.batch_size} images of {params.image_size} px"
        raise bad_parameter(
            f"{params.model} cannot be trained on batches of {shape}: {first_line(str(error))}",
            "use another --image-size (the one the model was made for), or a larger --batch-size",
        ) from error


def _open_images(params: DdpParams) -> ImageFolder:
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(params.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _DEVIATION),
        ]
    )
    images = ImageFolder(params.data, pipeline)
    if len(images) < params.batch_size * params.ranks:
        raise bad_parameter(
            f"{params.data} holds {len(images)} images: too few for a batch of {params.batch_size} on each of "
            f"{params.ranks} ranks",
            "use a smaller --batch-size, or more images",
        )
    return images


def build_model(params: DdpParams, classes: int) -> torch.nn.Module:
    """Return the untrained torchvision model of that name, which `set_up` knows to exist."""
    sized = {"image_size": params.image_size} if params.model.startswith("vit_") else {}
    return torchvision.models.get_model(params.model, weights=None, num_classes=classes, **sized)


class Synthetic:
    """One batch of random images, made on the device: nothing but the device is measured."""

    classes = _CLASSES

    def __init__(self, params: DdpParams, device: torch.device, rank: int) -> None:
        """Draw the batch for `rank` from the seed."""
        source = torch.Generator(device).manual_seed(params.seed + rank)
        shape = (params.batch_size, 3, params.image_size, params.image_size)
        images = torch.randn(shape, device=device, generator=source)
        self._images = images.contiguous(memory_format=layout(params))
        self._labels = torch.randint(_CLASSES, (params.batch_size,), device=device, generator=source)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and labels on the device."""
        return self._images, self._labels


class Folder:
    """Batches of an image folder, decoded and augmented as in training, for ever."""

    def __init__(self, images: ImageFolder, params: DdpParams, device: torch.device, *, rank: int, ranks: int) -> None:
        """Read the part of `images` that belongs to `rank` of `ranks`."""
        self.classes = max(_CLASSES, len(images.classes))
        self._params, self._device = params, device
        self._sampler = DistributedSampler(images, num_replicas=ranks, rank=rank, seed=params.seed)
        # Without a GPU the ranks themselves already fill the cores.
        loaders = min(_MAX_LOADERS, machine.cores() // params.ranks) if device.type == "cuda" else 0
        self._loader = DataLoader(
            images,
            batch_size=params.batch_size,
            sampler=self._sampler,
            drop_last=True,
            num_workers=loaders,
            persistent_workers=loaders > 0,
            pin_memory=device.type == "cuda",
        )
        self._batches = self._endless()

    def _endless(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch = 0
        while True:
            self._sampler.set_epoch(epoch)
            yield from self._loader
            epoch += 1

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and labels on the device."""
        images, labels = next(self._batches)
        images = images.to(self._device, memory_format=layout(self._params), non_blocking=True)
        return images, labels.to(self._device, non_blocking=True)


def layout(params: DdpParams) -> torch.memory_format:
    """Return the memory layout of images and weights."""
    return torch.channels_last if params.channels_last else torch.contiguous_format


class Training:
    """A model, its optimiser and its data; `step` trains once and does not wait for the device."""

    def __init__(
        self,
        params: DdpParams,
        device: torch.device,
        images: ImageFolder | None,
        *,
        rank: int,
        ranks: int,
        ddp: bool,
    ) -> None:
        """Build it all. `rank` of `ranks` says which part of the data is this one's; `ddp` joins them."""
        self._data: Synthetic | Folder = (
            Folder(images, params, device, rank=rank, ranks=ranks)
            if images is not None
            else Synthetic(params, device, rank)
        )
        torch.manual_seed(params.seed)
        model = build_model(params, self._data.classes).to(device, memory_format=layout(params)).train()
        # The same gradients as anybody's script: DDP as it comes.
        self._model: Any = (
            DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None) if ddp else model
        )
        self._loss_of = torch.nn.CrossEntropyLoss()
        # A small rate: on one batch of noise a larger one soon ends in NaN.
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)
        self._precision = (
            torch.autocast(device.type, dtype=torch.bfloat16)
            if params.precision == "bf16"
            else contextlib.nullcontext()
        )
        self._device = device
        self._loss: torch.Tensor | None = None

    def step(self) -> None:
        """Train on one batch. Reads nothing back: that would wait for the device in every step."""
        images, labels = self._data.next()
        self._optimizer.zero_grad(set_to_none=True)
        with self._precision:
            output = self._model(images)
            # GoogLeNet and Inception return their side heads too; left out, DDP would miss their gradients.
            head, *sides = (output,) if isinstance(output, torch.Tensor) else output
            loss = self._loss_of(head, labels) + _SIDE_WEIGHT * sum(self._loss_of(side, labels) for side in sides)
        loss.backward()
        self._optimizer.step()
        self._loss = loss.detach()

    def sync(self) -> None:
        """Return when the device has done everything it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def loss(self) -> float:
        """Return the last loss; NaN before the first step. Waits for the device."""
        return float("nan") if self._loss is None else float(self._loss.item())
