"""Makes the `.tflite` files beside it with TensorFlow 2.21 (`tensorflow-cpu`, which slimseg itself never needs).

    python make_tflite.py && python make_tflite.py planar     # the second needs litert-torch instead

Small networks with random weights, of the kinds that people have: what they say is that real converters wrote them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
random = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return random.normal(0, 0.3, shape).astype("f4")


def planar() -> None:
    """Channels first at both ends, as litert-torch writes a PyTorch network."""
    import litert_torch
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.PReLU(8), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish(),
                        nn.ConvTranspose2d(8, 4, 2, 2), nn.Sigmoid())  # fmt: skip
    litert_torch.convert(net.eval(), (torch.zeros(1, 3, 32, 40),)).export(str(HERE / "planar_float.tflite"))


def networks():
    import tensorflow as tf

    layers = tf.keras.layers

    def deeplab(size: int = 65):
        x = image = layers.Input((size, size, 3))
        x = layers.Rescaling(1 / 127.5, -1)(x)
        x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(x)
        for channels, stride, dilation in ((12, 2, 1), (12, 1, 2), (16, 1, 4)):
            y = layers.Conv2D(24, 1, activation="relu6")(x)
            y = layers.DepthwiseConv2D(3, strides=stride, dilation_rate=dilation, padding="same")(y)
            y = layers.Conv2D(channels, 1)(layers.ReLU(6)(y))
            x = layers.Add()([x, y]) if stride == 1 and channels == x.shape[-1] else y
        branches = [layers.Conv2D(8, 3, dilation_rate=r, padding="same", activation="relu")(x) for r in (2, 3)]
        pooled = layers.Conv2D(8, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        resize = tf.compat.v1.image.resize_bilinear
        pooled = layers.Lambda(lambda t: resize(t, x.shape[1:3], align_corners=True))(pooled)
        x = layers.Conv2D(5, 1)(layers.Concatenate()([*branches, pooled]))
        return tf.keras.Model(image, layers.Lambda(lambda t: resize(t, (size, size), align_corners=True))(x))

    def gated():
        """MobileNetV3's parts: hard-swish, squeeze-and-excitation, a softmax over two classes of which one is kept."""
        x = image = layers.Input((32, 48, 3))
        x = layers.Conv2D(16, 3, strides=2, padding="same", activation=tf.keras.activations.hard_swish)(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(8, 1, activation="relu")(gate)
        gate = layers.Conv2D(16, 1, activation=tf.keras.activations.hard_sigmoid)(gate)
        x = layers.Multiply()([x, gate])
        x = layers.Resizing(32, 48)(layers.Conv2D(2, 1)(x))
        x = layers.Softmax()(x)
        return tf.keras.Model(image, layers.Reshape((32 * 48,))(layers.Lambda(lambda t: t[..., 1:])(x)))

    def squeeze():
        def fire(x, squeezed, expanded):
            x = layers.Conv2D(squeezed, 1, activation="relu")(x)
            return layers.Concatenate()([
                layers.Conv2D(expanded, 1, activation="relu")(x),
                layers.Conv2D(expanded, 3, padding="same", activation="relu")(x),
            ])  # fmt: skip

        x = image = layers.Input((32, 40, 3))
        first = x = layers.Conv2D(8, 3, strides=2, padding="same", activation="elu")(x)
        second = x = fire(layers.MaxPool2D(3, 2, padding="same")(x), 4, 8)
        x = fire(layers.AveragePooling2D(3, 2, padding="same")(x), 4, 12)
        x = fire(layers.Concatenate()([layers.UpSampling2D(2)(x), second]), 4, 8)
        x = layers.LeakyReLU(0.1)(layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x))
        x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="uniform")(layers.Add()([x, first]))
        x = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(x)
        x = layers.PReLU(alpha_initializer="uniform")(layers.Conv2DTranspose(4, 4, padding="same")(x))
        return tf.keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))

    def old(x):
        """As TensorFlow 1 spelled things: dilation by SPACE_TO_BATCH, resizes in the old coordinates."""
        x = tf.nn.relu6(tf.nn.conv2d(x, weights(3, 3, 3, 8), 2, "SAME") + weights(8))
        for dilation in (2, 4):
            bottom, right = -x.shape[1] % dilation, -x.shape[2] % dilation
            pads = [[dilation, dilation + bottom], [dilation, dilation + right]]
            y = tf.space_to_batch(x, [dilation] * 2, pads)
            y = tf.nn.conv2d(y, weights(3, 3, 8, 8), 1, "VALID")
            if dilation == 4:
                y = tf.nn.relu(y + weights(8))
            y = tf.batch_to_space(y, [dilation] * 2, [[0, bottom], [0, right]])
            x = tf.nn.relu6(y + weights(8))
        x = tf.compat.v1.image.resize_bilinear(x, (33, 41))
        x = tf.compat.v1.image.resize_nearest_neighbor(x, (66, 82), align_corners=True)
        x = tf.pad(x, [[0, 0], [1, 2], [0, 3], [0, 4]])[:, 1:-2, :82, 2:10]
        a, b = tf.split(x, 2, -1)
        x = tf.maximum(a, b) * tf.nn.sigmoid(a) - tf.square(b) / (1.5 + tf.abs(a))
        x = tf.transpose(tf.nn.relu(tf.transpose(x, [0, 3, 1, 2])) * 0.5, [0, 2, 3, 1])
        gate = tf.nn.sigmoid(tf.matmul(tf.reduce_mean(x, [1, 2]), weights(4, 4)))
        x = x * tf.reshape(gate, [-1, 1, 1, 4])
        x = tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2), 2)
        x = tf.nn.conv2d(x, weights(1, 1, 4, 2), 1, "SAME")
        return tf.nn.softmax(tf.reshape(x, [1, -1, 2]))[:, :, 1]

    image = layers.Input((33, 41, 3))
    yield "deeplab", deeplab(), 255.0, ("float", "int8")
    yield "gated", gated(), 1.0, ("float", "float16")
    yield "squeeze", squeeze(), 1.0, ("float", "dynamic", "int8")
    yield "old", tf.keras.Model(image, layers.Lambda(old, output_shape=(66 * 82,))(image)), 1.0, ("float",)


def converted(network, kind: str, brightest: float) -> bytes:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = [1, *network.input_shape[1:]]
    function = tf.function(lambda x: network(x, training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec(shape, tf.float32)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        samples = [[(random.random(shape) * brightest).astype("f4")] for _ in range(8)]
        converter.representative_dataset = lambda: iter(samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    return converter.convert()


if __name__ == "__main__":
    if sys.argv[1:] == ["planar"]:
        planar()
    else:
        for name, network, brightest, kinds in networks():
            for kind in kinds:
                (HERE / f"{name}_{kind}.tflite").write_bytes(converted(network, kind, brightest))
