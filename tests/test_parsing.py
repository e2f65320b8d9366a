"""From recipe and command line to settings: what wins over what, what is refused, where a run goes."""

import re
from itertools import permutations
from pathlib import Path

import pytest
import yaml

import layerwise
from layerwise.config import Config, Layer, Optimizer, SettingError, SingleLayer, Whitening
from layerwise.config.run import plain
from layerwise.parsing import configure, nearest, parse, read_config, recipes
from layerwise.training.depth import check_fit

SIDES = {"digits": 28, "plain_digits": 8, "fashion_mnist": 28, "teacher": 4, "imagenet64": 64}


def parsed(*arguments: str) -> Config:
    """The settings of a command line."""
    return parse(list(arguments))[0]


def run_dir(*arguments: str) -> str:
    """The run directory of a command line."""
    return parse(list(arguments))[1]


def refusal(*arguments: str) -> str:
    """What is said of a command line that is not right."""
    with pytest.raises(SettingError) as error:
        parse(list(arguments))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for a recipe, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "s.yaml"


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_recipes__parse_and_fit_their_data(name: str, depth: int) -> None:
    if (name, depth) == ("plain_digits", 4):
        depth = 3  # 8×8 images have no room for more
    config, directory, _ = parse([f"--config={name}", f"--depth={depth}"])
    assert config.depth == depth
    assert directory == f"runs/{name}-seed0"
    side = SIDES.get(name, 32)
    check_fit(config, (3, side, side), 10_000)


def test_recipes__by_name_by_file_and_as_the_readme_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a folder that is no checkout
    assert recipes() == [
        "cifar10",
        "digits",
        "fashion_mnist",
        "image_folder",
        "image_folder_hour",
        "imagenet64",
        "paper",
        "plain_digits",
        "teacher",
    ]
    by_name = parse(["--config", "paper"])
    assert parse(["--config=configs/paper.yaml"]) == by_name
    assert by_name[0].layer.channels == 32
    (tmp_path / "paper").write_text("seed: 5\n")  # a file of that name is what is meant
    assert parsed("--config=paper").seed == 5
    assert parsed() == parsed("--config=digits") == parsed("--config=paper", "--config=digits")


# what wins over what


def test_precedence__the_command_line_over_the_recipe__a_single_layer_over_all(recipe: Path) -> None:
    recipe.write_text("depth: 3\nlayer: {atoms: 10, pool: 1}\nlayers: {2: {atoms: 20, patch_size: 5}}\n")
    given = ["--config=s.yaml"]

    def atoms(*arguments: str) -> list[int]:
        config = parsed(*given, *arguments)
        return [config.layer_at(number).atoms for number in (1, 2, 3)]

    assert atoms() == [10, 20, 10]
    assert atoms("--layer.atoms=30") == [30, 30, 30]
    assert atoms("--layers.3.atoms=40") == [10, 20, 40]
    for options in permutations(["--layer.atoms=30", "--layers.2.atoms=40", "--layers.3.pool=2"]):
        assert atoms(*options) == [30, 40, 30]
    kept = parsed(*given, "--layer.atoms=30").layer_at(2)
    assert (kept.patch_size, kept.pool) == (5, 1)
    assert parsed(*given, "--layer.patch_size=4").layer_at(2).patch_size == 4


def test_precedence__of_how_layers_are_trained(recipe: Path) -> None:
    recipe.write_text("depth: 2\noptimizer: {epochs: 1, warmup: 0.5}\nlayers: {2: {optimizer: {epochs: 2}}}\n")

    def epochs(*arguments: str) -> list[int]:
        config = parsed("--config=s.yaml", *arguments)
        assert [config.layer_at(number).optimizer.warmup for number in (1, 2)] == [0.5, 0.5]
        return [config.layer_at(number).optimizer.epochs for number in (1, 2)]

    assert epochs() == [1, 2]
    assert epochs("--optimizer.epochs=3") == [3, 3]
    for options in permutations(["--optimizer.epochs=3", "--layers.2.optimizer.epochs=4"]):
        assert epochs(*options) == [3, 4]


def test_precedence__the_last_of_equal_options_wins() -> None:
    assert parsed("--layer.atoms=30", "--layer.atoms=40").layer.atoms == 40
    assert parsed("--layers.1.atoms=30", "--layers.1.atoms=40").layers[1].atoms == 40


def test_null__of_a_single_layer_is_not_the_same_as_not_given(recipe: Path) -> None:
    recipe.write_text("layer: {neighbors: 16, atoms: 64}\nlayers: {1: {neighbors: null}, 2: {atoms: 100}}\n")
    config = parsed("--config=s.yaml", "--depth=2")
    assert (config.layer_at(1).neighbors, config.layer_at(1).k) == (None, 16)
    assert config.layer_at(2).k == 16
    typed = parsed("--config=s.yaml", "--depth=2", "--layers.2.neighbors=null")
    assert (typed.layer_at(2).neighbors, typed.layer_at(2).k) == (None, 25)
    recipe.write_text(yaml.safe_dump(plain(typed)))
    assert parsed("--config=s.yaml") == typed


def test_configure__a_layer_of_its_own_rate_and_decay() -> None:
    singles = {2: {"optimizer": {"learning_rate": 0.5}}, 3: {"optimizer": {"weight_decay": 0.0}}}
    config = configure({"depth": 3, "layers": singles}, [])
    trained = [config.layer_at(number).optimizer for number in (1, 2, 3)]
    assert [own.learning_rate for own in trained] == [0.003, 0.5, 0.003]
    assert [own.weight_decay for own in trained] == [0.05, 0.05, 0.0]


def test_configure__a_layer_has_what_is_said_of_all_where_nothing_is_said_of_it() -> None:
    config = configure({"depth": 2, "layer": {"atoms": 100, "pool": 3}, "layers": {2: {"atoms": 50}}}, [])
    assert config.layer_at(1) == SingleLayer(atoms=100, pool=3)
    assert config.layer_at(2) == SingleLayer(atoms=50, pool=3)
    assert config.layer_at(2).k == 12  # a quarter of its own atoms


def test_configure__the_number_of_a_layer_however_it_is_written() -> None:
    assert configure({"layers": {"2": {"atoms": 8}}}, []).layers[2].atoms == 8
    assert configure({}, ["--layers.02.atoms=8"]).layers[2].atoms == 8


def test_a_dotted_name_in_a_file__is_refused(recipe: Path) -> None:
    recipe.write_text("layer.atoms: 8\nlayers: {2: {pool: 1}}\n")  # layer 2 would not get those atoms
    assert refusal("--config=s.yaml").startswith("layer.atoms: ")
    recipe.write_text("layers: {2: {whitening.epsilon: 1}}\n")
    assert refusal("--config=s.yaml").startswith("layers.2.whitening.epsilon: ")


# groups


def test_groups__may_be_given_whole() -> None:
    assert parsed("--layer={atoms: 8, pool: 1}") == parsed("--layer.atoms=8", "--layer.pool=1")
    assert parsed("--layer", "{atoms: 8}") == parsed("--layer.atoms=8")
    assert parsed("--layer={whitening: {epsilon: 5}}").layer.whitening == Whitening(epsilon=5)
    assert parsed("--layer.whitening={epsilon: 5}").layer.whitening == Whitening(epsilon=5)
    assert parsed("--layers={2: {atoms: 8}}", "--depth=2") == parsed("--layers.2.atoms=8", "--depth=2")
    whole = "--layers.2={neighbors: null, whitening: {epsilon: 5}, optimizer: {epochs: 3}}"
    single = ["--layers.2.neighbors=null", "--layers.2.whitening.epsilon=5", "--layers.2.optimizer.epochs=3"]
    assert parsed(whole, "--depth=2") == parsed(*single, "--depth=2")
    assert parsed("--optimizer={epochs: 3}").optimizer.batch_size == 64  # what is not named stays
    assert parsed("--wandb={tags: [a, b]}").wandb.tags == ["a", "b"]


@pytest.mark.parametrize(
    "option, beginning",
    [
        ("--layer", "layer: no value is given;"),
        ("--layer=8", "layer: 8 is not a group of settings;"),
        ("--layer={atoms: 2024-02-30}", "layer: {atoms: 2024-02-30} is not a group of settings;"),
        ("--layer.whitening=null", "layer.whitening: null is not a group of settings;"),
        ("--layer={whitening: 5}", "layer.whitening: 5 is not a group of settings;"),
        ("--layers=", "layers: nothing is not a group of settings;"),
        ("--layers.1=5", "layers.1: 5 is not a group of settings;"),
        ("--layers={1: 8}", "layers.1: 8 is not a group of settings;"),
        ("--layers={1: {whitening: 8}}", "layers.1.whitening: 8 is not a group of settings;"),
        ("--layers.1.whitening=8", "layers.1.whitening: 8 is not a group of settings;"),
        ("--data={teacher: 3}", "data.teacher: 3 is not a group of settings;"),
    ],
)
def test_groups__that_hold_no_settings_are_refused_by_name(option: str, beginning: str) -> None:
    assert refusal(option).startswith(beginning)


@pytest.mark.parametrize(
    "content, name",
    [
        ("layers:\n", "layers"),
        ("layer:\n", "layer"),
        ("optimizer:\n", "optimizer"),
        ("optimizer:\n  epochs:\n", "optimizer.epochs"),
        ("depth:\n", "depth"),
        ("seed:\n", "seed"),
        ("data:\n  name:\n", "data.name"),
        ("data:\n  teacher:\n", "data.teacher"),
        ("layer:\n  whitening:\n", "layer.whitening"),
        ("layer: {atoms: }\n", "layer.atoms"),
        ("layers:\n  1:\n", "layers.1"),
        ("layers:\n  1:\n    whitening:\n", "layers.1.whitening"),
        ("layers:\n  1:\n    optimizer:\n", "layers.1.optimizer"),
        ("layers: {1: {optimizer: {epochs: }}}\n", "layers.1.optimizer.epochs"),
        ("layers: {1: {atoms: }}\n", "layers.1.atoms"),
    ],
)
def test_nothing_after_a_colon__is_refused_by_name(content: str, name: str, recipe: Path) -> None:
    recipe.write_text(content)
    assert refusal("--config=s.yaml").startswith(f"{name}: null ")


def test_nothing_after_a_colon__is_null_where_a_setting_may_be_null(recipe: Path) -> None:
    recipe.write_text("run_dir:\nlayer: {neighbors: , channels: }\n")
    config = parsed("--config=s.yaml")
    assert (config.run_dir, config.layer.neighbors, config.layer.channels) == (None, None, None)


# what there is not


@pytest.mark.parametrize(
    "option, given, meant",
    [
        ("--dept=3", "dept", "depth"),
        ("--layer.atomz=3", "layer.atomz", "layer.atoms"),
        ("--optimizer.lr=1", "optimizer.lr", "optimizer.learning_rate"),
        ("--optimizer={lr: 1}", "optimizer.lr", "optimizer.learning_rate"),
        ("--layer.whitening.eps=1", "layer.whitening.eps", "layer.whitening.epsilon"),
        ("--layers.2.optimizer.lr=1", "layers.2.optimizer.lr", "layers.2.optimizer.learning_rate"),
        ("--layers.2.norm.kinds=x", "layers.2.norm.kinds", "layers.2.norm.kind"),
        ("--layers={2: {atomz: 3}}", "layers.2.atomz", "layers.2.atoms"),
    ],
)
def test_an_unknown_setting__names_the_nearest_of_its_group(option: str, given: str, meant: str) -> None:
    assert refusal(option, "--depth=2") == f"{given}: there is no such setting, did you mean {meant}; see --help"


def test_nearest__by_initials_within_the_group_then_by_letters() -> None:
    names = ["depth", "layer.atoms", "layer.pool", "optimizer.learning_rate", "optimizer.label_smoothing"]
    assert nearest("optimizer.ls", names) == "optimizer.label_smoothing"
    assert nearest("optimizer.rate", names) == "optimizer.learning_rate"
    assert nearest("layer.poool", names) == "layer.pool"
    assert nearest("atoms", names) == "layer.atoms"


@pytest.mark.parametrize("option", ["--depth", "--layer.atoms", "--layers.1.atoms", "--config"])
def test_an_option_without_a_value__is_named(option: str) -> None:
    message = refusal(option)
    assert message.startswith((f"{option[2:]}: ", f"argument {option}: "))
    assert "no such" not in message


def test_a_layer_above_the_stack__is_refused_where_it_is_typed(recipe: Path) -> None:
    assert refusal("--layers.3.atoms=8", "--depth=2").startswith("layers.3: there is no layer 3 at depth 2;")
    assert parsed("--layers.3.atoms=8", "--depth=auto").layers[3].atoms == 8
    recipe.write_text("depth: 2\nlayers: {3: {atoms: 8}}\n")
    assert parsed("--config=s.yaml").layers[3].atoms == 8


# --print_config


@pytest.mark.parametrize("name", recipes())
def test_print_config__prints_what_gives_the_same_settings(
    name: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"--config={name}", "--depth=3", "--layers.2.neighbors=null", "--layers.3.optimizer.epochs=3"]
    given += ["--layer.whitening.epsilon=2", "--wandb.tags=[a, b]", "--data.crop=null"]
    prints = []
    for options in (given, given[::-1]):
        with pytest.raises(SystemExit) as end:
            parse(["--print_config", *options])
        assert end.value.code == 0
        prints.append(capsys.readouterr().out)
    assert prints[0] == prints[1]
    recipe.write_text(prints[0])
    assert parsed("--config=s.yaml") == read_config(recipe) == parsed(*given)


# where a run goes


def test_run_dir__same_settings_same_directory__another_depth_too() -> None:
    assert run_dir() == run_dir("--config=digits") == run_dir("--depth=3") == "runs/digits-seed0"
    changed = run_dir("--layer.atoms=64", "--layer.pool=2")
    assert changed == run_dir("--layer.pool=2", "--layer.atoms=64") == run_dir("--layer={atoms: 64, pool: 2}")
    assert changed == run_dir("--layer.atoms=64", "--layer.pool=2", "--depth=3")


@pytest.mark.parametrize(
    "same",
    ["--layer.atoms=128", "--layers.1.atoms=128", "--wandb.mode=offline", "--trainer.accelerator=cpu", "--data.root=x"],
)
def test_run_dir__the_same_where_the_weights_would_be(same: str) -> None:
    assert run_dir("--config=plain_digits", same) == "runs/plain_digits-seed0"


def test_run_dir__another_seed_setting_or_folder_another_directory(recipe: Path) -> None:
    folder = "--config=image_folder"
    others = [
        [], ["--seed=1"], ["--layer.atoms=64"], ["--layers.1.atoms=63"], ["--layers.2.atoms=64", "--depth=2"],
        ["--optimizer.epochs=3"], ["--layers.1.optimizer.epochs=3"], ["--data.validation=0.2"], ["--features.views=3"],
        ["--trainer.precision=bf16-mixed"], ["--layer.atoms=64", "--seed=1"], ["--layer.atoms=65"],
        ["--config=teacher"], [folder, "--data.root=a/cats"], [folder, "--data.root=b/cats"],
        [folder, "--data.root=dogs"], [folder, "--data.root=dogs", "--data.image_size=16"],
    ]  # fmt: skip
    directories = [run_dir(*options) for options in others]
    assert len({*directories}) == len(others), directories
    assert run_dir("--seed=1") == "runs/digits-seed1"
    assert run_dir(folder, "--data.root=a/cats").startswith("runs/image_folder-seed0-cats-")
    assert run_dir(folder, "--data.root=cats/../a/cats") == run_dir(folder, "--data.root=a/cats")
    home = Path.home() / "cats"
    recipe.write_text(f"data: {{name: image_folder, root: {home}}}\n")
    assert run_dir("--config=s.yaml", "--data.root=~/cats") == run_dir("--config=s.yaml")
    recipe.write_text("data: {name: image_folder}\n")
    assert run_dir("--config=s.yaml", "--data.root=dogs").startswith("runs/s-seed0-dogs-")


def test_run_dir__given_is_taken_as_it_is() -> None:
    assert run_dir("--run_dir=here", "--layer.atoms=64") == "here"


def test_config__in_python_is_that_of_the_command() -> None:
    typed = configure({}, ["--depth=2", "--layer.atoms=64", "--layers.2.optimizer.epochs=3", "--layers.2.pool=1"])
    single = SingleLayer(atoms=64, pool=1, optimizer=Optimizer(epochs=3))
    assert typed == Config(depth=2, layer=Layer(atoms=64), layers={2: single})


@pytest.mark.parametrize(
    "text, told",
    [
        ("depth: 2\nseed: 1\ndepth: 3\n", r"line 3: depth stands here twice|line 1: depth stands here twice"),
        ("layer: {atoms: 8, pool: 1, atoms: 9}\n", r"line 1: atoms stands here twice"),
        ("seed: &a 1\ndepth: *a\n", r"line 2: an alias, write out what it stands for"),
        ("depth: !!python/object/apply:os.getcwd []\n", r"line 1: could not determine a constructor for the tag .*"),
        ("depth: [1\n", r"line 2: .*"),
        ("[" * 5000, r"RecursionError"),
        ("wandb: {name: 2024-02-30}\n", r"day is out of range for month"),
        ("depth: 0x_\n", r"invalid literal for int.*"),
        ("depth: !!bool x\n", r"'x'"),
        ("depth: !!int ''\n", r"string index out of range"),
        ("depth: !!timestamp x\n", r".*has no attribute.*"),
        ("layer: !!map [a]\n", r"cannot unpack.*"),
    ],
)
def test_a_settings_file__is_plain_yaml(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    path = re.escape(str(tmp_path / "s.yaml"))
    with pytest.raises(SettingError, match=rf"^config: {path} is not plain YAML \(({told})\); compare it with"):
        parse([f"--config={tmp_path / 's.yaml'}"])


@pytest.mark.parametrize("name", ["--config.foo", "--restart_from.x", "--layer..atoms", "--"])
def test_names_that_cannot_be_meant__are_named(name: str) -> None:
    with pytest.raises(SettingError, match=f"^{name.removeprefix('--') or '--'}: there is no such setting"):
        parse([name, "1"])


def test_a_list__is_asked_for_as_it_is_written() -> None:
    with pytest.raises(SettingError, match=r"^wandb.tags: a is not a list, such as \[a, b\]"):
        parse(["--wandb.tags", "a"])


def test_recipe__has_no_part_in_what_is_trained_anew() -> None:
    with pytest.raises(SettingError, match=r"^restart_from: 1 is no setting .*; give it to layerwise\.train$"):
        layerwise.recipe("digits", "--restart_from=1")
