"""Dreams as environments and as films, and the recorded frames that they start from.

Importing this package registers `worldmodel/Dream-v0` with Gymnasium.
"""

import gymnasium

gymnasium.register(
    "worldmodel/Dream-v0",
    entry_point="worldmodel.dreams.single:Dream",
    vector_entry_point="worldmodel.dreams.make:make_dreams",
)
