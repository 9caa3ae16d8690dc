"""Small networks as Keras users build them, on Keras 3's torch backend: one function per network."""

from __future__ import annotations

import os
import sys
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
    x = image + ko.stack([image[..., 3], *[image[..., 0]] * 3], axis=-1)
    x = ko.relu6(x + 3.0) * (1 / 6)
    x = ko.maximum(x, 0.1) - ko.minimum(image, 0.5) / 2
    x = ko.clip(x, -1, 4) + ko.square(x) + ko.sqrt(ko.abs(x) + 1.0) - ko.exp(-ko.abs(x))
    x = ko.concatenate([x, ko.silu(x)[:, :, :, 1:3], 1 - x], axis=-1)
    x = ko.image.resize(x, (24, 20), interpolation="nearest")
    x = x * ko.mean(x, axis=[1, 2], keepdims=True) + ko.max(x, axis=-1, keepdims=True)
    x = ko.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]])
    first, second = ko.split(x, 2, axis=-1)
    return keras.Model(image, kl.Average()([first, second, ko.hard_sigmoid(first), ko.leaky_relu(second)]))


def lambdas() -> Any:
    """Keras 3 stores a Lambda's code, too; it is of the Python that runs these tests."""
    factor = 3
    image = keras.Input((6, 6, 4))
    x = kl.Lambda(lambda v: ko.relu6(v + 2.0) / 6 - v**2)(image)
    x = kl.Lambda(lambda v: keras.ops.image.resize(v, (v.shape[1] * factor, 12), interpolation="bilinear"))(x)
    x = kl.Lambda(lambda v, scale=0.5: ko.softmax(v * scale, axis=-1)[..., 1:3])(x)
    return keras.Model(image, kl.Activation(ko.relu6)(x))


def side_by_side(size: tuple[int, int, int], branches: list[Any]) -> Any:
    """One network of many: each layer on the same image, its result flattened, all of them joined."""
    image = keras.Input(size)
    results = [branch(image) for branch in branches]
    return keras.Model(image, kl.Concatenate()([kl.Flatten()(result) for result in results]))


def transposed() -> Any:
    plain = [(2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (2, 3), (5, 3), ((3, 2), (2, 1))]
    longer = [(3, 2, 0), (3, 2, 1), (4, 2, 1), (5, 3, 2), (2, 2, 1)]
    settings: list[dict[str, Any]] = [{"kernel_size": kernel, "strides": stride} for kernel, stride in plain]
    settings += [{"kernel_size": kernel, "strides": step, "output_padding": more} for kernel, step, more in longer]
    return side_by_side(
        (7, 6, 3),
        [kl.Conv2DTranspose(4, padding=padding, **each) for each in settings for padding in ("valid", "same")],
    )


def windows() -> Any:
    """Convolutions and poolings at an odd size: every way in which "same" can fall."""
    steps: list[tuple[Any, Any]] = [(1, 1), (2, 1), (3, 1), (3, 2), (2, 2), (5, 3), ((3, 2), (1, 1))]
    poolings = [(2, 2), (3, 2), (3, 1), (2, 1), (3, 3), (2, 3), ((3, 2), (2, 1))]
    branches: list[Any] = []
    for padding in ("valid", "same"):
        branches += [kl.Conv2D(4, size, step, padding=padding) for size, step in steps]
        branches += [kl.Conv2D(4, 3, padding=padding, dilation_rate=rate, groups=2) for rate in (1, 2, (2, 1))]
        branches += [kl.DepthwiseConv2D(3, step, padding=padding, depth_multiplier=2) for step in (1, 2)]
        branches += [kl.SeparableConv2D(3, 3, step, padding=padding, use_bias=False) for step in (1, 2)]
        branches += [kl.MaxPooling2D(size, step, padding=padding) for size, step in poolings]
        branches += [kl.AveragePooling2D(2, step, padding=padding) for step in (1, 2, 3)]
    return side_by_side((11, 10, 4), branches)


def activations() -> Any:
    names = (
        "relu relu6 silu swish hard_swish hard_silu hard_sigmoid sigmoid tanh softmax gelu elu selu linear leaky_relu"
    )
    names += " softsign exponential hard_tanh"
    branches: list[Any] = [kl.Activation(name) for name in names.split()]
    branches += [kl.ReLU(), kl.ReLU(2.0), kl.ReLU(6.0), kl.ReLU(negative_slope=0.2), kl.ReLU(4.0, negative_slope=0.2)]
    branches += [kl.LeakyReLU(0.3), kl.ELU(0.7), kl.Softmax()]
    branches += [kl.PReLU(), kl.PReLU(shared_axes=[1, 2]), kl.PReLU(shared_axes=[1]), kl.PReLU(shared_axes=[1, 2, 3])]
    branches += [kl.BatchNormalization(center=centre, scale=scale) for centre in (0, 1) for scale in (0, 1)]
    branches += [kl.Rescaling([1.0, 0.5, 2.0], offset=0.5), kl.Normalization(mean=[1, 2, 3], variance=[4, 1, 9])]
    branches += [kl.Normalization(mean=1.0, variance=4.0, invert=True), kl.Permute((3, 1, 2)), kl.Permute((2, 3, 1))]
    branches += [kl.Reshape((2, -1)), kl.Reshape((-1, 4, 2, 3)), kl.UpSampling2D((1, 2)), kl.Resizing(5, 3)]
    branches += [kl.UpSampling2D(2, interpolation="bilinear"), kl.Resizing(5, 9, interpolation="nearest")]
    branches += [kl.GlobalAveragePooling2D(), kl.GlobalMaxPooling2D(), kl.GlobalMaxPooling2D(keepdims=True)]
    branches += [kl.Dense(4, activation="tanh"), kl.ZeroPadding2D(((1, 0), (2, 3))), kl.Cropping2D(((1, 0), (2, 1)))]
    branches += [kl.GaussianNoise(1.0), kl.Conv2D(2, 1, activation=keras.activations.hard_sigmoid)]
    branches += [kl.Activation(kl.LeakyReLU(0.4)), kl.Conv2D(2, 1, activation=kl.ReLU(1.5))]
    return side_by_side((8, 6, 3), branches)


def beyond_tflite() -> Any:
    dilated = [
        kl.Conv2DTranspose(2, size, padding=side, dilation_rate=2) for size in (2, 3) for side in ("valid", "same")
    ]
    return side_by_side((7, 6, 3), [*dilated, kl.Softmax(axis=1)])


def transformer() -> Any:
    image = keras.Input((32, 32, 3))
    x = kl.Conv2D(16, 4, 4)(image)
    tokens = kl.Reshape((64, 16))(x)
    y = kl.LayerNormalization(epsilon=1e-5, name="norm")(tokens)
    tokens = kl.Add()([tokens, kl.MultiHeadAttention(2, 8, name="attention")(y, y)])
    y = kl.LayerNormalization(epsilon=1e-6)(tokens)
    y = kl.Dense(16)(kl.Dense(32, activation="gelu")(y))
    x = kl.Reshape((8, 8, 16))(kl.Add()([tokens, y]))
    return keras.Model(image, kl.Conv2D(5, 1)(x))


def products() -> Any:
    image = keras.Input((32, 32, 3))
    x = kl.Conv2D(16, 4, 4)(image)
    tokens = kl.Reshape((64, 16))(x)
    fewer = kl.Reshape((16, 16))(kl.Conv2D(16, 2, 2)(x))
    y = kl.MultiHeadAttention(2, 4, value_dim=6, use_bias=False)(tokens, fewer, key=kl.Dense(16)(fewer))
    q = kl.EinsumDense("abc,cde->abde", output_shape=(64, 2, 8), bias_axes="de")(y)
    y = kl.EinsumDense("abde,dec->abc", output_shape=(64, 16), activation="relu")(q)
    scores = kl.Softmax()(kl.Dot(axes=2)([y, tokens]))
    y = kl.Permute((2, 1))(kl.Permute((2, 1))(kl.Dot(axes=(2, 1))([scores, y])))
    mean = kl.RepeatVector(64)(ko.mean(tokens, axis=1))
    y = kl.Dot(axes=(1, 1))([kl.Dense(64)(y), kl.Add()([y, mean])])
    y = kl.Conv2D(16, 1)(kl.Reshape((8, 8, 16))(y))
    return keras.Model(image, kl.EinsumDense("...x,xy->...y", output_shape=5, bias_axes="y")(y))


def norms() -> Any:
    image = keras.Input((32, 32, 3))
    x = kl.Conv2D(16, 4, 4)(image)
    x = kl.ReLU()(kl.GroupNormalization(4, name="grouped")(x))
    x = kl.GroupNormalization(-1, scale=False)(x)
    x = kl.UnitNormalization()(kl.LayerNormalization(center=False)(x))
    x = kl.LayerNormalization(axis=[2, 3], epsilon=1e-4)(kl.RMSNormalization()(x))
    return keras.Model(image, kl.Conv2D(5, 1)(kl.LayerNormalization(scale=False, center=False)(x)))


def norms_of_maps() -> Any:
    image = keras.Input((32, 32, 3))
    x = kl.ReLU()(kl.GroupNormalization(4)(kl.Conv2D(16, 4, 4)(image)))
    y = kl.Dense(64)(kl.LayerNormalization()(x))
    y = kl.Dense(16)(ko.gelu(y, approximate=True))
    return keras.Model(image, kl.Conv2D(5, 1)(kl.Add()([x, y])))


def activations_in_steps() -> Any:
    """Activations that are no layer of the vocabulary."""
    image = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same", activation="mish")(image)
    for name in ("softplus", "log_sigmoid", "celu", "squareplus", "tanh_shrink", "soft_shrink", "hard_shrink"):
        x = kl.Conv2D(8, 1, activation=name)(x)
    return keras.Model(image, kl.Conv2D(4, 1, activation="log_softmax")(x))


def functions_of_tensors() -> Any:
    """Functions in torch stand for these."""
    image = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same")(image)
    x = ko.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], mode="reflect")
    x = ko.pad(x, [[0, 0], [0, 0], [1, 1], [0, 0]], mode="symmetric")  # on torch, Keras repeats wider edges
    x = ko.flip(ko.roll(x, 2, axis=1), axis=2) + ko.sin(x) + 0.1 * ko.cumsum(x, axis=2)
    x = ko.where(ko.greater(x, 0.2), x, ko.floor(x)) / (ko.std(x, axis=-1, keepdims=True) + 1.0)
    mixed = ko.einsum("bhwc,bhwd->bcd", x, ko.normalize(x, axis=-1))
    x = ko.einsum("bhwc,bcd->bhwd", x, mixed)
    return keras.Model(image, kl.Conv2D(3, 1)(ko.tile(x, [1, 1, 1, 2])))


def attention_of_maps() -> Any:
    """Attention over the positions of a map, and without weights; crops and pooling of any size."""
    image = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same")(image)
    x = kl.Add()([x, kl.MultiHeadAttention(2, 4)(x, x)])
    tokens = kl.Reshape((64, 8))(x)
    x = kl.Add()([x, kl.Reshape((8, 8, 8))(kl.Attention(use_scale=True)([tokens, tokens]))])
    return keras.Model(image, kl.Conv2D(3, 1)(kl.AdaptiveAveragePooling2D(3)(kl.CenterCrop(5, 6)(x))))


WRITABLE: tuple[Builder, ...] = (
    unet, deeplab, mobilenet, nested_and_shared, sequential, flat, operations, transposed, windows, activations,
    transformer, products, norms, norms_of_maps, activations_in_steps, functions_of_tensors, attention_of_maps,
    *([lambdas] if sys.version_info < (3, 14) else []),  # slimseg reads the code of Python 3.6 to 3.13
)  # fmt: skip
ZOO: tuple[Builder, ...] = (*WRITABLE, beyond_tflite)


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
