"""The plain TensorFlow script that our program is compared with: the same steps, nothing else.

Run inside the image: `python3 bare_tensorflow.py WARMUP WINDOWS STEPS`. Prints `samples/s VALUE`.
"""

import sys
import time
from collections.abc import Callable

import tensorflow as tf

BATCH, SIDE, RANKS = 4, 64, 2
warmup, windows, steps = (int(word) for word in sys.argv[1:4])
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(RANKS)
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * RANKS)
NAMES = [f"/device:CPU:{rank}" for rank in range(RANKS)]
tf.keras.utils.set_random_seed(20260101)


def trainer(strategy: tf.distribute.Strategy) -> Callable[[], None]:
    with strategy.scope():
        model = tf.keras.applications.MobileNet(weights=None, input_shape=(SIDE, SIDE, 3), classifier_activation=None)
        optimizer = tf.keras.optimizers.SGD(learning_rate=0.01, momentum=0.9)
        optimizer.build(model.trainable_variables)
    lossfn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    images = strategy.experimental_distribute_values_from_function(lambda _: tf.random.normal((BATCH, SIDE, SIDE, 3)))
    labels = strategy.experimental_distribute_values_from_function(
        lambda _: tf.random.uniform((BATCH,), maxval=1000, dtype=tf.int64)
    )

    def one_replica(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(lossfn(labels, model(images, training=True))) / (BATCH * strategy.num_replicas_in_sync)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function  # type: ignore[untyped-decorator]
    def everybody(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(one_replica, args=(images, labels)), axis=None)

    def step() -> None:
        everybody(images, labels)

    return step


# The same history: every rank alone first. A process that has trained a while has an allocator that has settled.
for name in NAMES:
    alone = trainer(tf.distribute.OneDeviceStrategy(name))
    for _ in range(1 + warmup + windows * steps):
        alone()
    del alone
step = trainer(tf.distribute.MirroredStrategy(NAMES))
for _ in range(1 + warmup):
    step()
elapsed = 0.0
for _ in range(windows):
    tf.test.experimental.sync_devices()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    tf.test.experimental.sync_devices()
    elapsed += time.perf_counter() - start
print("samples/s", BATCH * RANKS * steps * windows / elapsed)
