"""The hint over the picture: what to do first, by keyboard or by touch. The script removes it at the first key."""

from collections.abc import Sequence

from demos.page.pad import arrow_keys

BY_KEY = "<b>Hold an arrow key.</b> You act, and the world model draws what the cameras would show."
BY_TOUCH = "<b>Hold an arrow button below.</b> You act, the world model draws."


def hint(names: Sequence[str]) -> str:
    """The hint, with the arrow keys drawn and what they drive.

    Args:
        names: Names of the action dims; the arrow keys drive the first two.
    """
    return (
        f'<div class="hint" role="note">{arrow_keys(names)}'
        f'<span class="by-key">{BY_KEY}</span><span class="by-touch">{BY_TOUCH}</span></div>'
    )
