"""Meta-World: a Sawyer arm, two cameras, scripted behaviours and controlled shifts."""
