"""Goals from pictures: a judge that tells how many steps a frame is away from pictures of the goal."""
