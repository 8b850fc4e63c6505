"""Import this before LIBERO: it says what is missing, and prepares drawing without a display."""

import logging

from worldmodel.envs.mujoco.headless import check_installation

check_installation("LIBERO", "libero", "robosuite", "mujoco")
# robosuite advises its developers to make a file of private settings, each time it is imported.
logging.getLogger("robosuite_logs").addFilter(lambda record: "macro" not in record.getMessage())
