"""Plain folders: videos or pictures, with tables beside them."""
