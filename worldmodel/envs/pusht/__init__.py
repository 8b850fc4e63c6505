"""PushT from two cameras, its scripted behaviours and controlled shifts."""
