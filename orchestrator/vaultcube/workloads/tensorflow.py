"""`tensorflow`: ResNet training under tf.distribute.MirroredStrategy, weak scaling over all GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from vaultcube.gpu.flavours import KERNELS, Capability, Flavour, Kernels
from vaultcube.workloads._training import ModelName, Training, TrainingParams, TrainingTargets, adapted

if TYPE_CHECKING:
    from vaultcube.results.events import AnyEvent, Garbled
    from vaultcube.results.judge import CheckSpec, Measurement
    from vaultcube.results.schema import Gpu, Status

# What every device computes before anything is timed: as it is, and compiled by XLA.
OPERATIONS = ("matmul", "xla_matmul")


class TensorflowParams(TrainingParams):
    """Parameters of a TensorFlow run."""

    model: ModelName = Field(description="Keras classification model")
    xla: bool = Field(description="compile the training step with XLA")


class Tensorflow(Training):
    """TensorFlow's MirroredStrategy."""

    name = "tensorflow"
    summary = "TensorFlow MirroredStrategy training: devices, throughput and weak scaling over all GPUs"
    image = "tensorflow"
    service = "tensorflow"
    program = "mirrored"
    params_type = TensorflowParams
    presets = adapted(
        {
            "acceptance": {"xla": False},
            "seed": {"xla": False},
            # TensorFlow takes two minutes to trace ResNet-50 on two cores, and a quarter of that for this.
            "smoke": {"xla": False, "model": "mobilenet"},
        }
    )
    kernels: ClassVar[Mapping[Flavour, Kernels]] = {
        # The wheel of 2.17.1 has none for 5.x any more, and its PTX does not run on Blackwell (tensorflow#97387).
        Flavour.CU124: KERNELS[Flavour.CU124]._replace(low=Capability(6, 0)),
        # No wheel has any for Blackwell.
        Flavour.CU128: KERNELS[Flavour.CU128]._replace(
            note=", which is built FROM NVIDIA's own image nvcr.io/nvidia/tensorflow:25.02-tf2-py3"
        ),
    }

    def checks(self, targets: TrainingTargets) -> list[CheckSpec]:
        """Return the checks of training, and those of devices, of what they compute, and of their memory."""
        from vaultcube.results.judge import check

        return [
            *super().checks(targets),
            check("devices_detected", "devices_missing", "==", 0, "devices"),
            check("operations_correct", "operation_mismatches", "==", 0, "elements"),
            check("memory_allocated", "allocations_failed", "==", 0, "devices"),
        ]

    def measure(
        self,
        events: Sequence[AnyEvent],
        garbled: Sequence[Garbled],
        params: TrainingParams,
        *,
        world_size: int,
        status: Status,
        gpus: Sequence[Gpu] = (),
    ) -> Measurement:
        """Return what training measured, and what was found of the devices before."""
        from vaultcube.results.devices import measure_devices
        from vaultcube.results.judge import joined

        trained = super().measure(events, garbled, params, world_size=world_size, status=status, gpus=gpus)
        return joined(trained, measure_devices(events, world_size, OPERATIONS))


WORKLOAD = Tensorflow()
