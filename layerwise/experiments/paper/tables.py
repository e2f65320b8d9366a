"""The paper's tables and figures, each row as the settings that make it (paper, section 5)."""

from dataclasses import dataclass

Settings = dict[str, object]
"""names as on the command line, such as layer.atoms"""


@dataclass(frozen=True)
class Row:
    """One row of a table, or one point of a figure."""

    name: str
    settings: Settings
    """what differs from the table's recipe"""
    paper: float | None = None
    """the paper's test accuracy in per cent"""
    depth: int = 1
    stack: str | None = None
    """rows of the same stack are depths of one run; None: a run of its own"""
    end_to_end: bool = False
    """it is a CNN of such a shape (`layerwise.experiments.paper.cnn`) instead of a stack of layers"""
    paced: tuple[str, int] | None = None
    """a stack, and a depth, whose seconds of training it gets; None: the epochs of its settings"""


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper."""

    title: str
    rows: list[Row]
    axis: tuple[str, str] | None = None
    """of a figure: what its points differ in, as a letter and as a setting"""
    small: int | None = 4
    """what the scale small divides sizes by; None: there is one scale"""
    recipe: str = "paper"
    """that the rows differ from"""


def _sized(atoms: int) -> Settings:
    return {"layer.atoms": atoms, "layers.1.neighbors": atoms // 4, "layer.sampling.patches": 256 * atoms}


EPOCHS = 10
FULL: Settings = _sized(1024) | {"layer.neighbors": 128, "optimizer.epochs": 200}
"""the size of configs/paper.yaml"""


def small(settings: Settings, divisor: int) -> Settings | None:
    """The scale small: a table's sizes divided, 10 epochs; None where no neighbor is left.

    A row that has N = 256 by itself is shortened only. A learning rate that a row has for its size is dropped where
    the size changes. Deeper layers have a fresh view of the images for each epoch.
    """
    size = {name: int(str(value)) for name, value in (FULL | settings).items() if name in FULL}
    if size["layer.atoms"] > 256:
        size = {name: value // divisor for name, value in size.items()}
        settings = {name: value for name, value in settings.items() if name != "optimizer.learning_rate"}
    size |= {"optimizer.epochs": EPOCHS, "features.views": EPOCHS}
    return settings | size if size["layers.1.neighbors"] else None


HARD: Settings = {"layer.embedding": "hard"}
CNN: Settings = {"layer.gate.kind": "relu", "layer.whitening.kind": "none", "layer.dictionary": "sampled"}
"""atoms have no part in it, so that none are clustered"""
RANDOM: Settings = {"layer.dictionary": "kmeans_gaussian", "layer.whitening.kind": "none"}
"""the authors' random patches are clustered; they are whitened by their own covariance, that is not at all, and so are
the images"""

BARE: Settings = {"layers.1.pool": 1, "layers.1.norm.kind": "none", "layer.channels": "null"}
QUARTER: Settings = _sized(256) | {"optimizer.batch_size": 32}
DEEP: Settings = {"layers.1.pool": 2}


DEPTH = 4


def depths(name: str, settings: Settings, most: int = DEPTH, paced: tuple[str, int] | None = None) -> list[Row]:
    """The rows of a stack, one for each depth."""
    return [Row(f"{name}, depth {d}", settings, depth=d, stack=name, paced=paced) for d in range(1, most + 1)]


TABLES = {
    "table1": Table(
        "Table 1: one layer",
        [
            Row("vanilla CNN", CNN, 80.08),
            Row("Φ_hard, random patches", HARD | RANDOM, 71.36),
            Row("Φ_full, random patches", RANDOM, 76.04),
            Row("Φ_hard, data patches", HARD, 78.80),
            Row("Φ_full, data patches", {}, 81.23),
        ],
    ),
    "table2": Table(
        "Table 2: constraint on the linear function, N = 256",
        [
            Row("simple", BARE | QUARTER | {"layer.probe.kind": "unconstrained", "optimizer.learning_rate": 1e-5}),
            Row("constrained", BARE | QUARTER | {"optimizer.learning_rate": 1e-3}),
        ],
    ),
    "table3": Table(
        "Table 3: average pooling, with batch norm, and bottleneck, Φ_full",
        [
            Row("neither", BARE),
            Row("average pooling", {"layer.channels": "null"}),
            Row("bottleneck", {"layers.1.pool": 1, "layers.1.norm.kind": "none"}),
            Row("both", {}),
        ],
    ),
    "table4": Table(
        "Table 4: depth",
        [
            *depths("Φ_full", DEEP),
            *depths("Φ_hard", DEEP | HARD),
            *depths("CNN layer by layer", DEEP | CNN),
            Row("CNN end to end, depth 1", DEEP | CNN, stack="CNN layer by layer"),
            *(Row(f"CNN end to end, depth {depth}", DEEP | CNN, depth=depth, end_to_end=True) for depth in range(2, 5)),
        ],
    ),
    "figure8": Table(
        "Figure 8: neighbors k, Φ_full",
        [Row(f"k = {k}", {"layers.1.neighbors": k}) for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)],
        axis=("k", "layers.1.neighbors"),
    ),
    "figure9": Table(
        "Figure 9: atoms N with k = N / 4, Φ_full",
        [
            *(Row(f"N = {n}", _sized(n)) for n in (1024, 2048, 4096, 8192)),
            Row("N = 16384", _sized(16_384) | {"optimizer.learning_rate": 1e-3}),
        ],
        axis=("N", "layer.atoms"),
        small=16,  # it ends where the paper begins: more takes a small machine days
    ),
}
