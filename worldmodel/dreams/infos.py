"""The `info` of many streams, laid out as Gymnasium's `SyncVectorEnv` lays it out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

Column = Bool[np.ndarray, "n"]


def masked(columns: Mapping[str, Column], streams: Column) -> dict[str, Any]:
    """The values of the given streams under each name, and a mask under `_name`; empty without streams."""
    info: dict[str, Any] = {}
    for name, values in columns.items() if streams.any() else ():
        info |= {name: values & streams, f"_{name}": streams.copy()}
    return info


def success(values: Column, streams: Column) -> dict[str, Any]:
    """`success` and `is_success`, as learners of different libraries call it."""
    return masked({"success": values, "is_success": values}, streams)


def finals(observations: Mapping[int, dict], info: dict[str, Any], streams: Column) -> dict[str, Any]:
    """`final_obs` and `final_info` of streams that have begun anew in the step in which they finished."""
    last = np.full(len(streams), None, object)
    for stream, observation in observations.items():
        last[stream] = observation
    return {"final_obs": last, "_final_obs": streams.copy(), "final_info": info, "_final_info": streams.copy()}
