"""LIBERO: a Panda arm, two cameras, 130 tasks with 50 fixed starts each, and LIBERO-PRO's changes of them."""
