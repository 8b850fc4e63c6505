"""What people touch: the Gradio app and the quickstart."""
