"""Import this before Meta-World: it says what is missing, and prepares drawing without a display."""

from worldmodel.envs.mujoco.headless import check_installation

check_installation("Meta-World", "metaworld", "mujoco")
