"""Functions of TensorFlow and Keras on top of PyTorch, for files whose library is not installed.

A name is looked up by its last part: tf.nn.softplus and keras.activations.softplus are one function.  What is not here
is an Unknown.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptarmigan.handbook.identify.stand_ins import is_score
from ptarmigan.handbook.identify.unseen import Facts, Unknown, made, plain

Function = Callable[..., Any]


def like(a: Any, b: Any) -> tuple[Any, Any]:
    """Both as tensors of one form, as TensorFlow broadcasts a target of another size."""
    for x, y in ((a, b), (b, a)):
        if is_score(y) and isinstance(x, Tensor) and x.shape != y.shape and x.numel() and x.min() == x.max():
            x = torch.full_like(y, x.flatten()[0].item())
            return (x, y) if y is b else (y, x)
    return a, b


def reduced(function: Function) -> Function:
    def reduce(x: Any, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
        x = torch.stack(list(x)) if isinstance(x, list | tuple) else x
        x = x if isinstance(x, Tensor | Unknown) else torch.as_tensor(x)
        return function(x) if axis is None else function(x, axis, keepdims)

    return reduce


def loss_class(function: Function) -> Function:
    """The class of a loss whose objects take the target, then the output."""

    def make(from_logits: bool = False, label_smoothing: float = 0.0, reduction: Any = None, **_: Any) -> Function:
        def loss(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            options = {"from_logits": from_logits} if from_logits else {}
            value = function(
                y_true, y_pred, **options, **({"label_smoothing": label_smoothing} if label_smoothing else {})
            )
            kind = str(getattr(getattr(reduction, "facts", None), "name", reduction)).rsplit(".")[-1].lower()
            return value if kind == "none" else value.sum() if kind == "sum" else value.mean()

        return loss

    return make


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, **_: Any
) -> Any:
    y_true, y_pred = like(torch.as_tensor(y_true) if not isinstance(y_true, Unknown) else y_true, y_pred)
    y_true = y_true * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else y_true
    function = F.binary_cross_entropy_with_logits if from_logits else F.binary_cross_entropy
    return function(y_pred, y_true, reduction="none")


def sigmoid_cross_entropy(labels: Any = None, logits: Any = None, name: Any = None, **_: Any) -> Any:
    labels, logits = like(labels, logits)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def squared(y_true: Any, y_pred: Any, **_: Any) -> Any:
    y_true, y_pred = like(y_true, y_pred)
    return F.mse_loss(y_pred, y_true, reduction="none")


def absolute(y_true: Any, y_pred: Any, **_: Any) -> Any:
    y_true, y_pred = like(y_true, y_pred)
    return F.l1_loss(y_pred, y_true, reduction="none")


def classes(y_true: Any, y_pred: Any, from_logits: bool = False, **_: Any) -> Any:
    return F.cross_entropy(y_pred, y_true, reduction="none") if from_logits else F.nll_loss(y_pred.log(), y_true)


def class_logits(labels: Any = None, logits: Any = None, **_: Any) -> Any:
    return F.cross_entropy(logits, labels, reduction="none")


def gradients(ys: Any = None, xs: Any = None, *_: Any, **__: Any) -> Any:
    found = made("gradient penalty", xs, penalty=(1, True), kind="")
    return [found] * len(xs) if isinstance(xs, list | tuple) else found


class Tape(Unknown):
    """tf.GradientTape()."""

    def __getattr__(self, name: str) -> Any:
        return gradients if name == "gradient" else super().__getattr__(name)


def filled(value: float | None) -> Function:
    def fill(shape: Any = (), given: Any = 0.0, **_: Any) -> Any:
        return torch.full(shape_of(shape), float(given) if value is None else value)

    return fill


def shape_of(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, Tensor):
        shape = shape.tolist()
    if isinstance(shape, Unknown):
        return tuple(shape.shape) if "shape" not in shape.facts.name else (len(shape), 1)
    return tuple(int(plain(n)) for n in shape) if hasattr(shape, "__iter__") else (int(shape),)


def drawn(draw: Function) -> Function:
    return lambda shape=(), *_, **__: draw(shape_of(shape))


def joined(values: Any, axis: int = 0, **_: Any) -> Any:
    return torch.cat(list(values), axis)


def both(function: Function) -> Function:
    def call(x: Any, y: Any, **_: Any) -> Any:
        a, b = (v if isinstance(v, Tensor | Unknown) else torch.as_tensor(float(v)) for v in (x, y))
        return function(a, b)

    return call


def first(x: Any, *_: Any, **__: Any) -> Any:
    return x


def tensor(x: Any, *_: Any, **__: Any) -> Any:
    return x if isinstance(x, Tensor | Unknown) else torch.as_tensor(x, dtype=torch.get_default_dtype())


FUNCTIONS: dict[str, Function] = {
    "reduce_mean": reduced(torch.mean), "mean": reduced(torch.mean), "reduce_sum": reduced(torch.sum),
    "sum": reduced(torch.sum), "ones_like": lambda x, *_, **__: torch.ones_like(x),
    "zeros_like": lambda x, *_, **__: torch.zeros_like(x), "ones": filled(1.0), "zeros": filled(0.0),
    "fill": filled(None), "maximum": both(torch.maximum), "minimum": both(torch.minimum),
    "square": torch.square, "sqrt": torch.sqrt, "abs": torch.abs, "exp": torch.exp, "log": torch.log, "pow": torch.pow,
    "sigmoid": torch.sigmoid, "log_sigmoid": F.logsigmoid, "softplus": F.softplus, "relu": F.relu, "tanh": torch.tanh,
    "softmax": lambda x, axis=-1, **_: F.softmax(x, axis), "cast": first, "constant": tensor, "identity": first,
    "convert_to_tensor": tensor, "Variable": tensor, "stop_gradient": lambda x, **_: x.detach(),
    "squared_difference": both(lambda a, b: (a - b) ** 2), "add": both(operator.add), "subtract": both(operator.sub),
    "multiply": both(operator.mul), "divide": both(operator.truediv), "negative": torch.neg,
    "clip_by_value": lambda x, a, b, **_: x.clamp(a, b), "concat": joined, "concatenate": joined, "norm": torch.norm,
    "normal": drawn(torch.randn), "uniform": drawn(torch.rand), "random_normal": drawn(torch.randn),
    "random_uniform": drawn(torch.rand), "reshape": lambda x, shape, **_: x.reshape(shape), "squeeze": first,
    "shape": lambda x, *_, **__: x.shape, "gradients": gradients, "GradientTape": lambda **_: Tape(Facts("tape")),
    "sigmoid_cross_entropy_with_logits": sigmoid_cross_entropy,
    "sigmoid_cross_entropy": lambda labels=None, logits=None, **_: sigmoid_cross_entropy(labels, logits).mean(),
    "multi_class_labels": first, "binary_crossentropy": binary_crossentropy, "mse": squared, "mae": absolute,
    "mean_squared_error": squared, "mean_absolute_error": absolute, "l2_loss": lambda x, **_: (x**2).sum() / 2,
    "BinaryCrossentropy": loss_class(binary_crossentropy), "MeanSquaredError": loss_class(squared),
    "MeanAbsoluteError": loss_class(absolute), "SparseCategoricalCrossentropy": loss_class(classes),
    "CategoricalCrossentropy": loss_class(classes), "sparse_categorical_crossentropy": classes,
    "categorical_crossentropy": classes, "sparse_softmax_cross_entropy_with_logits": class_logits,
    "softmax_cross_entropy_with_logits": class_logits,
    "sigmoid_binary_cross_entropy": lambda logits, labels: sigmoid_cross_entropy(labels, logits),
    "add_n": lambda xs, **_: sum(xs),
}  # fmt: skip


def keras_loss(loss: Any, target: Any, output: Any) -> Any:
    """The loss that a model was compiled with: a name or a function, or the first of several."""
    while isinstance(loss, list | tuple):
        loss = loss[0]
    while isinstance(target, list | tuple):
        target = target[0]
    output = output[0] if isinstance(output, list | tuple) else output
    function = FUNCTIONS[loss] if isinstance(loss, str) else loss
    return function(tensor(target), output).mean()


class Library(Unknown):
    """tf, keras and the modules in them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in FUNCTIONS:
            return FUNCTIONS[name]
        return Library(Facts(f"{self.facts.name}.{name}"))


def imported(name: str) -> Any:
    """A name imported from TensorFlow or Keras, or such a module."""
    return FUNCTIONS.get(name.rsplit(".")[-1]) or Library(Facts(name))
