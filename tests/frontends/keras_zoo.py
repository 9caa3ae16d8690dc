"""Small networks as Keras users build them, on Keras 3's torch backend: one function per network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")  # of the tests' process only: slimseg never imports Keras

import keras
from keras import layers as kl
from keras import ops as ko

Builder = Callable[[], Any]


def unet() -> Any:
    image = keras.Input((32, 48, 3))
    first = kl.Conv2D(8, 3, padding="same", activation="relu", name="enter")(image)
    down = kl.MaxPooling2D(2)(first)
    down = kl.Conv2D(12, 3, padding="same", use_bias=False)(down)
    down = kl.LeakyReLU(0.1)(kl.BatchNormalization(name="norm")(down))
    second = kl.AveragePooling2D(2, padding="same")(down)
    second = kl.SpatialDropout2D(0.2)(kl.SeparableConv2D(16, 3, padding="same", activation="swish")(second))
    up = kl.Conv2DTranspose(12, 3, 2, padding="same", activation="relu", name="up")(second)
    up = kl.Concatenate()([up, down])
    up = kl.Conv2DTranspose(8, 4, 2, padding="same", use_bias=False)(up)
    up = kl.PReLU(shared_axes=[1, 2])(kl.Add()([up, first]))
    return keras.Model(image, kl.Conv2D(3, 1, activation="softmax", name="classify")(up))


def deeplab() -> Any:
    image = keras.Input((65, 65, 3))
    x = kl.Rescaling(1 / 127.5, offset=-1)(image)
    x = kl.ReLU(6.0)(kl.BatchNormalization(scale=False)(kl.Conv2D(8, 3, 2, padding="same")(x)))
    low = kl.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu6")(x)
    x = kl.Conv2D(16, 3, 2, padding="same", groups=2)(low)
    branches = [kl.Conv2D(8, 3, padding="same", dilation_rate=rate, activation="elu")(x) for rate in (1, 2, 6)]
    pooled = kl.Conv2D(8, 1, activation="hard_silu")(kl.GlobalAveragePooling2D(keepdims=True)(x))
    branches.append(kl.UpSampling2D((17, 17), interpolation="bilinear")(pooled))
    x = kl.Conv2D(8, 1)(kl.Concatenate()(branches))
    x = kl.Concatenate()([kl.Resizing(33, 33)(x), kl.Conv2D(4, 1, activation="gelu")(low)])
    return keras.Model(image, kl.Resizing(65, 65)(kl.Conv2D(5, 1, name="logits")(x)))


def mobilenet() -> Any:
    image = keras.Input((64, 64, 3))
    backbone = keras.applications.MobileNetV3Small(
        input_shape=(64, 64, 3), weights=None, include_top=False, minimalistic=False
    )
    skip = backbone.get_layer("expanded_conv_project_bn").output
    features = keras.Model(backbone.input, [skip, backbone.output], name="features")
    low, high = features(image)
    gate = kl.Conv2D(8, 1, activation="hard_sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(high))
    x = kl.Multiply()([kl.Conv2D(8, 1)(high), gate])
    x = ko.image.resize(x, (16, 16))
    x = kl.Conv2D(2, 1)(kl.Concatenate()([x, low]))
    return keras.Model(image, kl.UpSampling2D(4, interpolation="bilinear")(x))


def nested_and_shared() -> Any:
    block = keras.Sequential(
        [
            keras.Input((None, None, 4)),
            kl.Conv2D(4, 3, padding="same", name="inner"),
            kl.BatchNormalization(),
            kl.Dropout(0.1),
        ],
        name="block",
    )
    inner = keras.Input((None, None, 4))
    deeper = keras.Model(inner, kl.Conv2D(4, 1, name="inner")(kl.Activation("tanh")(inner)), name="deeper")
    image = keras.Input((24, 24, 4))
    shared = kl.Conv2D(4, 3, 2, padding="same", name="shared")
    x = deeper(block(image))
    once = shared(x)
    twice = shared(kl.ZeroPadding2D(((0, 1), (2, 0)))(block(x)))  # other padding for another size
    twice = kl.Cropping2D(((0, 1), (1, 0)))(twice)
    return keras.Model(image, kl.Subtract()([once, deeper(once) + twice]))


def sequential() -> Any:
    return keras.Sequential([
        keras.Input((16, 20, 3)), kl.Normalization(mean=[100, 110, 120], variance=[900, 800, 1000]),
        kl.Conv2D(6, 3, strides=(2, 1)), kl.PReLU(), kl.ReLU(max_value=3.0, negative_slope=0.1),
        kl.Conv2DTranspose(4, 2, 3), kl.ELU(0.5), kl.MaxPooling2D(2, 1, padding="same"),
        kl.AveragePooling2D(2, 1, padding="same"), kl.Activation("selu"), kl.Dense(3, activation="sigmoid"),
    ])  # fmt: skip


def flat() -> Any:
    image = keras.Input((8, 8, 3))
    x = kl.Permute((2, 1, 3))(kl.Conv2D(4, 1)(image))
    x = kl.Reshape((16, 4, 4))(x)
    scale = kl.Dense(4, activation="sigmoid")(kl.GlobalAveragePooling2D()(x))
    x = kl.Softmax()(x * kl.Reshape((1, 1, 4))(scale))
    return keras.Model(image, kl.Flatten()(x[..., 1:2]))


def operations() -> Any:
    image = keras.Input((12, 12, 4))
    x = ko.relu6(image + 3.0) * (1 / 6)
    x = ko.maximum(x, 0.1) - ko.minimum(image, 0.5) / 2
    x = ko.clip(x, -1, 4) + ko.square(x) + ko.sqrt(ko.abs(x) + 1.0) - ko.exp(-ko.abs(x))
    x = ko.concatenate([x, ko.silu(x)[:, :, :, 1:3], 1 - x], axis=-1)
    x = ko.image.resize(x, (24, 20), interpolation="nearest")
    x = x * ko.mean(x, axis=[1, 2], keepdims=True) + ko.max(x, axis=-1, keepdims=True)
    x = ko.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]])
    first, second = ko.split(x, 2, axis=-1)
    return keras.Model(image, kl.Average()([first, second, ko.hard_sigmoid(first), ko.leaky_relu(second)]))


def transposed(kernel: int, stride: int, padding: str, output_padding: int | None = None, dilation: int = 1) -> Any:
    image = keras.Input((7, 6, 3))
    layer = kl.Conv2DTranspose(
        4, kernel, stride, padding=padding, output_padding=output_padding, dilation_rate=dilation
    )
    return keras.Model(image, layer(image))


ZOO: tuple[Builder, ...] = (unet, deeplab, mobilenet, nested_and_shared, sequential, flat, operations)


def with_random_weights(model: Any, seed: int = 0) -> Any:
    """Every weight another number, statistics too, so that none can be mistaken for another."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed" in weight.path or not str(weight.dtype).startswith("float"):
            continue
        values = random.normal(0, 1 / np.sqrt(max(1, np.prod(weight.shape[:-1]))), weight.shape)
        if "variance" in weight.path or "gamma" in weight.path:
            values = random.uniform(0.5, 1.5, weight.shape)
        weight.assign(values.astype(np.float32))
    return model


def outputs(model: Any, images: np.ndarray) -> np.ndarray:
    """What Keras itself computes for (N, H, W, C)."""
    result = model(images, training=False)
    return np.asarray((result[0] if isinstance(result, list) else result).detach().cpu())
