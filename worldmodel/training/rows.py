"""Which episodes a run trains on, and which rows of a batch a process computes."""

from accelerate import Accelerator

from worldmodel.data.clip import EpisodeSource


def split_episodes(source: EpisodeSource, num_held_out: int) -> tuple[range, range]:
    """Episodes to train on, and the last ones, held out for validation.

    Raises:
        ValueError: If nothing is left to train on.
    """
    num_train = len(source) - num_held_out
    if num_train < 1:
        raise ValueError(
            f"{source.name}: {len(source)} episodes, of which --validation-episodes "
            f"{num_held_out} are held out: none left to train on"
        )
    return range(num_train), range(num_train, len(source))


def process_rows(batch: int, accelerator: Accelerator) -> slice:
    """The rows of the global batch that this process computes.

    Raises:
        ValueError: If the batch does not divide by the number of processes.
    """
    share, rest = divmod(batch, accelerator.num_processes)
    if rest:
        raise ValueError(f"batch {batch} does not divide by {accelerator.num_processes} processes")
    return slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
