"""Images, and what a layer is trained on."""
