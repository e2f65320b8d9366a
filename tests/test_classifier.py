"""The estimator for scikit-learn: its conventions, what it learns, how it adapts."""

import copy
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import layerwise
from layerwise import LayerwiseClassifier
from layerwise.classifier import _divided
from layerwise.config import Config, SettingError
from layerwise.parsing import parse
from layerwise.training.depth import lowered
from tests.conftest import Command
from tests.run.test_run import hashes

Array = npt.NDArray[Any]
QUICK = {"layer.atoms": 16, "layer.channels": 8, "optimizer.epochs": 4, "optimizer.learning_rate": 0.03}
X, Y = (values[np.random.default_rng(0).permutation(1797)] for values in load_digits(return_X_y=True))
IMAGES, NAMES = X.reshape(-1, 8, 8), np.array([f"digit {i}" for i in Y])
SEEN, NEW = slice(0, 400), slice(400, 700)


def quick(**given: Any) -> LayerwiseClassifier:
    """One that is fitted in a second or so."""
    own: dict[str, Any] = {"depth": 1, "options": QUICK}
    return LayerwiseClassifier(**own | given)


@pytest.fixture(scope="module")
def fitted() -> LayerwiseClassifier:
    """One of two layers, that learned digits by name; for looking only."""
    return quick(depth=2).fit(IMAGES[SEEN], NAMES[SEEN])


def test_it_learns(fitted: LayerwiseClassifier) -> None:
    found, shares = fitted.predict(IMAGES[NEW]), fitted.predict_proba(IMAGES[NEW])
    assert fitted.score(IMAGES[NEW], NAMES[NEW]) == np.mean(found == NAMES[NEW]) > 0.85
    assert fitted.classes_.tolist() == [f"digit {i}" for i in range(10)]
    assert shares.shape == (300, 10) and np.allclose(shares.sum(1), 1, atol=1e-12)
    assert (fitted.classes_[shares.argmax(1)] == found).all()
    assert fitted.n_features_in_ == 64 and fitted.image_shape_ == (1, 8, 8) and fitted.range_ == (0, 16)
    assert fitted.stack_.classes == fitted.classes_.tolist() and len(fitted.stack_.records) == 2
    assert fitted.run_ is None


def test_transform__is_that_of_the_stack(fitted: LayerwiseClassifier) -> None:
    features = fitted.transform(IMAGES[NEW])
    assert np.array_equal(features, fitted.stack_.transform((IMAGES[NEW] / 16).astype(np.float32)).numpy())
    assert len(fitted.get_feature_names_out()) == features.shape[1]


def test_every_layout_of_the_same_images__is_the_same(fitted: LayerwiseClassifier) -> None:
    expected = fitted.predict_proba(IMAGES[NEW])
    rows = quick(depth=2, shape=(8, 8)).fit(X[SEEN], NAMES[SEEN])
    assert np.array_equal(rows.predict_proba(X[NEW]), expected)
    assert np.array_equal(fitted.predict_proba(X[NEW]), expected)
    assert np.array_equal(fitted.predict_proba(torch.from_numpy(IMAGES[NEW])), expected)
    color = np.stack([IMAGES, 16 - IMAGES, IMAGES.transpose(0, 2, 1)], 1)
    first, last = (quick().fit(x[SEEN], Y[SEEN]) for x in (color, color.transpose(0, 2, 3, 1)))
    assert first.image_shape_ == last.image_shape_ == (3, 8, 8) and first.n_features_in_ == 192
    shares = first.predict_proba(color[NEW])
    assert np.array_equal(last.predict_proba(color[NEW].transpose(0, 2, 3, 1)), shares)


def test_numbers_have_any_range__and_beyond_it_count_as_its_ends(fitted: LayerwiseClassifier) -> None:
    expected = fitted.predict_proba(IMAGES[NEW])
    shifted = quick(depth=2).fit(3 * IMAGES[SEEN] - 70, NAMES[SEEN])
    np.testing.assert_allclose(shifted.predict_proba(3 * IMAGES[NEW] - 70), expected, atol=1e-5)
    beyond = np.where(IMAGES[NEW] == 16, 99, np.where(IMAGES[NEW] == 0, -99, IMAGES[NEW]))
    assert np.array_equal(fitted.predict_proba(beyond), expected)
    assert quick(options=QUICK | {"optimizer.epochs": 1}).fit(IMAGES.astype(np.uint8), Y).range_ == (0, 255)


def test_integers_and_booleans__may_span_all_that_their_type_holds() -> None:
    levels = 17 * IMAGES[:300] - 136 * 1.0  # -136 to 136
    signed = levels.clip(-128, 127).astype(np.int8)
    assert signed.min() == -128 and signed.max() == 127
    one_epoch = QUICK | {"optimizer.epochs": 1}
    narrow, wide = (quick(options=one_epoch).fit(x, Y[:300]) for x in (signed, signed.astype(np.float64)))
    assert narrow.range_ == wide.range_ == (-128, 127)
    assert np.array_equal(narrow.predict_proba(signed), wide.predict_proba(signed.astype(np.float64)))
    dark, light = (quick(options=one_epoch).fit(x, Y[:300]) for x in (IMAGES[:300] > 8, (IMAGES[:300] > 8) * 1.0))
    assert np.array_equal(dark.predict_proba(IMAGES[:300] > 8), light.predict_proba((IMAGES[:300] > 8) * 1.0))


def test_a_tensor_with_a_gradient__is_an_array_like_others(fitted: LayerwiseClassifier) -> None:
    tensor = torch.from_numpy(IMAGES[NEW]).requires_grad_()
    assert np.array_equal(fitted.predict(tensor), fitted.predict(IMAGES[NEW]))


def test_random_state__decides_everything() -> None:
    def shares(random_state: Any) -> Array:
        found: Array = quick(random_state=random_state).fit(IMAGES[:100], Y[:100]).predict_proba(IMAGES[NEW])
        return found

    first = shares(1)
    assert np.array_equal(first, shares(np.int64(1))) and not np.array_equal(first, shares(2))
    assert np.array_equal(shares(None), shares(0))  # the recipe's seed
    assert np.array_equal(shares(np.random.RandomState(5)), shares(np.random.RandomState(5)))


def test_a_copy__is_the_same__and_holds_nothing_but_plain_values_and_safetensors(fitted: LayerwiseClassifier) -> None:
    content = pickle.dumps(fitted)
    for other in (pickle.loads(content), copy.deepcopy(fitted)):
        assert np.array_equal(other.predict_proba(IMAGES[NEW]), fitted.predict_proba(IMAGES[NEW]))
        assert np.array_equal(other.transform(IMAGES[NEW]), fitted.transform(IMAGES[NEW]))
        assert other.get_params() == fitted.get_params()
    strings = {str(value) for _, value, _ in pickletools.genops(content) if isinstance(value, str)}
    assert not any(name.startswith("torch") for name in strings) and "layerwise.trained" in strings


def test_it_is_cloned_and_searched_through_as_every_estimator() -> None:
    own = quick(shape=(8, 8), random_state=3)
    assert clone(own).get_params() == own.get_params() and not hasattr(clone(own), "stack_")
    assert own.set_params(depth=2).depth == 2
    pipeline = make_pipeline(FunctionTransformer(), quick(shape=(8, 8)), LogisticRegression(max_iter=1000))
    assert pipeline.fit(X[SEEN], Y[SEEN]).score(X[NEW], Y[NEW]) > 0.85
    assert min(cross_val_score(quick(), IMAGES[:300], NAMES[:300], cv=2)) > 0.6
    atoms = [QUICK | {"layer.atoms": np.int64(n)} for n in (1, 16)]
    search = GridSearchCV(quick(shape=(8, 8)), {"options": atoms}, cv=2).fit(X[:300], Y[:300])
    assert search.best_params_["options"]["layer.atoms"] == 16 and search.score(X[NEW], Y[NEW]) > 0.7


def test_a_run_directory__is_gone_on_with__for_the_same_images(tmp_path: Path) -> None:
    own = quick(run_dir=tmp_path / "r").fit(IMAGES[SEEN], NAMES[SEEN])
    before = hashes(tmp_path / "r")
    deeper = quick(run_dir=tmp_path / "r", depth=2).fit(IMAGES[SEEN], NAMES[SEEN])
    assert hashes(tmp_path / "r").items() > before.items()
    assert deeper.run_ is not None
    assert deeper.run_.path == tmp_path / "r" and [record.layer for record in deeper.run_.records] == [1, 2]
    loaded = layerwise.load(tmp_path / "r")
    names = loaded.predict((IMAGES[NEW] / 16).astype(np.float32), names=True)
    assert names == deeper.predict(IMAGES[NEW]).tolist()
    assert pickle.loads(pickle.dumps(own)).run_.path == tmp_path / "r"
    with pytest.raises(SettingError, match="^data: the arrays hold other images than those that were trained on"):
        quick(run_dir=tmp_path / "r").fit(IMAGES[NEW], NAMES[NEW])


def test_nothing_is_printed_or_left__unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    brief = QUICK | {"optimizer.epochs": 1}
    quick(options=brief).fit(IMAGES[SEEN], Y[SEEN])
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())
    quick(options=brief, verbose=True).fit(IMAGES[SEEN], Y[SEEN])
    assert "layer 1/1: epoch 1/1, validation accuracy" in capfd.readouterr().out


@pytest.mark.parametrize("recipe", ["fashion_mnist", "paper", Config()])
def test_settings_are_lowered__to_what_fits(recipe: str | Config) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((12, 3, 2)) + np.repeat([0, 1], 6)[:, None, None]
    own = LayerwiseClassifier(recipe, 2, {"optimizer.epochs": 1, "data.crop": 4}).fit(images, ["x"] * 6 + ["y"] * 6)
    layer, before = own.stack_.records[0].config, own._config().layer_at(1)
    # 2 images are held out, 1 a class; 10 have 20 patches of 2×2, 8 of which each atom takes
    assert (layer.patch_size, layer.atoms, layer.optimizer.batch_size) == (2, 2, 2)
    assert before.patch_size > 2 and before.atoms > 2 and before.optimizer.batch_size > 2
    assert own.predict(images).shape == (12,)


def test_settings__that_fit_stay_as_they_are() -> None:
    config = parse(["--config=digits", "--depth=2"])[0]
    assert lowered(config, (1, 28, 28), 5000) == config
    few = lowered(config, (1, 28, 28), 80)
    assert [few.layer_at(i).optimizer.batch_size for i in (1, 2)] == [10, 10]
    # 8 patches an atom: 80 images have 24×24 positions in layer 1, and 8×8 pooled by 3, so 6×6, in layer 2
    assert [few.layer_at(i).atoms for i in (1, 2)] == [64, 128]
    assert lowered(config, (1, 28, 28), 20).layer_at(2).atoms == 20 * 36 // 8


def test_validation__takes_of_each_class_its_share__never_its_last_image() -> None:
    labels = np.repeat([0, 1, 2, 3], [40, 10, 2, 1])
    images = torch.arange(53.0)[:, None, None, None].expand(53, 1, 2, 2) / 255
    data = _divided(images, labels, labels, parse(["--config=plain_digits"])[0])
    assert torch.bincount(data.val.labels, minlength=4).tolist() == [4, 1, 1, 0]
    assert torch.bincount(data.train.labels).tolist() == [36, 9, 1, 1]
    assert sorted([*data.train.pixels[:][:, 0, 0, 0].tolist(), *data.val.pixels[:][:, 0, 0, 0].tolist()]) == list(
        range(53)
    )
    singles = _divided(images[:3], np.arange(3), np.arange(3), parse(["--config=plain_digits"])[0])
    assert torch.equal(singles.train.pixels[:], singles.val.pixels[:]) and len(singles.train) == 3


REFUSED: dict[str, tuple[dict[str, Any], Array, Any]] = {
    "y: one class, 7; give images of two or more": ({}, IMAGES[:9], [7] * 9),
    "shape: (8, 9) does not make 64 numbers; give the shape of an image": ({"shape": (8, 9)}, X[:9], Y[:9]),
    "shape: (63,) does not make 64 numbers; give the shape of an image": ({"shape": 63}, X[:9], Y[:9]),
    "options: layer.atoms is (1+2j), which is no setting's value;": (
        {"options": {"layer.atoms": 1 + 2j}},
        X[:9],
        Y[:9],
    ),
    "recipe: int is none; give a recipe's name, or a layerwise.Config": ({"recipe": 3}, IMAGES[:9], Y[:9]),
    "config: nowhere is not a file; give a settings file": ({"recipe": "nowhere"}, IMAGES[:9], Y[:9]),
    "optimizer.epoch: there is no such setting": ({"options": {"optimizer.epoch": 3}}, IMAGES[:9], Y[:9]),
    "images: shape (9, 2, 2, 2, 8); give (n, H, W)": ({}, X[:9].reshape(9, 2, 2, 2, 8), Y[:9]),
    "data.name: all training images of arrays are the same": ({}, np.ones((9, 4, 4)), Y[:9]),
    "Input X contains NaN": ({}, np.full((9, 4, 4), np.nan), Y[:9]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_fit__refuses(message: str) -> None:
    given, images, labels = REFUSED[message]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        LayerwiseClassifier(**given).fit(images, labels)


def test_options__may_be_what_numpy_and_pathlib_make() -> None:
    given = LayerwiseClassifier(options={"run_dir": Path("q"), "layer.atoms": np.int64(8)})._config()
    assert given.run_dir == "q" and given.layer.atoms == 8


def test_predict__refuses_other_images(fitted: LayerwiseClassifier) -> None:
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(IMAGES[:0])
    with pytest.raises(SettingError, match=r"^X: images of \(4, 16\), but the classifier was fitted to \(8, 8\)"):
        fitted.predict(X.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match="X has 63 features, but LayerwiseClassifier is expecting 64"):
        fitted.predict(X[:, 1:])


def test_scikit_learn__is_not_imported_before_it_is_needed(process: Command) -> None:
    done = process("-c", "import sys, layerwise, layerwise.cli.train; print({'torch', 'sklearn'} & sys.modules.keys())")
    assert done.stdout == "set()\n", done.stderr


OFTEN = [
    "check_estimators_unfitted",
    "check_no_attributes_set_in_init",
    "check_dont_overwrite_parameters",
    "check_n_features_in_after_fitting",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_dict_unchanged",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_estimators_nan_inf",
    "check_do_not_raise_errors_in_init_or_set_params",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OFTEN)
def test_some_checks_of_scikit_learn(name: str) -> None:
    brief = LayerwiseClassifier(depth=1, options={"optimizer.epochs": 1, "layer.atoms": 4})
    checks = [(own, check) for own, check in estimator_checks_generator(brief) if name in str(check)]
    assert checks and name not in LayerwiseClassifier.excluded
    for own, check in checks:
        check(own)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_checks_of_scikit_learn__but_those_that_are_listed() -> None:
    results = check_estimator(LayerwiseClassifier(), expected_failed_checks=LayerwiseClassifier.excluded, on_skip=None)
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == {
        *LayerwiseClassifier.excluded
    }
