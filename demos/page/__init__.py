"""The Gradio page and its tabs."""
