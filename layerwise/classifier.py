"""A stack as an estimator of scikit-learn, for its pipelines, searches and cross-validation.

Shapes: n images, C channels, H W side, F = C·H·W numbers of an image.
"""

import contextlib
import json
import math
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from layerwise import api
from layerwise.config import Config, SettingError
from layerwise.config.run import plain, unmirrored
from layerwise.console import silenced
from layerwise.data.arrays import arranged, dataset, shape_of
from layerwise.data.splits import DataSet
from layerwise.ops import as_torch_begins
from layerwise.parsing import configure
from layerwise.report.tracking import Tracking, described
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker
from layerwise.seeds import fold_seed
from layerwise.trained import TrainedStack
from layerwise.training.depth import check_data, lowered
from layerwise.training.listeners import Listener
from layerwise.training.stack import train_stack

Array = npt.NDArray[Any]
_ALONE = threading.Lock()
"""what a training sets is the whole process's, such as where it prints"""


class LayerwiseClassifier(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A classifier of images, and a transformer from images to features, by scikit-learn's conventions.

    X is an array of images, (n, H, W), (n, C, H, W) or (n, H, W, C), whose channels are last where that axis is shorter
    than the two others; or of rows (n, F), each a flattened image of `shape`. Without a shape a row is one pixel of F
    channels, none of which is next to another. uint8 ranges from 0 to 255. Other numbers may have any range: `fit`
    takes the lowest and the highest of all for black and white, with 256 levels between them, and what lies beyond them
    later counts as they do.

    y is one label for each image, a number or a string. Settings that do not fit so few or so small images are lowered:
    patch_size, atoms, neighbors, pool, batch_size. A tenth of each class, one image at least, chooses the best epoch.

    Args:
        recipe: Name of a recipe or a settings file, or a `layerwise.Config`. Of what it says of `data`, the shares and
            the augmentation count; images are mirrored only if it says so. W&B is used only where its mode is online or
            offline.
        depth: Number of layers, or "auto"; None: the recipe's.
        options: Other settings, by the names that the command has for them: {"optimizer.epochs": 5}.
        shape: Of the image that a row holds: (H, W), (C, H, W) or (H, W, C).
        run_dir: Directory of a run, for one X and y, in which the training goes on where it stopped; None: a temporary
            one, unless a Config has one.
        random_state: Seed, or a source of one; None: the recipe's seed.
        verbose: Print what the command would.

    Attributes:
        classes_: The distinct labels, sorted.
        n_features_in_: F.
        image_shape_: (C, H, W).
        range_: The numbers that stand for black and for white.
        stack_: What was trained, a `layerwise.trained.TrainedStack`.
        run_: Its run directory; None where that was temporary.
    """

    excluded: ClassVar[dict[str, str]] = {
        "check_methods_subset_invariance": "sums of float32 depend on the size of a batch, in their last bits",
    }
    """those of scikit-learn's `check_estimator` that fail, and why"""

    def __init__(
        self,
        recipe: str | Config = "plain_digits",
        depth: int | str | None = 2,
        options: Mapping[str, Any] | None = None,
        shape: tuple[int, ...] | None = None,
        run_dir: str | PathLike[str] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.recipe = recipe
        self.depth = depth
        self.options = options
        self.shape = shape
        self.run_dir = run_dir
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "LayerwiseClassifier":
        """Train a stack on images X and labels y.

        Raises:
            ValueError: X, y or a parameter is not right.
            TrainingFailed: the loss is not finite.
            DamagedRun: a file of the run directory is not as it was written.
        """
        rows, axes = _flattened(X)
        rows, y = validate_data(self, rows, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise SettingError(f"y: one class, {self.classes_[0]}; give images of two or more")
        self._axes = axes or tuple(np.atleast_1d(self.shape or (rows.shape[1], 1, 1)).tolist())
        if np.prod(self._axes) != rows.shape[1]:
            raise SettingError(f"shape: {self._axes} does not make {rows.shape[1]} numbers; give the shape of an image")
        self.image_shape_ = shape_of(rows.reshape(-1, *self._axes))
        self.range_ = (0, 255) if rows.dtype == np.uint8 else (rows.min().item(), rows.max().item())
        config = self._config()
        with _ALONE, contextlib.nullcontext() if self.verbose else silenced():
            self._train(config, _divided(self._pictures(rows), y, labels, config))
        return self

    @as_torch_begins()
    def _train(self, config: Config, data: DataSet) -> None:
        if config.trainer.processes > 1:
            asked = f"{config.trainer.processes} processes"
            raise SettingError(
                f"trainer.devices: {asked}, but an estimator is fitted by one; use layerwise.train for more"
            )
        if not data.augmentation.flip:
            config = unmirrored(config)
        config = lowered(replace(config, data=data.settings), data.shape, len(data.train))
        device = api.device_of(config.trainer)
        check_data(config, data)
        with contextlib.ExitStack() as ending:
            kept = self.run_dir or config.run_dir
            run = Run(kept or ending.enter_context(tempfile.TemporaryDirectory()))
            ending.callback(run.release)
            run.start(config, data)
            listeners: list[Listener] = []
            if config.wandb.mode in ("online", "offline"):
                tracker = Tracker(config.wandb, run.path, described(config, data))
                listeners.append(Tracking(tracker, run, data, device, config.deepest))
                ending.push(lambda error, *_: tracker.close(0 if error is None else 1))
            stack, records, _ = train_stack(config, data, run, device, listeners)
        self.stack_ = TrainedStack(stack, records)
        self.run_ = run if kept else None

    def _config(self) -> Config:
        """What the parameters say."""
        config = api.recipe(self.recipe) if isinstance(self.recipe, str) else self.recipe
        if not isinstance(config, Config):
            raise SettingError(f"recipe: {type(config).__name__} is none; give a recipe's name, or a layerwise.Config")
        given = dict(self.options or {})
        if self.depth is not None:
            given["depth"] = self.depth
        if isinstance(self.random_state, (int, np.integer)):
            given["seed"] = int(self.random_state)
        elif self.random_state is not None:
            given["seed"] = int(check_random_state(self.random_state).randint(2**31))
        return configure(plain(config), [f"--{name}={_written(name, value)}" for name, value in given.items()])

    def _seen(self, X: Any) -> Tensor:
        """Images as the stack takes them."""
        check_is_fitted(self)
        rows, axes = _flattened(X)
        if axes is not None and axes != self._axes:
            raise SettingError(f"X: images of {axes}, but the classifier was fitted to {self._axes}; give those")
        return self._pictures(validate_data(self, rows, reset=False))

    def _pictures(self, rows: Array) -> Tensor:
        """Rows as images (n, C, H, W) float32 in [0, 1]."""
        low, high = self.range_
        shares = (rows.astype(np.result_type(rows, np.float32)) - low) / ((high - low) or 1)
        x = torch.from_numpy(shares.clip(0, 1).astype(np.float32).reshape(-1, *self._axes))
        images = arranged(x, self.image_shape_)
        assert images is not None
        return images

    @property
    def _n_features_out(self) -> int:
        return self.stack_.transform([]).shape[1]

    def predict(self, X: Any) -> Array:
        """The label of each image, (n,)."""
        images = self._seen(X)
        return self.classes_[self.stack_.predict(images).numpy()]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (n, classes), in the order of `classes_`."""
        images = self._seen(X)
        shares = self.stack_.predict_proba(images).double()
        return (shares / shares.sum(1, keepdim=True)).numpy()

    def transform(self, X: Any) -> Array:
        """Features for a linear model, float32: all layers' outputs, as `TrainedStack.transform` averages them."""
        images = self._seen(X)
        return self.stack_.transform(images).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _written(name: str, value: Any) -> str:
    """A setting's value as it would be typed."""
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    try:
        return json.dumps(value, default=np.generic.item)
    except TypeError as error:
        raise SettingError(f"options: {name} is {value!r}, which is no setting's value; give a text") from error


def _flattened(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Images as rows (n, F), and their axes; what is no array of images, as it is."""
    array = X.numpy(force=True) if isinstance(X, Tensor) else np.asarray(X) if isinstance(X, (list, tuple)) else X
    if getattr(array, "ndim", 2) <= 2:
        return array, None
    axes = tuple(array.shape[1:])
    return np.asarray(array).reshape(len(array), math.prod(axes)), axes


def _divided(images: Tensor, y: Array, labels: Array, config: Config) -> DataSet:
    """Images to train on, and of every class that has two some for validation, which stand for the test, too.

    Who uses scikit-learn has images of his own to test on.
    """
    draw, held = np.random.default_rng(fold_seed(config.seed, 1, 2)), np.zeros(len(y), bool)
    order = draw.permutation(len(y))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        held[own[: min(len(own) - 1, max(1, round(len(own) * config.data.validation)))]] = True
    val = (images[held], y[held]) if held.any() else (images, y)
    side, own = min(images.shape[2:]), config.data
    crop = None if own.crop is None else min(own.crop, side - 1)
    return dataset(
        images[~held], y[~held], val, val, flip=bool(own.flip), crop=crop, border=own.border, shifts=own.shifts
    )
