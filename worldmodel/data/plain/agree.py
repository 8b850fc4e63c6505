"""Episodes that differ from the others, collected as reasons instead of raised one by one."""

from collections import Counter
from collections.abc import Hashable, Mapping


def disagreements(name: str, values: Mapping[int, Hashable], labels: Mapping[int, str]) -> dict[int, str]:
    """A reason for every episode whose value is not the most common one; the first one wins a tie.

    Args:
        name: What the value is.
        values: By the number of the episode.
        labels: What to call each episode.
    """
    if not values:
        return {}
    common = Counter(values.values()).most_common(1)[0][0]
    return {
        number: f"{labels[number]}: {name} is {value}, expected {common} as in the other episodes"
        for number, value in values.items()
        if value != common
    }
