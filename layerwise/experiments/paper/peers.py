"""Other models beside our recipe: the same images and augmentation, as many seconds of training.

The shapes are those of the models' authors where a layer's settings can say them; widths and epochs follow from what
there is time for, so that none stands here as its authors would have it.
"""

from layerwise.experiments.paper.tables import Row, Settings, Table, depths

DEPTH = 3
"""that our recipe is made for"""
OURS = "our recipe"
WHOLE = (OURS, DEPTH)
"""whose seconds a model gets, unless it is to be compared by depth"""

RELU: Settings = {
    "layer.gate.kind": "relu",
    "layer.output": "channels",
    "layer.dictionary": "sampled",  # atoms have no part in it
    "layer.whitening.kind": "none",
    "layers.1.whitening.kind": "none",
}
CNN: Settings = RELU | {
    "layer.mirror": "false",
    "optimizer.weight_decay": 0.05,
    "layers.1.optimizer.weight_decay": 0.05,
}
SMALL_CNN: Settings = CNN | {
    "layer.channels": "null",
    "layer.norm.eps": 1e-5,
    "layer.pool": 2,
    "layers.1.patch_size": 3,
    "layers.1.atoms": 64,
    "layers.1.pool": 1,
    "layers.2.atoms": 64,
    "layers.3.atoms": 128,
    "layers.4.atoms": 256,
    "layers.4.pool": 1,
    "layers.4.probe.pool": 4,
}
"""3×3 convolutions with batch norm, pooled twice and averaged in the end"""

ONE: Settings = {
    "layer.embedding": "hard",
    "layer.mirror": "false",  # so that windows may part the positions of any image unevenly
    "layers.1.atoms": 1024,
    "layers.1.optimizer.weight_decay": 0.05,
}
"""one layer of which only the linear model is trained"""
TRIANGLE: Settings = ONE | {
    "layers.1.atoms": 512,
    "layers.1.gate.kind": "triangle",
    "layer.channels": "null",
    "layers.1.pool": 14,  # quadrants
    "layers.1.probe.pool": 1,
}
PLUS_MINUS: Settings = ONE | {
    "layers.1.dictionary": "plus_minus",
    "layers.1.gate.metric": "cosine",
    "layers.1.neighbors": 400,
    "layers.1.pool": 4,
    "layers.1.probe.pool": 1,
}


PEERS = Table(
    "Peers, each with as many seconds of training as our recipe takes",
    [
        *depths(OURS, {}, DEPTH),
        Row("a small CNN end to end", SMALL_CNN, depth=4, end_to_end=True, paced=WHOLE),
        *(
            Row(f"our shape, ReLU convolutions, end to end, depth {d}", CNN, depth=d, end_to_end=True, paced=(OURS, d))
            for d in range(1, DEPTH + 1)
        ),
        *depths("our shape, ReLU convolutions, layer by layer", RELU, DEPTH, WHOLE),
        *depths("our recipe, atoms at random", {"layer.dictionary": "gaussian"}, DEPTH, WHOLE),
        Row("triangle k-means, quadrants (Coates & Ng)", TRIANGLE, paced=WHOLE),
        Row("hard neighbors of ± patches (Thiry et al.)", PLUS_MINUS, paced=WHOLE),
    ],
    small=None,
    recipe="cifar10",
)
