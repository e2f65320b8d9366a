"""Settings that do not go together, of a layer and of all."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerwise.config.run import Config


def conflict(config: "Config", number: int) -> tuple[str, str] | None:
    """What does not go with layer `number`, from 1: the setting to name, and what to say of it; None where all does."""
    found = config.layer_at(number).conflict()
    for check in (_column, _sum, _mirroring, _processes):
        found = found or check(config, number)
    return found


def _column(config: "Config", number: int) -> tuple[str, str] | None:
    begun = [i for i in range(2, number + 1) if config.layer_at(i).input == "images"]
    if begun and config.layer_at(number).probe.logits == "summed":
        reason = f"summed, but layer {begun[-1]} begins another column, which does not see the logits of others"
        return "probe.logits", f"{reason} while it is trained; give averaged, or own"
    return None


def _sum(config: "Config", number: int) -> tuple[str, str] | None:
    below = {i: config.layer_at(i).probe.logits for i in range(1, number)}
    own, averaged = config.layer_at(number).probe.logits, [i for i in below if below[i] == "averaged"]
    others = [i for i in below if i > 1 and below[i] != "averaged"]  # a first layer has nothing to sum or to average
    if averaged and own == "summed":
        reason = f"summed, but layer {averaged[-1]} is averaged, which leaves no sum to correct"
        return "probe.logits", f"{reason}; give averaged, or own"
    if others and own == "averaged":
        reason = f"averaged, but layer {others[-1]} is {below[others[-1]]}, so that there is no mean of all layers"
        return "probe.logits", f"{reason}; give averaged to that, too, or own"
    return None


def _mirroring(config: "Config", number: int) -> tuple[str, str] | None:
    own, first = config.layer_at(number), config.layer_at(1)
    if own.mirror != first.mirror:
        return "mirror", f"{own.mirror}, but layer 1 has {first.mirror}; give the same to all layers".lower()
    if own.mirror and config.data.flip is False:
        remedy = "give true to that if images may be mirrored, or false to this"
        return "mirror", f"true, but data.flip is false; {remedy}"
    if own.mirror and own.sees_images(number) and own.residual.kind != "none":
        no_pairs = f"{own.residual.kind}, but with mirror an image's channels are no pairs"
        return "residual.kind", f"{no_pairs}; give none to layer {number}"
    return None


def _processes(config: "Config", number: int) -> tuple[str, str] | None:
    size, processes = config.layer_at(number).optimizer.batch_size, config.trainer.processes
    if size % processes:
        how = "which is --trainer.devices times --trainer.num_nodes"
        few = f"{size} images cannot be divided among {processes} processes, {how}"
        return "optimizer.batch_size", f"{few}; give a multiple of {processes}"
    return None
